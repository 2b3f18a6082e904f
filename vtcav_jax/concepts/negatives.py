"""Disjoint random sets of static and dynamic clips, the negatives of the concepts.

Half of the candidates are other detected objects, half are randomly placed boxes and tubes with the sizes and paths of
the concepts' clips, so that neither size nor motion of the box identifies a concept. None overlaps a concept's box.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from vtcav_jax.concepts.boxes import Corners, Pixels, intersection, to_pixels
from vtcav_jax.concepts.candidates import Candidate, dynamic_candidates, overlaps_too_much, static_candidates
from vtcav_jax.concepts.config import NEGATIVE_PREFIX, Concept, MiningConfig
from vtcav_jax.concepts.video_scan import VideoScan

RANDOM_BOX = "anywhere"  # label of randomly placed boxes
TRIES_PER_BOX = 20  # random placements per required clip
MIN_BACKGROUND_CONFIDENCE = 0.25  # concept boxes of lower confidence may overlap a negative


def build_random_sets(
    scans: Sequence[VideoScan], concept_clips: Sequence[Candidate], config: MiningConfig
) -> tuple[list[Candidate], list[str]]:
    """Return the clips of all random sets, with the set's name as their concept, and messages on shortfalls.

    `concept_clips` may be from these or from other videos.
    """
    clips, shortfalls = [], []
    for clip_type in ("static", "dynamic"):
        references = [candidate for candidate in concept_clips if candidate.clip_type == clip_type]
        size = config.random_set_size or max(Counter(candidate.concept for candidate in references).values(), default=0)
        if not config.num_random_sets or not references or not scans:
            continue
        pool = _candidate_pool(scans, clip_type, references, concept_clips, size, config)
        sets = _deal_sets(pool, size, config)
        is_complete = bool(sets) and len(sets[0]) == size
        if len(sets) < config.num_random_sets or not is_complete:
            n_videos = len({candidate.video for candidate in pool})
            obtained = len(sets) if is_complete else f"one of {len(sets[0])} clips" if sets else "none"
            shortfalls.append(
                f"{clip_type} random sets: {obtained} instead of {config.num_random_sets}, since a set needs {size}"
                f" clips, at most {config.max_clips_per_video} per video, and only {len(pool)} clips of {n_videos}"
                " videos overlap no concept; use more videos, or smaller sets"
            )
        for i, set_clips in enumerate(sets):
            clips += [replace(candidate, concept=f"{NEGATIVE_PREFIX}_{i:03d}") for candidate in set_clips]
    return clips, shortfalls


def _candidate_pool(
    scans: Sequence[VideoScan],
    clip_type: str,
    references: Sequence[Candidate],
    concept_clips: Sequence[Candidate],
    size: int,
    config: MiningConfig,
) -> list[Candidate]:
    """Return clips that overlap neither concepts nor each other; all first clips of videos precede any second one."""
    ranked = []
    max_per_video = min(
        config.num_random_sets * config.max_clips_per_video, 4 * math.ceil(config.num_random_sets * size / len(scans))
    )
    for scan in sorted(scans, key=lambda s: s.key):
        random = np.random.default_rng([config.seed, ("static", "dynamic").index(clip_type), *_seed_words(scan.key)])
        concept_boxes = _concept_boxes(scan, config.concepts)
        near = [candidate for candidate in concept_clips if candidate.video == scan.sha256]
        previous = [candidate for _, candidate in ranked if candidate.video == scan.sha256]  # other parts of the video
        accepted: list[Candidate] = []
        for candidate in _offer_candidates(scan, clip_type, references, max_per_video, random, config):
            if len(accepted) == max_per_video:
                break
            if (
                not _touches_concept(candidate, concept_boxes)
                and not any(overlaps_too_much(candidate, other, config, 0.0) for other in near)
                and not any(overlaps_too_much(candidate, other, config) for other in [*previous, *accepted])
            ):
                accepted.append(candidate)
        ranked += [((rank, random.integers(2**32), scan.key), candidate) for rank, candidate in enumerate(accepted)]
    return [candidate for _, candidate in sorted(ranked, key=lambda entry: entry[0])]


def _seed_words(key: tuple[str, int, int]) -> list[int]:
    return [int(key[0][:16], 16), *key[1:]]


def _concept_boxes(scan: VideoScan, concepts: Sequence[Concept]) -> dict[int, list[Corners]]:
    """Return the boxes of concepts by frame, from a confidence of `MIN_BACKGROUND_CONFIDENCE` on."""
    labels = {concept.label for concept in concepts if is_concept_in(concept, scan)}
    boxes_by_frame = defaultdict(list)
    for box in scan.boxes:
        if box.label in labels and box.confidence >= MIN_BACKGROUND_CONFIDENCE:
            boxes_by_frame[box.frame].append(box.corners)
    return boxes_by_frame


def is_concept_in(concept: Concept, scan: VideoScan) -> bool:
    """Return True if boxes with the concept's label belong to the concept in this video."""
    return concept.head is None or scan.answers.get(concept.head) == concept.answer


