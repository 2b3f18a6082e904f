"""How much of a decision depends on motion: temporal probes, motion shares, optical flow."""
