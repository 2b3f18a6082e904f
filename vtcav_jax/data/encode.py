"""Deterministic encoders of images and videos from uint8 RGB frames."""

import io
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vtcav_jax import atomic

Picture = UInt8[np.ndarray, "h w 3"]
RgbFrames = UInt8[np.ndarray, "t h w 3"]
FilmFrames = RgbFrames | Sequence[Picture]  # those of a sequence can be drawn when they are read
WEBM_FPS = 12
LOSSLESS_OPTIONS = {"qp": "0", "threads": "1"}
# Of large videos, ultrafast takes a quarter of the time of veryfast; its fixed cost is larger than that of small ones
ULTRAFAST_FROM_BYTES = 500_000
BITEXACT, BITEXACT_FILE = {"flags": "+bitexact"}, {"fflags": "+bitexact"}
# With mbtree or several threads, the same frames can give other bytes in another process
REPRODUCIBLE_H264 = BITEXACT | {"threads": "1", "x264-params": "mbtree=0"}


def encode_jpeg(picture: Picture) -> bytes:
    options = BITEXACT | {"qmin": "3", "qmax": "3"}
    return _to_bytes(picture[None], "image2pipe", "mjpeg", "yuvj420p", WEBM_FPS, options, BITEXACT_FILE)


def encode_webm(video: RgbFrames, fps: int | float = WEBM_FPS) -> bytes:
    """Encode VP8, which every browser plays.

    A negative `cpu-used` fixes the encoder's effort; a positive one adapts it to the machine's load.
    """
    options = BITEXACT | {"deadline": "realtime", "cpu-used": "-4", "threads": "1", "crf": "12", "b": "400k"}
    return _to_bytes(video, "webm", "libvpx", "yuv420p", fps, options, BITEXACT_FILE)


def encode_mp4(video: RgbFrames, fps: int | float) -> bytes:
    """Encode a small H.264 preview; odd heights and widths are padded by repeating the last row and column."""
    even = np.pad(video, ((0, 0), (0, video.shape[1] % 2), (0, video.shape[2] % 2), (0, 0)), mode="edge")
    options = REPRODUCIBLE_H264 | {"crf": "30", "preset": "slow"}
    return _to_bytes(even, "mp4", "libx264", "yuv420p", fps, options, BITEXACT_FILE)


def encode_lossless_mp4(video: RgbFrames, fps: int | float = 25) -> bytes:
    """Encode lossless RGB H.264."""
    preset = "ultrafast" if video.nbytes >= ULTRAFAST_FROM_BYTES else "veryfast"
    return _to_bytes(video, "mp4", "libx264rgb", "rgb24", fps, LOSSLESS_OPTIONS | {"preset": preset}, {})


def encode_yuv444_mp4(video: RgbFrames, fps: int | float = 25) -> bytes:
    """Encode lossless YUV 4:4:4 H.264, which more players support; pixels change only by the colour conversion."""
    return _to_bytes(video, "mp4", "libx264", "yuv444p", fps, LOSSLESS_OPTIONS | {"preset": "veryfast"}, {})


def write_animation(path: Path, video: FilmFrames, fps: int | float) -> None:
    """Write `.mp4` for streaming, or looping `.webp`; heights and widths must be even."""
    if path.suffix == ".mp4":
        options = REPRODUCIBLE_H264 | {"crf": "20", "preset": "fast"}
        settings = "mp4", "libx264", "yuv420p", fps, options, BITEXACT_FILE | {"movflags": "+faststart"}
    elif path.suffix == ".webp":
        settings = "webp", "libwebp_anim", "bgra", fps, {"quality": "82"}, BITEXACT_FILE | {"loop": "0"}
    else:
        raise ValueError(f"expected an animation named *.mp4 or *.webp, got {path.name}")
    with atomic.replacing(path) as temporary:
        _encode(temporary, video, *settings)


def write_with_poster(path: Path, video: FilmFrames, fps: int | float, poster: int | None = None) -> list[Path]:
    """Write an animation, and for MP4 the poster image of the page, by default its middle frame; return both paths."""
    paths = [path]
    if path.suffix == ".mp4":  # a WebP needs no poster
        paths.append(path.with_suffix(".jpg"))
        atomic.write_bytes(paths[-1], encode_jpeg(video[len(video) // 2 if poster is None else poster]))
    write_animation(path, video, fps)
    return paths


def _to_bytes(video: RgbFrames, *settings: Any) -> bytes:
    file = io.BytesIO()
    _encode(file, video, *settings)
    return file.getvalue()


def _encode(
    target: Path | io.BytesIO,
    video: FilmFrames,
    container: str,
    codec: str,
    pixel_format: str,
    fps: int | float,
    codec_options: dict[str, str],
    container_options: dict[str, str],
) -> None:
    av = _pyav()
    with av.open(target, "w", format=container, options=container_options) as output:
        stream = output.add_stream(codec, rate=max(round(fps), 1), options=codec_options)
        stream.height, stream.width = video[0].shape[:2]
        stream.pix_fmt = pixel_format
        for frame in video:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        output.mux(stream.encode(None))


def _pyav() -> Any:
    try:
        return import_module("av")
    except ImportError as error:
        raise ValueError("encoding videos and images needs PyAV; pip install av") from error
