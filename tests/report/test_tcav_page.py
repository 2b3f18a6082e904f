"""Report page of Video-TCAV runs: text matches the tables, the file is stand-alone, names are escaped."""

import base64
import csv
import io
import json
import math
import re
from dataclasses import asdict, replace
from typing import Any, get_type_hints
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.support.browser import animations_play, download_text, open_page
from vtcav_jax.data.encode import encode_mp4
from vtcav_jax.report import build
from vtcav_jax.report.build import write_comparison, write_report
from vtcav_jax.report.comparison import page as comparison_page
from vtcav_jax.report.comparison import stage_matching
from vtcav_jax.report.effect_sizes import effect_size, format_effect, format_number
from vtcav_jax.report.figures import svg as drawing
from vtcav_jax.report.figures import tcav as tcav_figures
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.report.text import tcav as tcav_text
from vtcav_jax.report.text import tcav_limits
from vtcav_jax.runs.directory import ANIMATION_FOLDER
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_rows import (
    ANIMATIONS_CSV,
    CONFOUNDERS_CSV,
    COSINES_CSV,
    PREDICTIONS_CSV,
    Animation,
    CalibrationRow,
    ConfounderRow,
    CosineRow,
    DerivativeRow,
    PredictionRow,
    ScoreRow,
)
from vtcav_jax.tcav import previews
from vtcav_jax.tcav.experiment.report_data import DERIVATIVE_PROFILES_NPZ

NASTY = "</td><script>document.body.dataset.broken = 1</script>'\"&"
NAN = math.nan


def row(
    concept: str,
    clip_type: str,
    negatives: str,
    step: float,
    verdict: str,
    target: str = "direction:left",
    stage: str = "layers.0",
    comparison: str = "absolute",
    **more: Any,
) -> ScoreRow:
    """Return a test whose derivative is half of its step effect."""
    values: dict[str, Any] = {name: value_type() for name, value_type in get_type_hints(ScoreRow).items()}
    values |= dict(target=target, stage=stage, concept=concept, clip_type=clip_type, negatives=negatives)
    values |= dict(verdict=verdict, comparison=comparison, score_fn="logit", null_low=-0.5, null_high=0.5)
    values |= dict(step_effect=step, derivative=step / 2, derivative_low=step / 2 - 0.2, derivative_high=step / 2 + 0.2)
    values |= dict(
        step_effect_low=step - 0.4, step_effect_high=step + 0.4, step_effect_in_sample=step, n_target_videos=30
    )
    values |= dict(n_videos=3 if verdict == "too few videos" else 20)
    values |= dict(relative_derivative=step / 10, relative_derivative_low=step / 10 - 0.05)
    values |= dict(relative_derivative_high=step / 10 + 0.05, tcav_score=float(step > 0))
    values |= dict(tcav_score_low=0.0, tcav_score_high=1.0, n_clips=30, n_concept=20, n_negatives=100, n_random_sets=5)
    values |= dict(p=0.001, p_adjusted=0.01 if verdict in FINDINGS else 1.0, auc=0.9, auc_p=0.01)
    values |= dict(degenerate=stage == "pool", zero_gradient=False, gradient_diversity=0.5)
    return ScoreRow(**values | more)


FINDINGS = ("supports", "opposes", "motion_supports", "motion_opposes")
ROWS = [
    row("left", "static", "random", 0.1, "not encoded"),
    row("left", "dynamic", "random", 4.0, "supports"),
    row("left", "dynamic", "frozen", 5.0, "motion_supports", comparison="motion"),
    row("left", "dynamic", "random", 6.0, "too few videos", stage="pool"),
    row(NASTY, "static", "random", -3.0, "opposes"),
    row(NASTY, "dynamic", "random", -0.4, "not significant"),
    row("ring", "static", "random", 0.2, "not significant"),
    row("ring", "dynamic", "random", NAN, "no vector", derivative_low=NAN, derivative_high=NAN, p=NAN, p_adjusted=NAN),
]


