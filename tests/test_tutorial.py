"""The tutorial runs from top to bottom, and its first command finds what the page says."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.support.cli_runner import stop_cli_server
from tests.support.docs_pages import TUTORIAL, run_page


@pytest.mark.slow
def test_the_code_of_the_tutorial_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        outputs = run_page(TUTORIAL, tmp_path)
    finally:
        stop_cli_server()
    check_quickstart(outputs["vtcav quickstart"], tmp_path / "runs" / "quickstart")


def check_quickstart(text: str, folder: Path) -> None:
    """The quickstart finds the causes that its clips have, and its derivatives over time sum to the derivatives."""
    assert "left (dynamic clips) raises the score of direction:left" in text
    assert "right (dynamic clips) lowers the score of direction:left" in text
    assert "ring (static and dynamic clips) raises the score of shape:ring" in text
    assert "direction:left: No significant effect of bars and ring" in text
    assert "shape:ring: No significant effect of left and right" in text
    page = folder / "tcav" / "report" / "index.html"
    assert "Open the report page: runs/quickstart/tcav/report/index.html" in text and page.stat().st_size < 20e6
    assert "equal gradients" in page.read_text() and "vtcav score_concepts" in text
    with np.load(folder / "tcav/over_time.npz") as parts, open(folder / "tcav/derivatives.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "layers.0"]
        names, clips = parts["layers.0|vectors"].tolist(), parts["direction:left|clips"].tolist()
        assert rows
        for row in rows:
            if row["target"] == "direction:left":
                i = names.index(f"{row['concept']}/{row['clip_type']}/{row['negatives']}")
                moments = parts["layers.0|direction:left"][i, clips.index(row["clip"])]
                assert moments.sum() == pytest.approx(float(row["derivative"]), rel=1e-3, abs=1e-3)
