"""`vtcav evaluate`: numbers, views, missing videos, interruption, changed videos, and its page."""

import csv
import json
import shutil

import numpy as np
import pytest

from tests.support.cli_runner import run_cli, stop_cli_server
from vtcav_jax import models
from vtcav_jax.accuracy.stored_predictions import load_prediction
from vtcav_jax.accuracy.views import plan_views
from vtcav_jax.data import SamplingConfig, open_source
from vtcav_jax.runs.accuracy_rows import AccuracyRow, ClassAccuracyRow, VideoPredictionRow
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.training.evaluate import predict_source

N = 24


@pytest.fixture(scope="module", autouse=True)
def _ends():
    yield
    stop_cli_server()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Write synthetic clips as files, with a manifest of their labels."""
    folder = tmp_path_factory.mktemp("worlds") / "clips"
    code, _, err = run_cli("render_world", f"--videos=worlds:small:{N}:7", f"--out={folder}")
    assert code == 0, err
    return folder


def manifest_rows(clips):
    with (clips / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_manifest(file, rows):
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def evaluate(folder, videos, *flags, code=0):
    arguments = ("evaluate", "--model=worlds_cnn", f"--videos={videos}", f"--run={folder}", "--num_workers=0", *flags)
    ended_with, out, err = run_cli(*arguments)
    assert ended_with == code, err
    return out if code == 0 else out + err


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "all"
    return folder, evaluate(folder, clips / "manifest.csv")


def test_the_tables_agree_with_the_predictions(run, clips):
    folder, out = run
    network, source = models.load("worlds_cnn"), open_source(clips / "manifest.csv")
    results = predict_source(network, source, 8, SamplingConfig(normalise=False), num_workers=0)
    predicted = [p for _, p in results if p is not None]
    rows = read_rows(folder / "video_predictions.csv", VideoPredictionRow)
    accuracies = {(row.head, row.measure): row for row in read_rows(folder / "accuracy.csv", AccuracyRow)}
    is_right = {}
    for head, part in network.head_slices.items():
        names = network.heads[head]
        of_head = [row for row in rows if row.head == head]
        assert [row.predicted_class for row in of_head] == [names[p[part].argmax()] for p in predicted]
        assert [row.true_class for row in of_head] == [row[f"label:{head}"] for row in manifest_rows(clips)]
        is_right[head] = [row.true_class == row.predicted_class for row in of_head]
        assert accuracies[head, "top-1"].value == np.mean(is_right[head])
        assert f"{100 * np.mean(is_right[head]):.1f} (" in out
        classes = read_rows(folder / "class_accuracy.csv", ClassAccuracyRow)
        assert sum(row.n_clips for row in classes if row.head == head) == N
    joint = accuracies[" + ".join(network.heads), "top-1"]
    assert joint.value == np.mean(np.all(list(is_right.values()), 0)) and joint.n_clips == N
    assert "Views: 1 clip x 1 crop per video" in out


def test_the_page_has_the_numbers_and_a_figure_per_head(run):
    folder, out = run
    page = (folder / "report/index.html").read_text()
    assert "all: accuracy of worlds_cnn" in page and "Report page:" in out
    for head in models.load("worlds_cnn").heads:
        assert f"{head}: confusion matrix of" in page
        assert (folder / f"report/figures/confusion_{head}.svg").is_file()
    assert "random weights" not in page
    assert "1 clips" not in page and "1 classs" not in page


@pytest.mark.slow
def test_an_interrupted_run_continues_and_changed_videos_are_predicted_again(clips, tmp_path):
    videos = tmp_path / "clips"
    shutil.copytree(clips, videos)
    folder = tmp_path / "run"
    evaluate(folder, videos / "manifest.csv")
    files = sorted((folder / "predictions").iterdir())
    assert len(files) == N
    before = {name: (folder / name).read_bytes() for name in ("accuracy.csv", "video_predictions.csv")}
    times = {path: path.stat().st_mtime_ns for path in files}
    files[3].unlink()
    files[5].write_bytes(files[5].read_bytes()[:-40])
    swapped = sorted(videos.glob("*.mp4"))[9]
    content = swapped.read_bytes()
    swapped.write_bytes(sorted(videos.glob("*.mp4"))[10].read_bytes())
    out = evaluate(folder, videos / "manifest.csv")
    assert "is damaged or incomplete; computed again" in out and "whose files have changed since" in out
    assert sum(path.stat().st_mtime_ns != times[path] for path in files) == 3
    np.testing.assert_allclose(load_prediction(files[9]), load_prediction(files[10]), atol=1e-5)
    swapped.write_bytes(content)
    evaluate(folder, videos / "manifest.csv")
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert "holds a different run (views was [1, 1], is [2, 1]" in evaluate(
        folder, videos / "manifest.csv", "--views=2x1", code=1
    )


def test_missing_videos_are_counted_and_foreign_classes_left_out(clips, tmp_path):
    rows = [
        {"path": str(clips / row["path"]), "label:shape": row["label:shape"].upper(), "label:unused": "x"}
        for row in manifest_rows(clips)
    ]
    rows[0]["path"], rows[1]["label:shape"], rows[2]["label:shape"] = "missing.mp4", "rings", "Rings"
    write_manifest(tmp_path / "videos.csv", rows)
    out = evaluate(tmp_path / "run", tmp_path / "videos.csv")
    accuracies = read_rows(tmp_path / "run/accuracy.csv", AccuracyRow)
    assert {(row.head, row.n_clips) for row in accuracies} == {("shape", N - 3)}
    assert "1 file could not be read" in out
    assert "no counterpart of 2 classes of the videos: Rings (near: ring), rings (near: ring); 2 videos left out" in out
    page = (tmp_path / "run/report/index.html").read_text()
    assert (
        "1 video could not be read" in page and "no counterpart of 2 classes of the videos; labels left out: 2." in page
    )
    failures = (tmp_path / "run/evaluate_failures.csv").read_text().splitlines()
    assert len(failures) == 2 and failures[1].startswith("missing.mp4,")


def test_random_weights_are_named_on_the_page(tmp_path):
    folder = tmp_path / "run"
    arguments = ("evaluate", "--model=small_cnn", "--random_weights", "--videos=worlds:small:6:1", f"--run={folder}")
    labels = tmp_path / "labels.txt"
    labels.write_text("plus\nring\nx\nbars\n")
    code, _, err = run_cli(*arguments, f"--labels={labels}", "--num_workers=0")
    assert code == 0 and "random weights" in err, err
    page = (folder / "report/index.html").read_text()
    assert "weights are random. These results" in page and "small_cnn, random weights" in page
    assert json.loads((folder / "run.json").read_text())["request"]["random_weights"] is True


@pytest.mark.parametrize(
    ("videos", "flags", "message"),
    [
        ("worlds:small:2", ["--views=4x2"], "--views: expected paper, centre, or CLIPSxCROPS"),
        ("worlds:small:2", ["--views=0x1"], "--views: expected paper, centre, or CLIPSxCROPS"),
        ("CLIP", [], "--videos: the videos have no labels; expected class folders"),
    ],
)
def test_faulty_requests_are_refused_before_anything_is_predicted(clips, tmp_path, videos, flags, message):
    videos = sorted(clips.glob("*.mp4"))[0] if videos == "CLIP" else videos
    assert message in evaluate(tmp_path / "run", videos, *flags, code=1)
    assert not (tmp_path / "run").exists()


def test_a_label_tree_orders_the_figure(clips, tmp_path):
    tree = tmp_path / "tree.txt"
    tree.write_text("horizontal\n  direction:left\n  direction:right\nvertical\n  direction:up\n  direction:down\n")
    evaluate(tmp_path / "run", clips / "manifest.csv", f"--label_tree={tree}")
    rows = read_rows(tmp_path / "run/class_accuracy.csv", ClassAccuracyRow)
    assert {row.class_name: row.group for row in rows if row.head == "direction"} == {
        **dict.fromkeys(("left", "right"), "horizontal"),
        **dict.fromkeys(("up", "down"), "vertical"),
    }
    page = (tmp_path / "run/report/index.html").read_text()
    assert "direction, groups: confusion matrix of 2 classes" in page and "in the order of the label tree" in page


def network_of(preset):
    return models.Network(
        lambda video, tap: video, models.get_preset(preset).clip_spec, {"label": ("a",)}, preset=preset
    )


def test_views_of_papers_and_of_requests():
    plan = plan_views("paper", network_of("video_swin_t_k400"))
    assert (plan.clips, plan.crops) == (4, 3) and "Liu et al. (2021)" in plan.origin
    sampling = plan.sampling(0.1)
    assert (sampling.clips_per_video, sampling.views, sampling.normalise) == (4, "three_crop", False)
    assert sampling.interval_seconds == 0.1
    for text, numbers in (("centre", (1, 1)), ("10x3", (10, 3)), ("5×1", (5, 1))):
        plan = plan_views(text, network_of("video_swin_t_k400"))
        assert (plan.clips, plan.crops) == numbers
    plan = plan_views("allx3", network_of("c3d"))
    assert (
        plan.sampling().consecutive
        and plan.sampling().views == "three_crop"
        and "all consecutive clips x 3" in str(plan)
    )
    with pytest.raises(ValueError, match="spread over the whole video; pass a number of clips"):
        plan_views("allx1", network_of("video_swin_b_ssv2"))
    plan = plan_views("paper", network_of("small_cnn"))
    assert (plan.clips, plan.crops) == (1, 1) and "no number of clips and crops is known" in str(plan)
    assert str(plan_views("4x3", network_of("small_cnn"))) == "4 clips x 3 crops per video (as requested)"


def test_presets_name_who_says_the_number_of_views():
    plans = {name: preset.test_views for name, preset in models.PRESETS.items() if preset.test_views}
    assert len(plans) >= 20 and all("et al. (" in views.origin for views in plans.values())
    assert {views.crops for views in plans.values()} == {1, 3} and plans["resnet3d_50"].clips == 0
    assert plans["videomae_b_ssv2"].clips == 2 and plans["mvit_v2_s"].clips == 5 and plans["r2plus1d_18"].clips == 10