def _touches_concept(candidate: Candidate, concept_boxes: dict[int, list[Corners]]) -> bool:
    return any(
        intersection(box, other) > 0
        for frame, box in zip(candidate.frames, candidate.boxes)
        for other in concept_boxes.get(frame, ())
    )


def _offer_candidates(
    scan: VideoScan,
    clip_type: str,
    references: Sequence[Candidate],
    max_candidates: int,
    random: np.random.Generator,
    config: MiningConfig,
) -> Iterator[Candidate]:
    """Yield other objects and randomly placed boxes alternately."""
    concepts = {concept.label for concept in config.concepts if is_concept_in(concept, scan)}
    find_candidates = static_candidates if clip_type == "static" else dynamic_candidates
    other_objects = [
        candidate
        for label in sorted({box.label for box in scan.boxes} - concepts)
        for candidate in find_candidates(scan, Concept(NEGATIVE_PREFIX, label), config, Counter())
    ]
    other_objects = [other_objects[i] for i in random.permutation(len(other_objects))]
    random_boxes = (
        _random_box_clip(scan, clip_type, references, random, config) for _ in range(TRIES_PER_BOX * max_candidates)
    )
    for pair in zip_longest(other_objects, random_boxes):
        yield from (candidate for candidate in pair if candidate is not None)


def _random_box_clip(
    scan: VideoScan, clip_type: str, references: Sequence[Candidate], random: np.random.Generator, config: MiningConfig
) -> Candidate | None:
    """Return a clip with the boxes of a concept's clip, randomly shifted in space and time; None if they do not fit."""
    span = config.clip_span if clip_type == "dynamic" else 1
    if scan.end - scan.begin < span or not references:
        return None
    boxes = np.array(references[int(random.integers(len(references)))].boxes, float)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    room = np.array([scan.width, scan.height]) - (high - low)
    if (room < 0).any():
        return None
    move = np.tile(np.floor(random.random(2) * (room + 1)) - low, 2)
    first = scan.begin + int(random.integers(scan.end - scan.begin - span + 1))
    frames = tuple(range(first, first + span, config.interval))
    if any(frames[0] < cut <= frames[-1] for cut in scan.cuts):
        return None
    moved_boxes: list[Pixels] = [box for b in boxes if (box := to_pixels((b + move).tolist(), scan.height, scan.width))]
    return Candidate(
        scan.sha256, NEGATIVE_PREFIX, clip_type, frames, tuple(moved_boxes), 0.0, RANDOM_BOX, config.clip_frames
    )


def _deal_sets(pool: Sequence[Candidate], size: int, config: MiningConfig) -> list[list[Candidate]]:
    """Distribute the clips into as many complete sets as possible, else into one incomplete set."""
    for count in range(min(config.num_random_sets, len(pool) // size), 0, -1):
        sets = _deal_into(pool, size, count, config.max_clips_per_video)
        if all(len(set_clips) == size for set_clips in sets):
            return sets
    return [set_clips for set_clips in _deal_into(pool, size, 1, config.max_clips_per_video) if set_clips]


def _deal_into(pool: Sequence[Candidate], size: int, count: int, max_per_video: int) -> list[list[Candidate]]:
    sets: list[list[Candidate]] = [[] for _ in range(count)]
    of_video: list[Counter[str]] = [Counter() for _ in range(count)]
    for candidate in pool:
        open_sets = [i for i in range(count) if len(sets[i]) < size and of_video[i][candidate.video] < max_per_video]
        if open_sets:
            i = min(open_sets, key=lambda i: (of_video[i][candidate.video], len(sets[i]), i))
            sets[i].append(candidate)
            of_video[i][candidate.video] += 1
    return sets
