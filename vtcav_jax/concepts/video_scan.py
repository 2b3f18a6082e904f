"""Scans of videos for cuts and boxes, cached on disk, since detection takes most of the time of mining.

A scan is stored under a key made of the video's hash, the selected part of it and the source of boxes, so that mining
again with other thresholds does not decode the videos for detection again.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.atomic import write_text
from vtcav_jax.checksums import file_sha256, shared_file_sha256
from vtcav_jax.concepts.boxes import Box
from vtcav_jax.concepts.config import MiningConfig
from vtcav_jax.concepts.tracks import colour_histogram, find_cuts
from vtcav_jax.console import info, progress
from vtcav_jax.data.decode import MissingFramesError, VideoError, VideoIndex, decode_frames, probe
from vtcav_jax.data.source import SourceItem
from vtcav_jax.json_file import load_json
from vtcav_jax.runs.code_version import code_hash

SCANS_FOLDER = "surveys"
# Source files that determine a scan; scans by other code are repeated
SCAN_CODE = (
    *("concepts/video_scan.py", "concepts/detect.py", "concepts/boxes.py", "concepts/tracks.py"),
    "data/decode.py",
)


@runtime_checkable
class Detector(Protocol):
    """Interface of object detectors; `detect.load_detector` returns one."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str:
        """Hash of the detector's weights."""
        ...

    @property
    def identity(self) -> str:
        """Hash of everything that determines its boxes."""
        ...

    @property
    def labels(self) -> Sequence[str]: ...

    def boxes(self, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> Iterator[Box]:
        """Yield the boxes of one video, frames counted from 0; consumes each frame once and starts new tracks."""
        ...


@dataclass(frozen=True)
class BoxTable:
    """Existing boxes by video name, used instead of a detector."""

    name: str
    by_file: dict[str, tuple[Box, ...]]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.by_file, sort_keys=True).encode()).hexdigest()

    identity = sha256

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({box.label for boxes in self.by_file.values() for box in boxes}))

    @property
    def has_outlines(self) -> bool:
        return any(box.outline for boxes in self.by_file.values() for box in boxes)

    @property
    def keypoint_count(self) -> int:
        """Number of keypoints of a person; 0 if no box has any."""
        return max((len(box.keypoints) // 3 for boxes in self.by_file.values() for box in boxes), default=0)

    def boxes_of(self, item: SourceItem) -> tuple[Box, ...]:
        assert item.path is not None
        names = (item.name, item.path.name)
        return next((self.by_file[name] for name in names if name in self.by_file), ())


@dataclass(frozen=True)
class VideoScan:
    """Cuts and boxes of one video, or of the selected part of it."""

    name: str
    path: Path
    sha256: str
    begin: int  # first selected frame; `end` is excluded
    end: int
    height: int
    width: int
    fps: float
    cuts: tuple[int, ...]
    boxes: tuple[Box, ...]
    answers: dict[str, str] = field(default_factory=dict)  # the video's class of each head
    recording: str = ""  # that the video was cut from

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width."""
        return (self.height, self.width)

    @property
    def key(self) -> tuple[str, int, int]:
        """Key of the content, independent of the file's name."""
        return (self.sha256, self.begin, self.end)


@dataclass(frozen=True)
class ScanPlan:
    """A video to scan, or one whose scan is cached."""

    item: SourceItem
    sha256: str
    scan_file: Path
    index: VideoIndex | None  # None if the scan is cached
    frames: range


def plan_scan(item: SourceItem, box_source: Detector | BoxTable, folder: Path) -> ScanPlan:
    """Return the frames to scan, none if a scan is cached; raise `VideoError` if the file is not a video."""
    assert item.path is not None
    if not item.path.is_file():
        raise VideoError(f"there is no file {item.path}; expected a video")
    is_part = item.start is not None or item.end is not None
    sha256 = shared_file_sha256(item.path) if is_part else file_sha256(item.path)
    boxes = box_source.boxes_of(item) if isinstance(box_source, BoxTable) else box_source.identity
    key = json.dumps([code_hash(*SCAN_CODE), sha256, item.start, item.end, boxes])
    scan_file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if _is_intact(scan_file):
        return ScanPlan(item, sha256, scan_file, None, range(0))
    index = probe(item.path)
    return ScanPlan(item, sha256, scan_file, index, _frame_range(item, index))


def _is_intact(scan_file: Path) -> bool:
    """Return whether there is a scan; a damaged one is noted, and scanned again."""
    if not scan_file.exists():
        return False
    try:
        _read_scan(scan_file)
    except Exception:  # a damaged file can raise anything
        info(f"note: {scan_file} is damaged; scanned again")
        return False
    return True


def _read_scan(scan_file: Path) -> dict[str, Any]:
    scan_data = load_json(scan_file)
    return scan_data | {"cuts": tuple(scan_data["cuts"]), "boxes": tuple(map(_restore_box, scan_data["boxes"]))}


def _restore_box(values: Sequence[Any]) -> Box:
    """Return the box with these JSON values, in which the outline and the keypoints are lists."""
    *others, outline, keypoints = values
    return Box(*others, outline=tuple(outline), keypoints=tuple(keypoints))


def _frame_range(item: SourceItem, index: VideoIndex) -> range:
    begin, end = np.searchsorted(index.times, [item.start or 0.0, np.inf if item.end is None else item.end]).tolist()
    if begin >= end:
        raise VideoError(
            f"{item.name} has no frames from {item.start} s to {item.end} s; it lasts {index.duration:.3f} s"
        )
    return range(begin, end)


def scan_video(
    scan_plan: ScanPlan,
    answers: dict[str, str],
    box_source: Detector | BoxTable,
    on_frame: Callable[[], object] = lambda: None,
) -> VideoScan:
    """Return the cached scan of the video, or scan it; `on_frame` is called for each scanned frame."""
    item = scan_plan.item
    assert item.path is not None
    if scan_plan.index is not None:
        try:
            scan_data = _scan_frames(scan_plan.index, item, box_source, on_frame)
        except MissingFramesError:
            scan_data = _scan_frames(probe(item.path, by_decoding=True), item, box_source, on_frame)
        write_text(scan_plan.scan_file, json.dumps(scan_data))
    details = {"answers": answers, "recording": item.recording}
    return VideoScan(item.name, item.path, scan_plan.sha256, **details, **_read_scan(scan_plan.scan_file))


def _scan_frames(
    index: VideoIndex, item: SourceItem, box_source: Detector | BoxTable, on_frame: Callable[[], object]
) -> dict[str, Any]:
    frame_range = _frame_range(item, index)
    histograms = []

    def frames() -> Iterator[np.ndarray]:
        for _, frame in decode_in_order(index, frame_range):
            histograms.append(colour_histogram(frame))
            on_frame()
            yield frame

    if isinstance(box_source, BoxTable):
        boxes = [box for box in box_source.boxes_of(item) if box.frame in frame_range]
        for _ in frames():
            pass
    else:
        boxes = [box._replace(frame=box.frame + frame_range.start) for box in box_source.boxes(frames(), index.fps)]
    return {
        "begin": frame_range.start,
        "end": frame_range.stop,
        "height": index.height,
        "width": index.width,
        "fps": index.fps,
        "cuts": [frame_range.start + cut for cut in find_cuts(np.stack(histograms))],
        "boxes": boxes,
    }


def decode_in_order(index: VideoIndex, frame_numbers: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Decode frames in increasing order; `decode_frames` yields frames missed by a failed seek at the end."""
    ordered_numbers = sorted(set(frame_numbers))
    early: dict[int, np.ndarray] = {}
    position = 0
    for number, frame in decode_frames(index, ordered_numbers):
        early[number] = frame
        while position < len(ordered_numbers) and ordered_numbers[position] in early:
            yield ordered_numbers[position], early.pop(ordered_numbers[position])
            position += 1


def try_plan(item: SourceItem, box_source: Detector | BoxTable, out: Path, failures: dict[str, str]) -> ScanPlan | None:
    """Return the plan of a video; None, and the reason in `failures`, if it cannot be read."""
    try:
        return plan_scan(item, box_source, out / SCANS_FOLDER)
    except VideoError as error:
        failures[item.name] = str(error)
        return None


def scan_videos(
    plans: Sequence[ScanPlan | None],
    answers: Sequence[dict[str, str]],
    box_source: Detector | BoxTable,
    failures: dict[str, str],
) -> list[VideoScan | None]:
    """Return the scan of each video, None if it cannot be read."""
    unfinished = True
    total = sum(len(planned.frames) for planned in plans if planned)
    bar = progress(iter(lambda: unfinished, False), total, "frames", size=int)
    scans: list[VideoScan | None] = []
    for planned, item_answers in zip(plans, answers):
        try:
            scans.append(scan_video(planned, item_answers, box_source, lambda: next(bar)) if planned else None)
        except VideoError as error:
            failures[planned.item.name if planned else ""] = str(error)
            scans.append(None)
    unfinished = False
    deque(bar, maxlen=0)
    return scans


def notes_on_empty_videos(scans: Sequence[VideoScan | None], config: MiningConfig) -> list[str]:
    """Return a note on the videos without a box of any concept."""
    labels = {c.label for c in config.concepts}
    names = [s.name for s in scans if s and labels and labels.isdisjoint(box.label for box in s.boxes)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"no box of any concept in {', '.join(names[:3])}{more}"] if names else []


def unique_scans(scans: Iterable[VideoScan | None], notes: list[str]) -> list[VideoScan]:
    """Return the scan of each distinct video, ordered by content hash."""
    by_key: dict[tuple[str, int, int], VideoScan] = {}
    for s in sorted(filter(None, scans), key=lambda s: (s.key, s.name)):
        if s.key in by_key:
            notes.append(f"{s.name} is the same video as {by_key[s.key].name} and is used once")
        by_key.setdefault(s.key, s)
    return list(by_key.values())
