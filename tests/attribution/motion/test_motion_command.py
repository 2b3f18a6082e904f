"""Motion parts of several methods by `vtcav motion`: tables, arrays, animations and continued runs."""

import csv
import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.cli_runner import command_context
from vtcav_jax import attribution, models
from vtcav_jax.attribution.motion import map_split, reliance
from vtcav_jax.attribution.motion.measure import measure_motion
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.cli.commands.motion import MotionArguments, measure_motion_reliance
from vtcav_jax.cli.motion_examples import select_examples
from vtcav_jax.data import SamplingConfig, open_source
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.report.build import write_comparison
from vtcav_jax.runs.attribution_rows import ClipMotionRow
from vtcav_jax.stats import intervals

WORLD, N_CLIPS = "worlds:small:5:3", 5
METHODS = ("gradient_x_input", "gradcam@convs.1")


def run_motion(folder, **overrides):
    settings: dict[str, Any] = dict(model="worlds_cnn", videos=WORLD, run=folder, num_workers=0, examples=2)
    config = reliance.MotionConfig(
        methods=METHODS, shuffles=2, compare_optical_flow=True, motion_thresholds=(0.0, 1.0, 2.5)
    )
    settings |= dict(targets=("direction", "scene"), config=config)
    measure_motion_reliance(MotionArguments(**settings | overrides), command_context())
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_motion(tmp_path_factory.mktemp("runs") / "motion")


@pytest.mark.slow
def test_each_method_has_rows_that_match_its_map(run):
    rows = table(run / "motion_maps.csv")
    assert len(rows) == N_CLIPS * 2 * 2 * 3
    source, cnn = open_source(WORLD), models.load("worlds_cnn")
    read = source.read(2, models.PRESETS["small_cnn"].clip_spec, SamplingConfig())
    answer = 4 + int(np.asarray(cnn.model(jnp.asarray(read.video)))[0, 4:8].argmax())
    assert isinstance(source, WorldSource)
    clips = source.render(2)
    now = np.pad(clips.masks["key"] | clips.masks["dis"], ((0, 0), (1, 1), (0, 0), (0, 0)))
    moving = now[:, :-2] | now[:, 1:-1] | now[:, 2:]
    for method, stage in (("gradient_x_input", None), ("gradcam", "convs.1")):
        map_ = attribution.attribute(cnn.model, read.video, attribution.Margin(answer, (4, 8)), method, stage).map
        for threshold_sd in (0.0, 1.0, 2.5):
            (row,) = [
                r
                for r in rows
                if (r["clip"], r["target"], r["method"]) == (source.items[2].name, "direction", method)
                and float(r["threshold_sd"]) == threshold_sd
            ]
            split = map_split.split_by_motion(map_, threshold_sd)
            assert row["answer"] == cnn.labels[answer] and row["stage"] == (stage or "video")
            assert float(row["motion_share"]) == pytest.approx(float(split.motion_share[0]), rel=1e-2)
            assert float(row["area"]) == pytest.approx(float(split.area[0]), rel=1e-2)
            assert float(row["flow_area"]) == pytest.approx(moving.mean(), rel=1e-5)
            if method == "gradient_x_input":
                expected = moving[split.mask].mean()
                assert float(row["flow_precision"]) == pytest.approx(expected, rel=1e-2)


