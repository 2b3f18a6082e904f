"""Tables: texts from outside cannot run as formulas in a spreadsheet, and are read back unchanged."""

import csv
import math
from dataclasses import dataclass

import pytest

from vtcav_jax.concepts.boxes import Box, read_boxes, write_boxes
from vtcav_jax.runs import tables

TEXTS = [
    *("=HYPERLINK(1)", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "-", "'=1", "''=1", "'", "'text"),
    *("plain", "", "a=b", "-5", "+1.5e3", "'-5", "-inf", "direction:left", " =1"),
]


@dataclass(frozen=True)
class Row:
    name: str
    value: float
    count: int
    flag: bool


@pytest.mark.parametrize("text", TEXTS)
def test_texts_cannot_be_formulas_and_are_read_back_unchanged(tmp_path, text):
    path = tmp_path / "table.csv"
    rows = (Row(text, -0.25, -3, True), Row("x", math.inf, 0, False))
    tables.write_rows(path, Row, rows)
    assert tables.read_rows(path, Row) == rows
    with path.open(newline="", encoding="utf-8") as file:
        cells = list(csv.reader(file))[1]
    assert cells[1:] == ["-0.25", "-3", "True"]
    try:
        assert float(cells[0]) == float(text) and cells[0] == text
    except ValueError:
        assert not cells[0].startswith(("=", "+", "-", "@", "\t", "\r"))


def test_a_leading_carriage_return_is_neutralised_too():
    assert tables.escape_formula("\r=1") == "'\r=1" and tables.unescape_formula("'\r=1") == "\r=1"


def test_names_of_videos_and_labels_of_boxes_survive(tmp_path):
    boxes = {"=cmd.mp4": (Box(0, 1, "@ball", 0.0, 1.0, 2.0, 3.0, 0.5),)}
    write_boxes(tmp_path / "boxes.csv", boxes)
    assert "\n'=cmd.mp4" in (text := (tmp_path / "boxes.csv").read_text()) and ",'@ball," in text
    assert read_boxes(tmp_path / "boxes.csv") == boxes
