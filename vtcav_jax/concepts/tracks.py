"""One thing followed through consecutive frames: from boxes with track numbers to unbroken tracks, and where shots end.

A detector loses a thing for a frame or two; such a gap is filled by a straight line. A cut ends a track, since what
bears the same number after it is something else. A frame in which one track has several boxes ends it too: a thing in
pieces (in the worlds, where it crosses the border) has no box of its own.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.concepts.boxes import Box

GAP = 2  # frames in which a thing may be lost and found again
LEVELS = 4  # of each colour in a histogram
CUT = 0.35  # least distance of the histograms of two shots, of at most 1
JUMP = 4.0  # and how many times the usual distance around it


@dataclass(frozen=True)
class Track:
    """A box in each frame from `first` on."""

    label: str
    number: int
    first: int
    boxes: Float[np.ndarray, "n 4"]
    confidence: Float[np.ndarray, " n"]  # that it is `label`; 0 where the detector called it something else

    @property
    def frames(self) -> range:
        return range(self.first, self.first + len(self.boxes))


def tracks(boxes: Iterable[Box], cuts: Sequence[int] = (), gap: int = GAP) -> list[Track]:
    """All unbroken tracks, by number and first frame; `cuts` are the frames with which a shot begins."""
    numbered: dict[int, dict[int, list[Box]]] = defaultdict(lambda: defaultdict(list))
    for box in boxes:
        if box.track is not None:
            numbered[box.track][box.frame].append(box)
    found = []
    for number, by_frame in sorted(numbered.items()):
        label = _label(box for some in by_frame.values() for box in some)
        for run in _runs(by_frame, cuts, gap):
            found.append(_filled(label, number, run))
    return found


def _label(boxes: Iterable[Box]) -> str:
    """Detectors waver (a football is a frisbee in every other frame): what it was called with most confidence."""
    votes: dict[str, float] = defaultdict(float)
    for box in boxes:
        votes[box.label] += box.confidence
    return max(sorted(votes), key=lambda label: votes[label])


def _runs(by_frame: dict[int, list[Box]], cuts: Sequence[int], gap: int) -> list[list[Box]]:
    runs: list[list[Box]] = []
    before = None  # the frame of the last box of an open run
    for frame, some in sorted(by_frame.items()):
        if len(some) > 1:
            before = None
            continue
        if before is None or frame - before - 1 > gap or any(before < cut <= frame for cut in cuts):
            runs.append([])
        runs[-1].append(some[0])
        before = frame
    return runs


def _filled(label: str, number: int, run: list[Box]) -> Track:
    known = np.array([box.frame for box in run])
    frames = np.arange(known[0], known[-1] + 1)
    values = np.array([[*box.corners, box.confidence * (box.label == label)] for box in run], float)
    full = np.stack([np.interp(frames, known, column) for column in values.T], -1)
    return Track(label, number, int(known[0]), full[:, :4], full[:, 4])


def histogram(frame: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " bins"]:
    """How much of a frame has which colour, roughly; large frames are thinned out, since a cut changes everything."""
    step = max(min(frame.shape[:2]) // 120, 1)
    red, green, blue = np.moveaxis(frame[::step, ::step] // (256 // LEVELS), -1, 0)
    bins = (red.astype(np.intp) * LEVELS + green) * LEVELS + blue
    return np.bincount(bins.ravel(), minlength=LEVELS**3) / bins.size


def cuts(histograms: Float[np.ndarray, "n bins"]) -> tuple[int, ...]:
    """The frames with which a new shot begins: the colours change at once, and far more than around it.

    A distance of 0 means the same colours, 1 that no colour is in both. Comparing with the frames around keeps a
    flickering or fast video in one piece.
    """
    distance = np.abs(np.diff(histograms, axis=0)).sum(-1) / 2
    found = []
    for i in np.flatnonzero(distance > CUT):
        around = np.delete(distance[max(i - 8, 0) : i + 9], min(i, 8))
        if not len(around) or distance[i] > JUMP * np.median(around):
            found.append(int(i) + 1)
    return tuple(found)
