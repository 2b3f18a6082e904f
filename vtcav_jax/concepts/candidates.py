"""Which crops and which stretches of tracks become clips, and what each threshold removes.

Videos are judged one by one and in an order made of their bytes, so that neither the order of a folder nor a new name
changes what is chosen.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vtcav_jax.concepts.boxes import Pixels, area, overlap, pixels
from vtcav_jax.concepts.config import Concept, Mining, folder_name
from vtcav_jax.concepts.crops import middle
from vtcav_jax.concepts.tracks import Track, tracks
from vtcav_jax.concepts.video_scan import Survey

STEPS = ("found", "confidence", "area", "length", "elsewhere", "overlap", "rejected", "per video", "in all", "left")
MAKING = 1  # how clips are cut out and stored; another one is made anew
Tally = Counter[tuple[str, str, str]]  # concept, kind, step


@dataclass(frozen=True)
class Candidate:
    """A clip before it is cut out."""

    video: str  # sha256 of the file
    concept: str
    kind: str  # static or dynamic
    frames: tuple[int, ...]  # one for a static clip
    boxes: tuple[Pixels, ...]  # one for each of them
    confidence: float
    label: str  # of the boxes
    t: int  # frames of the clip, also of one that repeats one crop
    turn: int = 0  # which stretch of its track it is; each track has its first before any has its second

    @cached_property
    def id(self) -> str:
        """A hash of what is seen in it."""
        told = json.dumps([self.video, self.concept, self.kind, self.frames, self.boxes, self.t, MAKING])
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def file(self, stem: str, kind: str | None = None) -> str:
        """Its place in a concept set; controls have the same name in another folder."""
        return f"{folder_name(self.concept)}/{kind or self.kind}/{folder_name(stem)[:40]}_{self.id}.mp4"

    @property
    def seen(self) -> tuple:
        """What is seen, whatever it is called."""
        return (self.video, self.kind, self.frames, self.boxes)

    @property
    def frozen(self) -> tuple:
        """The static clip that may look like its frozen control."""
        at = middle(len(self.frames))
        return (self.video, "static", self.frames[at : at + 1], self.boxes[at : at + 1])

    @property
    def order(self) -> tuple:
        return (self.turn, -self.confidence, self.frames, self.boxes)


def statics(survey: Survey, concept: Concept, settings: Mining, tally: Tally) -> list[Candidate]:
    """Each detection is one."""
    out = []
    for box in survey.boxes:
        if box.label == concept.label and (cut := pixels(box.corners, survey.height, survey.width)):
            out.append(
                Candidate(
                    survey.sha256,
                    concept.name,
                    "static",
                    (box.frame,),
                    (cut,),
                    box.confidence,
                    box.label,
                    settings.frames,
                )
            )
    return _good_enough(out, survey, settings, tally)


def dynamics(survey: Survey, concept: Concept, settings: Mining, tally: Tally) -> list[Candidate]:
    """Each unbroken track gives as many as fit into it end to end."""
    out = []
    for track in tracks(survey.boxes, survey.cuts):
        if track.label == concept.label:
            if len(track.boxes) < settings.length:
                tally[concept.name, "dynamic", "found"] += 1
                tally[concept.name, "dynamic", "length"] += 1
            else:
                out += stretches(track, survey, concept.name, settings)
    return _good_enough(out, survey, settings, tally)


def stretches(track: Track, survey: Survey, name: str, settings: Mining) -> list[Candidate]:
    """The track's clips, the surest first."""
    n = len(track.boxes) // settings.span
    start = (len(track.boxes) - n * settings.span) // 2
    found = []
    for i in range(n):
        taken = range(start + i * settings.span, start + (i + 1) * settings.span, settings.interval)
        boxes = [pixels(track.boxes[j].tolist(), survey.height, survey.width) for j in taken]
        whole = tuple(box for box in boxes if box)
        if len(whole) == len(boxes):
            frames = tuple(track.first + j for j in taken)
            confidence = float(np.mean(track.confidence[taken.start : taken.stop]))
            found.append(
                Candidate(survey.sha256, name, "dynamic", frames, whole, confidence, track.label, settings.frames)
            )
    ranked = sorted(found, key=lambda candidate: candidate.order)
    return [replace(candidate, turn=turn) for turn, candidate in enumerate(ranked)]


