"""Report page of Video-TCAV runs with several classes, and its figures and sentences about depth."""

import json
import math
import re
from typing import Any, get_type_hints

import pytest

from tests.report.test_tcav_page import ROWS, row, run_folder
from vtcav_jax.report.build import write_report
from vtcav_jax.report.figures import png
from vtcav_jax.report.figures.tcav_groups import FIGURE_WIDTH, class_concept_figures
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.report.text.depth_trend import depth_trend_texts
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_depth_rows import DEPTH_TRENDS_CSV, GROUP_EFFECTS_CSV, DepthTrendRow, GroupEffectRow
from vtcav_jax.runs.tcav_rows import SAHA2024_CSV, Saha2024Row

STAGES = "layers.0", "layers.1", "pool"
CLASSES = [f"direction:{name}" for name in ("left", "right", "up", "down", "none")]


def filled(row_type: type, **values: Any) -> Any:
    """Return a row whose other columns are empty."""
    return row_type(**{name: value_type() for name, value_type in get_type_hints(row_type).items()} | values)


def class_rows(target: str) -> list:
    return [
        row("left", "dynamic", "random", 4.0, "supports", target=target),
        row("left", "dynamic", "random", 6.0, "supports", target=target, stage="layers.1"),
        row("left", "dynamic", "random", -1.0, "opposes", target=target, stage="pool"),
        row("left", "static", "random", 9.0, "not encoded", target=target),
        row("left", "static", "random", 8.0, "too few videos", target=target, stage="pool"),
        row("left", "dynamic", "shuffled", 3.0, "motion_supports", target=target, comparison="motion"),
        row("left", "dynamic", "own_frozen", 99.0, "differs from control", target=target, comparison="freezing"),
        row("ring", "dynamic", "random", 0.2, "not significant", target=target),
        row("ring", "dynamic", "random", 0.2, "not encoded", target=target, stage="pool"),
    ]


@pytest.fixture(autouse=True)
def without_png(monkeypatch):
    monkeypatch.setattr(png, "possible", lambda: False)  # copies of the figures take most of the time


def titles(svg: str) -> list[str]:
    return re.findall("<title>(.*?)</title>", svg)


def test_each_cell_is_the_largest_finding_of_a_class_and_concept():
    (figure,) = class_concept_figures([*class_rows("a"), *class_rows("b")], "step_effect")
    texts = titles(figure.svg)
    assert (
        figure.width == FIGURE_WIDTH and sum("left, dynamic vs random, at layers.1: +6" in text for text in texts) == 2
    )
    assert sum("2 of 3 tests" in text for text in texts) == 0
    assert sum("3 of 3 tests are findings; opposite sign at pool" in text for text in texts) == 2
    assert sum("left, dynamic vs shuffled, at layers.0: +3" in text for text in texts) == 2
    assert sum("a, left: no finding in 2 tests (not encoded, too few videos)" in text for text in texts) == 2
    assert sum("a, ring: no finding in 2 tests" in text for text in texts) == 1 and "own_frozen" not in figure.svg
    assert figure.svg.count('class="plus"') == 4 and figure.svg.count('class="null"') == 4
    assert figure.svg.count("cross") == 2  # of the static clips, whose tests are all inconclusive
    assert figure.svg.count(">4</text>") == 2  # findings of each class


def test_many_concepts_are_several_figures_as_wide_as_a_phone():
    rows = [
        row(f"concept {i}", kind, "random", 1.0, "supports", target=t)
        for t in ("a", "b")
        for i in range(15)
        for kind in ("static", "dynamic")
    ]
    figures = class_concept_figures(rows, "step_effect")
    assert [figure.svg.count("<rect") for figure in figures] == [24, 24, 12]
    assert len({figure.name for figure in figures}) == 3 and {figure.width for figure in figures} == {FIGURE_WIDTH}
    assert "others" in class_concept_figures([row("a", "static", "others", 1.0, "supports")], "step_effect")[0].svg


def test_the_page_of_several_classes_starts_with_a_summary_and_collapses_most(tmp_path):
    rows = [test for target in CLASSES for test in class_rows(target)]
    text = write_report(run_folder(tmp_path / "many", rows)).read_text()
    assert text.index("20 findings for 5 of 5 classes") < text.index("raises the score of direction:left")
    answers = text.split('<section id="answer">')[1].split("</section>")[0]
    assert [name in re.findall("<h3>(.*?)</h3>", answers) for name in CLASSES] == [True] * 3 + [False] * 2
    assert answers.count("<details><summary>direction:down (4 findings)</summary>") == 2  # sentences and table
    findings = re.findall(r"<li><strong>[^<]+</strong> [^<]+ <span class=\"soft\">Check: (.*?)</span></li>", answers)
    sections = set(re.findall(r'<section id="([^"]+)">', text))
    assert len(findings) >= 5 and all({"trust", "scores"} <= set(re.findall('href="#(.*?)"', a)) for a in findings)
    assert set(re.findall('href="#(.*?)"', "".join(findings))) <= sections
    one = write_report(run_folder(tmp_path / "one", class_rows("direction:left"))).read_text()
    assert "All classes and concepts" not in one


@pytest.mark.slow
def test_a_page_of_very_many_classes_shows_those_with_findings(tmp_path):
    names = [f"class {i}" for i in range(400)]
    rows = [row("left", "dynamic", "random", 0.1, "not significant", target=name) for name in names]
    rows += [row("ring", "dynamic", "random", 4.0, "supports", target=names[i]) for i in range(100, 120)]
    page = write_report(run_folder(tmp_path / "run", rows))
    text = page.read_text()
    assert "concepts that affect 400 classes" in text and "20 findings for 20 of 400 classes" in text
    assert "have the 20 classes with the most findings" in text
    depth = {path.stem for path in (page.parent / "figures").glob("depth_*")}
    assert depth == {f"depth_class_{i}_{concept}" for i in range(100, 120) for concept in ("left", "ring")}


