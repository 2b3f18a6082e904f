"""Worlds whose cause is known: clips, what a network must go by in them, and one that is known exactly."""

from typing import TYPE_CHECKING, Any

from vtcav_jax.worlds.dots import Dots
from vtcav_jax.worlds.glyphs import GLYPH_QUESTIONS, GLYPH_TRACKS, Events, GlyphWorld, Shortcut
from vtcav_jax.worlds.render import WORLDS, WorldClips, make_clips, redraw, remove
from vtcav_jax.worlds.spec import WorldQuestion, WorldSpec

if TYPE_CHECKING:
    from vtcav_jax.worlds.gates import Gates, measure_gates
    from vtcav_jax.worlds.handwired_network import MOTION_PAIRS, MotionPairs, binary_clips, shapley_values

__all__ = [
    "GLYPH_QUESTIONS",
    "GLYPH_TRACKS",
    "MOTION_PAIRS",
    "WORLDS",
    "Dots",
    "Events",
    "Gates",
    "GlyphWorld",
    "MotionPairs",
    "Shortcut",
    "WorldClips",
    "WorldQuestion",
    "WorldSpec",
    "binary_clips",
    "make_clips",
    "measure_gates",
    "redraw",
    "remove",
    "shapley_values",
]

_NEED_JAX = {"Gates": "gates", "measure_gates": "gates"} | dict.fromkeys(
    ("MotionPairs", "MOTION_PAIRS", "binary_clips", "shapley_values"), "handwired_network"
)


def __getattr__(name: str) -> Any:
    """What needs jax is imported when it is asked for: processes that only make clips stay small without it."""
    if name not in _NEED_JAX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NEED_JAX[name]}"), name)
