"""Explanations scored where the cause is known, and metrics that need to know nothing.

`score_method(method, network, worlds)` holds a method's maps against what was planted in the worlds, and against what
taking things out truly does to the network's answer.
"""

from typing import TYPE_CHECKING, Any

from vtcav_jax.evaluation.world_benchmark.questions import EVAL_QUESTIONS, EvalQuestion
from vtcav_jax.runs.evaluation_rows import (
    ALL_QUESTIONS,
    ANALYTIC_SCORE,
    MEAN_SCORE,
    STABILITY_SCORE,
    WORLD_METRICS,
    MethodScoreRow,
    NotApplicable,
)

if TYPE_CHECKING:
    from vtcav_jax.evaluation.world_benchmark.scoring import score_method

__all__ = [
    "ALL_QUESTIONS",
    "ANALYTIC_SCORE",
    "EVAL_QUESTIONS",
    "MEAN_SCORE",
    "STABILITY_SCORE",
    "WORLD_METRICS",
    "EvalQuestion",
    "MethodScoreRow",
    "NotApplicable",
    "score_method",
]


def __getattr__(name: str) -> Any:
    """Scoring needs jax; tables are read without it."""
    if name != "score_method":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vtcav_jax.evaluation.world_benchmark.scoring import score_method

    return score_method