def _good_enough(candidates: Sequence[Candidate], survey: Survey, settings: Mining, tally: Tally) -> list[Candidate]:
    left = []
    for candidate in candidates:
        where = (candidate.concept, candidate.kind)
        tally[*where, "found"] += 1
        if candidate.confidence < settings.least_confidence:
            tally[*where, "confidence"] += 1
        elif np.mean([area(box) for box in candidate.boxes]) < settings.least_area * survey.height * survey.width:
            tally[*where, "area"] += 1
        else:
            left.append(candidate)
    return left


@dataclass(frozen=True)
class Choice:
    """What became of the candidates of one concept and kind."""

    chosen: list[Candidate]
    rejected: list[Candidate]  # which a person has looked at


def choose(
    candidates: Iterable[Candidate], settings: Mining, tally: Tally, verdicts: dict[str, str] | None = None
) -> Choice:
    """At most so many of each video and so many in all, the surest and those that were kept in the review first.

    `verdicts` are keep or reject by the candidate's id. A rejected clip takes no one's place, but nothing is taken that
    is nearly the same either.
    """
    verdicts = verdicts or {}
    by_video: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in {candidate.id: candidate for candidate in candidates}.values():
        by_video[candidate.video].append(candidate)
    ranked, rejected = [], []
    for _, some in sorted(by_video.items()):
        taken: list[Candidate] = []
        for candidate in sorted(some, key=lambda c: (c.id not in verdicts, c.order)):
            where, verdict = (candidate.concept, candidate.kind), verdicts.get(candidate.id)
            kept = [other for other in taken if verdicts.get(other.id) != "reject"]
            if verdict is None and any(too_near(candidate, other, settings) for other in taken):
                tally[*where, "overlap"] += 1
            elif verdict == "reject":
                tally[*where, "rejected"] += 1
                taken.append(candidate)
                rejected.append(candidate)
            elif len(kept) >= settings.most_per_video:
                tally[*where, "per video"] += 1
            else:
                taken.append(candidate)
                ranked.append((verdict is None, len(kept), candidate.order, candidate.video, candidate))
    ranked.sort(key=lambda entry: entry[:4])
    for entry in ranked[settings.most :]:
        tally[entry[4].concept, entry[4].kind, "in all"] += 1
    chosen = [entry[4] for entry in ranked[: settings.most]]
    for candidate in chosen:
        tally[candidate.concept, candidate.kind, "left"] += 1
    return Choice(chosen, rejected)


def too_near(a: Candidate, b: Candidate, settings: Mining, greatest: float | None = None) -> bool:
    """Two clips of a video that show about the same place at about the same time."""
    greatest = settings.greatest_overlap if greatest is None else greatest
    if a.video != b.video:
        return False
    first, second = _lasting(a, settings), _lasting(b, settings)
    if first[0] >= second[1] or second[0] >= first[1]:
        return False
    return any(overlap(x, y) > greatest for x, y in _meetings(a, b))


def _lasting(candidate: Candidate, settings: Mining) -> tuple[int, int]:
    """The frames around a static crop count as its own: a second later there is still about the same to be seen."""
    if len(candidate.frames) == 1:
        return candidate.frames[0] - settings.span // 2, candidate.frames[0] + settings.span // 2 + 1
    return candidate.frames[0], candidate.frames[-1] + 1


def _meetings(a: Candidate, b: Candidate) -> Iterator[tuple[Pixels, Pixels]]:
    """Each box of the one with that of the other which is nearest in time; of a static clip its one box."""
    for one, other in ((a, b), (b, a)):
        near = np.abs(np.subtract.outer(one.frames, other.frames)).argmin(1)
        first, last = other.frames[0], other.frames[-1]
        for frame, box, j in zip(one.frames, one.boxes, near):
            if first <= frame <= last or len(one.frames) == 1 or len(other.frames) == 1:
                yield box, other.boxes[j]
