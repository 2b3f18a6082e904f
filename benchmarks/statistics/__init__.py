"""Simulations that measure whether the p-values, intervals and verdicts of Video-TCAV hold."""
