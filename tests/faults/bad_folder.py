"""A folder of 80 entries, half of them videos and half of them faulty in many ways."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vtcav_jax.data.encode import encode_lossless_mp4, encode_webm
from vtcav_jax.worlds import make_clips

N_ENTRIES = 80
CLASSES = ("left", "right")


def write_bad_folder(folder: Path, seed: int = 0) -> tuple[int, int]:
    """Write the entries; return the number of good ones and of those that cannot be read."""
    draw = random.Random(seed)
    video = np.rint(255 * make_clips("small", N_ENTRIES // 2, 4 + seed).video).astype(np.uint8)
    good = [encode_lossless_mp4(clip) for clip in video]
    for i, data in enumerate(good):
        _write(folder / CLASSES[i % 2] / f"good{i:02d}.mp4", data)
    for name, fault in ODD_VIDEOS.items():
        _write(folder / draw.choice(CLASSES) / name, fault(draw, video))
    n_left = N_ENTRIES - len(good) - len(ODD_VIDEOS)
    for i in range(n_left):
        name, fault = list(BROKEN_FILES.items())[i % len(BROKEN_FILES)]
        target = folder / draw.choice(CLASSES) / f"bad{i:02d}_{name}.mp4"
        fault(draw, target, draw.choice(good))
    return len(good) + len(ODD_VIDEOS), n_left


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


Draw = random.Random
ODD_VIDEOS: dict[str, Callable[[Draw, np.ndarray], bytes]] = {  # unusual, but readable
    "one frame.mp4": lambda draw, video: encode_lossless_mp4(video[0][:1]),
    "two frames.mp4": lambda draw, video: encode_lossless_mp4(video[0][:2]),
    "tiny.mp4": lambda draw, video: encode_lossless_mp4(video[0][:, :2, :2]),
    "thin.mp4": lambda draw, video: encode_lossless_mp4(np.ascontiguousarray(video[0][:, :4])),
    "black.mp4": lambda draw, video: encode_lossless_mp4(np.zeros_like(video[0])),
    "long.mp4": lambda draw, video: encode_lossless_mp4(np.concatenate([video[0]] * 20)),
    "no suffix": lambda draw, video: encode_lossless_mp4(video[1]),
    "other.webm": lambda draw, video: encode_webm(video[2], 25),
    "-dash=equals,comma.mp4": lambda draw, video: encode_lossless_mp4(video[3]),
    "line\nbreak\x1b[31m.mp4": lambda draw, video: encode_lossless_mp4(video[4]),
    f"{'n' * 240}.mp4": lambda draw, video: encode_lossless_mp4(video[5]),
    "same.mp4": lambda draw, video: encode_lossless_mp4(video[6]),
}


def _flip(draw: Draw, path: Path, data: bytes) -> None:
    damaged = bytearray(data)
    for _ in range(200):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    _write(path, bytes(damaged)[: len(data) // 2])  # so that it cannot be read by luck


def _link(path: Path, target: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _special(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


BROKEN_FILES: dict[str, Callable[[Draw, Path, bytes], None]] = {
    "empty": lambda draw, path, data: _write(path, b""),
    "truncated": lambda draw, path, data: _write(path, data[: draw.randrange(20, len(data) - 200)]),
    "head missing": lambda draw, path, data: _write(path, data[draw.randrange(100, len(data)) :]),
    "random": lambda draw, path, data: _write(path, draw.randbytes(draw.randrange(1, 5000))),
    "text": lambda draw, path, data: _write(path, b"path,label\na.mp4,b\n" * draw.randrange(1, 99)),
    "flipped": _flip,
    "loop": lambda draw, path, data: _link(path, path),
    "gone": lambda draw, path, data: _link(path, "nowhere.mp4"),
    "pipe": lambda draw, path, data: _special(path),
    "zeros": lambda draw, path, data: _write(path, bytes(len(data))),
    "picture": lambda draw, path, data: _write(path, b"\x89PNG\r\n\x1a\n" + draw.randbytes(500)),
}
