"""Explanations scored where the cause is known, and metrics that need to know nothing.

`score(method, network, worlds)` holds a method's maps against what was planted in the worlds, and against what taking
things out truly does to the network's answer.
"""

from typing import TYPE_CHECKING, Any

from vtcav_jax.evaluation.world_benchmark.questions import QUESTIONS, Question
from vtcav_jax.evaluation.world_benchmark.tables import ALL, AXES, EXACT, STABLE, TRUTH, Refused, Row

if TYPE_CHECKING:
    from vtcav_jax.evaluation.world_benchmark.scoring import score

__all__ = ["ALL", "AXES", "EXACT", "QUESTIONS", "STABLE", "TRUTH", "Question", "Refused", "Row", "score"]


def __getattr__(name: str) -> Any:
    """Scoring needs jax; tables are read without it."""
    if name != "score":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vtcav_jax.evaluation.world_benchmark.scoring import score

    return score
