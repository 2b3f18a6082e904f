"""Layer-wise relevance propagation for any JAX function."""
