"""The page of --task=evaluate_methods: its findings, and that names from elsewhere are escaped."""

import re

import pytest

from tests.report.test_tcav_page import NASTY
from vtcav_jax.report.build import write_report
from vtcav_jax.report.figures import evaluation as evaluation_figures
from vtcav_jax.report.sections import evaluation as evaluation_sections
from vtcav_jax.runs import directory
from vtcav_jax.runs.evaluation_rows import (
    ALL_QUESTIONS,
    ANALYTIC_SCORE,
    CROSS_VALIDATED_SCORE,
    MEAN_SCORE,
    METHOD_SCORES_CSV,
    NOT_APPLICABLE_CSV,
    MethodScoreRow,
    NotApplicable,
)
from vtcav_jax.runs.tables import write_rows

NET = "net"
OWN = "maps:mine"  # a function that does not tell its cost


def row(method, value, forwards=3, stage="video", world=ALL_QUESTIONS, axis=MEAN_SCORE, half=0.02):
    return MethodScoreRow(method, stage, NET, world, axis, value, value - half, value + half, 200, forwards, 0.01)


ROWS = [
    row("attn_lrp", 0.6),
    row("occlusion", 0.62, 65),
    row("rollout", 0.09, 1),
    row("gradcam", 0.3, stage="norm"),
    row("gradcam", 0.1, stage="stem"),
    row(OWN, 0.7, 0),
    row("sobel", 0.1, 0),
    row("random", 0.0, 0),
]
QUESTION = [row(NASTY, 0.2, world="W2", axis=axis) for axis in (MEAN_SCORE, "WHERE")]


def test_what_asks_no_network_is_known_by_name_and_not_by_its_cost():
    points = dict(evaluation_sections.evaluation_points(ROWS, NET))
    assert f"{NET}: {OWN} at video has the highest ground-truth score;" in points
    below = next(text for lead, text in points.items() if lead.startswith("Not clearly better"))
    assert below.startswith("the best trivial map is sobel, 0.1 ") and below.endswith("not better: rollout.")


def test_what_is_told_for_the_least_cost_is_better_than_what_asks_no_network():
    points = dict(evaluation_sections.evaluation_points([r for r in ROWS if r.method != OWN], NET))
    assert "Lowest cost: attn_lrp at video;" in points  # rollout takes one pass
    points = dict(
        evaluation_sections.evaluation_points([r for r in ROWS if r.method in ("rollout", "occlusion", "sobel")], NET)
    )
    assert not [lead for lead in points if lead.startswith("Lowest cost")]
    points = dict(
        evaluation_sections.evaluation_points([r for r in ROWS if r.method in ("attn_lrp", "occlusion")], NET)
    )
    assert "Lowest cost: attn_lrp at video;" in points and len(points) == 2  # nothing to be held against


def test_what_choosing_a_stage_flatters_is_told():
    halves = [
        row("gradcam", 0.25, stage="norm", axis=CROSS_VALIDATED_SCORE),
        row("layercam", 0.4, stage="norm", axis=CROSS_VALIDATED_SCORE),
    ]
    halves.append(row("cam", float("nan"), stage="norm", axis=CROSS_VALIDATED_SCORE))
    text = evaluation_sections.selection_bias_text([*ROWS, row("layercam", 0.41, stage="norm"), *halves])
    assert "0.030 lower on average, and 0.050 lower at most (gradcam on net)" in text
    assert evaluation_sections.selection_bias_text(ROWS) == ""


def test_methods_that_nothing_beats_for_as_little_and_their_best_stages():
    ranked = evaluation_figures.best_stage_per_method(evaluation_figures.overall_scores(ROWS, NET))
    assert [r.method for r in ranked] == [OWN, "occlusion", "attn_lrp", "gradcam", "sobel", "rollout", "random"]
    assert next(r.stage for r in ranked if r.method == "gradcam") == "norm"
    with_cost = [r for r in ranked if r.forward_passes]
    assert [r.method for r in evaluation_figures.cost_front(with_cost)] == ["rollout", "attn_lrp", "occlusion"]


def test_the_page_has_every_row_and_names_stay_text(tmp_path):
    directory.open_run(tmp_path / "run", {"task": "evaluate_methods"}, "")
    write_rows(
        tmp_path / "run" / METHOD_SCORES_CSV,
        MethodScoreRow,
        [*ROWS, *QUESTION, row("saliency", 0.5, axis=ANALYTIC_SCORE, world="W0")],
    )
    write_rows(tmp_path / "run" / NOT_APPLICABLE_CSV, NotApplicable, [NotApplicable("cam", NET, NASTY)])
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert NASTY not in page and "Which attribution maps to trust" in page
    assert re.search(r"saliency 0\.5 \(0\.48 to 0\.52\)", page)
    assert all(score_row.method in page for score_row in ROWS)
    assert page.count("<svg") == len(list((tmp_path / "run" / "report").rglob("*.svg"))) == 3


@pytest.mark.parametrize(("method", "free"), [("random", True), ("sobel", True), (OWN, False), ("saliency", False)])
def test_free_rows(method, free):
    assert row(method, 0.0).is_trivial == free
