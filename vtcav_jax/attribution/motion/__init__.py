"""Dependence of a score on motion: temporal probes, selective relevance, optical flow."""
