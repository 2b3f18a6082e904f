"""Nodes and weights for integrating a gradient along a straight path."""

import numpy as np


def gauss_legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes in 0 to 1 and weights that integrate polynomials up to degree `2 nodes - 1` exactly."""
    if nodes < 1:
        raise ValueError(f"expected at least one node, got {nodes}")
    positions, weights = np.polynomial.legendre.leggauss(nodes)
    return (positions + 1) / 2, weights / 2
