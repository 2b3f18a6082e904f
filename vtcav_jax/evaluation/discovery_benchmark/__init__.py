"""Concept discovery scored where the factors of the clips are known."""
