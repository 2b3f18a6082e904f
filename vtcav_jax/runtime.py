"""`Runtime`: devices of a computation, and counters of passes and seconds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import jax
import numpy as np
from jax.sharding import Mesh


@dataclass
class PassCounter:
    """Numbers of clips passed through the network, excluding those that only pad a batch."""

    forwards: int = 0
    backwards: int = 0  # one per clip and class for all stages; if integrated, also one per stage and step
    batch_size: int = 0  # of the last micro-batch; smaller than requested if memory ran out


@dataclass
class PhaseTimer:
    """Seconds spent in each phase, in order of first use."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Runtime:
    """Devices, decoding processes, pass counter and timer, shared by all steps of an experiment."""

    mesh: Mesh
    num_workers: int = 0  # processes that decode videos
    passes: PassCounter = field(default_factory=PassCounter)
    timer: PhaseTimer = field(default_factory=PhaseTimer)

    @classmethod
    def local(cls, num_workers: int = 0) -> "Runtime":
        """Return a runtime on all devices of this process."""
        return cls(Mesh(np.array(jax.local_devices()), ("b",)), num_workers)

    @classmethod
    def single_device(cls) -> "Runtime":
        """Return a runtime on the first device of this process."""
        return cls(Mesh(np.array(jax.local_devices()[:1]), ("b",)))
