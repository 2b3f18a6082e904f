"""What there is in each video: its shots and its boxes. Watching is what takes long, so each survey is kept.

A survey is stored under a key made of the video's bytes, the part of it that is meant and whoever drew the boxes; what
is done with it afterwards takes seconds, and may be done again with other thresholds.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.concepts.boxes import Box
from vtcav_jax.concepts.tracks import cuts, histogram
from vtcav_jax.data.decode import FramesMissing, VideoError, VideoIndex, decoded, probe
from vtcav_jax.data.open import Item
from vtcav_jax.runs.directory import write_text

VERSION = 1  # of what is stored; another one is watched anew


@runtime_checkable
class Detector(Protocol):
    """Whatever finds things in frames: `detect.load` gives one of the detector library."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str:
        """Of its weights."""
        ...

    @property
    def identity(self) -> str:
        """A hash of all that its boxes depend on."""
        ...

    @property
    def labels(self) -> Sequence[str]: ...

    def boxes(self, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> Iterator[Box]:
        """All of one video, frames counted from 0; each frame is taken once, tracks begin anew."""
        ...


@dataclass(frozen=True)
class Drawn:
    """Boxes that are there already, by the name of the video."""

    name: str
    by_file: dict[str, tuple[Box, ...]]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.by_file, sort_keys=True).encode()).hexdigest()

    identity = sha256

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({box.label for boxes in self.by_file.values() for box in boxes}))

    def of(self, item: Item) -> tuple[Box, ...]:
        assert item.path is not None
        names = (item.name, item.path.name)
        return next((self.by_file[name] for name in names if name in self.by_file), ())


@dataclass(frozen=True)
class Survey:
    """One video, or the part of one that is meant."""

    name: str
    path: Path
    sha256: str
    begin: int  # frames; the first that is meant and the one after the last
    end: int
    height: int
    width: int
    fps: float
    cuts: tuple[int, ...]
    boxes: tuple[Box, ...]
    answers: dict[str, str] = field(default_factory=dict)  # by head

    @property
    def key(self) -> tuple[str, int, int]:
        """The same for the same pictures under whatever name."""
        return (self.sha256, self.begin, self.end)


@dataclass(frozen=True)
class Planned:
    """A video before it is watched, or one that was watched in an earlier run."""

    item: Item
    sha256: str
    stored: Path
    index: VideoIndex | None  # None where the survey is there already
    frames: range


def plan(item: Item, source: Detector | Drawn, folder: Path) -> Planned:
    """Finds out what there is to watch; what is no video raises `VideoError`."""
    assert item.path is not None
    if not item.path.is_file():
        raise VideoError(f"there is no file {item.path}; expected a video")
    with item.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    boxes = source.of(item) if isinstance(source, Drawn) else source.identity
    told = json.dumps([VERSION, sha256, item.start, item.end, boxes])
    stored = folder / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"
    if stored.exists():
        return Planned(item, sha256, stored, None, range(0))
    index = probe(item.path)
    return Planned(item, sha256, stored, index, _part(item, index))


def _part(item: Item, index: VideoIndex) -> range:
    begin, end = np.searchsorted(index.times, [item.start or 0.0, np.inf if item.end is None else item.end]).tolist()
    if begin >= end:
        raise VideoError(f"{item.name} lasts {index.duration:.3f} s; there is nothing from {item.start} s on")
    return range(begin, end)


def survey(
    planned: Planned, answers: dict[str, str], source: Detector | Drawn, watched: Callable[[], object] = lambda: None
) -> Survey:
    """The stored survey of the video, or a new one; `watched` is called for each frame that is looked at."""
    item = planned.item
    assert item.path is not None
    if planned.index is not None:
        try:
            found = _watched(planned.index, item, source, watched)
        except FramesMissing:
            found = _watched(probe(item.path, by_decoding=True), item, source, watched)
        write_text(planned.stored, json.dumps(found))
    found = json.loads(planned.stored.read_text(encoding="utf-8"))
    found |= {"cuts": tuple(found["cuts"]), "boxes": tuple(Box(*box) for box in found["boxes"])}
    return Survey(item.name, item.path, planned.sha256, answers=answers, **found)


def _watched(index: VideoIndex, item: Item, source: Detector | Drawn, watched: Callable[[], object]) -> dict[str, Any]:
    part = _part(item, index)
    histograms = []

    def frames() -> Iterator[np.ndarray]:
        for _, frame in in_order(index, part):
            histograms.append(histogram(frame))
            watched()
            yield frame

    if isinstance(source, Drawn):
        boxes = [box for box in source.of(item) if box.frame in part]
        for _ in frames():
            pass
    else:
        boxes = [box._replace(frame=box.frame + part.start) for box in source.boxes(frames(), index.fps)]
    return {
        "begin": part.start,
        "end": part.stop,
        "height": index.height,
        "width": index.width,
        "fps": index.fps,
        "cuts": [part.start + cut for cut in cuts(np.stack(histograms))],
        "boxes": boxes,
    }


def in_order(index: VideoIndex, wanted: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """`decoded` gives what a failed seek has missed at the end; here that is put in its place."""
    due = sorted(set(wanted))
    early: dict[int, np.ndarray] = {}
    place = 0
    for number, frame in decoded(index, due):
        early[number] = frame
        while place < len(due) and due[place] in early:
            yield due[place], early.pop(due[place])
            place += 1
