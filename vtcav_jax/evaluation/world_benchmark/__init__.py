"""Explanation methods scored on synthetic worlds whose cause is known."""
