"""A stored result belongs to one network, one video content, one code and one set of versions."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.cli_runner import command_context
from vtcav_jax import models
from vtcav_jax.cli.commands.attribute import attribute
from vtcav_jax.cli.commands.attribution_job import AttributeArguments
from vtcav_jax.cli.commands.motion import MotionArguments, measure_motion_reliance
from vtcav_jax.cli.commands.pyramid import PyramidArguments, PyramidConfig, pyramid
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.runs import code_version, directory
from vtcav_jax.worlds.render import WORLDS, make_clips

N_VIDEOS = 3
Animations = Literal["none", "mp4"]


@pytest.fixture
def inputs(tmp_path):
    """A copy of a trained network, without a checksum, and three short videos."""
    shipped = models.shipped_networks()["worlds_cnn"]
    shutil.copy(shipped, tmp_path / "net.safetensors")
    metadata = json.loads(shipped.with_suffix(".json").read_text())
    (tmp_path / "net.json").write_text(json.dumps(metadata | {"sha256": None}))
    write_clips(make_clips(WORLDS["small"], N_VIDEOS, 5), tmp_path / "videos")
    return tmp_path


def run_attribute(folder, animations: Animations = "none"):
    settings: dict[str, Any] = dict(model=str(folder / "net.safetensors"), videos=str(folder / "videos"))
    settings |= dict(run=folder / "run", num_workers=0, targets=("shape",), methods=("gradient_x_input",))
    attribute(AttributeArguments(**settings, animations=animations), command_context())


def run_motion(folder, animations: Animations = "none"):
    settings: dict[str, Any] = dict(model=str(folder / "net.safetensors"), videos=str(folder / "videos"))
    settings |= dict(run=folder / "run", num_workers=0, targets=("direction",), examples=1, depth_videos=2)
    measure_motion_reliance(MotionArguments(**settings, animations=animations), command_context())


def run_pyramid(folder):
    settings: dict[str, Any] = dict(model=str(folder / "net.safetensors"), videos=str(folder / "videos"))
    settings |= dict(run=folder / "run", num_workers=0, targets=("shape",), config=PyramidConfig(depth=1, draws=2))
    pyramid(PyramidArguments(**settings), command_context())


TASKS = [run_attribute, run_motion, run_pyramid]


def change_weight(path):
    arrays = load_file(path)
    name = next(name for name in arrays if name.endswith("head.kernel"))
    arrays[name] = arrays[name] + np.float32(0.5) * (np.arange(arrays[name].size).reshape(arrays[name].shape) % 3 == 0)
    save_file({key: np.ascontiguousarray(value, np.float32) for key, value in arrays.items()}, path)


def scores(folder, table="maps.csv"):
    with (folder / "run" / table).open(newline="") as file:
        return {row["clip"]: float(row["score"]) for row in csv.DictReader(file)}


@pytest.mark.slow
@pytest.mark.parametrize("run", TASKS)
def test_results_of_other_weights_code_or_versions_are_not_continued(inputs, run, monkeypatch):
    run(inputs)
    record_file = inputs / "run" / "run.json"
    record = json.loads(record_file.read_text())
    record_file.write_text(json.dumps(record | {"versions": {**record["versions"], "jax": "0.1"}}))
    with pytest.raises(ValueError, match=r"jax was '0\.1', is .*choose another folder"):
        run(inputs)
    record_file.write_text(json.dumps(record))
    with monkeypatch.context() as patch:
        patch.setattr(directory, "code_hash", lambda: "another")
        with pytest.raises(ValueError, match=r"made by other code\)"):
            run(inputs)
    change_weight(inputs / "net.safetensors")
    with pytest.raises(ValueError, match=r"made by other weights\); choose another folder \(--run\), or remove it"):
        run(inputs)


@pytest.mark.slow
@pytest.mark.parametrize(("run", "table"), [(run_attribute, "maps.csv"), (run_motion, "motion.csv")])
def test_the_result_of_a_replaced_video_is_computed_again(inputs, run, table, capsys):
    run(inputs)
    before = scores(inputs, table)
    first, second, _ = sorted((inputs / "videos").glob("*.mp4"))
    size = max(first.stat().st_size, second.stat().st_size) + 8
    first.write_bytes(first.read_bytes().ljust(size, b"\0"))
    run(inputs)
    note = f"note: 1 stored result, {table.partition('.')[0].replace('motion', 'clips')}/000000_"
    assert note in (out := capsys.readouterr().out) and "files have changed since; computed again" in out
    first.write_bytes(second.read_bytes().ljust(size, b"\0"))  # another video of the same size and name
    run(inputs)
    after = scores(inputs, table)
    assert after[first.name] == pytest.approx(before[second.name], abs=1e-5) != before[first.name]
    assert {name: after[name] for name in list(after)[1:]} == {name: before[name] for name in list(before)[1:]}
    capsys.readouterr()
    run(inputs)
    assert "stored result" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("part", ["maps/*.npz", "clips/*.json", "motion_parts/*.npz"])
def test_damaged_and_foreign_files_are_noted_and_computed_again(inputs, part, capsys):
    run, table = (run_attribute, "maps.csv") if part.startswith("maps") else (run_motion, "motion.csv")
    run(inputs)
    before = scores(inputs, table)
    folder = inputs / "run" / part.partition("/")[0]
    files = sorted((inputs / "run").glob(part))
    contents = [path.read_bytes() for path in files]
    (folder / f"notes{files[0].suffix}").write_text("mine")
    (folder / f"000001_other{files[0].suffix}").write_text("mine")
    empty = lambda b: b""  # noqa: E731
    foreign, shifted = lambda b: b'{"a": 1}', lambda b: b"\x93NUMPY" + b
    half = lambda b: b[: len(b) // 2]  # noqa: E731
    flipped = lambda b: half(b) + re.sub(rb"\d", lambda x: bytes([x[0][0] ^ 1]), b[len(half(b)) :], count=1)  # noqa: E731
    for damages in ((half, foreign), (empty, shifted), (flipped, flipped)):
        for path, content, damage in zip(files, contents, damages):
            path.write_bytes(damage(content))
        capsys.readouterr()
        run(inputs)
        out = capsys.readouterr().out
        assert f"note: {len(files[:2])} stored result" in out and f"{folder.name}/{files[0].name}" in out
        assert scores(inputs, table) == before
    assert (folder / f"notes{files[0].suffix}").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_attribute, run_motion])
def test_missing_and_damaged_animations_are_written_again(inputs, run, capsys):
    run(inputs, "mp4")
    folder = inputs / "run" / ("animations" if run is run_attribute else "motion_parts")
    contents = {path: path.read_bytes() for path in folder.iterdir()}
    for suffix, damage in (
        (".mp4", Path.unlink),
        (".mp4", lambda p: p.write_bytes(p.read_bytes()[:50])),
        (".jpg", Path.unlink),
    ):
        path = next(path for path in sorted(contents) if path.suffix == suffix)
        damage(path)
        capsys.readouterr()
        run(inputs, "mp4")
        assert "note: 1 stored result" in capsys.readouterr().out
        assert {path: path.read_bytes() for path in folder.iterdir()} == contents


def test_the_code_hash_depends_on_everything_but_pages(tmp_path, monkeypatch):
    (tmp_path / "report").mkdir()
    for name in ("__init__.py", "tap.py", "report/page.py"):
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(code_version.vtcav_jax, "__file__", str(tmp_path / "__init__.py"))
    hash_now = code_version.code_hash.__wrapped__
    first = hash_now()
    (tmp_path / "report/page.py").write_text("x = 2\n")
    assert hash_now() == first and hash_now("report/*.py") != first
    (tmp_path / "tap.py").write_text("x = 2\n")
    assert hash_now() != first
