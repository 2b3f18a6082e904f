"""Small films for a page: sheets of concept clips that loop, clips of the class with the most telling derivatives.

They are written into the run's folder, so that its page can be made again without the videos. Beside them goes what the
network answers on the clips whose scores are explained.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vtcav_jax import models
from vtcav_jax.clip_spec import ClipGeometry
from vtcav_jax.concepts.concept_sets import ConceptClip, ConceptSets, letterboxed
from vtcav_jax.concepts.crops import letterbox
from vtcav_jax.concepts.review.page import compressed, jpeg
from vtcav_jax.data.clip import How
from vtcav_jax.data.loader import stream
from vtcav_jax.data.open import Source
from vtcav_jax.models import Loaded
from vtcav_jax.progress import progress
from vtcav_jax.tcav.experiment.verdicts import Clip, Row, found, write_rows
from vtcav_jax.training.evaluate import probabilities

FOLDER, FILMS, PREDICTIONS = "films", "films.csv", "predictions.csv"
SIDE = 96  # of a clip on the page, in pixels
ACROSS, MOST = 6, 12  # clips of a sheet
EXTREMES = 3  # clips with the highest, and with the lowest derivative
LOOP = 1.6  # seconds, at least, of a film


@dataclass(frozen=True)
class Film:
    """`role` is `concept` (a sheet of `shown` of `total` clips) or `target` (one clip, `name`)."""

    role: str
    name: str
    kind: str
    file: str
    shown: int
    total: int


@dataclass(frozen=True)
class Prediction:
    """What the network says of a clip of a class; `right` if the class is what it says."""

    target: str
    clip: str
    answer: str
    probability: float  # of the class
    right: bool


def gather(
    folder: Path, loaded: Loaded, source: Source, sets: ConceptSets, rows: Sequence[Row], clips: Sequence[Clip]
) -> None:
    """Writes films and predictions of a run whose tables are `rows` and `clips`; what is there already is kept."""
    if (folder / FILMS).exists() and (folder / PREDICTIONS).exists():
        return
    (folder / FOLDER).mkdir(exist_ok=True)
    geometry = models.PRESETS[loaded.preset].geometry
    films = _sheets(folder, sets, geometry)
    wanted = {clip.clip for row in telling(rows) for side in ends(row, clips) for clip in side}
    by_target: dict[str, list[str]] = {}
    for clip in clips:
        by_target.setdefault(clip.target, [])
        if clip.clip not in by_target[clip.target]:
            by_target[clip.target].append(clip.clip)
    answers = _answered(folder, loaded, source, geometry, by_target, wanted, films)
    write_rows(folder / PREDICTIONS, Prediction, answers)
    write_rows(folder / FILMS, Film, films)


def telling(rows: Sequence[Row]) -> list[Row]:
    """For each class and concept the test with the strongest finding; where a class has none, its smallest p."""
    out = []
    for target in dict.fromkeys(row.target for row in rows):
        some = [row for row in rows if row.target == target]
        strong = sorted(filter(found, some), key=lambda row: (row.p_adjusted, -abs(row.share)))
        best: dict[str, Row] = {}
        for row in strong:
            best.setdefault(row.concept, row)
        known = [row for row in some if row.p == row.p]
        out += list(best.values()) or sorted(known, key=lambda row: row.p)[:1]
    return out


def ends(row: Row, clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """The clips with the highest derivatives along the row's vector, and those with the lowest."""
    key = (row.target, row.stage, row.concept, row.kind, row.against)
    some = [c for c in clips if (c.target, c.stage, c.concept, c.kind, c.against) == key]
    some.sort(key=lambda clip: -clip.derivative)
    few = min(EXTREMES, len(some) // 2)
    return some[:few], some[len(some) - few :]


def _sheets(folder: Path, sets: ConceptSets, geometry: ClipGeometry) -> list[Film]:
    """One for each set and kind; random sets together."""
    groups: dict[tuple[str, str], list[ConceptClip]] = {}
    for clip in sets.clips:
        groups.setdefault(("random" if clip.negative else clip.concept, clip.kind), []).append(clip)
    films = []
    for (name, kind), some in progress(groups.items(), len(groups), "sheets", size=lambda _: 1):
        step = max(1, len(some) // MOST)
        shown = some[::step][:MOST]
        cells = [scaled(letterboxed(clip, geometry)) for clip in shown]
        file = f"{FOLDER}/{_name(name, kind)}"
        films.append(Film("concept", name, kind, write_film(folder, file, sheet(cells)), len(shown), len(some)))
    return films


def _answered(
    folder: Path,
    loaded: Loaded,
    source: Source,
    geometry: ClipGeometry,
    by_target: dict[str, list[str]],
    wanted: set[str],
    films: list[Film],
) -> list[Prediction]:
    """What the network says of all clips of the classes; films of those that are wanted are added to `films`."""
    names = {name for some in by_target.values() for name in some}
    numbers = [i for i, item in enumerate(source.items) if item.name in names]
    read: list[str] = []

    def videos():
        for one in stream(source, geometry, How(normalise=False), wanted=numbers, workers=0):
            if one.clip is None:
                continue
            read.append(one.item.name)
            if one.item.name in wanted:
                file = f"{FOLDER}/{_name('target', one.item.name)}"
                film = write_film(folder, file, scaled(np.asarray(one.clip.video[0])))
                films.append(Film("target", one.item.name, "", film, 1, 1))
            yield one.clip.video[:1]

    said_of = list(progress(probabilities(loaded, videos(), 8, geometry), len(numbers), "answers", size=lambda _: 1))
    answers = dict(zip(read, said_of))
    out = []
    for target, some in by_target.items():
        index = loaded.target(target)
        head, part = next((head, part) for head, part in loaded.slices.items() if part.start <= index < part.stop)
        for name in some:
            if name in answers:
                said = int(answers[name][part].argmax())
                probability = float(answers[name][index])
                out.append(Prediction(target, name, loaded.heads[head][said], probability, said == index - part.start))
    return out


def scaled(video: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t side side 3"]:
    """As large as a page shows it: small pictures by whole pixels, so that they stay what they are."""
    height = video.shape[1]
    if height <= SIDE and SIDE % height == 0:
        return video.repeat(SIDE // height, 1).repeat(SIDE // height, 2)
    return letterbox(video, SIDE, antialias=True)


def sheet(cells: Sequence[UInt8[np.ndarray, "_ side side 3"]], gap: int = 4) -> UInt8[np.ndarray, "t h w 3"]:
    """Clips side by side as one film; a shorter one stands still at its end."""
    across, length, pitch = min(ACROSS, len(cells)), max(map(len, cells)), SIDE + gap
    down = math.ceil(len(cells) / across)
    out = np.full((length, down * pitch - gap, across * pitch - gap, 3), 127, np.uint8)
    for i, cell in enumerate(cells):
        row, column = divmod(i, across)
        whole = np.concatenate([cell, cell[-1:].repeat(length - len(cell), 0)])
        out[:, row * pitch : row * pitch + SIDE, column * pitch : column * pitch + SIDE] = whole
    return out


def write_film(folder: Path, file: str, video: UInt8[np.ndarray, "t h w 3"]) -> str:
    """An mp4 that any browser plays, and a picture of its middle; of what stands still only that. Returns its name."""
    still = bool((video == video[0]).all())
    (folder / f"{file}.jpg").write_bytes(jpeg(video[0 if still else len(video) // 2]))
    if still:
        return f"{file}.jpg"
    (folder / f"{file}.mp4").write_bytes(mp4(video))
    return f"{file}.mp4"


def mp4(video: UInt8[np.ndarray, "t h w 3"]) -> bytes:
    """H.264 in the colours that every player knows."""
    even = np.pad(video, ((0, 0), (0, video.shape[1] % 2), (0, video.shape[2] % 2), (0, 0)), mode="edge")
    rate = max(4, min(12, round(len(video) / LOOP)))
    options = {"crf": "30", "preset": "slow", "threads": "1", "movflags": "+faststart"}
    return compressed(even, "mp4", "libx264", "yuv420p", options, rate)


def _name(*told: str) -> str:
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:16]
