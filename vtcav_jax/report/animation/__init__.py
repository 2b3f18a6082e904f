"""Animations of clips and maps."""
