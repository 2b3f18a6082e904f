"""Figures and tables for papers: what they show, their files, and the errors of their command."""

import re

import numpy as np
import pytest

from tests.support.cli_runner import run_cli
from vtcav_jax.report.animation.overlay import Panel
from vtcav_jax.report.figures.strip import STRIP_FORMATS, draw_strip, write_strip


def strip(n_frames=4):
    frames = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.full((1, 16, 24, 3), 20, np.uint8)
    values = np.zeros((4, 4, 6))
    values[2, 1, 1], values[3, 0, 0] = 2.0, -1.0
    panels = [
        Panel("gradcam @layers.1", values, np.array([0.5, 2.5, 4.5, 6.5]), True),
        Panel("saliency @video", np.abs(values), np.array([0.5, 2.5, 4.5, 6.5]), False),
    ]
    return frames, draw_strip(frames, np.arange(8) / 10, panels, n_frames=n_frames)


def panel_limit():
    """Return the end of the colour scales: all but the few largest absolute values are below it."""
    return np.quantile([0] * 94 + [1, 2], 0.995)


def test_a_strip_has_the_frames_their_times_and_a_scale_of_each_map():
    frames, figure = strip()
    pictures = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]
    assert len(pictures) == 3 * 4
    for number, picture in zip((0, 2, 5, 7), pictures[:4], strict=True):
        np.testing.assert_array_equal(picture, frames[number])
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["0.00 s", "0.20 s", "0.50 s", "0.70 s"]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["clip", "gradcam\nat layers.1", "saliency\nat video"]
    bars = [child for axes in figure.axes for child in axes.child_axes]
    assert [[float(t) for t in bar.get_yticks()] for bar in bars] == [
        pytest.approx([-limit if signed else 0, limit])
        for signed, limit in ((True, panel_limit()), (False, panel_limit()))
    ]
    assert len(strip(n_frames=99)[1].axes) >= 3 * 10  # at most the frames of the clip


def test_long_names_are_complete_and_inside_the_strip():
    frames, values = np.zeros((4, 16, 24, 3), np.uint8), np.ones((1, 2, 2))
    names = [f"a long name of a class with a lot of words, and its {end}\nlrp @blocks.11.norm" for end in ("x", "y")]
    figure = draw_strip(frames, np.arange(4) / 10, [Panel(name, values, np.zeros(1), True) for name in names])
    figure.canvas.draw()
    texts = [text for axes in figure.axes for text in axes.texts]
    joined = ["".join(text.get_text().split()) for text in texts]
    assert joined == ["clip", *("".join(name.replace("@", "at ").split()) for name in names)]
    left = [text.get_window_extent().x0 for text in texts]
    assert min(left) >= 0


def test_files_of_a_strip_are_equal_in_two_runs_and_have_caption_and_bibtex(tmp_path):
    for folder in ("a", "b"):
        paths = write_strip(strip()[1], tmp_path / folder, "strip ../x", "A caption.", "@misc{a}")
        assert {path.suffix[1:] for path in paths} == {*STRIP_FORMATS, "txt", "bib"}
        assert all(path.parent == tmp_path / folder for path in paths)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    svg = next((tmp_path / "a").glob("*.svg")).read_text()
    assert "<text" in svg and "0.20 s" in svg


@pytest.mark.slow
def test_the_command_writes_the_strip_of_the_clip_with_the_highest_score(tmp_path):
    run = f"--run={tmp_path / 'run'}"
    maps = ["attribute", "--model=worlds_cnn", "--videos=worlds:small:3:46", "--methods=gradcam", "--num_workers=0"]
    assert run_cli(*maps, "--targets=direction,shape", "--animations=none", run)[0] == 0
    code, _, errors = run_cli("report", run, "--figure=strip", "--frames=3", "--latex")
    assert code == 0, errors
    (caption,) = (tmp_path / "run/figures").glob("*.txt")
    scores = [float(n) for n in re.findall(r"score ([0-9.]+)", caption.read_text())]
    rows = [line.split(",") for line in (tmp_path / "run/maps.csv").read_text().splitlines()]
    score, target, clip = (rows[0].index(name) for name in ("score", "target", "clip"))
    best = max((row for row in rows[1:] if row[target] == "direction"), key=lambda row: float(row[score]))
    assert scores == [pytest.approx(float(best[score]), rel=0.01)]
    assert "3 of the 8 frames" in caption.read_text() and caption.with_suffix(".pdf").read_bytes()[:4] == b"%PDF"
    latex = (tmp_path / "run/tables/maps.tex").read_text()
    assert latex.startswith("\\begin{tabular}") and latex.count("gradcam") == 6 and "small\\_46\\_000000" in latex
    code, _, errors = run_cli("report", run, "--figure=strip", "--target=direction,shape")
    assert code == 0, errors
    both = (tmp_path / f"run/figures/strip_{best[clip]}_direction_shape.txt").read_text()
    assert "for direction:" in both and "; shape:" in both and "each for every target" in both
    svg = (tmp_path / f"run/figures/strip_{best[clip]}_direction_shape.svg").read_text()
    assert svg.count(">gradcam<") == 2 and ">direction<" in svg and ">shape<" in svg
    code, _, errors = run_cli("report", run, "--figure=strip", "--clip=none", "--target=flash")
    assert code == 1 and "no clip named 'none'" in errors and "no target named 'flash'" in errors
    code, _, errors = run_cli("report", run, "--clip=none")
    assert code == 1 and "add --figure=strip" in errors
