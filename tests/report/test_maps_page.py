"""Attribution maps and motion tests on report pages: text, figures and animations match the tables."""

import base64
import csv
import io
import json
import math
import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from tests.report.test_tcav_page import NASTY, run_folder
from tests.support.browser import animations_play, download_text, open_page
from vtcav_jax.attribution.motion.summary import motion_verdict
from vtcav_jax.attribution.videos import map_store, temporal_profile
from vtcav_jax.data.encode import write_animation
from vtcav_jax.report.animation import maps as map_animations
from vtcav_jax.report.build import write_comparison, write_report
from vtcav_jax.report.figures import motion as motion_figures
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.report.sections import maps as map_sections
from vtcav_jax.report.sections import motion as motion_sections
from vtcav_jax.report.text import maps as map_text
from vtcav_jax.runs import directory
from vtcav_jax.runs.attribution_rows import (
    MAPS_CSV,
    PROFILE_CSV,
    SANITY_CSV,
    ClassMotionRow,
    ClipMotionRow,
    MapRow,
    ProfileRow,
    SanityRow,
)
from vtcav_jax.runs.directory import ANIMATION_FOLDER
from vtcav_jax.runs.tables import write_rows

NAN = math.nan
CLIPS = 5


def map_row(clip: int = 0, method: str = "gradcam", **more: Any) -> MapRow:
    values: dict[str, Any] = dict(clip=f"clip {clip}", clip_index=0, start=0.0, end=0.3, target="direction", score=4.0)
    values |= dict(answer="direction:left", method=method, stage="norm", signed=True, forward_passes=3, map_sum=1.0)
    values |= dict(completeness_gap=NAN, peak_time=0.1, peak_share=0.3, temporal_half_mass=0.49)
    values |= dict(map_file=f"{clip:06d}_clip_{clip}.npz", spatial_half_mass=0.45)
    return MapRow(**values | more)


LRP = dict(spatial_half_mass=0.03, forward_passes=4)
MAPS = [map_row(i, answer="direction:up" if i == 3 else "direction:left") for i in range(CLIPS)]
MAPS += [
    map_row(i, "attn_lrp", stage="video", completeness_gap=gap, temporal_half_mass=0.2 + 0.01 * i, **LRP)
    for i, gap in enumerate((0.2, 0.1, 3.0, 0.2, 0.3))
]
MAPS += [
    map_row(i, NASTY, temporal_half_mass=NAN, spatial_half_mass=NAN, signed=False, completeness_gap=0.0)
    for i in range(CLIPS)
]
PROFILES = [ProfileRow("direction", "gradcam", "norm", i, 4, 0.25, 0.24, 0.26, CLIPS) for i in range(4)]
PROFILES += [
    ProfileRow("direction", "attn_lrp", "video", i, 4, share, share - 0.05, share + 0.05, CLIPS)
    for i, share in enumerate((0.1, 0.1, 0.7, 0.1))
]
SANITY = [
    SanityRow("direction", "gradcam", "norm", name, mean, mean - 0.02, mean + 0.02, CLIPS)
    for name, mean in (
        ("time_reversal_change", 0.1),
        ("mass_outside", 0.95),
        ("area_outside", 0.95),
        ("randomised_weights_similarity", 0.8),
    )
] + [SanityRow("direction", "gradcam", "norm", "flicker", NAN, NAN, NAN, 0)]


def class_row(answer: str = "", drop_shuffled: float = 0.9, **more: Any) -> ClassMotionRow:
    values: dict[str, Any] = {field.name: 0.5 for field in fields(ClassMotionRow)}
    values |= dict(
        target="direction", answer=answer, n_clips=9, n_videos=9, reference="other clips", drop_shuffled=drop_shuffled
    )
    values |= dict(drop_shuffled_low=drop_shuffled - 0.05, drop_shuffled_high=drop_shuffled + 0.05)
    return ClassMotionRow(**values | more)


def clip_row(i: int, drop_shuffled: float = 0.8, **more: Any) -> ClipMotionRow:
    values: dict[str, Any] = {field.name: 0.5 for field in fields(ClipMotionRow)}
    values |= dict(clip=f"clip {i} {NASTY}", clip_index=0, target="direction", answer="direction:left", score=4.0)
    values |= dict(source_video=f"video {i}", method="saliency", parts_file="")
    values |= dict(prediction="direction:up", probability=0.875)
    values |= dict(drop_shuffled=drop_shuffled)
    values |= dict(drop_shuffled_low=drop_shuffled - 0.1, drop_shuffled_high=drop_shuffled + 0.1)
    return ClipMotionRow(**values | more)