def run_folder(folder, rows=ROWS):
    """Write a run folder as --task=tcav does, with one animation and one image."""
    (folder / ANIMATION_FOLDER).mkdir(parents=True)
    random = np.random.default_rng(0)
    moving = random.integers(0, 256, (8, 96, 96, 3), np.uint8)
    dynamic = previews.write_preview(folder, f"{ANIMATION_FOLDER}/a", moving)
    static = previews.write_preview(folder, f"{ANIMATION_FOLDER}/b", moving[:1].repeat(8, 0))
    write_rows(folder / ANIMATIONS_CSV, Animation, [Animation("concept", "left", "dynamic", dynamic, 8, 20)])
    animations = [
        Animation("concept", "left", "dynamic", dynamic, 8, 20),
        Animation("concept", "left", "static", static, 8, 20),
    ]
    animations += [Animation("target", f"clip {i} {NASTY}", "", dynamic, 1, 1) for i in range(4)]
    write_rows(folder / ANIMATIONS_CSV, Animation, animations)
    answers = [PredictionRow("direction:left", f"clip {i}", "left", 0.9, i != 0, 2.2) for i in range(4)]
    write_rows(folder / PREDICTIONS_CSV, PredictionRow, answers)
    clips = [
        DerivativeRow(r.target, r.stage, r.concept, r.clip_type, r.negatives, f"clip {i} {NASTY}", 1.0, i - 1.5, 2.0)
        for r in rows
        for i in range(4)
    ]
    write_rows(folder / "derivatives.csv", DerivativeRow, clips)
    names = [f"{r.concept}/{r.clip_type}/{r.negatives}" for r in rows if r.stage == "layers.0"]
    write_rows(
        folder / COSINES_CSV,
        CosineRow,
        [CosineRow("layers.0", "absolute", a, b, 0.5) for a in names for b in names if a != b],
    )
    np.savez(
        folder / DERIVATIVE_PROFILES_NPZ,
        **{"layers.0|vectors": np.array(names), "layers.0|direction:left": random.normal(size=(len(names), 4, 3))},
    )
    write_rows(folder / "scores.csv", ScoreRow, rows)
    (folder / "flags.txt").write_text("--task=tcav\n")
    run_info = {
        "request": {"task": "tcav", "model": NASTY, "statistic": "step_effect", "target_videos": "worlds:small:9:0"},
        "versions": {"jax": "0"},
        "family": {"tests": len(rows), "correction": "holm", "alpha": 0.05},
        "calibration": [asdict(CalibrationRow("static", "sets", 1, 20, 0.0, 0.2)) | {"rate": 0.05}],
        "notes": [NASTY],
    }
    (folder / "run.json").write_text(json.dumps(run_info))
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(run_folder(tmp_path_factory.mktemp("runs") / "one"))


@pytest.mark.slow
def test_findings_match_the_tables(page):
    answers = tcav_text.class_answers(open_run_folder(page.parent.parent))[0]
    (lead, rest), (second, details) = answers.findings
    assert lead == "left (dynamic clips) raises the score of direction:left."
    assert rest == (
        "At layers.0, moving from the random clips to the dynamic clips of left changes the score by +4.00 logits (95 %"
        " CI 3.60 to 4.40; adjusted p 0.01; same sign in 30 of 30 target clips). Static clips: inconclusive, because"
        " the clips cannot be separated from the negatives at layers.0. Moving from the frozen clips to the dynamic"
        " clips changes the score by +5.00 logits more than for random clips (95 % CI 4.60 to 5.40; adjusted p 0.01; at"
        " layers.0). Frozen copies also lose every other moment, so they alone are no evidence of motion."
    )
    assert second == f"{NASTY} (static clips) lowers the score of direction:left."
    assert "−3.00 logits (95 % CI −3.40 to −2.60; adjusted p 0.01; same sign in 30 of 30" in details
    assert details.endswith("Dynamic clips: no significant effect (smallest adjusted p 1 in 1 test).")
    assert answers.no_effect_text == (
        "No significant effect of ring: smallest adjusted p 1 in 1 test; 1 other test inconclusive: no vector."
    )
    text = page.read_text()
    assert "3 of 4 clips (95 % CI 30 % to 95 %)" in text and "random weights" not in text
    assert "1 test with the verdict “too few videos” (at pool)" in text
    assert "False-positive rate 5 % (95 % CI" in text and "over the 10 sets" in text


