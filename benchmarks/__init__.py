"""Measurements: each module answers one question and runs by itself, as `python -m benchmarks.forward`."""
