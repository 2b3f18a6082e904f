"""Unbroken tracks of objects from numbered boxes, and detection of shot boundaries (cuts).

Short gaps, where a detector misses the object, are interpolated linearly. A cut ends a track, since the same number
after it denotes another object. A frame with several boxes of one track ends it too: an object in pieces (in the
synthetic worlds, where it crosses the border) has no single box.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.concepts.boxes import Box, Keypoints, Outline, move_outline

MAX_TRACK_GAP = 2  # frames to interpolate
HISTOGRAM_LEVELS = 4  # per colour channel
MIN_CUT_DISTANCE = 0.35  # minimum distance of the histograms at a cut; the maximum is 1
MIN_CUT_RATIO = 4.0  # minimum ratio to the median distance of the neighbouring frames


@dataclass(frozen=True)
class Track:
    """Boxes of one object in consecutive frames, starting at `first`."""

    label: str
    number: int
    first: int
    boxes: Float[np.ndarray, "n 4"]
    confidence: Float[np.ndarray, " n"]  # in `label`; 0 where the detector assigned another label
    outlines: tuple[Outline, ...] = ()  # of each frame; empty if no box of the track has one
    keypoints: tuple[Keypoints, ...] = ()  # of each frame, empty where unknown; empty if no box of the track has any

    @property
    def frames(self) -> range:
        return range(self.first, self.first + len(self.boxes))


def build_tracks(boxes: Iterable[Box], cuts: Sequence[int] = (), max_gap: int = MAX_TRACK_GAP) -> list[Track]:
    """Return all unbroken tracks, by number and first frame; `cuts` are the first frames of shots."""
    boxes_by_track: dict[int, dict[int, list[Box]]] = defaultdict(lambda: defaultdict(list))
    for box in boxes:
        if box.track is not None:
            boxes_by_track[box.track][box.frame].append(box)
    complete_tracks = []
    for number, by_frame in sorted(boxes_by_track.items()):
        label = _majority_label(box for frame_boxes in by_frame.values() for box in frame_boxes)
        for run in _unbroken_runs(by_frame, cuts, max_gap):
            complete_tracks.append(_interpolate_track(label, number, run))
    return complete_tracks


def _majority_label(boxes: Iterable[Box]) -> str:
    """Return the label with the maximum total confidence, since a detector may alternate between labels."""
    votes: dict[str, float] = defaultdict(float)
    for box in boxes:
        votes[box.label] += box.confidence
    return max(sorted(votes), key=lambda label: votes[label])


def _unbroken_runs(by_frame: dict[int, list[Box]], cuts: Sequence[int], max_gap: int) -> list[list[Box]]:
    runs: list[list[Box]] = []
    previous_frame = None  # the frame of the last box of an open run
    for frame, frame_boxes in sorted(by_frame.items()):
        if len(frame_boxes) > 1:
            previous_frame = None
            continue
        if (
            previous_frame is None
            or frame - previous_frame - 1 > max_gap
            or any(previous_frame < cut <= frame for cut in cuts)
        ):
            runs.append([])
        runs[-1].append(frame_boxes[0])
        previous_frame = frame
    return runs


def _interpolate_track(label: str, number: int, run: list[Box]) -> Track:
    known_frames = np.array([box.frame for box in run])
    frames = np.arange(known_frames[0], known_frames[-1] + 1)
    values = np.array([[*box.corners, box.confidence * (box.label == label)] for box in run], float)
    full = np.stack([np.interp(frames, known_frames, column) for column in values.T], -1)
    outlines = _fill_outlines(run, frames, full[:, :4])
    keypoints_at = {box.frame: box.keypoints for box in run if box.keypoints}
    keypoints = tuple(keypoints_at.get(frame, ()) for frame in frames.tolist()) if keypoints_at else ()
    return Track(label, number, int(known_frames[0]), full[:, :4], full[:, 4], outlines, keypoints)


def _fill_outlines(run: list[Box], frames: np.ndarray, boxes: Float[np.ndarray, "n 4"]) -> tuple[Outline, ...]:
    """Return the outline in each frame; where there is none, that of the nearest frame, moved with the box."""
    known = {box.frame: box for box in run if box.outline}
    if not known:
        return ()
    outlines = []
    for frame, corners in zip(frames.tolist(), boxes.tolist()):
        nearest = known[min(known, key=lambda other: abs(other - frame))]
        outlines.append(
            nearest.outline if nearest.frame == frame else move_outline(nearest.outline, nearest.corners, corners)
        )
    return tuple(outlines)


def colour_histogram(frame: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " bins"]:
    """Return the normalised colour histogram of a frame; large frames are subsampled."""
    step = max(min(frame.shape[:2]) // 120, 1)
    red, green, blue = np.moveaxis(frame[::step, ::step] // (256 // HISTOGRAM_LEVELS), -1, 0)
    bins = (red.astype(np.intp) * HISTOGRAM_LEVELS + green) * HISTOGRAM_LEVELS + blue
    return np.bincount(bins.ravel(), minlength=HISTOGRAM_LEVELS**3) / bins.size


def find_cuts(histograms: Float[np.ndarray, "n bins"]) -> tuple[int, ...]:
    """Return the first frame of each new shot, where the colours change abruptly compared with the neighbouring frames.

    The distance of two frames is 0 for equal histograms and 1 for disjoint ones. The comparison with neighbouring
    frames avoids false cuts in flickering or fast videos.
    """
    distance = np.abs(np.diff(histograms, axis=0)).sum(-1) / 2
    cut_frames = []
    for i in np.flatnonzero(distance > MIN_CUT_DISTANCE):
        around = np.delete(distance[max(i - 8, 0) : i + 9], min(i, 8))
        if not len(around) or distance[i] > MIN_CUT_RATIO * np.median(around):
            cut_frames.append(int(i) + 1)
    return tuple(cut_frames)
