"""What clip a network expects."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

FrameArray = TypeVar("FrameArray", bound=Any)  # numpy's or jax's: this file imports no jax, for the workers that decode


@dataclass(frozen=True)
class ClipSpec:
    """How frames are taken from a video, and what they look like when they reach the network."""

    frames: int
    size: int  # of the square that the network sees
    interval: int = 1  # between frames, in frames of the video
    resize: int | None = None  # shorter side before the crop; None: straight to `size`
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of values in 0..1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    sampling: Literal["clip", "uniform"] = "clip"  # consecutive at the interval, or spread over the whole video

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of one clip: time, height, width, colour."""
        return (self.frames, self.size, self.size, 3)

    @property
    def sampling_description(self) -> str:
        """How the frames lie in the video, in words."""
        if self.sampling == "uniform":
            return "frames spread over the whole video"
        return "consecutive frames" if self.interval == 1 else f"frames {self.interval} apart"

    def normalise(self, frames: FrameArray) -> FrameArray:
        """float32 as the network was trained on, from uint8 frames `(..., 3)` of numpy or of jax."""
        colours = (1,) * (frames.ndim - 1) + (3,)
        mean, std = (np.asarray(values, np.float32).reshape(colours) for values in (self.mean, self.std))
        return frames.astype(np.float32) * (1 / (255 * std)) - mean / std
