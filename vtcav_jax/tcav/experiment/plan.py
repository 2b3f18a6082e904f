"""What an experiment will do, worked out before it does anything: what is wrong is said now, and what it will cost."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vtcav_jax import models, tap
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.concept_sets import ConceptSets
from vtcav_jax.data.open import Source
from vtcav_jax.models import Network
from vtcav_jax.tcav.experiment import cost_estimate
from vtcav_jax.tcav.experiment.comparisons import Asked, ask
from vtcav_jax.tcav.experiment.config import CHECKED, Experiment, chosen_stages
from vtcav_jax.tcav.experiment.dataset import Looked, look
from vtcav_jax.tcav.features.cache import Cache, code_version, fingerprint, key_of
from vtcav_jax.tcav.features.encode import checked_shapes
from vtcav_jax.tcav.stats.multiple_testing import Attainable, attainable

SHOWN = 8
# Seconds of a vector, more for each pair of examples, and of a row, on a core of 2020
VECTOR, PAIR, ROW = 2e-5, 3e-9, 1e-2


@dataclass(frozen=True)
class Plan:
    """`keys` are where activations, gradients and scores are kept, by stage and clip."""

    loaded: Network
    geometry: ClipSpec
    settings: Experiment
    stages: tuple[str, ...]
    shapes: dict[str, tuple[tuple[int, ...], type]]
    looked: Looked
    asked: Asked
    store: Cache
    weights: str  # hash of the network
    base: str

    def example_key(self, row: int, stage: str) -> str:
        return key_of("activation", self.base, self.looked.concepts.keys[row], stage)

    def gradient_key(self, row: int, index: int, stage: str | None) -> str:
        """Without a stage it is the class score's."""
        s = self.settings
        how = [s.target_fn, *([s.sensitivity, s.steps] if stage and s.sensitivity == "integrated" else [])]
        return key_of("gradient", self.base, how, self.looked.targets.keys[row], index, stage)

    @property
    def forward_missing(self) -> dict[str, list[int]]:
        """By content, the concept clips that some stage lacks: equal ones are encoded once."""
        found: dict[str, list[int]] = {}
        for row, key in enumerate(self.looked.concepts.keys):
            if any(not self.store.has(self.example_key(row, stage)) for stage in self.stages):
                found.setdefault(key, []).append(row)
        return found

    @property
    def backward_missing(self) -> dict[int, tuple[int, ...]]:
        """By target, the classes whose gradient some stage lacks."""
        found: dict[int, tuple[int, ...]] = {}
        for target in self.looked.classes:
            for row in target.rows:
                places = (self.gradient_key(row, target.index, stage) for stage in (None, *self.stages))
                if not all(map(self.store.has, places)):
                    found[row] = tuple(dict.fromkeys((*found.get(row, ()), target.index)))
        return found

    @property
    def family(self) -> int:
        return len(self.asked.questions) * len(self.stages) * len(self.looked.classes)

    @property
    def attainable(self) -> Attainable:
        s = self.settings
        smallest = min(question.smallest(s) for question in self.asked.questions)
        return attainable(smallest, self.family, s.alpha, s.correction)

    def require(self) -> None:
        """Refuses what cannot find anything, with what would do."""
        if not self.asked.questions:
            told = "; ".join(self.asked.notes) or "the sets have neither random ones nor controls nor other concepts"
            raise ValueError(f"there is nothing to test: {told}")
        self.attainable.require(self.lacking)

    @property
    def lacking(self) -> str:
        """What there would have to be more of for smaller p-values."""
        if self.settings.null == "sets":
            return "random sets"
        s, needed = self.settings, self.attainable.needed
        least = min(question.smallest(replace(s, permutations=needed)) for question in self.asked.questions)
        if attainable(least, self.family, s.alpha, s.correction).possible:
            return "permutations"
        return "different ways of exchanging labels, which takes more clips of a concept or more random ones,"

    @property
    def vectors(self) -> int:
        """To be trained: the concepts', for each stage, with all that their statistics need."""
        s = self.settings
        each = sum(
            1 + (0 if s.null == "sets" and q.sets else s.permutations or 0) + 500 + 40 + 100 + 2 * len(q.sets)
            for q in self.asked.questions
        )
        return len(self.stages) * (each + CHECKED * s.self_check * len(self.asked.random))

    @property
    def disk(self) -> int:
        """Bytes that will be added to the cache."""
        bytes_of = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.shapes.values())
        return bytes_of * (len(self.forward_missing) + sum(map(len, self.backward_missing.values())))

    @property
    def memory(self) -> int:
        """Bytes of host memory for the products of the largest stage."""
        m = len(self.looked.concepts)
        n = sum(len(target.rows) for target in self.looked.classes)
        largest = max(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.shapes.values())
        return min((m + n) * largest, 2 * self.settings.budget) + 16 * (m * m + m * n + n * n)

    @property
    def moves(self) -> int:
        """Forward passes of targets along vectors, at most: for finite steps, and for the steering of findings."""
        s, n = self.settings, len({row for target in self.looked.classes for row in target.rows})
        tests = len(self.asked.questions) * len(self.stages)
        each = 1 + (s.permutations or 0) if s.sensitivity == "finite" else 0
        checks = CHECKED * s.self_check * len(self.asked.random) * len(self.stages) if each else 0
        return 2 * n * (tests * (each + (1 + s.steering if s.steering else 0)) + checks)

    def encoding_seconds(self) -> tuple[float, float]:
        """Between which it will be, by the network's operations; `trial.trial` measures instead."""
        flop, speed = cost_estimate.forward(self.loaded.model, self.geometry.shape).flop, cost_estimate.speed()
        paths = self.settings.steps * len(self.stages) if self.settings.sensitivity == "integrated" else 1
        backward = sum(1 + 2 * paths * len(classes) for classes in self.backward_missing.values())
        fast, slow = (
            flop / speed / share * (len(self.forward_missing) + backward) for share in cost_estimate.EFFICIENCY
        )
        return fast, slow

    def statistics_seconds(self) -> float:
        """At most: tests that find nothing end early."""
        used = [len(q.positive) + len(q.negative) for q in self.asked.questions] or [0]
        return self.vectors * (VECTOR + PAIR * float(np.mean(used)) ** 2) + ROW * self.family

    @property
    def text(self) -> str:
        return self.told(None)

    def told(self, encoding: float | None) -> str:
        """All of it for a person; `require` says what is in the way. `encoding`: its seconds, if they were measured."""
        looked, s = self.looked, self.settings
        clips, flight = looked.concepts, looked.preflight
        forwards, backwards = self.forward_missing, self.backward_missing
        sizes = Counter((clip.concept, clip.clip_type) for clip in looked.clips)
        classes = ", ".join(f"{target.name} ({len(target.rows)} clips)" for target in looked.classes)
        tests = ", ".join(f"{n} {test}" for test, n in Counter(q.test for q in self.asked.questions).items())
        through = cost_estimate.forward(self.loaded.model, self.geometry.shape)
        device = s.batch * (through.bytes + 4 * math.prod(self.geometry.shape))
        roughly = " to ".join(map(_time, self.encoding_seconds() if encoding is None else (encoding,)))
        lines = [
            f"targets        {classes}; {s.target_fn}, {s.sensitivity}",
            f"stages         {', '.join(self.stages)}; pool {s.pool}",
            f"concept clips  {len(clips)}, {len(set(clips.keys))} of them different",
            *(f"                 {concept}, {kind}: {n}" for (concept, kind), n in sizes.items()),
            f"forwards       {len(forwards)} concept clips and {len(backwards)} targets;"
            f" {len(set(clips.keys)) - len(forwards)} and {len(looked.targets) - len(backwards)} are in the cache",
            f"backwards      {sum(map(len, backwards.values()))}, for all stages together",
            f"tests          {tests or 'none'}; times {len(self.stages)} stages and {len(looked.classes)} classes a"
            f" family of {self.family}, {s.correction}",
            f"vectors        {self.vectors:,}, with {s.permutations} permutations a test",
            f"memory         {_bytes(self.memory)} of the host for products, up to {_bytes(device)} of the device",
            f"disk           {_bytes(self.disk)} more in {self.store.folder}",
            *([f"moves          up to {self.moves:,} forwards of targets along vectors"] if self.moves else []),
            f"time           roughly {roughly} for encoding{'' if encoding is None else ', by one batch,'} and up to"
            f" {_time(self.statistics_seconds())} for statistics",
            *_listed("cannot be read", [f"{name}: {why}" for name, why in flight.unreadable.items()]),
            *_listed("shorter than a clip, frames come twice", flight.short),
            *_listed("the same clip as another target, left out", flight.twice),
            *(f"note: {note}" for note in (*flight.notes, *self.asked.notes)),
        ]
        if self.asked.questions:
            lines.append(_worth(self.attainable, self.lacking))
            few = [q for q in self.asked.questions if q.smallest(s) * self.family > s.alpha]
            if few and self.attainable.possible and s.correction != "bh":
                told = [f"{q.name}: smallest p {q.smallest(s):.3g}" for q in few]
                lines += _listed(f"too few clips to pass alone in a family of {self.family}", told)
        return "\n".join(lines)


