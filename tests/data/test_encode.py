"""Encoders: decodable and deterministic output."""

import io
import subprocess
import sys

import av
import numpy as np
import pytest

from vtcav_jax.data import encode


@pytest.fixture
def video():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), np.uint8)


def decode(data):
    with av.open(io.BytesIO(data), "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_lossless_mp4_preserves_every_pixel(video):
    np.testing.assert_array_equal(decode(encode.encode_lossless_mp4(video)), video)
    assert np.abs(decode(encode.encode_yuv444_mp4(video)).astype(int) - video).max() <= 2


@pytest.mark.parametrize("encoder", [encode.encode_webm, lambda v: encode.encode_mp4(v, 8), encode.encode_lossless_mp4])
def test_same_frames_give_same_bytes(video, encoder):
    assert encoder(video) == encoder(video)


SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[2])])
from vtcav_jax.data.encode import write_animation
rows, columns = np.mgrid[:120, :160]
picture = np.stack([127 + 100 * np.sin(rows / 9) * np.cos(columns / n) for n in (11, 13, 17)], -1)
write_animation(Path(sys.argv[1]), np.stack([np.roll(picture, 3 * i, (0, 1)) for i in range(40)]).astype(np.uint8), 8.0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
def test_animations_do_not_depend_on_the_number_of_cores(tmp_path, suffix):
    paths = [tmp_path / f"{cores}{suffix}" for cores in (1, 2)]
    for path in paths:
        subprocess.run([sys.executable, "-c", SCRIPT, str(path), path.stem], check=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_odd_sizes_are_padded_in_previews(video):
    assert decode(encode.encode_mp4(video[:, :31, :47], 8)).shape == video.shape


def test_missing_pyav_is_reported(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="needs PyAV; pip install av"):
        encode.encode_webm(video)
