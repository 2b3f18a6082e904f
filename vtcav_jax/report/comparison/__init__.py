"""Comparison of several runs on one page."""