CLASSES = [class_row(), class_row("direction:left"), class_row("direction:up", 0.1, drop_frozen_high=0.2)]
MOTIONS = [clip_row(0), clip_row(1, 0.1), clip_row(2, 0.3)]
MOTIONS.append(clip_row(3, NAN, drop_shuffled_low=NAN, drop_shuffled_high=NAN))


def attribution_run(folder):
    """Write a run folder as --task=attribute does."""
    directory.open_run(
        folder, {"task": "attribute", "model": "m", "targets": ["direction"], "methods": [["gradcam", None]]}
    )
    (folder / ANIMATION_FOLDER).mkdir(exist_ok=True)
    video = np.random.default_rng(0).integers(0, 256, (6, 64, 96, 3), np.uint8)
    for i in range(CLIPS - 1):
        kind = "mp4" if i == 0 else "webp"
        write_animation(
            folder / ANIMATION_FOLDER / map_animations.map_animation_name(f"{i:06d}_clip_{i}", kind),
            video,
            4.0,
        )
    write_rows(folder / MAPS_CSV, MapRow, MAPS)
    write_rows(folder / PROFILE_CSV, ProfileRow, PROFILES)
    write_rows(folder / SANITY_CSV, SanityRow, SANITY)
    return folder


def motion_run(folder):
    """Write a run folder as --task=motion does."""
    directory.open_run(
        folder, {"task": "motion", "model": "m", "targets": ["direction"], "method": "saliency", "stage": None}
    )
    write_rows(folder / "motion_classes.csv", ClassMotionRow, CLASSES)
    write_rows(folder / "motion.csv", ClipMotionRow, MOTIONS)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Report page of a folder with the results of three tasks."""
    return write_report(motion_run(attribution_run(run_folder(tmp_path_factory.mktemp("runs") / "all"))))


@pytest.mark.slow
def test_text_about_maps_matches_the_tables(page):
    run = open_run_folder(page.parent.parent)
    assert map_text.answer_summary(MAPS[:CLIPS]) == (
        "5 clips:",
        "predictions direction:left (4 clips), direction:up (1 clip); mean score +4 (95 % CI over clips 4 to 4).",
    )
    cam, lrp, zero = (
        map_text.describe_map_method(run, ("direction", m, s))
        for m, s in (("gradcam", "norm"), ("attn_lrp", "video"), (NASTY, "norm"))
    )
    assert "Nearly uniform in time: half of the map lies in 49 % (49 to 49 %) of the time" in cam
    assert "95 % of the map lies outside the object" in cam and "not distinguishable from a uniform map" in cam
    assert "the map of the reversed clip is 0.9." in cam and "shuffled weights is 0.8," in cam and "sum of" not in cam
    assert (
        "Localised in time: half of the map lies in 22 %" in lrp and "step at 62 % of the clip has the largest" in lrp
    )
    assert "misses 5 % of the score in the median clip (75 % in the worst)." in lrp and "outside" not in lrp
    assert zero == "The maps are 0 everywhere."
    assert "Nearly uniform in space: half of the map lies in 45 % (45 to 45 %) of the frame" in cam
    assert "Localised in space: half of the map lies in 3 %" in lrp and "half mass in time</th>" in page.read_text()
    path = [replace(row, method="integrated_gradients") for row in MAPS[CLIPS : 2 * CLIPS]]
    assert map_text.completeness_text(path).endswith("(75 % in the worst); increase --ig_steps to reduce the gap.")
    by_measure = {sanity_row.measure: sanity_row for sanity_row in SANITY}
    for low, verdict in ((0.9, "lies on the object more"), (1.0, "lies outside the object more")):
        outside = replace(by_measure["mass_outside"], mean=low, low=low - 0.01, high=low + 0.01)
        assert verdict in map_text.sanity_texts(by_measure | {"mass_outside": outside})[0]
    worse = [replace(row, completeness_gap=2.0) for row in MAPS[CLIPS : 2 * CLIPS]]
    assert map_text.relative_completeness_gaps(worse) == (
        0.5,
        0.5,
    ) and "misses 50 % of the score" in map_text.completeness_text(worse)


def test_every_prediction_is_displayed_before_any_repeats():
    rows = MAPS[:CLIPS]
    assert [row.clip for row in map_sections.select_map_clips(rows)] == [
        "clip 0",
        "clip 3",
        "clip 1",
        "clip 2",
        "clip 4",
    ]


def test_the_caption_of_a_film_has_every_target_and_other_predictions():
    rows = [map_row(0), map_row(0, "attn_lrp"), map_row(0, target="shape:x", answer="shape:x", score=-1.0)]
    assert map_sections.film_description(rows) == (
        "clip 0; direction: score +4, prediction direction:left; shape:x: score −1"
    )


def test_animations_are_limited_and_the_rest_is_counted(page, monkeypatch):
    text = page.read_text()
    assert text.count('<figure class="film">') == CLIPS - 1 and text.count('src="data:image/webp;base64,') == CLIPS - 2
    assert "4 of 5 clips; the animations of all clips are in animations/." in text and "1 more clip<" in text
    run = open_run_folder(page.parent.parent)
    monkeypatch.setattr(map_sections, "MAX_ANIMATION_BYTES", 0)
    (section,) = map_sections.map_sections(run)
    assert "<figure class=" not in section.html and "maps.csv" not in section.html


def test_text_about_motion_has_verdicts_and_counts(page):
    text = page.read_text()
    assert (
        "<strong>direction: motion;</strong> over 9 clips of 9 source videos, its score falls by 90 % (95 % CI 85 to 95"
        " %)" in text
    )
    assert "<strong>direction:up: appearance, not motion;</strong>" in text
    assert "of 4 clips, 1 depend on motion, 1 do not, 1 are in between or uncertain, 1 are undefined" in text
    assert "<td>undefined</td>" in text
    assert "<td>direction:left</td><td>direction:up (88 %)</td>" in text  # the explained class, and the prediction


def test_negative_losses_are_reported_as_rises():
    rises = class_row(
        drop_shuffled=-0.27,
        drop_shuffled_low=-0.33,
        drop_shuffled_high=-0.22,
        drop_frozen=-0.04,
        drop_frozen_low=-0.1,
        drop_frozen_high=0.02,
    )
    assert motion_verdict(rises)[1] == (
        "over 9 clips of 9 source videos, its score rises by 27 % (95 % CI 22 to 33 %) with shuffled frames and rises"
        " by 4 % (-2 to 10 %) with a frozen frame."
    )
    single = class_row(drop_shuffled=-0.27, drop_shuffled_low=NAN, drop_shuffled_high=NAN, n_clips=1, n_videos=1)
    assert (
        "1 clip of 1 source video, its score rises by 27 % with shuffled frames and falls by 50 %"
        in motion_verdict(single)[1]
    )


def test_few_videos_get_no_verdict():
    verdicts = [motion_verdict(class_row(n_videos=n))[0] for n in (1, 2, 4, 5)]
    assert ["too few source videos" in verdict for verdict in verdicts] == [True, True, True, False]


def test_spatial_half_mass():
    maps = np.zeros((2, 4, 5))
    maps[0, 1, 2] = -3  # one position, with three times the weight of the second step
    maps[1] = 0.05
    assert map_store.spatial_half_mass(maps) == pytest.approx((3 * 0.5 / 20 + 1 * 0.5) / 4)
    assert math.isnan(map_store.spatial_half_mass(np.ones((3, 1, 1)))) and math.isnan(
        map_store.spatial_half_mass(np.zeros((3, 2, 2)))
    )


def test_marks_are_at_their_values_and_within_the_border():
    figure = motion_figures.clip_motion_figure([*MOTIONS, clip_row(9, 7.0)])
    marks = [e for e in figure.elements if e.startswith("<circle")]
    places = [float(mark.split('cx="')[1].split('"')[0]) for mark in marks]
    drawn = (0.1, 0.3, 0.8, motion_figures.MAX_DRAWN_SHARE)  # the last is 7
    per_unit = (places[-1] - places[0]) / (drawn[-1] - drawn[0])
    assert places == pytest.approx([places[0] + per_unit * (share - 0.1) for share in drawn], abs=0.06)
    assert places[0] > 140 and places[-1] < motion_figures.FIGURE_WIDTH - 22
    assert "700 % (690 to 710 %)" in marks[-1]
    many = motion_figures.clip_motion_figure([clip_row(i, i / 500) for i in range(300)])
    assert len([e for e in many.elements if e.startswith("<circle")]) == motion_figures.MAX_FIGURE_CLIPS
    assert any("80 of 300 clips" in e for e in many.elements)


def test_many_predicted_classes_are_folded(tmp_path):
    folder = motion_run(tmp_path / "a")
    answers = [class_row(), *(class_row(f"direction:{i}", n_clips=i) for i in range(40))]
    write_rows(folder / "motion_classes.csv", ClassMotionRow, answers)
    (section,) = motion_sections.motion_sections(open_run_folder(folder))
    assert "Other predicted classes (28)" in section.html and all(
        f"<strong>direction:{i}:" in section.html for i in range(40)
    )
    names = [e for e in section.figures[0].elements if ">direction:" in e and "title" not in e]
    assert len(names) == motion_figures.MAX_FIGURE_ANSWERS and not any(">direction:19<" in e for e in names)


def test_the_page_has_the_settings_and_the_commands_to_reproduce_it(page):
    text, folder = page.read_text(), page.parent.parent
    assert "attribution maps for direction in m; contribution of motion to direction in m" in text
    for flags in ("flags.txt", "flags_attribute.txt", "flags_motion.txt"):
        assert f"--flagfile={folder}/{flags}" in text and (folder / flags).exists()
    assert "<script" not in text and "&lt;/td&gt;&lt;script&gt;" in text and len(text) < 2_000_000
    assert 'download="maps.csv"' in text and 'download="profile.csv"' in text and 'download="motion.csv"' in text


def test_pages_of_maps_alone_and_of_motion_alone(tmp_path):
    maps, motion = attribution_run(tmp_path / "maps"), motion_run(tmp_path / "motion")
    text = write_report(maps).read_text()
    assert "<h1>maps: attribution maps for direction in m</h1>" in text and 'id="decisions"' not in text
    text = write_report(motion).read_text()
    assert "<h1>motion: contribution of motion to direction in m</h1>" in text and 'id="maps"' not in text


def table_of(page, name):
    link = re.search(rf'download="{name}" href="data:text/csv;base64,([^"]*)"', page.read_text())
    assert link
    return list(csv.DictReader(io.StringIO(base64.b64decode(link[1]).decode())))


def test_comparison_of_motion_tests(tmp_path):
    folders = [motion_run(tmp_path / "a"), motion_run(tmp_path / "b")]
    changed = [class_row(drop_shuffled=0.2), class_row("direction:left", 0.88), class_row("direction:up", NAN)]
    write_rows(folders[1] / "motion_classes.csv", ClassMotionRow, [*changed, class_row("direction:down")])
    page = write_comparison(folders)
    text = page.read_text()
    assert (
        "<strong>direction:</strong> Loss of score when frames are shuffled: 90 % (85 to 95 %) in a, 20 % (15 to 25 %)"
        " in b; significant difference: +70 percentage points (63 to 77). No significant difference for any of 2"
        in text
    )
    assert "<td>90 % (85 to 95 %)</td><td>88 % (83 to 93 %)</td><td>+2 percentage points (−5 to 9)</td>" in text
    assert "<td>unknown</td><td>unknown</td>" in text and "1 of 14 differences have a 95 % interval" in text
    assert "<li>b: direction, direction:down</li>" in text
    rows = table_of(page, "motion_differences.csv")
    first = rows[0]
    assert (first["question"], first["subject"], first["metric"], first["left"]) == (
        "direction",
        "all clips",
        "loss, shuffled",
        "a",
    )
    assert float(first["difference"]) == pytest.approx(0.7) and float(first["low"]) == pytest.approx(
        0.7 - math.hypot(0.05, 0.05)
    )
    assert len(rows) == 3 * 5 and (page.parent / "figures" / "compare_motion_direction.svg").is_file()


def test_comparison_of_maps(tmp_path):
    folders = [attribution_run(tmp_path / name) for name in "abc"]
    later = [
        replace(row, temporal_half_mass=0.1 + 0.01 * i)
        for i, row in enumerate(row for row in MAPS if row.method == "gradcam")
    ]
    write_rows(folders[2] / MAPS_CSV, MapRow, later)
    text = write_comparison(folders[1:]).read_text()
    assert "holds half of the map: 49 % (49 to 49 %) in b, 12 % (11 to 13 %) in c; significant difference: +37" in text
    assert "gradcam at norm:</strong> Share of the time" in text and "<li>b: direction, attn_lrp at video</li>" in text
    page = write_comparison(folders)
    assert " in a, 49 % (49 to 49 %) in b, 12 % (11 to 13 %) in c. Share of a frame" in page.read_text()
    rows = table_of(page, "maps_differences.csv")
    assert [(r["left"], r["right"]) for r in rows[:3]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert {r["metric"] for r in rows} >= {"half mass in time", "half mass in space", "map outside the object"}


def test_runs_of_different_tasks_cannot_be_compared(tmp_path):
    with pytest.raises(ValueError, match=r"a has maps of direction; .*b has a motion test of direction"):
        write_comparison([attribution_run(tmp_path / "a"), motion_run(tmp_path / "b")])


def test_random_weights_give_a_warning(tmp_path):
    folder = motion_run(attribution_run(tmp_path / "a"))
    (folder / "flags_motion.txt").write_text("--task=motion\n--random_weights\n")
    assert (
        "random" not in motion_sections.motion_sections(open_run_folder(folder))[0].html
    )  # the flag applies to presets only
    run_info = json.loads((folder / "run_motion.json").read_text())
    run_info["request"]["model"] = "video_swin_tiny"
    (folder / "run_motion.json").write_text(json.dumps(run_info))
    run = open_run_folder(folder)
    text = motion_sections.motion_sections(run)[0].html
    assert text.startswith('<div class="warn"><p>The network&#39;s weights are random') and "<strong>" not in text
    assert "<li>With random weights: direction: " in text and "<li>With random weights: Single clips: " in text
    text = map_sections.map_sections(run)[0].html  # another task in the same folder
    assert "random" not in text and "<strong>" in text


def test_tasks_share_a_folder_and_each_has_its_own_settings(tmp_path):
    folder = motion_run(attribution_run(tmp_path / "a"))
    assert json.loads((folder / "run.json").read_text())["request"]["task"] == "attribute"
    assert json.loads((folder / "run_motion.json").read_text())["request"]["task"] == "motion"
    motion_run(attribution_run(folder))
    with pytest.raises(ValueError, match="method was 'saliency', is 'gradcam'"):
        directory.open_run(
            folder, {"task": "motion", "model": "m", "targets": ["direction"], "method": "gradcam", "stage": None}
        )
    with pytest.raises(ValueError, match=r"holds a different run \(task attribute\); choose another folder \(--run\)"):
        directory.open_run(folder, {"model": "m"})


def test_temporal_profiles_are_means_over_clips(tmp_path):
    maps = np.zeros((2, 4, 2, 2), np.float32)
    maps[0, 1], maps[1, 3, 0, 0] = -1, 5
    np.savez(
        tmp_path / "000000_a.npz",
        **{"map|q|m|s": np.concatenate([maps, 0 * maps[:1]]), "score|q": np.ones(3, np.float32)},
        times=np.tile(np.arange(8.0), (3, 1)),
        about=np.array(json.dumps({"clip": "a", "maps": [["q", "m", "s", True, 3, ["q"] * 3]]})),
    )
    profiles = temporal_profile.temporal_profiles([tmp_path / "000000_a.npz"])
    assert [profile.mass for profile in profiles] == [0, 0.5, 0, 0.5]
    assert {profile.n_clips for profile in profiles} == {2}
    assert profiles[1].low == 0 and profiles[1].high == 1 and profiles[0].n_time_steps == 4
    rows = map_store.map_rows(tmp_path / "000000_a.npz")
    assert (
        [row.temporal_half_mass for row in rows[:2]] == [0.125, 0.125]
        and math.isnan(rows[2].temporal_half_mass)
        and rows[0].peak_time == 3
    )
    assert map_store.half_mass_fraction(np.ones(4)) == 0.5 and map_store.half_mass_fraction(
        np.array([0, 3.0, 1.0])
    ) == pytest.approx(2 / 9)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1200, "dark"), (390, "light")])
def test_the_page_works_in_a_browser(browser, page, width, scheme):
    view = open_page(browser, page, width, scheme)
    assert animations_play(view, "#maps")
    pictures = "[...document.querySelectorAll('#maps .film img')].map(i => i.complete && i.naturalWidth)"
    assert view.evaluate("document.querySelectorAll('#maps details').forEach(d => d.open = true)") is None
    assert view.evaluate(pictures) == [96] * (CLIPS - 2)
    assert download_text(view, "motion.csv").startswith("clip,") and "attn_lrp" in download_text(view, "profile.csv")
    view.emulate_media(media="print")
    assert view.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def test_figures_use_the_width_of_the_window(browser, page):
    """Grids reach the right edge of a wide page; on a phone, what is wider than the screen scrolls by itself."""
    view = open_page(browser, page, 1600, "light")
    edges = view.evaluate(
        "[...document.querySelectorAll('.grid')].map(grid => [grid.childElementCount,"
        " Math.max(...[...grid.children].map(figure => figure.getBoundingClientRect().right))])"
    )
    assert all(right > 0.9 * 1600 for count, right in edges if count > 2) and edges
    phone = open_page(browser, page, 390, "dark")
    outside = phone.evaluate(
        "[...document.querySelectorAll('main svg, main img, main video, main table')].filter(element =>"
        " element.getBoundingClientRect().right > 391 && !element.closest('.graph, .film, .wide'))"
        ".map(element => element.outerHTML.slice(0, 80))"
    )
    assert outside == []
