"""The command line as a user types it."""

import csv
import re
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

import main as main_module
from vtcav_jax import models

ROOT = __file__.rsplit("/tests/", 1)[0]


def main(*arguments, code=0):
    run = subprocess.run(
        [sys.executable, "main.py", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    return run.stdout if code == 0 else run.stdout + run.stderr


def test_stages_of_a_large_network():
    text = main("--task=stages", "--model=video_swin_b_k400")
    assert "88,048,984 parameters, 400 classes" in text
    rows = {line.split()[0]: line for line in text.splitlines()[4:]}
    model, _ = models.abstract("video_swin_b_k400")
    assert tuple(rows) == model.stages
    assert re.search(r"16 x 14 x 14 x 512 +1,605,632 +612.50 MiB", rows["layers.2"])


def test_predict_writes_what_it_prints(tmp_path):
    clips = np.random.default_rng(0).integers(0, 256, (3, 8, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    geometry = models.PRESETS["video_swin_tiny"].geometry
    np.save(tmp_path / "floats.npy", geometry.normalised(clips))
    common = ["--task=predict", "--model=video_swin_tiny", "--random_weights", "--batch_size=2"]
    text = main(*common, f"--clips={tmp_path / 'clips.npy'}", f"--out={tmp_path / 'top.csv'}")
    with open(tmp_path / "top.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [line.split() for line in text.splitlines()] == rows
    assert len(rows) == 1 + 3 * 4
    for clip in range(3):
        assert sum(float(row[5]) for row in rows[1:] if row[0] == str(clip)) == pytest.approx(1, abs=1e-3)
    assert main(*common, f"--clips={tmp_path / 'floats.npy'}") == text


def test_a_flagfile_is_a_command():
    assert "layers.0.downsample" in main("--flagfile=flagfiles/quickstart.flags")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--task=stages", "--model=video_swin_b_k40"],
            "no network named 'video_swin_b_k40' (did you mean video_swin_b_k400",
        ),
        (["--task=stage", "--model=x"], "no task named 'stage' (did you mean stages?)"),
        (["--task=stages"], "--model is missing"),
        (["--modell=x"], "Did you mean: model"),
        (["--task=stages", "--model=video_swin_tiny", "extra"], "unexpected ['extra']"),
        (["--task=predict", "--model=video_swin_tiny", "--clips=CLIPS"], "a network without weights"),
        (["--task=predict", "--model=video_swin_tiny"], "needs --videos=WHERE, or --clips"),
        (["--task=predict", "--model=video_swin_tiny", "--clips=no.npy"], "there is no file no.npy"),
        (["--task=predict", "--model=video_swin_tiny", "--clips=README.md"], "README.md is not a .npy array"),
        (["--task=predict", "--model=video_swin_tiny", "--clips=FLAT"], "expected clips (b, t, h, w, 3)"),
        (["--task=predict", "--model=video_swin_tiny", "--clips=INTS"], "expected uint8 (0..255) or float32"),
        (
            ["--task=predict", "--model=tests", "--clips=CLIPS"],
            "tests is not a network that was converted or trained: model.json is missing",
        ),
        (["--task=predict", "--model=tiny.safetensors", "--clips=CLIPS"], "nor is there such a path"),
        (["--task=explain", "--model=worlds_cnn"], "needs --videos=WHERE and --run=NAME"),
        (["--task=explain", "--model=worlds_cnn", "--videos=worlds:small:1", "--run=x", "--methods=cams"], "(did you"),
        (["--task=motion", "--model=worlds_cnn", "--videos=worlds:small:1", "--run=x", "--targets=up"], "no target"),
        (["--task=motion", "--model=worlds_cnn", "--videos=v", "--run=x", "--methods=cam,gradcam"], "takes one"),
    ],
)
def test_errors_are_one_sentence(tmp_path, arguments, message):
    np.save(tmp_path / "CLIPS.npy", np.zeros((1, 8, 32, 32, 3), np.uint8))
    np.save(tmp_path / "FLAT.npy", np.zeros((8, 32, 32, 3), np.uint8))
    np.save(tmp_path / "INTS.npy", np.zeros((1, 8, 32, 32, 3), np.int64))
    arguments = [re.sub(r"=([A-Z]+)$", rf"={tmp_path}/\1.npy", a) for a in arguments]
    text = main(*arguments, code=1)
    assert message in text


def test_every_flag_is_in_the_help_and_explained():
    text = main("--help", code=1)
    own = flags.FLAGS.flags_by_module_dict()[main_module.__name__]
    assert {flag.name for flag in own} >= {
        "task",
        "model",
        "clips",
        "batch_size",
        "top",
        "out",
        "seed",
        "random_weights",
    }
    for flag in own:
        assert flag.help and re.search(rf"--(\[no\])?{flag.name}:", text), flag.name
    for task in main_module.TASKS:
        assert f"--task={task}" in text