@pytest.mark.slow
def test_random_weights_are_a_warning_and_give_no_findings(tmp_path):
    folder = run_folder(tmp_path / "a")
    (folder / "flags.txt").write_text("--task=tcav\n--random_weights\n")
    run_info = json.loads((folder / "run.json").read_text())
    run_info["request"]["model"] = "video_swin_tiny"
    (folder / "run.json").write_text(json.dumps(run_info))
    text = write_report(folder).read_text()
    first = text.index("weights are random. These results say nothing")
    assert (
        first < text.index("raises the score of direction:left")
        and "<strong>" not in text
        and 'class="answer"' not in text
    )
    assert text.count("<li>With random weights: ") == 4 and "video_swin_tiny, random weights" in text
    assert "<li>With random weights: No significant effect of ring" in text
    text = write_comparison([folder, run_folder(tmp_path / "b")]).read_text()
    assert text.index("The weights of a are random") < text.index("<nav>")


def test_only_the_controls_that_a_run_has_are_explained(tmp_path, page):
    text = page.read_text()
    assert (
        "not the same motion: frozen (one frame repeated). A significant" in text
        and "shuffled (the" not in text.split(">Terms</h2>")[0]
    )
    rows = [r for r in ROWS if r.comparison != "motion"]
    text = write_report(run_folder(tmp_path / "a", rows)).read_text()
    assert "This run has no comparison with" in text and "frozen" not in text.split(">Terms</h2>")[0]


def test_a_class_without_findings_gets_no_claim(tmp_path):
    nothing = [replace(r, verdict="not significant", p_adjusted=0.8) for r in ROWS[:3]]
    run = open_run_folder(write_report(run_folder(tmp_path / "a", nothing)).parent.parent)
    (answers,) = tcav_text.class_answers(run)
    assert (
        not answers.findings
        and answers.no_effect_text == "No significant effect of any concept (left): smallest adjusted p 0.8 in 3 tests."
    )


def test_small_effects_and_opposite_signs_are_named(tmp_path):
    rows = [
        row("big", "dynamic", "random", 8.0, "supports"),
        row("big", "dynamic", "random", -2.0, "opposes", stage="layers.1", p_adjusted=0.02),
        row("small", "dynamic", "random", 0.2, "supports"),
    ]
    (answers,) = tcav_text.class_answers(open_run_folder(run_folder(tmp_path / "a", rows)))
    assert (
        "The sign is opposite at layers.1 (dynamic clips, −2.00 (−2.40 to −1.60), adjusted p 0.02)."
        in (answers.findings[0][1])
    )
    assert answers.findings[1][0] == "small (dynamic clips) slightly raises the score of direction:left."
    assert "a small effect, 9 % of the 2.2 logits by which the network prefers the class" in answers.findings[1][1]


def test_confounders_are_named_in_the_answer(tmp_path):
    def confounder(**more: Any) -> ConfounderRow:
        values: dict[str, Any] = dict.fromkeys(get_type_hints(ConfounderRow), NAN)
        values |= dict(target="direction:left", stage="layers.0", concept="ring", clip_type="dynamic")
        values |= dict(negatives="random", name="direction", value="left") | more
        return ConfounderRow(**values)

    folder = run_folder(tmp_path / "a", [row("ring", "dynamic", "random", 3.0, "supports")])
    shares: dict[str, Any] = dict(kind="label", share_concept=0.8, share_negatives=0.25)
    rows = [
        confounder(**shares, effect=0.2, effect_low=-0.3, effect_high=0.7, p=0.4, explains=True),
        confounder(**shares | dict(name="scene"), effect=2.9, effect_low=2.0, effect_high=3.8, p=0.001, explains=False),
        confounder(kind="concept", name="left", value="", cosine=0.9, explained_share=1.2, explains=True),
    ]
    write_rows(folder / CONFOUNDERS_CSV, ConfounderRow, rows)
    (answers,) = tcav_text.class_answers(open_run_folder(folder))
    ((headline, details),) = answers.findings
    assert headline.endswith("raises the score of direction:left, but direction or left may explain this.")
    assert (
        "80 % of the dynamic clips of ring have direction left, but only 25 % of the clips that they are compared with;"
        " among clips of equal direction, the effect is +0.2 logits (95 % CI −0.3 to 0.7; p 0.4, not adjusted), so"
        " direction may explain this finding." in details
    )
    assert "so scene does not explain it." in details
    assert "similar at layers.0 (cosine 0.9): 100 % of this effect is along the vector of left" in details