def trend(
    negatives: str, slope: float, p: float, target: str = "direction:left", concept: str = "left"
) -> DepthTrendRow:
    comparison = "motion" if p == p else "absolute"
    values = dict(target=target, comparison=comparison, concept=concept, clip_type="dynamic", negatives=negatives)
    values |= dict(stages=" ".join(STAGES), slope=slope, slope_low=slope - 0.5, slope_high=slope + 0.5)
    return filled(DepthTrendRow, **values, p=p, p_adjusted=p)


@pytest.fixture
def run_with_trends(tmp_path):
    def make(trends, rows):
        folder = run_folder(tmp_path / "run", rows)
        write_rows(folder / DEPTH_TRENDS_CSV, DepthTrendRow, trends)
        return open_run_folder(folder)

    return make


MOTION = [
    row("left", "dynamic", "shuffled", 5.0, "motion_supports", comparison="motion"),
    row("left", "dynamic", "frozen", 5.0, "motion_supports", comparison="motion"),
    row("right", "dynamic", "frozen", -5.0, "motion_opposes", comparison="motion"),
    row("ring", "dynamic", "shuffled", 5.0, "not significant", comparison="motion"),
    row("bars", "dynamic", "shuffled", 5.0, "motion_supports", comparison="motion"),
    row("bars", "dynamic", "shuffled", -5.0, "motion_opposes", comparison="motion", stage="pool"),
]


def test_a_trend_over_depth_is_claimed_only_if_its_test_supports_it(run_with_trends):
    trends = [
        *(trend("frozen", 2.0, 1e-9), trend("shuffled", 1.5, 0.01), trend("random", 0.1, math.nan)),
        trend("frozen", 1.5, 0.01, concept="right"),  # an effect below 0, which rises to 0
        trend("shuffled", 1.5, 0.01, concept="ring"),  # no finding at any stage
        trend("shuffled", 1.5, 0.01, concept="bars"),  # findings of both signs
    ]
    (lead, details), (second, _) = depth_trend_texts(run_with_trends(trends, MOTION))
    assert lead == "The sensitivity of direction:left to motion in left increases with depth."
    assert details == (
        "From one stage to the next, from layers.0 to pool (3 stages), the effect of the dynamic clips compared with"
        " their shuffled copies changes by +1.5 logits (slope; 95 % CI 1.0 to 2.0 over source videos of concept,"
        " random and target clips; adjusted p 0.01). For comparison, slopes of the effect against random clips: dynamic"
        " clips +0.1 (−0.4 to 0.6)."
    )
    assert second == (
        "The effect of dynamic clips of right on direction:left, compared with their frozen copies, decreases with"
        " depth."
    )


def test_a_trend_without_significance_is_not_mentioned(run_with_trends):
    run = run_with_trends([trend("shuffled", 1.5, 0.06)], MOTION)
    assert depth_trend_texts(run) == []
    assert "with depth" not in write_report(run.folder).read_text()


def test_figures_have_random_sets_clip_types_and_published_tests(tmp_path):
    folder = run_folder(tmp_path / "run")
    base = dict(
        target="direction:left", stage="layers.0", clip_type="dynamic", step_effect_low=0.5, step_effect_high=2.5
    )
    rows = [
        filled(
            GroupEffectRow, **base, group="random sets", concept=f"random_{i}", step_effect=float(i), tcav_score=i / 4
        )
        for i in range(4)
    ]
    rows += [
        filled(GroupEffectRow, **base, group="clip types", concept=name, negatives="static", step_effect=1.5)
        for name in ("left", "random")
    ]
    write_rows(folder / GROUP_EFFECTS_CSV, GroupEffectRow, rows)
    published = [("left", "static", 0.75, 0.04), ("left", "dynamic", 1.0, math.nan), ("random", "", 0.5, 1.0)]
    saha = [
        Saha2024Row(
            *("direction:left", "layers.0", "static left, dynamic left, random", concept, clip_type, 5),
            *(score, score, score, math.nan, p, p, p, 0.0625, 30, ""),
        )
        for concept, clip_type, score, p in published
    ]
    write_rows(folder / SAHA2024_CSV, Saha2024Row, saha)
    page = write_report(folder)
    text, figures = page.read_text(), page.parent / "figures"
    depth = titles((figures / "depth_direction_left_left.svg").read_text())
    assert sum("compared with the other random sets, at layers.0" in title for title in depth) == 4
    assert any(title.startswith("random_3 (dynamic)") and "3 (95 % CI 0.5 to 2.5)" in title for title in depth)
    assert (
        "4 random sets, dynamic: mean 0.375, 0 to 0.75" in (figures / "scores_direction_left_layers.0.svg").read_text()
    )
    types = titles((figures / "types_direction_left_left.svg").read_text())
    assert any("left, dynamic relative to static clips, at layers.0: 1.5 (95 % CI 0.5 to 2.5)" in t for t in types)
    assert any(title.startswith("random, dynamic relative to static") for title in types)
    assert "are not tested and are no findings" in text
    svg = (figures / "saha2024_direction_left_0.svg").read_text()
    assert "dynamic left at layers.0: 1 (runs 1 to 1), p unknown" in svg and "static left" in svg
    assert "corrected (Bonferroni) for 2 tests" in text and "undefined for 1 test, whose runs all agree" in text
    run_info = json.loads((folder / "run.json").read_text())
    assert len(ROWS) == run_info["family"]["tests"]  # the published tests are not in the family of the run
