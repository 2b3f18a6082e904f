"""Selection of the detections and track segments that become concept clips, with a count per filter stage.

Videos are processed in the order of their content hashes, so that the selection depends neither on the order of files
in a folder nor on their names.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vtcav_jax.concepts.boxes import Pixels, box_area, iou, to_pixels
from vtcav_jax.concepts.config import Concept, MiningConfig, folder_name
from vtcav_jax.concepts.crops import middle_index
from vtcav_jax.concepts.tracks import Track, build_tracks
from vtcav_jax.concepts.video_scan import VideoScan

FILTER_STAGES = (
    "found",
    "confidence",
    "area",
    "length",
    "elsewhere",
    "overlap",
    "rejected",
    "per video",
    "in all",
    "left",
)
CLIP_ID_SALT = 1  # version of cropping and encoding; a change gives all clips new files
Tally = Counter[tuple[str, str, str]]  # number of clips by concept, clip type and filter stage


@dataclass(frozen=True)
class Candidate:
    """A clip that could be cut out of a video."""

    video: str  # sha256 of the file
    concept: str
    clip_type: str  # static or dynamic
    frames: tuple[int, ...]  # one for a static clip
    boxes: tuple[Pixels, ...]  # one per frame
    confidence: float
    label: str  # of the boxes
    n_frames: int  # length of the clip file; a static clip repeats its one crop
    offset_index: int = 0  # rank within its track; all first clips of tracks are selected before any second one

    @cached_property
    def id(self) -> str:
        """Hash of the clip's content."""
        description = json.dumps(
            [self.video, self.concept, self.clip_type, self.frames, self.boxes, self.n_frames, CLIP_ID_SALT]
        )
        return hashlib.sha256(description.encode()).hexdigest()[:12]

    def file(self, stem: str, clip_type: str | None = None) -> str:
        """Return the clip's path in the concept set; its controls have the same file name in another folder."""
        return f"{folder_name(self.concept)}/{clip_type or self.clip_type}/{folder_name(stem)[:40]}_{self.id}.mp4"

    @property
    def appearance(self) -> tuple:
        """Identity of the pixels, regardless of the concept."""
        return (self.video, self.clip_type, self.frames, self.boxes)

    @property
    def frozen_appearance(self) -> tuple:
        """Appearance of the static clip whose box and frame are those of this clip's frozen control."""
        index = middle_index(len(self.frames))
        return (self.video, "static", self.frames[index : index + 1], self.boxes[index : index + 1])

    @property
    def sort_key(self) -> tuple:
        return (self.offset_index, -self.confidence, self.frames, self.boxes)


def static_candidates(scan: VideoScan, concept: Concept, config: MiningConfig, tally: Tally) -> list[Candidate]:
    """Return one candidate per detection of the concept, filtered by confidence and area."""
    candidates = []
    for box in scan.boxes:
        if box.label == concept.label and (pixel_box := to_pixels(box.corners, scan.height, scan.width)):
            candidates.append(
                Candidate(
                    scan.sha256,
                    concept.name,
                    "static",
                    (box.frame,),
                    (pixel_box,),
                    box.confidence,
                    box.label,
                    config.clip_frames,
                )
            )
    return _filter_candidates(candidates, scan, config, tally)


def dynamic_candidates(scan: VideoScan, concept: Concept, config: MiningConfig, tally: Tally) -> list[Candidate]:
    """Return as many non-overlapping candidates as fit into each track of the concept, filtered likewise."""
    candidates = []
    for track in build_tracks(scan.boxes, scan.cuts):
        if track.label == concept.label:
            if len(track.boxes) < config.required_track_length:
                tally[concept.name, "dynamic", "found"] += 1
                tally[concept.name, "dynamic", "length"] += 1
            else:
                candidates += clips_of_track(track, scan, concept.name, config)
    return _filter_candidates(candidates, scan, config, tally)


def clips_of_track(track: Track, scan: VideoScan, name: str, config: MiningConfig) -> list[Candidate]:
    """Return the clips of a track, the most confident first."""
    n = len(track.boxes) // config.clip_span
    start = (len(track.boxes) - n * config.clip_span) // 2
    candidates = []
    for i in range(n):
        offsets = range(start + i * config.clip_span, start + (i + 1) * config.clip_span, config.interval)
        boxes = [to_pixels(track.boxes[j].tolist(), scan.height, scan.width) for j in offsets]
        visible_boxes = tuple(box for box in boxes if box)
        if len(visible_boxes) == len(boxes):
            frames = tuple(track.first + j for j in offsets)
            confidence = float(np.mean(track.confidence[offsets.start : offsets.stop]))
            candidates.append(
                Candidate(
                    scan.sha256, name, "dynamic", frames, visible_boxes, confidence, track.label, config.clip_frames
                )
            )
    ranked = sorted(candidates, key=lambda candidate: candidate.sort_key)
    return [replace(candidate, offset_index=offset_index) for offset_index, candidate in enumerate(ranked)]


