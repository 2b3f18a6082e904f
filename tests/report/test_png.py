"""PNG figures match the SVG: colours, positions, text and drawing order."""

import numpy as np
import pytest
from PIL import Image

from vtcav_jax.report.figures import png
from vtcav_jax.report.figures.svg import Canvas

BLUE, VIOLET, GREY, WHITE = (0, 103, 177), (90, 69, 181), (223, 227, 232), (255, 255, 255)


def pixels(canvas, folder, name="a"):
    with Image.open(png.write_png(canvas.figure(name, "a"), folder)) as picture:
        assert picture.info["dpi"] == pytest.approx((288, 288), rel=0.01)
        return np.asarray(picture.convert("RGB")).astype(int)


def test_colours_and_positions_of_shapes(tmp_path):
    canvas = Canvas(80, 60)
    canvas.rect(10, 10, 20, 20, "null")
    canvas.dot(60, 20, "one", "")
    canvas.dot(60, 45, "faint", "")
    canvas.line(5, 55, 45, 55, "bar one")
    canvas.rect(10, 35, 20, 10, "plus", opacity=0.5)
    drawn = pixels(canvas, tmp_path)
    assert drawn.shape == (180, 240, 3)
    at = {(x, y): tuple(drawn[3 * y + 1, 3 * x + 1]) for x in range(80) for y in range(60)}
    assert at[20, 20] == GREY and at[31, 20] == WHITE and at[60, 20] == BLUE and at[20, 55] == BLUE
    assert at[60, 45] == WHITE and at[0, 0] == WHITE  # hollow mark; background
    assert at[20, 40] == pytest.approx([(a + b) / 2 for a, b in zip(VIOLET, WHITE)], abs=1.5)
    ring = drawn[3 * 45 - 14 : 3 * 45 + 17, 3 * 60 + 1]
    assert (ring < 200).any() and (ring[14] == 255).all()
    blue = (drawn == BLUE).all(-1)
    columns = np.flatnonzero(blue[3 * 55 + 1])
    assert columns.min() == 15 and columns.max() == 134


def test_dashes_have_gaps_and_bands_are_transparent(tmp_path):
    canvas = Canvas(60, 30)
    canvas.line(0, 10, 60, 10, "zero")
    canvas.path([(10, 15), (50, 15), (50, 28), (10, 28)], "fill band one", closed=True)
    drawn = pixels(canvas, tmp_path)
    dashes = drawn[30, :, 0] < 200
    assert 0.4 < dashes.mean() < 0.6 and 9 <= (np.diff(dashes.astype(int)) == -1).sum() <= 11
    assert drawn[66, 90] == pytest.approx([0.82 * 255 + 0.18 * c for c in BLUE], abs=2)


def test_text_anchors_and_rotation(tmp_path):
    def ink(canvas):
        return np.argwhere(pixels(canvas, tmp_path).min(-1) < 160)

    words = {}
    for anchor in ("start", "middle", "end"):
        canvas = Canvas(120, 120)
        canvas.text(60, 60, "HHHH", "title", anchor)
        words[anchor] = ink(canvas)[:, 1]
    assert words["start"].min() in range(180, 186) and words["end"].max() in range(174, 181)
    assert words["middle"].min() + words["middle"].max() == pytest.approx(360, abs=4)
    canvas = Canvas(120, 120)
    canvas.elements.append('<g transform="translate(60.0 60.0) rotate(-60)">')
    canvas.text(0, 0, "HHHHHH", "soft", "end")
    canvas.elements.append("</g>")
    turned = ink(canvas)
    y, x = turned.mean(0)
    assert x < 175 and y > 200 and np.ptp(turned[:, 0]) > 1.3 * np.ptp(turned[:, 1])  # steep, to the lower left


@pytest.mark.slow
def test_without_resvg_there_are_no_png_files(tmp_path, monkeypatch):
    from tests.report.test_tcav_page import run_folder
    from vtcav_jax.report.build import write_report

    page = write_report(run_folder(tmp_path / "with"))
    names = {path.stem for path in (page.parent / "figures").glob("*.svg")}
    assert (
        names == {path.stem for path in (page.parent / "figures").glob("*.png")} and "SVG and PNG" in page.read_text()
    )
    monkeypatch.setattr(png, "possible", lambda: False)
    page = write_report(run_folder(tmp_path / "without"))
    assert not list((page.parent / "figures").glob("*.png")) and "pip install resvg-py pillow" in page.read_text()
    with pytest.raises(ValueError, match="needs resvg and Pillow; pip install resvg-py pillow"):
        png.write_png(Canvas(9, 9).figure("a", "a"), tmp_path)