@pytest.mark.slow
def test_the_first_sentence_says_that_there_are_too_few_videos(tmp_path):
    rows = [
        row("ring", "dynamic", "random", 3.0, "too few videos"),
        row("bars", "dynamic", "random", 1.0, "not significant"),
    ]
    for i, (subset, target_videos, expected) in enumerate(
        (
            (rows, 30, "the concept clips or negatives of the tests of ring (dynamic) come from 3 source videos"),
            (rows[:1], 30, "the concept clips or negatives of all tests come from 3 source videos"),
            (rows[1:], 1, "the target clips come from 1 source video"),
        )
    ):
        few = [replace(r, n_target_videos=target_videos) for r in subset]
        folder = run_folder(tmp_path / str(i), few)
        (answers,) = tcav_text.class_answers(open_run_folder(folder))
        assert answers.limits == f"No conclusion about other videos is possible: {expected}; at least 5 are needed."
        assert write_report(folder).read_text().index(answers.limits) < write_report(folder).read_text().index("<table")


def test_motion_is_claimed_only_if_the_order_of_the_frames_matters(tmp_path):
    frozen = row("bars", "dynamic", "frozen", -2.0, "motion_opposes", comparison="motion")
    shuffled = row("bars", "dynamic", "shuffled", -1.0, "motion_opposes", comparison="motion")
    equal = replace(shuffled, verdict="not significant", p_adjusted=0.4)
    headlines = []
    for i, rows in enumerate(([frozen, equal], [frozen, shuffled])):
        (answers,) = tcav_text.class_answers(open_run_folder(run_folder(tmp_path / str(i), rows)))
        headlines.append(answers.findings[0])
    assert headlines[0][0] == (
        "Dynamic clips of bars lower the score of direction:left compared with their frozen copies."
    )
    assert headlines[0][1].endswith(
        "Frozen copies also lose every other moment, so they alone are no evidence of motion. Moving from the shuffled"
        " clips to the dynamic clips: no significant effect (smallest adjusted p 0.4 in 1 test)."
    )
    assert headlines[1][0] == "The motion in bars lowers the score of direction:left."
    assert (
        "(95 % CI −2.40 to −1.60; adjusted p 0.01; at layers.0) and from the shuffled clips by −1.00 ("
        in (headlines[1][1])
    )


def test_an_uncertain_sign_is_no_finding_but_is_reported(tmp_path):
    rows = [
        row("left", "dynamic", "random", 1.0, "not significant", p_adjusted=0.19),
        row("left", "dynamic", "random", 1.0, "sign uncertain", stage="layers.1", p_adjusted=0.025),
    ]
    run = open_run_folder(run_folder(tmp_path / "a", rows))
    (answers,) = tcav_text.class_answers(run)
    assert answers.no_effect_text == (
        "No finding for any concept (left): smallest adjusted p 0.19 in 1 test; 1 test has adjusted p 0.025 but an"
        " uncertain sign."
    )
    (note,) = [note for note in tcav_limits.trust_notes(run) if "sign uncertain" in note]
    assert note.startswith("Inconclusive: 1 test with the verdict “sign uncertain” (at layers.1)")


