"""Tables of `vtcav score_concepts` and `vtcav tcav` on the terminal."""

import re

import pytest

from tests.report.test_tcav_page import row as score_row
from vtcav_jax.cli.commands.score_concepts import concept_table
from vtcav_jax.cli.commands.tcav import finding_lines
from vtcav_jax.runs.tcav_rows import ConceptScoreRow, degenerate_stages


def row(stage, vector, derivative):
    return ConceptScoreRow("clip", "direction:left", stage, vector, 1.0, derivative, 0.5, 2.0)


@pytest.fixture
def rows():
    return [row("norm", "a", -90.0), row("norm", "b", 80.0), row("layers.0", "a", 0.5), row("layers.1", "b", -2.0)]


def test_stages_with_equal_gradients_come_last(rows):
    text = concept_table(rows, {"norm"})
    order = [tuple(line.split()[2:3]) for line in text.splitlines()[1:4]]
    assert order == [("layers.1",), ("layers.0",), ("norm",)]
    assert "norm (equal gradients)" in text and "say nothing about a single clip" in text


def test_without_such_stages_the_largest_derivatives_come_first(rows):
    text = concept_table(rows)
    assert [line.split()[2] for line in text.splitlines()[1:4]] == ["norm", "norm", "layers.1"]
    assert "equal gradients" not in text


def test_a_stage_is_degenerate_if_it_is_for_every_class():
    tests = [("norm", True), ("norm", True), ("x", True), ("x", False), ("y", False)]
    assert degenerate_stages(
        [score_row("c", "static", "random", 1.0, "supports", stage=stage, degenerate=flag) for stage, flag in tests]
    ) == {"norm"}


def test_columns_of_findings_do_not_run_into_each_other():
    rows = [
        score_row("a", "dynamic", "random", 123456.0, "supports"),
        score_row("a much longer concept", "static", "others", -2.0, "opposes", stage="layers.10.downsample"),
        score_row("b", "static", "random", 1.0, "supports", target="shape:ring", n_clips=1),
    ]
    lines = finding_lines(rows, "step_effect")
    table = [line for line in lines if line.startswith("  ")]
    columns = [[cell for cell in re.split(r"\s{2,}", line.strip()) if cell] for line in table]
    assert {len(cells) for cells in columns} == {8}
    names = [next(name for name in ("random", "others", "compared") if name in line) for line in table]
    assert len({line.index(name) for line, name in zip(table, names)}) == 1
    text = "\n".join(lines)
    assert "shape:ring" in text and " 1 clip of the class" in text and " 30 clips of the class" in text
