"""The course of maps over the clip's time: how much of the absolute map lies in each of its steps, over all clips."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.videos import map_store
from vtcav_jax.stats import intervals

FILE = "profile.csv"


@dataclass(frozen=True)
class Course:
    """One time step of the maps of a question, method and stage: the mean over clips of the share of a clip's absolute
    map that lies in it, with its bootstrap interval; an even spread is 1 / `steps`. `step` counts from 0."""

    target: str
    method: str
    stage: str
    step: int
    steps: int
    share: float
    low: float
    high: float
    clips: int


def over_steps(maps: Float[np.ndarray, "n t h w"]) -> Float[np.ndarray, "n t"]:
    """The share of each step; NaN of a map that is 0 everywhere."""
    course = np.abs(maps).sum((2, 3), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return course / course.sum(1, keepdims=True)


def courses(paths: Iterable[Path]) -> list[Course]:
    """Of all clips whose maps lie in these files."""
    found: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for path in paths:
        for one in map_store.stored(path):
            found.setdefault((one.target, one.method, one.stage), []).append(over_steps(one.maps))
    out = []
    for key, parts in found.items():
        shares = np.concatenate(parts)
        clips, steps = int((~np.isnan(shares[:, 0])).sum()), shares.shape[1]
        told = [intervals.mean(shares[:, step]) for step in range(steps)]
        out += [Course(*key, step, steps, *one, clips) for step, one in enumerate(told)]
    return out
