"""How long each phase takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of each phase, added up."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start
