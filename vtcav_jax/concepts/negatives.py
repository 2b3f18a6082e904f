"""Disjoint random sets of static and dynamic clips, the negatives of the concepts.

Half of the candidates show other detected objects, half are placed regardless of objects. None shows a concept's box.
Those of movements show people at other moments, as long as there are any.

Windows have the sizes of the concepts' windows and their places in the frame, as far as the other object and the
concepts' boxes allow, so that neither identifies a concept. With crops that follow their boxes, half of the random
clips are the crops of other objects, half are moved by the boxes of a concept's clip.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, zip_longest

import numpy as np

from vtcav_jax.concepts.boxes import Corners, Outline, Pixels, intersection, move_outline, to_pixels
from vtcav_jax.concepts.candidates import (
    Candidate,
    dynamic_candidates,
    overlaps_too_much,
    shows_object_of,
    static_candidates,
)
from vtcav_jax.concepts.config import NEGATIVE_PREFIX, Concept, MiningConfig
from vtcav_jax.concepts.video_scan import VideoScan
from vtcav_jax.concepts.windows import place_window, relative_side, transfer_window

RANDOM_BOX = "anywhere"  # label of clips that are placed regardless of objects
TRIES_PER_BOX = 20  # random placements per required clip
TRIES_PER_OBJECT = 4  # random placements of the window of another object, after the one nearest to a concept's
SIZE_CLASSES = 3  # of windows; the random sets take from each as large a share as the concepts' windows
MAX_SIDE_RATIO = 1.1  # of the mean sides of random and concept windows, before it is noted
MIN_BACKGROUND_CONFIDENCE = 0.25  # concept boxes of lower confidence may overlap a negative


def build_random_sets(
    scans: Sequence[VideoScan], concept_clips: Sequence[Candidate], config: MiningConfig
) -> tuple[list[Candidate], list[str]]:
    """Return the clips of all random sets, with the set's name as their concept, and messages on shortfalls.

    `concept_clips` may be from these or from other videos. In window mode, a message also says how many windows could
    not be placed like those of the concepts.
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
        if config.movements and (n_empty := sum(c.label == RANDOM_BOX for set_clips in sets for c in set_clips)):
            shortfalls.append(
                f"{clip_type} random sets: {n_empty} of {sum(map(len, sets))} clips are at places without a tracked"
                " person, since there are too few other clips of people; use more videos, or lower --num_random_sets"
            )
        shortfalls += _window_notes(clip_type, [candidate for set_clips in sets for candidate in set_clips], references)
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
                and not any(shows_object_of(candidate, other, config) for other in near)
                and not any(overlaps_too_much(candidate, other, config) for other in [*previous, *accepted])
            ):
                accepted.append(candidate)
        for rank, candidate in enumerate(accepted):
            is_last = config.movements and candidate.label == RANDOM_BOX
            ranked.append(((is_last, rank, random.integers(2**32), scan.key), candidate))
    pool = [candidate for _, candidate in sorted(ranked, key=lambda entry: entry[0])]
    return _balance_sizes(pool, references) if config.crop == "window" else pool


def _balance_sizes(pool: Sequence[Candidate], references: Sequence[Candidate]) -> list[Candidate]:
    """Order the clips so that each beginning of the list has windows of each size in the references' shares."""
    sides = np.array([_relative_side(candidate) for candidate in references])
    # Sides are whole pixels, so the same window differs a little between frames of different sizes.
    edges = 1.02 * np.unique(np.quantile(sides, np.arange(1, SIZE_CLASSES) / SIZE_CLASSES))
    shares = np.bincount(np.searchsorted(edges, sides), minlength=len(edges) + 1) / len(sides)
    queues: list[list[Candidate]] = [[] for _ in shares]
    for candidate in reversed(pool):
        queues[int(np.searchsorted(edges, _relative_side(candidate)))].append(candidate)
    taken, ordered = np.zeros(len(queues)), []
    while any(queues):
        lack = np.where([bool(queue) for queue in queues], shares * (len(ordered) + 1) - taken, -np.inf)
        i = int(lack.argmax())
        ordered.append(queues[i].pop())
        taken[i] += 1
    return ordered


def _relative_side(candidate: Candidate) -> float:
    assert candidate.window is not None
    return relative_side(candidate.window, candidate.frame_size)


def _window_notes(clip_type: str, clips: Sequence[Candidate], references: Sequence[Candidate]) -> list[str]:
    """Return messages on windows that are not placed or not as large as the concepts' windows."""
    notes = []
    if n_moved := sum(candidate.rank > 0 for candidate in clips):
        notes.append(
            f"{clip_type} random sets: {n_moved} of {len(clips)} windows are at random places, since windows at the"
            " places of the concepts' windows would show a concept; use --negative_videos without the concepts"
        )
    if clips and all(candidate.window for candidate in (*clips, *references)):
        sides, concept_sides = (np.mean([_relative_side(c) for c in group]) for group in (clips, references))
        if max(sides / concept_sides, concept_sides / sides) > MAX_SIDE_RATIO:
            notes.append(
                f"{clip_type} random sets: the mean side of a window is {sides:.0%} of the frame's shorter side,"
                f" {concept_sides:.0%} in the concepts; use more videos without the concepts"
            )
    return notes


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
        for frame, box in zip(candidate.frames, candidate.crops)
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
    """Yield clips of other objects and clips placed regardless of objects alternately; of movements, people first."""
    concepts = {concept.label for concept in config.concepts if is_concept_in(concept, scan)}
    find_candidates = static_candidates if clip_type == "static" else dynamic_candidates
    other_objects = [
        candidate
        for label in sorted({box.label for box in scan.boxes} - concepts)
        for candidate in find_candidates(scan, Concept(NEGATIVE_PREFIX, label), config, Counter())
    ]
    other_objects = [other_objects[i] for i in random.permutation(len(other_objects))]
    n_tries = TRIES_PER_BOX * max_candidates
    if config.crop == "window":
        # Each place once before any is repeated at another time: where nothing moves, both look alike.
        order = random.permutation(len(references))
        places = [references[order[i % len(order)]] for i in range(n_tries)]
        tries = [(candidate, n > 0) for n in range(1 + TRIES_PER_OBJECT) for candidate in other_objects]
        groups = (
            (_object_window(candidate, scan, references, random, config, moved) for candidate, moved in tries),
            (_random_window(scan, clip_type, place, random, config, m) for m in (False, True) for place in places),
        )
    else:
        groups = (
            iter(other_objects),
            (_random_box_clip(scan, clip_type, references, random, config) for _ in range(n_tries)),
        )
    yield from _alternate(chain(*groups)) if config.movements else _alternate(*groups)


