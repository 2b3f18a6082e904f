"""Movements of people as concepts: tracked keypoints, clustered by what moves where."""

from vtcav_jax.discovery.movements.config import MovementConfig
from vtcav_jax.discovery.movements.run import MovementReport, mine_movements

__all__ = ["MovementConfig", "MovementReport", "mine_movements"]