def _filter_candidates(
    candidates: Sequence[Candidate], scan: VideoScan, config: MiningConfig, tally: Tally
) -> list[Candidate]:
    accepted = []
    for candidate in candidates:
        tally_key = (candidate.concept, candidate.clip_type)
        tally[*tally_key, "found"] += 1
        if candidate.confidence < config.min_confidence:
            tally[*tally_key, "confidence"] += 1
        elif np.mean([box_area(box) for box in candidate.boxes]) < config.min_area * scan.height * scan.width:
            tally[*tally_key, "area"] += 1
        else:
            accepted.append(candidate)
    return accepted


@dataclass(frozen=True)
class CandidateSelection:
    """Selected and rejected candidates of one concept and clip type."""

    candidates: list[Candidate]
    rejected: list[Candidate]  # by a person, in the review


def select_candidates(
    candidates: Iterable[Candidate], config: MiningConfig, tally: Tally, verdicts: dict[str, str] | None = None
) -> CandidateSelection:
    """Select at most `max_clips_per_video` per video and `max_clips` in total: reviewed first, then by confidence.

    `verdicts` maps ids of candidates to keep or reject. A rejected clip does not count towards the limits, but excludes
    unreviewed clips that overlap it.
    """
    verdicts = verdicts or {}
    by_video: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in {candidate.id: candidate for candidate in candidates}.values():
        by_video[candidate.video].append(candidate)
    ranked, rejected = [], []
    for _, video_candidates in sorted(by_video.items()):
        considered: list[Candidate] = []
        for candidate in sorted(video_candidates, key=lambda c: (c.id not in verdicts, c.sort_key)):
            tally_key, verdict = (candidate.concept, candidate.clip_type), verdicts.get(candidate.id)
            accepted = [other for other in considered if verdicts.get(other.id) != "reject"]
            if verdict is None and any(overlaps_too_much(candidate, other, config) for other in considered):
                tally[*tally_key, "overlap"] += 1
            elif verdict == "reject":
                tally[*tally_key, "rejected"] += 1
                considered.append(candidate)
                rejected.append(candidate)
            elif len(accepted) >= config.max_clips_per_video:
                tally[*tally_key, "per video"] += 1
            else:
                considered.append(candidate)
                ranked.append((verdict is None, len(accepted), candidate.sort_key, candidate.video, candidate))
    ranked.sort(key=lambda entry: entry[:4])
    for entry in ranked[config.max_clips :]:
        tally[entry[4].concept, entry[4].clip_type, "in all"] += 1
    selected = [entry[4] for entry in ranked[: config.max_clips]]
    for candidate in selected:
        tally[candidate.concept, candidate.clip_type, "left"] += 1
    return CandidateSelection(selected, rejected)


def overlaps_too_much(a: Candidate, b: Candidate, config: MiningConfig, max_iou: float | None = None) -> bool:
    """Return True if two clips of one video overlap in time and their boxes by more than `max_iou`."""
    max_iou = config.max_iou if max_iou is None else max_iou
    if a.video != b.video:
        return False
    first, second = _time_extent(a, config), _time_extent(b, config)
    if first[0] >= second[1] or second[0] >= first[1]:
        return False
    return any(iou(x, y) > max_iou for x, y in _matched_boxes(a, b))


def _time_extent(candidate: Candidate, config: MiningConfig) -> tuple[int, int]:
    """Return the first frame and the end; a static crop stands for a clip's length, since nearby frames look alike."""
    if len(candidate.frames) == 1:
        return candidate.frames[0] - config.clip_span // 2, candidate.frames[0] + config.clip_span // 2 + 1
    return candidate.frames[0], candidate.frames[-1] + 1


def _matched_boxes(a: Candidate, b: Candidate) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield each box of either clip with the box of the other clip that is nearest in time."""
    for candidate, counterpart in ((a, b), (b, a)):
        near = np.abs(np.subtract.outer(candidate.frames, counterpart.frames)).argmin(1)
        first, last = counterpart.frames[0], counterpart.frames[-1]
        for frame, box, j in zip(candidate.frames, candidate.boxes, near):
            if first <= frame <= last or len(candidate.frames) == 1 or len(counterpart.frames) == 1:
                yield box, counterpart.boxes[j]