def _alternate(*groups: Iterable[Candidate | None]) -> Iterator[Candidate]:
    for candidates in zip_longest(*groups):
        yield from (candidate for candidate in candidates if candidate is not None)


def _object_window(
    candidate: Candidate,
    scan: VideoScan,
    references: Sequence[Candidate],
    random: np.random.Generator,
    config: MiningConfig,
    moved: bool,
) -> Candidate | None:
    """Return the clip of another object in a window as large as a concept's; None if no such window holds the object.

    Of the places that hold the object, the one nearest to the place of the concept's window is taken, or if `moved`, a
    random one.
    """
    corners = np.array(candidate.boxes)
    x1, y1, x2, y2 = *corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist()
    windows = [transfer_window(ref.window, ref.frame_size, scan.frame_size) for ref in references if ref.window]
    fitting = [(side, centre) for side, centre in windows if side >= max(x2 - x1, y2 - y1)]
    if not fitting:
        return None
    side, centre = fitting[int(random.integers(len(fitting)))]
    if moved:
        centre = _random_centre(side, scan, random)
    window = place_window(side, centre, scan.frame_size, hold=(x1, y1, x2, y2))
    return None if side < config.min_crop_side(scan.frame_size) else replace(candidate, window=window, rank=int(moved))


def _random_window(
    scan: VideoScan,
    clip_type: str,
    reference: Candidate,
    random: np.random.Generator,
    config: MiningConfig,
    moved: bool,
) -> Candidate | None:
    """Return a concept's window at a random time, at its own place in the frame, or if `moved`, at a random one."""
    frames = _random_frames(scan, clip_type, random, config)
    if not frames or not reference.window:
        return None
    side, centre = transfer_window(reference.window, reference.frame_size, scan.frame_size)
    if side < config.min_crop_side(scan.frame_size):
        return None
    if moved:
        centre = _random_centre(side, scan, random)
    window = place_window(side, centre, scan.frame_size)
    return Candidate(
        *(scan.sha256, NEGATIVE_PREFIX, clip_type, frames, (), 0.0, RANDOM_BOX, config.clip_frames, scan.frame_size),
        window=window,
        outlines=_transfer_outlines(reference, window, len(frames)),
        rank=int(moved),
    )


def _transfer_outlines(reference: Candidate, window: Pixels, n_frames: int) -> tuple[Outline, ...]:
    """Return the outlines of a concept's clip in another window, none if it has none."""
    outlines = tuple(move_outline(outline, reference.window or window, window) for outline in reference.outlines)
    return outlines if len(outlines) == n_frames else ()


def _random_centre(side: int, scan: VideoScan, random: np.random.Generator) -> tuple[float, float]:
    x, y = random.random(2).tolist()
    return side / 2 + x * max(scan.width - side, 0), side / 2 + y * max(scan.height - side, 0)


def _random_frames(
    scan: VideoScan, clip_type: str, random: np.random.Generator, config: MiningConfig
) -> tuple[int, ...]:
    """Return frames of a clip that starts at a random time; none if the video is too short or they contain a cut."""
    span = config.clip_span if clip_type == "dynamic" else 1
    if scan.end - scan.begin < span:
        return ()
    first = scan.begin + int(random.integers(scan.end - scan.begin - span + 1))
    frames = tuple(range(first, first + span, config.interval))
    return () if any(frames[0] < cut <= frames[-1] for cut in scan.cuts) else frames


def _random_box_clip(
    scan: VideoScan, clip_type: str, references: Sequence[Candidate], random: np.random.Generator, config: MiningConfig
) -> Candidate | None:
    """Return a clip with the boxes of a concept's clip, randomly shifted in space and time; None if they do not fit."""
    reference = references[int(random.integers(len(references)))]
    boxes = np.array(reference.boxes, float)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    room = np.array([scan.width, scan.height]) - (high - low)
    if (room < 0).any():
        return None
    move = np.tile(np.floor(random.random(2) * (room + 1)) - low, 2)
    frames = _random_frames(scan, clip_type, random, config)
    if not frames:
        return None
    moved_boxes: list[Pixels] = [box for b in boxes if (box := to_pixels((b + move).tolist(), scan.height, scan.width))]
    shift = move[:2].tolist()
    outlines = [tuple(value + shift[i % 2] for i, value in enumerate(outline)) for outline in reference.outlines]
    return Candidate(
        scan.sha256,
        NEGATIVE_PREFIX,
        clip_type,
        frames,
        tuple(moved_boxes),
        0.0,
        RANDOM_BOX,
        config.clip_frames,
        scan.frame_size,
        outlines=tuple(outlines),
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
