"""Concept vectors and the statistics of their tests, computed from products of examples."""
