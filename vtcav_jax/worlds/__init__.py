"""Worlds whose cause is known: clips, what a network must go by in them, and one that is known exactly."""

from vtcav_jax.worlds.analytic import MotionPairs, binary_clips, network, shapley_values
from vtcav_jax.worlds.export import write_clips
from vtcav_jax.worlds.gates import Gates, gates
from vtcav_jax.worlds.generator import (
    ENTITIES,
    QUESTIONS,
    TRACKS,
    WORLDS,
    Clips,
    World,
    make_clips,
    redraw,
    remove,
)

__all__ = [
    "ENTITIES",
    "QUESTIONS",
    "TRACKS",
    "WORLDS",
    "Clips",
    "Gates",
    "MotionPairs",
    "World",
    "binary_clips",
    "gates",
    "make_clips",
    "network",
    "redraw",
    "remove",
    "shapley_values",
    "write_clips",
]
