"""Evaluation of explanation methods: scores on synthetic clips with a known cause, and metrics for any clips.

`score_method(method, network, questions)` compares a method's maps with the known cause of each question and with the
measured effect of removing each object on the network's score.
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
    """Import `score_method` on first use: it needs jax, and reading tables does not."""
    if name != "score_method":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vtcav_jax.evaluation.world_benchmark.scoring import score_method

    return score_method
