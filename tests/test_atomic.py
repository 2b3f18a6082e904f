"""Atomic writes: content is complete or absent, and no temporary files are left."""

import errno
import os

import pytest

from vtcav_jax import atomic


def test_text_and_bytes_replace_old_content(tmp_path):
    path = tmp_path / "new" / "file"
    atomic.write_text(path, "one\u00e9")
    assert path.read_text(encoding="utf-8") == "one\u00e9"
    atomic.write_bytes(path, b"two")
    assert path.read_bytes() == b"two" and os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("folder", [False, True])
def test_failure_keeps_the_old_content_and_leaves_nothing(tmp_path, folder):
    path = tmp_path / "file"
    path.write_text("old")

    def write_half(temporary):
        if folder:
            temporary.mkdir()
            (temporary / "inside").write_text("half")
        else:
            temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as temporary:
        write_half(temporary)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_folders_are_renamed_whole(tmp_path):
    with atomic.replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "inside").write_text("all")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "inside").read_text() == "all" and os.listdir(tmp_path) == ["folder"]


def test_the_last_of_several_is_renamed_first(tmp_path):
    weights, metadata = tmp_path / "weights", tmp_path / "metadata"
    metadata.mkdir()  # a file cannot replace it

    def replace_both():
        with atomic.replacing(weights) as first, atomic.replacing(metadata) as second:
            first.write_text("w")
            second.write_text("m")

    with pytest.raises(OSError, match="metadata"):
        replace_both()
    assert os.listdir(tmp_path) == ["metadata"]


def test_a_full_disk_is_explained(tmp_path):
    with (
        pytest.raises(ValueError, match=r"the disk of .* is full; free some space"),
        atomic.explain_disk_full(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "no space")
    with pytest.raises(OSError, match="other"), atomic.explain_disk_full(tmp_path):
        raise OSError(errno.EACCES, "other")
