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

from vtcav_jax.concepts.boxes import Outline, Pixels, box_area, box_outline, intersection, iou, to_pixels
from vtcav_jax.concepts.config import Concept, MiningConfig, folder_name
from vtcav_jax.concepts.crops import canvas_size, middle_index
from vtcav_jax.concepts.tracks import Track, build_tracks
from vtcav_jax.concepts.video_scan import VideoScan
from vtcav_jax.concepts.windows import FrameSize, window_around

FILTER_STAGES = (
    "found",
    "confidence",
    "area",
    "pixels",
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
    boxes: tuple[Pixels, ...]  # of the object, one per frame; none for a random window
    confidence: float
    label: str  # of the boxes
    n_frames: int  # length of the clip file; a static clip repeats its one crop
    frame_size: FrameSize  # of the video
    window: Pixels | None = None  # what the clip shows, the same in all frames; None: the clip follows the boxes
    outlines: tuple[Outline, ...] = ()  # one per frame, outside of which the clip is grey; empty: it is not
    rank: int = 0  # clips of a lower rank are selected first, such as the first clip of each track

    @cached_property
    def id(self) -> str:
        """Hash of the clip's content."""
        content = [self.video, self.concept, self.clip_type, self.frames, self.boxes, self.n_frames, CLIP_ID_SALT]
        if self.window:
            content.append(self.window)
        if self.outlines:
            content.append({"outlines": [[round(float(value), 2) for value in outline] for outline in self.outlines]})
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    @property
    def crops(self) -> tuple[Pixels, ...]:
        """The part of each frame that the clip shows."""
        return (self.window,) * len(self.frames) if self.window else self.boxes

    def file(self, stem: str, clip_type: str | None = None) -> str:
        """Return the clip's path in the concept set; its controls have the same file name in another folder."""
        return f"{folder_name(self.concept)}/{clip_type or self.clip_type}/{folder_name(stem)[:40]}_{self.id}.mp4"

    @property
    def appearance(self) -> tuple:
        """Identity of the pixels, regardless of the concept."""
        return (self.video, self.clip_type, self.frames, self.crops, self.outlines)

    @property
    def frozen_appearance(self) -> tuple:
        """Appearance of the static clip whose crop and frame are those of this clip's frozen control."""
        index = middle_index(len(self.frames))
        middle = slice(index, index + 1)
        return (self.video, "static", self.frames[middle], self.crops[middle], self.outlines[middle])

    @property
    def sort_key(self) -> tuple:
        # Equal confidences, as in a table of boxes, are ordered at random: ordered by position, the selected objects
        # would have similar positions, and hence similar directions of motion.
        return (self.rank, -self.confidence, self.id)


def static_candidates(scan: VideoScan, concept: Concept, config: MiningConfig, tally: Tally) -> list[Candidate]:
    """Return one candidate per detection of the concept, filtered by confidence, area and size of the crop."""
    tracks: dict[int, list[Track]] = defaultdict(list)
    if config.crop == "window":
        for track in build_tracks(scan.boxes, scan.cuts):
            tracks[track.number].append(track)
    candidates = []
    for box in scan.boxes:
        if box.label == concept.label and (pixel_box := to_pixels(box.corners, scan.height, scan.width)):
            window, rank = None, 0
            if config.crop == "window":
                runs = () if box.track is None else tracks[box.track]
                track = next((run for run in runs if box.frame in run.frames), None)
                window, rank = _static_window(track, box.frame, pixel_box, scan, config)
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
                    scan.frame_size,
                    window,
                    (box.outline or box_outline(box.corners),) if config.background == "grey" else (),
                    rank,
                )
            )
    return _filter_candidates(candidates, scan, config, tally)


def _static_window(
    track: Track | None, frame: int, box: Pixels, scan: VideoScan, config: MiningConfig
) -> tuple[Pixels, int]:
    """Return the window of the dynamic clip whose middle is `frame`, and the number of its frames without a box."""
    start = frame - middle_index(config.clip_frames) * config.interval
    frames = range(start, start + config.clip_span, config.interval)
    rows = [f - track.first for f in frames if f in track.frames] if track else []
    extents = np.concatenate([np.array([box], float), track.boxes[rows]]) if track else np.array([box], float)
    return _window_of(extents, scan, config), config.clip_frames - max(len(rows), 1)


def _window_of(boxes: np.ndarray, scan: VideoScan, config: MiningConfig) -> Pixels:
    extent = to_pixels([*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()], scan.height, scan.width)
    assert extent is not None
    return window_around(extent, scan.frame_size, config.window_scale)


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
            window = _window_of(np.array(visible_boxes), scan, config) if config.crop == "window" else None
            candidates.append(
                Candidate(
                    scan.sha256,
                    name,
                    "dynamic",
                    frames,
                    visible_boxes,
                    confidence,
                    track.label,
                    config.clip_frames,
                    scan.frame_size,
                    window,
                    _outlines_at(track, offsets) if config.background == "grey" else (),
                )
            )
    ranked = sorted(candidates, key=lambda candidate: candidate.sort_key)
    return [replace(candidate, rank=rank) for rank, candidate in enumerate(ranked)]


def _outlines_at(track: Track, offsets: Iterable[int]) -> tuple[Outline, ...]:
    """Return the outlines in these frames of a track, or its boxes if it has none."""
    return tuple(track.outlines[j] if track.outlines else box_outline(track.boxes[j].tolist()) for j in offsets)


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
        elif max(canvas_size(candidate.crops)) < config.min_crop_side(scan.frame_size):
            tally[*tally_key, "pixels"] += 1
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


def overlaps_too_much(a: Candidate, b: Candidate, config: MiningConfig) -> bool:
    """Return True if two clips of one video overlap in time and their crops by more than `max_iou`."""
    return _overlap_in_time(a, b, config) and any(iou(x, y) > config.max_iou for x, y in _matched(a, b, b.crops))


def shows_object_of(a: Candidate, b: Candidate, config: MiningConfig) -> bool:
    """Return True if two clips of one video overlap in time and the object of `b` is in the crops of `a`."""
    return _overlap_in_time(a, b, config) and any(intersection(x, y) > 0 for x, y in _matched(a, b, b.boxes))


def _overlap_in_time(a: Candidate, b: Candidate, config: MiningConfig) -> bool:
    first, second = _time_extent(a, config), _time_extent(b, config)
    return a.video == b.video and first[0] < second[1] and second[0] < first[1]


def _time_extent(candidate: Candidate, config: MiningConfig) -> tuple[int, int]:
    """Return the first frame and the end; a static crop stands for a clip's length, since nearby frames look alike."""
    if len(candidate.frames) == 1:
        return candidate.frames[0] - config.clip_span // 2, candidate.frames[0] + config.clip_span // 2 + 1
    return candidate.frames[0], candidate.frames[-1] + 1


def _matched(a: Candidate, b: Candidate, b_boxes: Sequence[Pixels]) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield each crop of `a` and each box of `b` with the one of the other clip that is nearest in time."""
    for clip, boxes, other, other_boxes in ((a, a.crops, b, b_boxes), (b, b_boxes, a, a.crops)):
        near = np.abs(np.subtract.outer(clip.frames, other.frames)).argmin(1)
        first, last = other.frames[0], other.frames[-1]
        for frame, box, j in zip(clip.frames, boxes, near):
            if first <= frame <= last or len(clip.frames) == 1 or len(other.frames) == 1:
                yield box, other_boxes[j]
