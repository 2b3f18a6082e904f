"""Metrics that need no ground truth: removal, insertion, additivity, robustness."""
