"""Synthetic video worlds with a known cause: rendering, interventions, gates, and a hand-wired network.

clips = make_clips("small", n=4, seed=0)
clips.frames, clips.labels, clips.masks       # uint8 (n, t, h, w, 3); class indices; pixels of each object
redraw(clips, "direction", seed=1)            # the same clips with another direction
remove(clips, "distractor")                   # the same clips without the distractor
"""

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
    """Import what needs jax when it is first used, so that processes that only render clips stay small."""
    if name not in _NEED_JAX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NEED_JAX[name]}"), name)
