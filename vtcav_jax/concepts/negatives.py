"""Disjoint random sets, static and dynamic: what concept clips are told apart from.

Half of it is other things that were found, half boxes and tubes anywhere, with the sizes and the paths of the concepts'
own clips, so that neither size nor the motion of the box gives a concept away. Nothing touches a box of a concept.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from vtcav_jax.concepts.boxes import Corners, Pixels, pixels, shared
from vtcav_jax.concepts.candidates import Candidate, dynamics, statics, too_near
from vtcav_jax.concepts.config import NEGATIVE, Concept, Mining
from vtcav_jax.concepts.video_scan import Survey

ANYWHERE = "anywhere"  # the label of boxes that were drawn at random
TRIES = 20  # boxes drawn for each that is wanted
SURE_ENOUGH = 0.25  # a box that may be a concept's is kept away from


def random_sets(
    surveys: Sequence[Survey], chosen: Sequence[Candidate], settings: Mining
) -> tuple[list[Candidate], list[str]]:
    """The clips of all sets, each with its set's name as its concept, and what could not be had, in words.

    `chosen` are the concepts' clips, of these videos or of others.
    """
    clips, said = [], []
    for kind in ("static", "dynamic"):
        like = [candidate for candidate in chosen if candidate.kind == kind]
        size = settings.random_size or max(Counter(candidate.concept for candidate in like).values(), default=0)
        if not settings.random_sets or not like or not surveys:
            continue
        pool = _pool(surveys, kind, like, chosen, size, settings)
        sets = _dealt(pool, size, settings)
        whole = bool(sets) and len(sets[0]) == size
        if len(sets) < settings.random_sets or not whole:
            there = len({candidate.video for candidate in pool})
            got = len(sets) if whole else f"one of {len(sets[0])} clips" if sets else "none"
            said.append(
                f"{kind} random sets: {got} instead of {settings.random_sets}, since a set takes {size} clips, at most"
                f" {settings.most_per_video} of a video, and there are {len(pool)} that touch no concept, of {there}"
                " videos; give more videos, or smaller sets"
            )
        for i, some in enumerate(sets):
            clips += [replace(candidate, concept=f"{NEGATIVE}_{i:03d}") for candidate in some]
    return clips, said


def _pool(
    surveys: Sequence[Survey],
    kind: str,
    like: Sequence[Candidate],
    chosen: Sequence[Candidate],
    size: int,
    settings: Mining,
) -> list[Candidate]:
    """Clips that are apart from the concepts and from each other, each video's first before any video's second."""
    ranked = []
    most = min(
        settings.random_sets * settings.most_per_video, 4 * math.ceil(settings.random_sets * size / len(surveys))
    )
    for survey in sorted(surveys, key=lambda s: s.key):
        random = np.random.default_rng([settings.seed, ("static", "dynamic").index(kind), *_seeds(survey.key)])
        forbidden = _forbidden(survey, settings.concepts)
        near = [candidate for candidate in chosen if candidate.video == survey.sha256]
        before = [candidate for _, candidate in ranked if candidate.video == survey.sha256]  # of another part of it
        taken: list[Candidate] = []
        for candidate in _offers(survey, kind, like, most, random, settings):
            if len(taken) == most:
                break
            if (
                not _touches(candidate, forbidden)
                and not any(too_near(candidate, other, settings, 0.0) for other in near)
                and not any(too_near(candidate, other, settings) for other in [*before, *taken])
            ):
                taken.append(candidate)
        ranked += [((rank, random.integers(2**32), survey.key), candidate) for rank, candidate in enumerate(taken)]
    return [candidate for _, candidate in sorted(ranked, key=lambda entry: entry[0])]


def _seeds(key: tuple[str, int, int]) -> list[int]:
    return [int(key[0][:16], 16), *key[1:]]


def _forbidden(survey: Survey, concepts: Sequence[Concept]) -> dict[int, list[Corners]]:
    """By frame, where a concept is or may be."""
    labels = {concept.label for concept in concepts if applies(concept, survey)}
    found = defaultdict(list)
    for box in survey.boxes:
        if box.label in labels and box.confidence >= SURE_ENOUGH:
            found[box.frame].append(box.corners)
    return found


def applies(concept: Concept, survey: Survey) -> bool:
    """Whether boxes with the concept's label are the concept in this video."""
    return concept.head is None or survey.answers.get(concept.head) == concept.answer


def _touches(candidate: Candidate, forbidden: dict[int, list[Corners]]) -> bool:
    return any(
        shared(box, other) > 0
        for frame, box in zip(candidate.frames, candidate.boxes)
        for other in forbidden.get(frame, ())
    )


def _offers(
    survey: Survey, kind: str, like: Sequence[Candidate], most: int, random: np.random.Generator, settings: Mining
) -> Iterator[Candidate]:
    """Other things and boxes anywhere in turn."""
    concepts = {concept.label for concept in settings.concepts if applies(concept, survey)}
    find = statics if kind == "static" else dynamics
    things = [
        candidate
        for label in sorted({box.label for box in survey.boxes} - concepts)
        for candidate in find(survey, Concept(NEGATIVE, label), settings, Counter())
    ]
    things = [things[i] for i in random.permutation(len(things))]
    anywhere = (_anywhere(survey, kind, like, random, settings) for _ in range(TRIES * most))
    for pair in zip_longest(things, anywhere):
        yield from (candidate for candidate in pair if candidate is not None)


def _anywhere(
    survey: Survey, kind: str, like: Sequence[Candidate], random: np.random.Generator, settings: Mining
) -> Candidate | None:
    """A clip with the boxes of a concept's clip, put elsewhere; None if they do not fit."""
    span = settings.span if kind == "dynamic" else 1
    if survey.end - survey.begin < span or not like:
        return None
    boxes = np.array(like[int(random.integers(len(like)))].boxes, float)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    room = np.array([survey.width, survey.height]) - (high - low)
    if (room < 0).any():
        return None
    move = np.tile(np.floor(random.random(2) * (room + 1)) - low, 2)
    first = survey.begin + int(random.integers(survey.end - survey.begin - span + 1))
    frames = tuple(range(first, first + span, settings.interval))
    if any(frames[0] < cut <= frames[-1] for cut in survey.cuts):
        return None
    placed: list[Pixels] = [box for b in boxes if (box := pixels((b + move).tolist(), survey.height, survey.width))]
    return Candidate(survey.sha256, NEGATIVE, kind, frames, tuple(placed), 0.0, ANYWHERE, settings.frames)


def _dealt(pool: Sequence[Candidate], size: int, settings: Mining) -> list[list[Candidate]]:
    """As many whole sets as there are clips for, each with few clips of any one video; else one that is not whole."""
    for count in range(min(settings.random_sets, len(pool) // size), 0, -1):
        sets = _deal(pool, size, count, settings.most_per_video)
        if all(len(some) == size for some in sets):
            return sets
    return [some for some in _deal(pool, size, 1, settings.most_per_video) if some]


def _deal(pool: Sequence[Candidate], size: int, count: int, most: int) -> list[list[Candidate]]:
    sets: list[list[Candidate]] = [[] for _ in range(count)]
    of_video: list[Counter[str]] = [Counter() for _ in range(count)]
    for candidate in pool:
        open_sets = [i for i in range(count) if len(sets[i]) < size and of_video[i][candidate.video] < most]
        if open_sets:
            i = min(open_sets, key=lambda i: (of_video[i][candidate.video], len(sets[i]), i))
            sets[i].append(candidate)
            of_video[i][candidate.video] += 1
    return sets
