"""Section of selective relevance: sentences, figures, table and animations match the tables of a run."""

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest

from tests.report.test_maps_page import MOTIONS, motion_run
from vtcav_jax.data.encode import write_animation
from vtcav_jax.report.animation.overlay import Panel, share_scale
from vtcav_jax.report.build import write_report
from vtcav_jax.report.figures.motion_parts import threshold_figures
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.report.sections import motion_parts as section
from vtcav_jax.report.text import motion_parts as text
from vtcav_jax.runs.attribution_rows import MOTION_CSV, MOTION_MAP_MEANS_CSV, ClipMotionRow, MotionMapMeanRow
from vtcav_jax.runs.tables import write_rows

MEANS = {
    "motion_share": 0.48,
    "frozen_share": 0.11,
    "excess": 0.37,
    "area": 0.06,
    "flow_precision": 0.8,
    "flow_precision_map": 0.7,
    "flow_precision_gain": 0.1,
    "flow_precision_smoothed": 0.75,
    "flow_precision_smoothed_gain": 0.05,
    "flow_precision_difference": 0.97,
    "flow_area": 0.12,
    "flow_energy": 0.9,
}


def mean_row(measure: str, mean: float, half: float = 0.02, **more: Any) -> MotionMapMeanRow:
    values: dict[str, Any] = dict(target="direction", answer="", method="saliency", stage="video", threshold_sd=1.0)
    values |= dict(measure=measure, mean=mean, low=mean - half, high=mean + half, n_clips=9, n_videos=9)
    return MotionMapMeanRow(**values | more)


