"""The tests of an experiment: which clips stand against which, and which of them may change places."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.concepts.concept_sets import ConceptClip
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.concepts.crops import CONTROLS
from vtcav_jax.tcav.experiment.config import Experiment
from vtcav_jax.tcav.stats.permutation_test import smallest_p
from vtcav_jax.tcav.stats.vectors import labels

OTHERS = "others"  # the union of the other concepts
GROUP = "group"  # the other concepts and the random clips, each with the same weight


@dataclass(frozen=True)
class Question:
    """Is the class more sensitive to these clips than to those? Asked of each class and stage.

    `pairs` are clips with their twins; `sets` are the random sets that `negative` consists of, by name; `weights` are
    those of the negatives, where they differ.
    """

    test: str
    concept: str
    kind: str
    against: str
    positive: tuple[int, ...]
    negative: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    sets: tuple[tuple[str, tuple[int, ...]], ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.concept}/{self.kind}/{self.against}"

    @property
    def seed(self) -> int:
        """Of its own, so that it does not matter what else is asked."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8])

    def signed(self, count: int) -> Float[np.ndarray, " m"]:
        out = labels(self.positive, self.negative, count)
        if self.weights:
            out[list(self.negative)] *= self.weights
        return out

    def blocks(self, count: int) -> Int[np.ndarray, " m"] | None:
        if not self.pairs:
            return None
        out = np.zeros(count, int)
        for number, pair in enumerate(self.pairs):
            out[list(pair)] = number
        return out

    def smallest(self, settings: Experiment) -> float:
        """The least p that can come out."""
        if settings.null == "sets" and self.sets:
            return 1 / (1 + len(self.sets))
        count = 1 + max(*self.positive, *self.negative)
        return smallest_p(self.signed(count), settings.enough(1), self.blocks(count))


@dataclass(frozen=True)
class Asked:
    """All tests, and what could not be asked, in words."""

    questions: tuple[Question, ...]
    notes: tuple[str, ...]
    random: dict[str, dict[str, tuple[int, ...]]]  # the random sets of each kind: their clips by name


def ask(clips: Sequence[ConceptClip], settings: Experiment) -> Asked:
    """The tests that `clips` allow, in the order of concept and kind."""
    of: dict[tuple[str, str], tuple[int, ...]] = {}
    for i, clip in enumerate(clips):
        of[clip.concept, clip.clip_type] = (*of.get((clip.concept, clip.clip_type), ()), i)
    concepts = [name for name in dict.fromkeys(clip.concept for clip in clips) if not _negative(name)]
    names = [name for name in dict.fromkeys(clip.concept for clip in clips) if _negative(name)]
    kinds = [kind for kind in dict.fromkeys(kind for name, kind in of if name in concepts) if kind not in CONTROLS]
    random = {kind: {name: of[name, kind] for name in names if (name, kind) in of} for kind in kinds}
    any_kind = {name: sum((rows for (other, _), rows in of.items() if other == name), ()) for name in names}
    asked, notes = [], []
    for kind in kinds:
        if not random[kind] and any_kind:
            random[kind] = any_kind
            notes.append(
                f"no random set has {kind} clips: those of other kinds stand in, which may differ in kind only"
            )
    if not names and "absolute" in settings.tests:
        notes.append(f"there are no random sets ({NEGATIVE_PREFIX}...): no concept can be tested against them")
    for concept in concepts:
        for kind in kinds:
            here = of.get((concept, kind), ())
            if not here:
                notes.append(f"{concept} has no {kind} clips, so it is not tested as such")
                continue
            others = [(name, of[name, kind]) for name in concepts if name != concept and (name, kind) in of]
            if "absolute" in settings.tests and random[kind]:
                pool = sum(random[kind].values(), ())
                asked.append(
                    Question("absolute", concept, kind, NEGATIVE_PREFIX, here, pool, (), tuple(random[kind].items()))
                )
            if "relative" in settings.tests and others:
                union = sum((rows for _, rows in others), ())
                asked.append(Question("relative", concept, kind, OTHERS, here, union))
            if "group" in settings.tests and (others or random[kind]):
                members = [rows for _, rows in others] + [sum(random[kind].values(), ())] * bool(random[kind])
                rest, weights = _alike(here, members)
                asked.append(Question("group", concept, kind, GROUP, here, rest, weights=weights))
            if "pairs" in settings.tests:
                asked += [Question("pairs", concept, kind, name, here, rows) for name, rows in others if concept < name]
        if "motion" in settings.tests:
            for control in CONTROLS:
                pairs = twins(clips, of.get((concept, "dynamic"), ()), of.get((concept, control), ()))
                if pairs:
                    left, right = (tuple(side) for side in zip(*pairs))
                    asked.append(Question("motion", concept, "dynamic", control, left, right, pairs))
    few = [question for question in asked if min(len(question.positive), len(question.negative)) < 2]
    notes += [
        f"{question.name}: {len(question.positive)} clips against {len(question.negative)}, and a test needs 2 of each"
        for question in few
    ]
    return Asked(tuple(question for question in asked if question not in few), tuple(notes), random)


def _alike(here: Sequence[int], members: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The clips of all members, and weights by which each member counts as much and all of them as much as `here`."""
    rest = tuple(i for rows in members for i in rows)
    return rest, tuple(len(here) / len(members) / len(rows) for rows in members for _ in rows)


def twins(clips: Sequence[ConceptClip], dynamic: Sequence[int], controls: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Dynamic clips with their controls: by the table, or in sets made by hand by the file's name."""
    by_file = {clips[i].file: i for i in dynamic}
    by_name = {PurePosixPath(clips[i].file).name: i for i in dynamic}
    pairs = []
    for i in controls:
        clip = clips[i]
        found = by_file.get(clip.control_of) if clip.control_of else by_name.get(PurePosixPath(clip.file).name)
        if found is not None:
            pairs.append((found, i))
    return tuple(pairs)


def _negative(name: str) -> bool:
    return name.lower().startswith(NEGATIVE_PREFIX)