def test_inconclusive_tests_are_crosses():
    for verdict, tag in (("not significant", "circle"), ("sign uncertain", "path"), ("supports", "circle")):
        figure = tcav_figures.depth_figure([replace(ROWS[1], verdict=verdict)], "step_effect", "logits")
        marks = [e for e in figure.elements if "left, dynamic vs random" in e]
        assert len(marks) == 1 and marks[0].startswith(f"<{tag}"), verdict


def test_concepts_are_counted_in_words():
    sizes = {("bars", "static"): 25, ("bars", "dynamic"): 25, ("left", "static"): 25, ("left", "dynamic"): 25}
    assert build._describe_concepts(sizes) == "2 concepts: bars, left; 25 static and 25 dynamic clips each"
    assert build._describe_concepts(sizes | {("ring", "dynamic"): 20}) == (
        "3 concepts: bars and left with 25 static and 25 dynamic clips; ring with 20 dynamic clips"
    )


def test_the_page_has_no_scripts_and_no_external_resources(page):
    text = page.read_text()
    assert "<script" not in text and "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text and "@import" not in text and 'src="data:video/mp4;base64,' in text
    assert "&lt;/td&gt;&lt;script&gt;" in text and text.count("<video") == 9
    assert all(source.startswith(("data:", "#")) for source in re.findall(r'(?:src|href|poster)="([^"]*)"', text))


def test_all_tests_and_tables_are_in_the_page(page):
    text = page.read_text()
    link = re.search(r'download="scores.csv" href="data:text/csv;base64,([^"]*)"', text)
    assert link
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(link[1]).decode())))
    assert len(rows) == len(ROWS) and rows[4]["concept"] == NASTY
    assert text.count('<tr class="faint">') >= sum(r.verdict not in FINDINGS for r in ROWS)
    for verdict in {r.verdict for r in ROWS}:
        assert f"<td>{verdict}</td>" in text and f"<dt>{verdict}</dt>" in text


def test_figures_are_valid_svg_files(page):
    written = sorted(path.name for path in (page.parent / "figures").iterdir())
    assert "depth_direction_left_left.svg" in written and "entanglement_layers.0_absolute.svg" in written
    for path in (page.parent / "figures").glob("*.svg"):
        svg = ElementTree.fromstring(path.read_text())
        assert svg.get("aria-label") and "prefers-color-scheme" in path.read_text()
        places = re.findall(r' (?:cx|cy|x|y|width)="([^"%]*)"', path.read_text())
        assert all(-20 <= float(place) <= 2000 for place in places)  # negative ones in groups that are moved


def test_marks_are_at_their_values():
    figure = tcav_figures.depth_figure([ROWS[1]], "step_effect", "logits")
    marks = [e for e in map(ElementTree.fromstring, figure.elements) if e.tag == "circle" and "title" in e[0].tag]
    (mark,) = [m for m in marks if m[0].text and m[0].text.startswith("left, dynamic vs random")]
    texts = [e for e in map(ElementTree.fromstring, figure.elements) if e.tag == "text"]
    labels = {e.text or "": float(e.get("y", 0)) for e in texts}
    ticks = {int(text): y - 4 for text, y in labels.items() if text.isdecimal()}
    per_unit = (ticks[2] - ticks[0]) / 2
    assert float(mark.get("cy", 0)) == pytest.approx(ticks[0] + 4 * per_unit, abs=0.3)
    assert (mark[0].text or "").endswith(
        "4 (95 % CI 3.6 to 4.4), middle 95 % under permuted labels −0.5 to 0.5, adjusted p 0.01, supports"
    )


def test_a_long_class_does_not_hide_the_concept():
    long = replace(ROWS[1], target="catching or throwing baseball")
    for figure in (
        tcav_figures.depth_figure([long], "step_effect", "logits"),
        tcav_figures.static_dynamic_figure([long], "step_effect", "logits"),
    ):
        texts = [e.text for e in map(ElementTree.fromstring, figure.elements) if e.tag == "text"]
        assert "catching or throwing baseball: logits" in texts
        assert {"left", "left (compared with random)"} & set(texts)


