"""The amount of simulation, and constants that the simulations share."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.statistics.clips import STAGES, EncodedClips, load_encoded

ALPHA = 0.05
PERMUTATIONS = 199  # p <= 0.05 then has a probability of exactly 5 % under the null hypothesis
MAX_LEVEL, MIN_POWER = 0.07, 0.9


@dataclass(frozen=True)
class Size:
    """Amount of simulation; in `exact` mode requirements apply to estimates, else to their intervals."""

    exact: bool
    networks: tuple[str, ...]
    clips: int
    targets: int
    draws: int  # of sets, for each rate
    families: int
    intervals: int  # for each coverage
    seeds: tuple[int, ...]  # of mined concepts

    def encoded(self) -> Iterator[tuple[EncodedClips, str, str]]:
        """Yield clips, stage, and the name of both for the table."""
        for network in self.networks:
            clips = load_encoded(network, self.clips, self.targets)
            for stage in STAGES[network]:
                yield clips, stage, f"{network}, {stage}"


def generator(*names: object) -> np.random.Generator:
    """Return a generator that depends on the names only."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, names)).encode()))
