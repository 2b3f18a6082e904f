"""A training run notices damaged checkpoints and videos that have changed."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.square_videos import write_square_videos
from vtcav_jax.data import open_source
from vtcav_jax.data.source import item_content
from vtcav_jax.training.checkpoints import Checkpoints, VideoContents


def state(value):
    return {"w": jnp.full((64, 3), value), "step": jnp.array(7, jnp.int32)}


def test_a_damaged_checkpoint_is_refused_and_the_previous_one_continues(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(float(step)))
    checksum_file = tmp_path / "checkpoints.sha256.json"
    assert list(json.loads(checksum_file.read_text())) == ["2", "3"]
    files = [file for file in (tmp_path / "checkpoints/3").rglob("*") if file.is_file() and file.stat().st_size > 8]
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[:-4] + bytes([data[-4] ^ 1]) + data[-3:])
        with Checkpoints(tmp_path / "checkpoints") as checkpoints, pytest.raises(ValueError, match=r"checkpoint 3 in"):
            checkpoints.restore(state(0.0))
        file.write_bytes(data)
    shutil.rmtree(tmp_path / "checkpoints/3")
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        restored, step = checkpoints.restore(state(0.0))
        assert step == 2 and float(restored["w"][0, 0]) == 2
        checkpoints.save(3, state(30.0))  # another content under the same number
    checksum_file.with_name("copy").write_bytes(checksum_file.read_bytes())
    for text in (None, "{"):  # without checksums, or with damaged ones, checkpoints load
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            assert float(checkpoints.restore(state(0.0))[0]["w"][0, 0]) == 30
        checksum_file.unlink() if text is None else checksum_file.write_text(text)


def test_a_video_that_changes_during_training_is_an_error(tmp_path):
    (tmp_path / "videos").mkdir()
    write_square_videos(tmp_path / "videos", 3)
    source = open_source(tmp_path / "videos")
    contents = VideoContents(tmp_path / "contents.json", source)
    contents.require_unchanged()
    for i in (0, 2):
        contents.add(i, item_content(source, i) or "")
    contents.write()
    again = VideoContents(tmp_path / "contents.json", source)
    again.require_unchanged()
    paths = [item.path for item in source.items if item.path]
    paths[1].write_bytes(b"it was not used yet")
    again.require_unchanged()
    data = np.frombuffer(paths[2].read_bytes(), np.uint8).copy()
    data[-1] ^= 1
    paths[2].write_bytes(data.tobytes())
    with pytest.raises(ValueError, match=rf"the files of {source.items[2].name} have changed since the training began"):
        again.require_unchanged()
