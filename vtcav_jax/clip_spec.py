"""Clip format of a network: frame sampling, size and normalisation."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

FrameArray = TypeVar("FrameArray", bound=Any)  # numpy or jax; decoding workers import this file, so no jax import here


@dataclass(frozen=True)
class ClipSpec:
    """Sampling, size and normalisation of the clips that a network takes.

    `ClipSpec(frames=16, size=112, interval=2)`: 16 frames of 112 x 112 pixels, every second frame of the video.
    """

    frames: int
    size: int  # height and width in pixels
    interval: int = 1  # step between sampled frames, in frames of the video
    resize: int | None = None  # shorter side before the crop; None: resize directly to `size`
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # per colour channel, of pixel values in 0..1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    sampling: Literal["clip", "uniform"] = "clip"  # frames at `interval`, or spread over the whole video
    keep_aspect: bool = True  # False: both sides are resized to `resize` before the crop

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of one clip: frames, height, width, colour channels."""
        return (self.frames, self.size, self.size, 3)

    @property
    def sampling_description(self) -> str:
        """Description of the frame sampling for report pages."""
        if self.sampling == "uniform":
            return "frames spread over the whole video"
        return "consecutive frames" if self.interval == 1 else f"frames {self.interval} apart"

    def normalise(self, frames: FrameArray) -> FrameArray:
        """Return `(frames / 255 - mean) / std` as float32, from uint8 frames `(..., 3)` of numpy or jax."""
        colours = (1,) * (frames.ndim - 1) + (3,)
        mean, std = (np.asarray(values, np.float32).reshape(colours) for values in (self.mean, self.std))
        return frames.astype(np.float32) * (1 / (255 * std)) - mean / std
