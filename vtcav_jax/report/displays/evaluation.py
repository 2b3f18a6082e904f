"""Displays of scores of explanation methods, and of the accuracy of a network."""

from dataclasses import dataclass

from vtcav_jax.evaluation.world_benchmark.method_scores import MethodScores
from vtcav_jax.report.displays.result_view import ResultTable, ResultView
from vtcav_jax.report.effect_sizes import format_number, format_range
from vtcav_jax.report.figures.estimates import Estimate, estimate_figure
from vtcav_jax.report.figures.evaluation import (
    best_stage_per_method,
    method_ranking_figure,
    metric_figure,
    overall_scores,
    score_cost_figure,
)
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.runs.evaluation_rows import METHOD_SCORES_CSV, NOT_APPLICABLE_CSV, MethodScoreRow, NotApplicable
from vtcav_jax.training.evaluate import Accuracy

SCORE_COLUMNS = (
    *("method", "stage", "question", "metric", "value", "low", "high", "n_clips"),
    "forward_passes",
)


def view_method_scores(result: MethodScores) -> ResultView:
    notes = []
    for network_name in result.network_names:
        ranked = best_stage_per_method(overall_scores(result.rows, network_name))
        methods = [row for row in ranked if not row.is_trivial and not row.is_reference]
        trivial = [row for row in ranked if row.is_trivial]
        if methods:
            best = methods[0]
            notes.append(
                f"{network_name}: the highest score is {format_number(best.value)} (95 % CI"
                f" {format_range(best.low, best.high)} over {best.n_clips} clips), {best.method} at {best.stage}"
                + (f"; the best map without a network, {trivial[0].method}," if trivial else "")
                + (f" has {format_number(trivial[0].value)}." if trivial else ".")
            )
    notes += [f"{row.method} does not apply to {row.network_name}: {row.reason}" for row in result.not_applicable]
    ordered = sorted(result.rows, key=lambda row: (row.metric != "TRUTH", -row.value))
    return ResultView(
        heading=repr(result),
        notes=tuple(notes),
        tables={
            METHOD_SCORES_CSV.removesuffix(".csv"): lambda: ResultTable.of_rows(MethodScoreRow, ordered),
            NOT_APPLICABLE_CSV.removesuffix(".csv"): lambda: ResultTable.of_rows(NotApplicable, result.not_applicable),
        },
        columns=SCORE_COLUMNS,
        figures=lambda: _score_figures(result),
    )


def _score_figures(result: MethodScores) -> list[Figure]:
    names = result.network_names
    figures = [method_ranking_figure(result.rows, names)]
    for name in names:
        figures.append(score_cost_figure(result.rows, name))
        questions = dict.fromkeys(
            row.question for row in result.rows if row.network_name == name and row.metric == "WHERE"
        )
        figures += [metric_figure(result.rows, name, question) for question in questions]
    return figures


@dataclass(frozen=True)
class HeadAccuracyRow:
    """Accuracy of one head, with its 95 % interval over source videos."""

    head: str
    share: float
    low: float
    high: float
    n_correct: int
    n_clips: int
    n_videos: int


def view_accuracy(result: Accuracy) -> ResultView:
    low, high = result.interval
    row = HeadAccuracyRow(result.head, result.share, low, high, result.n_correct, result.n_clips, result.n_videos)
    estimate = Estimate(result.head, result.share, low, high, result.n_videos)
    return ResultView(
        heading=repr(result),
        tables={"accuracy": lambda: ResultTable.of_rows(HeadAccuracyRow, [row])},
        figures=lambda: [estimate_figure("accuracy", f"accuracy of {result.head}", "share of clips", [estimate])],
    )
