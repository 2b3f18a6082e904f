"""Concept discovery: directions of activations that nobody named, with the clips that show them."""

from vtcav_jax.discovery.config import DiscoveryConfig
from vtcav_jax.discovery.run import DiscoveryReport, discover

__all__ = ["DiscoveryConfig", "DiscoveryReport", "discover"]
