"""Tests that four devices or two processes give the same table as one device, and of out-of-memory errors."""

import csv
import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.support.devices import device_environment
from tests.support.planted_experiment import CLIPS, QUICK, TARGETS, run_experiment
from vtcav_jax import distributed
from vtcav_jax.tcav.features import encode as feature_encoding

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import jax
from vtcav_jax import distributed
clip_folder, run, processes, process, port = sys.argv[1:]
if int(processes) > 1:
    distributed.connect(f"localhost:{port}", int(processes), int(process))
from tests.support import planted_experiment as t
run = Path(run)
config = replace(t.QUICK, export_vectors=True, steering_clips=6, steering_controls=3)
results = t.run_experiment(Path(clip_folder), run, config)
print(jax.device_count(), len(results.rows), results.passes.forwards, results.passes.backwards)
"""
EXACT = [
    "target",
    "stage",
    "concept",
    "clip_type",
    "negatives",
    "n_clips",
    "verdict",
    "comparison",
    "n_concept",
    "n_negatives",
    "n_random_sets",
    "n_ties",
    "degenerate",
    "zero_gradient",
]
P = ("p", "p_adjusted", "p_step", "p_unit", "p_sign_count", "auc_p")


def started(folder: Path, run: Path, processes=1, process=0, port=0, devices=1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, *map(str, (folder, run, processes, process, port))]
    env = device_environment(devices)
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def last_words(*running: subprocess.Popen[str]) -> list[list[str]]:
    outputs = [process.communicate(timeout=500) for process in running]
    assert all(process.returncode == 0 for process in running), outputs
    return [out.splitlines()[-1].split() for out, _ in outputs]  # earlier lines are gloo's


def rows(folder, name="scores.csv"):
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_table(ours, theirs):
    """Require equal derivatives up to 1e-5 of the largest; a few permutations may be counted differently.

    Contrasts are differences of float32 products, and interval bounds sums of changes without each video: rounding is
    larger there.
    """
    assert len(ours) == len(theirs) > 0
    largest = max(abs(float(row["derivative"])) for row in theirs)
    columns = ("tcav_score", "derivative", "single_set_min", "single_set_max")
    bounds = ("derivative_low", "derivative_high", "step_effect_low", "step_effect_high")
    for row, other in zip(ours, theirs):
        assert [row[name] for name in EXACT] == [other[name] for name in EXACT]
        for name in columns:
            rtol = 1e-3 if row["comparison"] == "motion" else 1e-4
            np.testing.assert_allclose(float(row[name]), float(other[name]), rtol=rtol, atol=1e-5 * largest)
        for name in bounds:
            np.testing.assert_allclose(float(row[name]), float(other[name]), rtol=1e-3, atol=1e-3 * largest)
        if other["degenerate"] == "False" and other["verdict"] != "no derivative":
            for name in P:
                np.testing.assert_allclose(float(row[name]), float(other[name]), atol=0.1 if "adj" in name else 0.01)


@pytest.mark.slow
def test_four_devices_give_the_table_of_one(clip_folder, tmp_path):
    single = started(clip_folder, tmp_path / "one/run")
    four = started(clip_folder, tmp_path / "four/run", devices=4)
    words = last_words(single, four)
    assert [line[0] for line in words] == ["1", "4"] and words[0][1:] == words[1][1:]
    assert_same_table(rows(tmp_path / "four/run"), rows(tmp_path / "one/run"))
    for name in ("quality.csv", "steering.csv"):
        assert len(rows(tmp_path / "four/run", name)) == len(rows(tmp_path / "one/run", name)) > 0


@pytest.mark.slow
def test_two_processes_share_the_work_and_give_the_table_of_one(clip_folder, finished, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = last_words(*(started(clip_folder, tmp_path / "two/run", 2, process, port) for process in range(2)))
    assert words[0] == words[1]  # both return all results and the total passes
    run_info = json.loads((tmp_path / "two/run/run.json").read_text())
    assert run_info["work"]["forwards"] == int(words[0][2]) > CLIPS + TARGETS  # includes steering
    assert words[0][0] == "2" and run_info["work"]["backwards"] == TARGETS
    assert_same_table(rows(tmp_path / "two/run"), rows(finished.folder))
    names = {path.name for path in (tmp_path / "two/run").iterdir()}
    assert names == {path.name for path in finished.folder.iterdir()} | {"steering.csv"}


def test_one_process_is_the_first_and_has_all_the_work():
    assert (
        distributed.is_main_process()
        and distributed.local_share([3, 1, 2]) == [3, 1, 2]
        and distributed.all_gather("a") == ["a"]
    )
    total = distributed.sum_parts(3, lambda i: {"x": np.array([10.0**i, i])})
    np.testing.assert_array_equal(total["x"], [111, 3])
    assert list(distributed.work_rounds(lambda: [5, 7], lambda item: False)) == [[5, 7]]
    assert list(distributed.ordered_results([5, 7], lambda items: (i * 2 for i in items))) == [10, 14]
    with pytest.raises(ValueError, match="nothing is here"):
        distributed.main_process_first(lambda: (_ for _ in ()).throw(ValueError("nothing is here")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 2, None), "--num_processes=2 requires --coordinator"),
        (("localhost", 2, 0), "expected HOST:PORT of process 0 with a port"),
        (("localhost:0", 2, 0), "with a port of 1 to 65535"),
        (("localhost:70000", 2, 0), "with a port of 1 to 65535"),
        (("localhost:7000", 2, 2), "process_id: expected 0 to 1, since --num_processes is 2, got 2"),
        (("auto", None, None), "connect the processes before any other use of it"),
    ],
)
def test_invalid_coordinator_arguments_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        distributed.connect(*arguments)


@pytest.mark.slow
def test_a_run_continues_with_half_the_batch_when_memory_runs_out(clip_folder, tmp_path, monkeypatch, capsys):
    config = replace(QUICK, stages=("pool",), comparisons=("absolute",), calibration_trials=0, batch_size=8)
    usual = run_experiment(clip_folder, tmp_path / "usual/run", config, ("red",))
    sizes = []

    def limited(real):
        def run(model, video, *more, **static):
            sizes.append(len(video))
            if len(video) > 3:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
            return real(model, video, *more, **static)

        return run

    for name in ("_activations", "_gradients"):
        monkeypatch.setattr(feature_encoding, name, limited(getattr(feature_encoding, name)))
    small = run_experiment(clip_folder, tmp_path / "small/run", config, ("red",))
    assert set(sizes) == {8, 6, 4, 3, 2} and small.passes.batch_size == 3
    assert (small.passes.forwards, small.passes.backwards) == (usual.passes.forwards, usual.passes.backwards)
    assert_same_table(rows(small.folder), rows(usual.folder))
    assert "out of memory: continuing with 2 clips at a time" in capsys.readouterr().err