@pytest.mark.slow
def test_means_and_paired_differences_have_intervals_over_videos(run):
    rows, means = table(run / "motion_maps.csv"), table(run / "motion_map_means.csv")
    subset = [
        r
        for r in rows
        if (r["target"], r["method"], float(r["threshold_sd"])) == ("direction", "gradient_x_input", 1.0)
    ]
    gains = np.array([float(r["flow_precision"]) - float(r["flow_precision_map"]) for r in subset])
    (mean,) = [
        r
        for r in means
        if (r["target"], r["answer"], r["method"], r["measure"])
        == ("direction", "", "gradient_x_input", "flow_precision_gain")
        and float(r["threshold_sd"]) == 1.0
    ]
    expected = intervals.mean_ci(gains, units=[r["source_video"] for r in subset])
    assert [float(mean[name]) for name in ("mean", "low", "high")] == pytest.approx(expected)
    assert (mean["n_clips"], mean["n_videos"]) == ("5", "5")
    by_class = {r["answer"] for r in means if r["target"] == "direction" and float(r["threshold_sd"]) == 1.0}
    assert by_class == {"", *(r["answer"] for r in subset)}
    assert {r["answer"] for r in means if float(r["threshold_sd"]) == 2.5} == {""}
    first = {(r["clip"], r["target"]): r for r in rows if r["method"] == METHODS[0] and float(r["threshold_sd"]) == 1}
    for clip in table(run / "motion.csv"):
        row = first[clip["clip"], clip["target"]]
        assert clip["method"] == METHODS[0] and float(clip["changing_mass"]) == float(row["motion_share"])


@pytest.mark.slow
def test_examples_have_arrays_and_animations_of_both_parts(run):
    files = [row["parts_file"] for row in table(run / "motion.csv") if row["parts_file"]]
    assert len(files) == 2 * 2
    for file in files:
        with np.load(run / file, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            assert [(m["method"], m["stage"]) for m in about["maps"]] == [
                ("gradient_x_input", "video"),
                ("gradcam", "convs.1"),
            ]
            assert about["variant"] == "absolute" and about["threshold_sd"] == 1.0
            for name in ("gradient_x_input-video", "gradcam-convs.1"):
                full, motion, static = (arrays[f"{part}-{name}"] for part in ("map", "motion", "static"))
                np.testing.assert_array_equal(motion + static, full)
                assert np.abs(motion).max() > 0 and np.abs(static).max() > 0
        assert (run / file).with_suffix(".webp").read_bytes()[:4] == b"RIFF"
    text = (run / "report" / "index.html").read_text()
    assert text.count('<figure class="film">') == 4 and "known since the clips are" in text
    assert text.count("gradcam at convs.1:</strong> over 5 clips of 5 source videos, the motion part has") == 2
    assert "At equal area, " in text


@pytest.mark.slow
def test_an_interrupted_run_continues_and_a_different_one_is_refused(run):
    before = {path: path.stat().st_mtime_ns for path in (run / "motion_parts").glob("*.npz")}
    rows = (run / "motion_maps.csv").read_text()
    victims = next(iter(before)), sorted((run / "clips").glob("*.json"))[3]
    for victim in victims:
        victim.unlink()
    run_motion(run)
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} == {victims[0]}
    assert (run / "motion_maps.csv").read_text() == rows
    with pytest.raises(ValueError, match=r"holds a different run.*motion_variant was 'absolute', is 'd_dtd'"):
        run_motion(run, config=reliance.MotionConfig(methods=METHODS, shuffles=2, motion_variant="d_dtd"))


@pytest.mark.slow
def test_the_sensitivity_of_layers_to_time_is_in_a_table_and_on_pages(run, tmp_path):
    rows = table(run / "time_sensitivity.csv")
    assert [row["stage"] for row in rows if (row["channel"], row["target"], row["answer"]) == ("-1", "direction", "")][
        ::3
    ] == [
        *("video", "convs.0", "convs.1", "convs.2", "pool"),
    ]
    assert {row["n_videos"] for row in rows if not row["answer"]} == {str(N_CLIPS)}
    page = (run / "report" / "index.html").read_text()
    assert "Sensitivity to time by layer" in page and page.count("shuffling the input costs") == 2
    assert "Channels that carry the score" in page
    compared = write_comparison([run, run], tmp_path / "compared").read_text()
    assert compared.count("shuffling the input costs") == 4


@pytest.mark.slow
def test_few_videos_have_no_sensitivity_to_time(tmp_path):
    folder = run_motion(tmp_path / "run", videos="worlds:small:1:3", examples=0)
    assert not (folder / "time_sensitivity.csv").exists()
    assert "Sensitivity to time" not in (folder / "report" / "index.html").read_text()