def rows_by_measure(**changes: Any) -> dict[str, MotionMapMeanRow]:
    return {measure: mean_row(measure, mean, **changes) for measure, mean in MEANS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Run folder with motion parts by two methods at three thresholds, and animations of two of three examples."""
    folder = motion_run(tmp_path_factory.mktemp("runs") / "m")
    methods: list[dict[str, Any]] = [{}, {"method": "gradcam", "stage": "norm", "n_videos": 4}]
    rows = [mean_row(measure, mean, **more) for more in methods for measure, mean in MEANS.items()]
    rows += [mean_row("motion_share", 0.48 / n, threshold_sd=float(n)) for n in (2, 3)]
    rows += [mean_row("motion_share", 0.5, answer="direction:left")]
    write_rows(folder / MOTION_MAP_MEANS_CSV, MotionMapMeanRow, rows)
    files = [f"motion_parts/{i:06d}_clip--direction.npz" for i in range(3)]
    clips = [dataclasses.replace(row, parts_file=file) for row, file in zip(MOTIONS, files)] + MOTIONS[3:]
    write_rows(folder / MOTION_CSV, ClipMotionRow, clips)
    (folder / "motion_parts").mkdir()
    for file in files[:2]:
        write_animation((folder / file).with_suffix(".webp"), np.zeros((2, 32, 64, 3), np.uint8), 2.0)
    return folder


def test_the_section_has_findings_animations_figures_and_numbers(folder):
    page = write_report(folder).read_text()
    start = page.index('<section id="selective-relevance">')
    part = page[start : page.index("</section>", start)]
    assert "by more than 1 standard deviation of these differences in the clip." in part
    assert (
        "saliency at video:</strong> over 9 clips of 9 source videos, the motion part has 48 % (95 % CI 46 to 50 %) of"
        " the absolute map, in 6 % of the voxels; in the map of the frozen clip, the same threshold selects 11 %. Of"
        " the cells of the motion part, 80 % (95 % CI 78 to 82 %) are on moving pixels; of as many of the map&#39;s"
        " strongest cells, 70 %: a difference of +10 (+8 to +12) percentage points. At equal area, the motion part is"
        " more selective for motion than the map, smoothed or not."
    ) in part
    assert "gradcam at norm:</strong> over 9 clips of 4 source videos" in part and "Too few source videos" in part
    assert part.count('<figure class="film">') == 2 and part.count("from left to right") == 1
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", part)
    assert cells[:6] == ["direction", "all", "saliency", "video", "48 % (46 to 50 %)", "11 % (9 to 13 %)"]
    assert "+37 (+35 to +39)" in cells and "direction:left" in cells
    assert part.count("<svg") == 4 and "motion_map_means.csv" in page


def test_verdicts_compare_with_the_map_and_with_the_smoothed_map():
    by_measure = rows_by_measure()

    def verdict(gain, smoothed_gain, **more):
        changed = {
            "flow_precision_gain": mean_row("flow_precision_gain", gain, **more),
            "flow_precision_smoothed_gain": mean_row("flow_precision_smoothed_gain", smoothed_gain, **more),
        }
        return text.describe_selectivity(by_measure | changed)

    assert "than the map, smoothed or not" in verdict(0.1, 0.05)
    assert "than the smoothed map is not shown (0 (−2 to +2) percentage points)" in verdict(0.1, 0.0)
    assert "no difference in selectivity" in verdict(0.01, 0.0) and "−1 (−3 to +1)" in verdict(-0.01, 0.0)
    assert "is less selective for motion" in verdict(-0.1, -0.1)
    assert "Too few source videos" in verdict(0.1, 0.1, n_videos=4)
    assert "97 % of as many cells where the frames differ most" in verdict(0.1, 0.1)
    without_flow = {name: row for name, row in by_measure.items() if not name.startswith("flow")}
    assert text.describe_selectivity(without_flow) == ""
    zero = {name: dataclasses.replace(row, mean=math.nan) for name, row in by_measure.items()}
    assert text.describe_parts(zero) == "the maps are 0 everywhere." and text.describe_selectivity(zero) == ""


def test_curves_have_a_mark_for_each_threshold():
    rows = [mean_row(m, v / (n + 1), threshold_sd=float(n)) for n in range(3) for m, v in MEANS.items()]
    shares, motion = threshold_figures(rows)
    for figure, curves in ((shares, 3), (motion, 5)):
        marks = [element for element in figure.elements if element.startswith("<circle")]
        assert len(marks) == curves * (1 + 3)  # legend and thresholds
    assert sum("48 % (46 to 50 %), 9 clips of 9 videos, 0 SD" in e for e in shares.elements) == 1
    assert len(threshold_figures([row for row in rows if not row.measure.startswith("flow")])) == 1


def test_each_variant_has_its_definition(folder, monkeypatch):
    run = open_run_folder(folder)
    for variant, words in (
        ("paper2020", "falls from the previous to the next time step by more than 1 standard deviation of these"),
        ("d_dtd", "a clip that repeats this frame"),
        ("paper2019", "each scaled to a maximum of 1"),
    ):
        config = {"task": "motion", "model": "m", "motion_variant": variant, "motion_threshold_sd": 1.0}
        monkeypatch.setitem(run.records[0].content, "request", config)
        (part,) = section.motion_part_sections(run)
        assert words in part.html


def test_runs_of_earlier_versions_have_no_section(tmp_path):
    folder = motion_run(tmp_path / "old")
    assert section.motion_part_sections(open_run_folder(folder)) == []
    assert 'id="decisions"' in (page := write_report(folder).read_text()) and "selective-relevance" not in page


def test_parts_share_the_scale_of_the_map():
    rng = np.random.default_rng(0)
    full = rng.normal(size=(4, 8, 8))
    mask = rng.random((4, 8, 8)) < 0.002
    mask[0, 0, 0] = True
    parts = [full, np.where(mask, full, 0), np.where(mask, 0, full)]
    panels = share_scale([Panel("p", part, np.arange(4.0), True) for part in parts])
    assert len({panel.scale for panel in panels}) == 1
    assert panels[1].scale_limit == pytest.approx(np.quantile(np.abs(full), 0.995))
    assert panels[1].drawn_scale.highest_sum == pytest.approx(np.maximum(full, 0).sum((1, 2)).max())
