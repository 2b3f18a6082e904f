"""Videos of coloured squares and a deterministic detector, in a separate module for tests that kill processes."""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from vtcav_jax import concepts
from vtcav_jax.concepts.boxes import Box
from vtcav_jax.concepts.config import MiningConfig
from vtcav_jax.data.encode import encode_lossless_mp4

SIZE, FRAMES = (48, 64), 24
COLOURS = {"red": (250, 20, 20), "blue": (20, 20, 250), "green": (20, 250, 20)}


class SquareDetector:
    """Detector of one square per colour; the confidence is the brightness of the corner pixel."""

    name, sha256, identity, labels = "squares", "0", "0", tuple(COLOURS)

    def __init__(self, stop_after=None):
        self.stop_after, self.n_frames_seen = stop_after, 0

    def boxes(self, frames, fps: float) -> Iterator[Box]:
        for number, frame in enumerate(frames):
            self.n_frames_seen += 1
            if self.stop_after == self.n_frames_seen:
                os.kill(os.getpid(), 9)
            for track, (label, colour) in enumerate(COLOURS.items()):
                rows, columns = np.nonzero((np.abs(frame.astype(int) - colour) < 8).all(-1))
                if len(rows):
                    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                    left, top, right, bottom = map(int, corners)
                    yield Box(number, track, label, left, top, right, bottom, frame[0, 0, 0] / 255)


def square_video(seed, colours=("red", "blue"), frames=FRAMES, confidence=0.9):
    """Make a video of 10-pixel squares that move right over noise: `red` above `blue` above `green`."""
    random = np.random.default_rng(seed)
    video = random.integers(60, 180, (1, *SIZE, 3), np.uint8).repeat(frames, 0)
    speed = random.integers(1, 3)
    for i, colour in enumerate(colours):
        for t in range(frames):
            left = 1 + int(speed * t + random.integers(0, 2)) % (SIZE[1] - 12)
            video[t, 2 + 15 * i : 12 + 15 * i, left : left + 10] = COLOURS[colour] + random.integers(-5, 6, (10, 10, 3))
    video[:, 0, 0] = round(255 * confidence)
    return video


def write_square_videos(folder, count=6):
    for i in range(count):
        (folder / f"film{i}.mp4").write_bytes(encode_lossless_mp4(square_video(i, confidence=0.6 + 0.05 * i)))
    return sorted(folder.iterdir())


def mining_config(*names, **overrides):
    defaults = dict[str, Any](clip_frames=6, num_random_sets=2, random_set_size=4, max_clips_per_video=2)
    return MiningConfig(concepts.parse_concepts(names or ("red",)), **defaults | overrides)


def file_hashes(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