@pytest.mark.slow
def test_d_dtd_of_deep_taylor_relevance_with_mp4_animations(tmp_path):
    config = reliance.MotionConfig(methods=("deep_taylor",), shuffles=1, motion_variant="d_dtd")
    folder = run_motion(
        tmp_path / "run", config=config, videos="worlds:small:2:3", targets=("shape",), animations="mp4"
    )
    assert len(list((folder / "motion_parts").glob("*.mp4"))) == 2 == len(list((folder / "motion_parts").glob("*.jpg")))
    rows = table(folder / "motion_maps.csv")
    assert {float(row["frozen_share"]) for row in rows} == {0.0}
    assert "a clip that repeats this frame" in (folder / "report" / "index.html").read_text()


def test_examples_are_spread_over_the_predicted_classes():
    fields = ClipMotionRow.__dataclass_fields__.values()
    values: dict[str, Any] = {field.name: "" if field.type is str else 0.0 for field in fields}
    rows = [
        (i, ClipMotionRow(**{**values, "clip": str(i), "clip_index": window, "answer": answer}))
        for i, answer in enumerate("aaabca")
        for window in range(2)
    ]
    assert [i for i, _ in select_examples(rows, 4)] == [0, 3, 4, 1]
    assert {row.clip_index for _, row in select_examples(rows, 4)} == {0} and select_examples(rows, 0) == []


def test_methods_without_a_motion_part_are_refused_before_any_work():
    cnn = models.load("worlds_cnn")
    specs = parse_targets(cnn, ["shape"])
    with pytest.raises(ValueError, match=r"expected_gradients requires references="):
        reliance.resolve_motion_methods(cnn, reliance.MotionConfig(methods=("expected_gradients",)), specs)
    with pytest.raises(ValueError, match=r"motion_thresholds: expected numbers of at least 0, got -1"):
        reliance.MotionConfig(motion_thresholds=(-1.0,))
    assert reliance.MotionConfig(motion_threshold_sd=1.5).all_thresholds == (0.0, 1.0, 1.5, 2.0, 3.0, 4.0)


def test_each_clip_has_the_prediction_and_its_probability_beside_the_explained_class():
    """One class, a comparison of two, a head, and a channel, which has no prediction."""
    network, world = models.load("worlds_cnn"), "worlds:small:6:46"
    targets = ["direction:left", "direction:left vs direction:up", "direction", "convs.1#3"]
    results = measure_motion(network, world, targets, reliance.MotionConfig(shuffles=1), num_workers=0)
    source = open_source(world)
    videos = [source.read(i, network.clip_spec, SamplingConfig()).video for i in range(6)]
    logits = np.asarray(network.model(jnp.asarray(np.concatenate(videos))), np.float64)[:, 4:8]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predicted = [network.labels[4 + i] for i in logits.argmax(1)]
    assert len(set(predicted)) > 1
    for target in targets:
        rows = [row for row in results.clips if row.target == target]
        if target == "convs.1#3":
            assert all(row.prediction == "" and np.isnan(row.probability) for row in rows) and len(rows) == 6
            continue
        assert [row.prediction for row in rows] == predicted
        assert [row.probability for row in rows] == pytest.approx(shares.max(1).tolist(), rel=1e-3)
    assert {row.answer for row in results.clips if row.target == "direction:left"} == {"direction:left"}


def test_examples_of_one_class_are_spread_over_the_predictions():
    fields = ClipMotionRow.__dataclass_fields__.values()
    values: dict[str, Any] = {field.name: "" if field.type is str else 0.0 for field in fields}
    values["clip_index"] = 0
    rows = [(i, ClipMotionRow(**dict(values, answer="a", prediction=name))) for i, name in enumerate("aaabca")]
    assert [i for i, _ in select_examples(rows, 4)] == [0, 3, 4, 1]
