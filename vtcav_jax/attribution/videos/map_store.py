"""Maps on disk: one `.npz` per video, that holds all there is to say about it, and the rows of a table out of it."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.resample import frame_of_step
from vtcav_jax.attribution.videos.explain_videos import VideoMaps
from vtcav_jax.data.loader import Read

SEPARATOR = "|"


@dataclass(frozen=True)
class Row:
    """One map of one clip of a video, told in numbers.

    `total` is the map's sum, `residual` what is missing from it of what the method owes, `peak` the moment, in seconds,
    at which most of the absolute map lies, `peak_share` how much of it lies in that step. `half` is the smallest part
    of the clip's time that holds half of the absolute map: 0.5 where it is spread evenly. `places` is the same of the
    places in a frame, the mean over time by how much of the map lies there; NaN of a map that has one place.
    """

    clip: str
    window: int
    start: float
    end: float
    target: str
    answer: str
    score: float
    method: str
    stage: str
    signed: bool
    cost: int
    total: float
    residual: float
    peak: float
    peak_share: float
    half: float
    file: str
    places: float = math.nan


def stem(read: Read) -> str:
    """A file's name for a video, that no other video of the source has."""
    return f"{read.index:06d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', read.item.name)[-60:]}"


def write(path: Path, found: VideoMaps, labels: Sequence[str]) -> None:
    """Maps are raw, `map|TARGET|METHOD|STAGE` is `(windows, t, h, w)`; the rest is what `rows` needs."""
    arrays: dict[str, np.ndarray] = {
        "frames": np.concatenate([window.clip.frames for window in found.windows]),
        "times": np.concatenate([window.clip.times for window in found.windows]),
    }
    about = []
    for target, maps in found.maps.items():
        arrays[f"score|{target}"] = found.scores[target]
        answers = [labels[i] if i >= 0 else target for i in found.answers[target]]
        for one in maps:
            key = SEPARATOR.join((target, one.method, one.stage))
            arrays[f"map|{key}"] = one.map
            if one.residual is not None:
                arrays[f"residual|{key}"] = one.residual
            about.append((target, one.method, one.stage, one.signed, one.cost, answers))
    arrays["about"] = np.array(json.dumps({"clip": found.read.item.name, "maps": about}))
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    part.replace(path)


@dataclass(frozen=True, eq=False)
class Stored:
    """One question's maps by one method, of all clips of a video, as they were written."""

    clip: str
    target: str
    answers: list[str]
    method: str
    stage: str
    signed: bool
    cost: int
    maps: Float[np.ndarray, "n t h w"]
    scores: Float[np.ndarray, " n"]
    residual: Float[np.ndarray, " n"]
    times: Float[np.ndarray, "n frames"]


def stored(path: Path) -> Iterator[Stored]:
    with np.load(path, allow_pickle=False) as arrays:
        about, times = json.loads(str(arrays["about"])), arrays["times"]
        for target, method, stage, signed, cost, answers in about["maps"]:
            key = SEPARATOR.join((target, method, stage))
            maps, scores = arrays[f"map|{key}"], arrays[f"score|{target}"]
            residual = arrays[f"residual|{key}"] if f"residual|{key}" in arrays else np.full(len(maps), np.nan)
            yield Stored(about["clip"], target, answers, method, stage, signed, cost, maps, scores, residual, times)


def rows(path: Path) -> list[Row]:
    out = []
    for one in stored(path):
        for w, (maps, when) in enumerate(zip(one.maps, one.times)):
            course = np.abs(maps).sum((1, 2))
            peak = int(course.argmax())
            share = float(course[peak] / course.sum()) if course.any() else float("nan")
            moment = float(when[frame_of_step(peak, len(course), len(when))])
            out.append(
                Row(
                    *(one.clip, w, float(when[0]), float(when[-1]), one.target, one.answers[w], float(one.scores[w])),
                    *(one.method, one.stage, one.signed, one.cost, float(maps.sum()), float(one.residual[w])),
                    *(moment, share, half(course), path.name, places(maps)),
                )
            )
    return out


def half(course: Float[np.ndarray, " t"]) -> float:
    """The smallest part of the steps that holds half of it, a step in part where less would do; NaN of nothing."""
    if not course.any():
        return float("nan")
    falling = -np.sort(-course.astype(np.float64))
    reached = np.r_[0, np.cumsum(falling)]
    return float(np.interp(reached[-1] / 2, reached, np.arange(len(reached))) / len(course))


def places(maps: Float[np.ndarray, "t h w"]) -> float:
    """The smallest part of a frame that holds half of what lies in it, the mean over time."""
    steps = np.abs(maps).reshape(len(maps), -1)
    course = steps.sum(1, dtype=np.float64)
    if steps.shape[1] < 2 or not course.any():
        return math.nan
    return float(np.average([half(step) if step.any() else 0.0 for step in steps], weights=course))
