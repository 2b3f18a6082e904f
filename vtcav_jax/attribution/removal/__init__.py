"""Removal methods (perturbation): segments x masks x infill x scores x summary, with forward passes only."""
