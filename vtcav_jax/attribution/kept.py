"""Maps on disk: one `.npz` per video, that holds all there is to say about it, and the rows of a table out of it."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtcav_jax.attribution.grids import frame_of_step
from vtcav_jax.attribution.videos import VideoMaps
from vtcav_jax.video.reading import Read

SEPARATOR = "|"


@dataclass(frozen=True)
class Row:
    """One map of one clip of a video, told in numbers.

    `total` is the map's sum, `residual` what is missing from it of what the method owes, `peak` the moment, in seconds,
    at which most of the absolute map lies, `peak_share` how much of it lies in that step.
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
    file: str


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


def rows(path: Path) -> list[Row]:
    out = []
    with np.load(path, allow_pickle=False) as kept:
        about, times = json.loads(str(kept["about"])), kept["times"]
        for target, method, stage, signed, cost, answers in about["maps"]:
            key = SEPARATOR.join((target, method, stage))
            maps, scores = kept[f"map|{key}"], kept[f"score|{target}"]
            residual = kept[f"residual|{key}"] if f"residual|{key}" in kept else np.full(len(maps), np.nan)
            for w, (one, when) in enumerate(zip(maps, times)):
                course = np.abs(one).sum((1, 2))
                peak = int(course.argmax())
                share = float(course[peak] / course.sum()) if course.any() else float("nan")
                moment = float(when[frame_of_step(peak, len(course), len(when))])
                out.append(
                    Row(
                        *(about["clip"], w, float(when[0]), float(when[-1]), target, answers[w], float(scores[w])),
                        *(method, stage, signed, cost, float(one.sum()), float(residual[w]), moment, share, path.name),
                    )
                )
    return out
