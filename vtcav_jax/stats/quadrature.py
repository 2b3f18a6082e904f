"""Places and weights for the mean of a gradient along a straight path."""

import numpy as np


def gauss_legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Places between 0 and 1 and weights that integrate polynomials up to degree `2 nodes - 1` exactly."""
    if nodes < 1:
        raise ValueError(f"expected at least one node, got {nodes}")
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return (places + 1) / 2, weights / 2
