"""Benchmarks: each module runs by itself, for example `python -m benchmarks.forward`."""