def plan(
    loaded: Network,
    targets: Sequence[str],
    source: Source,
    sets: ConceptSets,
    settings: Experiment,
    store: Cache,
    geometry: ClipSpec | None = None,
) -> Plan:
    """Reads no more than the files' bytes and indices."""
    geometry = geometry or models.PRESETS[loaded.preset].clip_spec
    known = tap.stages_of(loaded.model)
    settings = settings.adapted(known)
    stages = chosen_stages(settings.stages, known)
    looked = look(loaded, targets, source, sets, geometry, most=settings.n_targets, seed=settings.seed)
    classes = np.array([target.index for target in looked.classes])
    shapes = checked_shapes(loaded.model, geometry.shape, classes, stages, settings.reading)
    weights = fingerprint(loaded.model)
    base = key_of(code_version(), weights, settings.pool)
    asked = ask(looked.clips, settings)
    family = len(asked.questions) * len(stages) * len(looked.classes)
    settings = replace(settings, permutations=settings.enough(max(family, 1)))
    return Plan(loaded, geometry, settings, stages, shapes, looked, asked, store, weights, base)


def without_missing(before: Plan) -> Plan:
    """After encoding: the plan for what could be decoded."""
    looked = before.looked
    there = [
        row
        for row in range(len(looked.concepts))
        if all(before.store.has(before.example_key(row, stage)) for stage in before.stages)
    ]
    lost = set(before.backward_missing)
    if len(there) == len(looked.concepts) and not lost:
        return before
    clips = tuple(looked.clips[row] for row in there)
    classes = tuple(
        replace(target, rows=tuple(row for row in target.rows if row not in lost)) for target in looked.classes
    )
    if empty := [target.name for target in classes if not target.rows]:
        raise ValueError(f"none of the clips of {', '.join(empty)} could be read; see failures.csv")
    after = replace(looked, concepts=looked.concepts.only(there), clips=clips, classes=classes)
    found = replace(before, looked=after, asked=ask(clips, before.settings))
    found.require()
    return found


def _worth(found: Attainable, lacking: str) -> str:
    """What the best outcome is worth."""
    told = f"attainable p   {found.smallest:.3g}, corrected {found.corrected:.3g} in a family of {found.family}"
    if not found.possible:
        return f"{told}: not below alpha {found.alpha:g}; REFUSED, {found.needed} {lacking} would do"
    return told + ("" if found.alone else "; one finding alone could not pass, several can")


def _listed(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = [f"  and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return [f"{len(names)} {what}:", *(f"  {name}" for name in names[:SHOWN]), *more]


def _bytes(size: int | float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
