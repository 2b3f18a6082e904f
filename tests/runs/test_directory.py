"""Tests of run folders."""

import json
import subprocess
import sys

import pytest

from vtcav_jax import atomic
from vtcav_jax.runs import directory, lock, tables


def test_the_same_request_continues_and_another_is_rejected(tmp_path):
    folder = directory.open_run(tmp_path / "a" / "run", {"steps": 3, "names": ("x", "y")}, "--steps=3\n")
    record = (folder / "run.json").read_bytes()
    assert json.loads(record)["request"] == {"steps": 3, "names": ["x", "y"]}
    assert json.loads(record)["versions"]["jax"]
    assert (folder / "flags.txt").read_text() == "--steps=3\n"
    assert directory.open_run(folder, {"steps": 3, "names": ("x", "y")}) == folder
    assert (folder / "run.json").read_bytes() == record
    with pytest.raises(ValueError, match=r"steps was 3, is 4; .*choose another folder \(--run\), or remove it"):
        directory.open_run(folder, {"steps": 4, "names": ("x", "y"), "zebra": 1})


def test_other_folders_are_not_touched(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="not empty and is not a run folder"):
        directory.open_run(tmp_path, {})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        directory.open_run(tmp_path, {})


def test_two_processes_cannot_open_the_same_run(tmp_path):
    code = f"""
from vtcav_jax import atomic
from vtcav_jax.runs import directory as runs, lock
with lock.exclusive_folders():
    try:
        runs.open_run({str(tmp_path / "run")!r}, {{"steps": 3}})
        print("opened")
    except ValueError as error:
        print(error)
"""

    def other():
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    with lock.exclusive_folders():
        for _ in range(2):
            directory.open_run(tmp_path / "run", {"steps": 3})
        assert "another process is using" in other()
    assert other() == "opened\n"
    directory.open_run(tmp_path / "run", {"steps": 3})


def test_a_lock_outlives_the_record_that_a_run_replaces(tmp_path):
    attempt = f"from vtcav_jax.runs.lock import *\nwith exclusive_folders(): lock_folder({str(tmp_path / 'run')!r})"

    def other():
        return subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, check=False)

    with lock.exclusive_folders():
        folder = directory.open_run(tmp_path / "run", {"steps": 3})
        atomic.write_text(folder / "run.json", (folder / "run.json").read_text())
        assert "another process is using" in other().stderr
    assert not other().returncode and not (folder / lock.LOCK_FILE).exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "run"  # permissions do not bind root
    with (
        lock.exclusive_folders(),
        pytest.raises(ValueError, match=r"cannot write into .*run: .*; choose another folder"),
    ):
        lock.lock_folder(folder)


def test_a_run_that_was_killed_before_its_record_continues(tmp_path):
    for name in ("flags.txt", lock.LOCK_FILE, ".run.json.part0123"):
        (tmp_path / name).touch()
    assert directory.open_run(tmp_path, {"steps": 3}) == tmp_path


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.csv"
    tables.write_table(path, ("a", "b"), [(1, "x,y")])
    assert path.read_text() == 'a,b\n1,"x,y"\n'

    def rows():
        yield (2, "z")
        raise RuntimeError("power failed")

    with pytest.raises(RuntimeError):
        tables.write_table(path, ("a", "b"), rows())
    assert path.read_text() == 'a,b\n1,"x,y"\n'
