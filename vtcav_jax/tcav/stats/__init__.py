"""Concept vectors and the statistics of their tests, in example space."""
