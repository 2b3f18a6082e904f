"""Measurements; each file answers one question: `python -m benchmarks.forward`, or `python benchmarks/forward.py`."""
