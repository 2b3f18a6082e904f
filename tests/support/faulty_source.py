"""A source whose items do as they are told; by itself, since worker processes import it."""

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vtcav_jax.data import Clip, Item, VideoError


@dataclass(frozen=True)
class Tricky:
    """A source whose items do as they are told."""

    tricks: tuple[str, ...]
    spec: str = "tricky"
    identity: str = "tricky"
    heads: dict = field(default_factory=dict)

    @property
    def items(self):
        return tuple(Item(f"{i} {trick}") for i, trick in enumerate(self.tricks))

    def read(self, i, geometry, how):
        trick, _, given = self.tricks[i].partition(" ")
        if trick == "refuse":
            raise VideoError("refused")
        if trick == "exit":
            os._exit(3)
        if trick == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if trick == "fault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if trick == "disk":
            raise OSError(5, "Input/output error")
        if trick == "bug":
            raise ZeroDivisionError("a bug")
        if trick == "sleep":
            time.sleep(float(given))
        if trick == "touch":
            Path(given).joinpath(str(i)).touch()
        if trick == "jax":
            assert not {"jax", "jaxlib", "torch"} & set(sys.modules), "a worker has imported them"
        video, frames = np.full((1, *geometry.shape), i, np.uint8), np.full((1, geometry.frames), os.getpid())
        return Clip(video, frames, np.zeros(frames.shape), False, str(i))