def test_effects_have_the_interval_of_the_statistic():
    e = effect_size(ROWS[1], "step_effect")
    assert (e.value, e.low, e.high, e.significant) == (4, pytest.approx(3.6), pytest.approx(4.4), True)
    assert effect_size(ROWS[4], "step_effect").low == pytest.approx(-3.4)
    assert effect_size(ROWS[1], "unit_derivative").value == 2
    assert (
        format_effect(e) == "+4.00 (3.60 to 4.40)"
        and format_number(-0.25) == "−0.25"
        and format_number(NAN) == "unknown"
    )


@pytest.mark.parametrize(("low", "high"), [(-3, 7), (0, 1e-4), (-2e5, 1e6), (0.01, 0.011)])
def test_ticks_are_round_and_inside(low, high):
    ticks = drawing.round_ticks(low, high)
    assert 2 <= len(ticks) <= 6 and all(low <= value <= high for value in ticks)
    assert len({drawing.format_tick(value) for value in ticks}) == len(ticks)


def test_axes_fit_their_numbers_and_empty_bars_are_visible():
    figure = tcav_figures.derivative_profile_figure(ROWS[0], np.full((3, 4), -2.5e-5) * np.arange(1, 5))
    labels = [e for e in figure.elements if 'text-anchor="end">−' in e]
    for label in labels:
        assert float(label.split('x="')[1].split('"')[0]) > 6.5 * len(label.split(">")[1].split("<")[0])
    assert len(labels) > 1 and any("e−05" in label for label in labels)
    bars = tcav_figures.sign_count_figure([replace(ROWS[1], tcav_score=0.0, tcav_score_low=0.0, tcav_score_high=0.0)])
    assert [float(e.split('width="')[1].split('"')[0]) for e in bars.elements if e.startswith("<rect")] == [3.0]


def test_tables_with_other_columns_are_read_or_refused(tmp_path):
    folder = run_folder(tmp_path / "a")
    path = folder / "scores.csv"
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*lines[0], "steering"])
        writer.writeheader()
        writer.writerows({**line, "steering": "1"} for line in lines)
    assert len(open_run_folder(folder).score_rows) == len(ROWS)
    path.write_text("target,stage\na,b\n")
    with pytest.raises(ValueError, match=r"scores.csv has no column concept, clip_type"):
        write_report(folder)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*run.json"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run.json is damaged"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text('{"request": {"task": "motion"}}')
    with pytest.raises(ValueError, match="no results that a page can show"):
        write_report(tmp_path)


def test_comparison_of_runs(tmp_path):
    changed = [
        replace(ROWS[1], relative_derivative=0.9, relative_derivative_low=0.8, relative_derivative_high=0.95),
        ROWS[0],
        ROWS[2],
    ]
    folders = [run_folder(tmp_path / "seed 0"), run_folder(tmp_path / "seed 1", changed)]
    page = write_comparison(folders)
    text = page.read_text()
    assert "Difference: seed 0 − seed 1" in text and "1 of 2 differences have a 95 % interval without 0" in text
    assert "1 other difference cannot be interpreted" in text
    assert "<td>−0.5</td>" in text and "seed 0: 5 tests at pool, layers.0" in text
    assert "it raises the score in both runs; significant contribution of its motion in both runs; 1 of 2" in text
    difference = comparison_page.score_difference(comparison_page.ScoreKey(*"abcde"), ("a", "b"), ROWS[1], changed[0])
    assert difference.low == pytest.approx(-0.5 - math.hypot(0.05, 0.05)) and difference.high == pytest.approx(
        -0.5 + math.hypot(0.05, 0.1)
    )
    link = re.search(r'download="differences.csv" href="data:text/csv;base64,([^"]*)"', text)
    assert link
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(link[1]).decode())))
    assert [row["cannot_tell"] for row in rows] == ["not encoded", "", ""] and rows[1]["left"] == "seed 0"
    assert float(rows[1]["difference"]) == pytest.approx(-0.5)
    other = run_folder(tmp_path / "other", [replace(r, stage="features") for r in ROWS])
    with pytest.raises(ValueError, match="no class, stage and concept in common"):
        write_comparison([folders[0], other])


