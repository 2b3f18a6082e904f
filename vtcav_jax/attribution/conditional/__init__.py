"""Concept-conditional relevance: the part of a score that passes along one direction of a stage (layer)."""
