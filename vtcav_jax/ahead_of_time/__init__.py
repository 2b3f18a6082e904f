"""Programs compiled for accelerators on a machine that has none: whether they fit, and a lower bound of their time."""
