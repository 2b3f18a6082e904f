"""Encoders: decodable and deterministic output."""

import io
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


def test_odd_sizes_are_padded_in_previews(video):
    assert decode(encode.encode_mp4(video[:, :31, :47], 8)).shape == video.shape


def test_missing_pyav_is_reported(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="needs PyAV; pip install av"):
        encode.encode_webm(video)
