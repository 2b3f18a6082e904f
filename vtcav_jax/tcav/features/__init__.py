"""From clips to activations, gradients and their Gram matrices."""
