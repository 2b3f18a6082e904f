"""Worlds whose cause is known: clips, what a network must go by in them, and one that is known exactly."""

from typing import TYPE_CHECKING, Any

from vtcav_jax.worlds.dots import Dots
from vtcav_jax.worlds.export import write_clips
from vtcav_jax.worlds.glyphs import QUESTIONS, TRACKS, Events, Shortcut, World
from vtcav_jax.worlds.render import WORLDS, Clips, make_clips, redraw, remove
from vtcav_jax.worlds.spec import AnyWorld, Question

if TYPE_CHECKING:
    from vtcav_jax.worlds.gates import Gates, gates
    from vtcav_jax.worlds.handwired_network import MotionPairs, binary_clips, network, shapley_values

__all__ = [
    "QUESTIONS",
    "TRACKS",
    "WORLDS",
    "AnyWorld",
    "Clips",
    "Dots",
    "Events",
    "Gates",
    "MotionPairs",
    "Question",
    "Shortcut",
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

_NEED_JAX = {"Gates": "gates", "gates": "gates"} | dict.fromkeys(
    ("MotionPairs", "binary_clips", "network", "shapley_values"), "handwired_network"
)


def __getattr__(name: str) -> Any:
    """What needs jax is imported when it is asked for: processes that only make clips stay small without it."""
    if name not in _NEED_JAX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NEED_JAX[name]}"), name)