def test_differences_of_inconclusive_tests_are_never_significant():
    far = replace(ROWS[0], relative_derivative=0.9, relative_derivative_low=0.88, relative_derivative_high=0.92)
    difference = comparison_page.score_difference(comparison_page.ScoreKey(*"abcde"), ("a", "b"), far, ROWS[1])
    assert difference.low > 0 and not difference.significant and difference.inconclusive_verdict == "not encoded"


def test_runs_that_disagree_are_named(tmp_path):
    turned = [
        replace(r, step_effect=-r.step_effect, derivative=-r.derivative, relative_derivative=-r.relative_derivative)
        for r in ROWS
        if r.comparison == "absolute"
    ]
    folders = [run_folder(tmp_path / "a"), run_folder(tmp_path / "b", turned)]
    nothing = [replace(r, verdict="not significant") for r in ROWS]
    text = write_comparison(folders).read_text()
    assert (
        "it raises the score in a, it lowers the score in b; no significant contribution of its motion in any" in text
    )
    assert "<strong>No significant effect in any test that all runs have:</strong> ring for direction:left." in text
    text = write_comparison([folders[0], run_folder(tmp_path / "c", nothing)]).read_text()
    assert (
        "it raises the score in a, no significant effect in c; significant contribution of its motion in a only" in text
    )


def test_stages_with_different_names_are_matched_by_depth_with_a_note(tmp_path):
    swin, cnn = [f"layers.{i}" for i in range(5)], ["convs.0", "convs.1", "convs.2"]
    deep = [stage_matching.relative_depths(swin), stage_matching.relative_depths(cnn)]
    assert deep[1] == {"convs.0": 0, "convs.1": 0.5, "convs.2": 1}
    assert stage_matching.match_stages(["layers.0", "layers.2"], ["convs.1", "convs.2"], (deep[0], deep[1])) == {
        "layers.2": "convs.1"
    }
    assert stage_matching.match_stages(["layers.3", "layers.4"], cnn, (deep[0], deep[1])) == {
        "layers.4": "convs.2",
        "layers.3": "convs.1",
    }
    assert (
        stage_matching.match_stages(["layers.1"], ["layers.2"], (deep[0], deep[0])) == {}
    )  # two stages of one network
    assert stage_matching.match_stages(["layers.1", "a"], ["a", "b"], ({}, {})) == {"a": "a"}
    folders = [
        run_folder(tmp_path / "swin"),
        run_folder(tmp_path / "cnn", [replace(r, stage="convs.0") for r in ROWS[:3]]),
    ]
    for folder, stages in zip(folders, (swin, cnn)):
        run_info = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(run_info | {"network_stages": stages}))
    text = write_comparison(folders).read_text()
    assert "layers.0 / convs.0. This correspondence is an assumption." in text
    assert "(swin, cnn):" in text and "it raises the score in both" in text


def test_sheets_and_animations():
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (5, 32, 32, 3), np.uint8)
    assert np.array_equal(previews.scale_to_preview(small)[:, 1::3, 1::3], small)
    assert previews.scale_to_preview(random.integers(0, 256, (2, 50, 30, 3), np.uint8)).shape == (2, 96, 96, 3)
    cells = [previews.scale_to_preview(small), previews.scale_to_preview(small)[:2]]
    both = previews.tile_clips(cells)
    assert both.shape == (5, 96, 196, 3) and np.array_equal(both[4, :, 100:], cells[1][1])
    assert previews.tile_clips(cells * 4).shape == (5, 196, 596, 3)
    import av

    film = encode_mp4(random.integers(0, 256, (9, 33, 47, 3), np.uint8), 6)
    with av.open(io.BytesIO(film), "r") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 9 and frames[0].shape == (34, 48, 3)
        assert container.streams.video[0].codec_context.name == "h264"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_the_page_works_in_a_browser(browser, page, width, scheme):
    view = open_page(browser, page, width, scheme)
    assert animations_play(view, "#concepts")
    assert download_text(view, "scores.csv").startswith("target,")
