"""Concept tests scored where the concepts that a class uses are known."""
