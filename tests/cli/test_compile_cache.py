"""The folder of compiled programs: one that cannot be used, and damaged programs in it."""

import os

import pytest

from tests.support.cli_runner import run_cli
from vtcav_jax.cli.compile_cache import remove_damaged_programs

COMMAND = ("predict", "--model=worlds_cnn", "--videos=worlds:small:2:1")


def store_program(folder, name, time=None):
    (folder / f"{name}-cache").write_bytes(b"program")
    if time is not None:
        (folder / f"{name}-atime").write_bytes(time.to_bytes(8, "little"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("was_read", [True, False])
def test_the_program_that_was_read_last_is_removed_with_unfinished_ones(tmp_path, was_read):
    for name, time in {"old": 5, "last": 300, "earlier": 260, "unfinished": None}.items():
        store_program(tmp_path, name, time)
    (tmp_path / ".lockfile").touch()
    remove_damaged_programs(tmp_path, was_read)
    stored = ["earlier", "old"] if was_read else ["earlier", "last", "old"]
    assert names(tmp_path) == sorted(
        [".lockfile", *(f"{name}-{kind}" for name in stored for kind in ("cache", "atime"))]
    )


def test_a_folder_without_programs_stays(tmp_path):
    remove_damaged_programs(tmp_path, was_read=True)
    remove_damaged_programs(tmp_path / "gone", was_read=True)
    assert names(tmp_path) == []


@pytest.mark.slow
def test_a_folder_that_cannot_be_used_is_one_note(tmp_path):
    (tmp_path / "file").touch()
    expected = run_cli(*COMMAND)
    for words, program in (
        ((*COMMAND, f"--compile_cache={tmp_path / 'file'}"), "main.start()"),
        (COMMAND, f"import os; os.environ['JAX_COMPILATION_CACHE_DIR'] = '{tmp_path / 'file'}'; main.start()"),
    ):
        code, out, err = run_cli(*words, program=program)
        assert (code, out) == expected[:2]
        assert err.count("cannot be written") == 1 and "pass --compile_cache=FOLDER" in err
        assert "UserWarning" not in err


@pytest.mark.slow
def test_a_damaged_program_is_one_note_and_is_compiled_again(tmp_path):
    words = (*COMMAND, f"--compile_cache={tmp_path}")
    first = run_cli(*words)
    (program, *_) = programs = list(tmp_path.rglob("*-cache"))
    for path in programs:
        path.write_bytes(b"damaged")
    code, out, err = run_cli(*words)
    assert (code, out) == first[:2]
    assert err.count("could not be read") == 1 and "UserWarning" not in err
    assert os.path.getsize(program) > len(b"damaged")
    assert "could not be read" not in run_cli(*words)[2]
