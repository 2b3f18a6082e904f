"""Source with faults on request, in a separate module because worker processes import it."""

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vtcav_jax.data import Clip, SourceItem, VideoError


@dataclass(frozen=True)
class FaultySource:
    """Source whose items behave as their names request: fine, refuse, bug, sleep and others."""

    faults: tuple[str, ...]
    spec: str = "tricky"
    identity: str = "tricky"
    heads: dict = field(default_factory=dict)

    @property
    def items(self):
        return tuple(SourceItem(f"{i} {fault}") for i, fault in enumerate(self.faults))

    def read(self, i, clip_spec, sampling):
        fault, _, argument = self.faults[i].partition(" ")
        if fault == "refuse":
            raise VideoError("refused")
        if fault == "exit":
            os._exit(3)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "fault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == "disk":
            raise OSError(5, "Input/output error")
        if fault == "bug":
            raise ZeroDivisionError("a bug")
        if fault == "sleep":
            time.sleep(float(argument))
        if fault == "touch":
            Path(argument).joinpath(str(i)).touch()
        if fault == "jax":
            assert not {"jax", "jaxlib", "torch"} & set(sys.modules), "a worker has imported them"
        video, frames = np.full((1, *clip_spec.shape), i, np.uint8), np.full((1, clip_spec.frames), os.getpid())
        return Clip(video, frames, np.zeros(frames.shape), False, str(i))
