"""Activations, gradients and their Gram matrices, computed from clips."""
