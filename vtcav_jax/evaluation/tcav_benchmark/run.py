"""W9: concept tests where it is known which concepts a class goes by, ours and the peers', about the same clips.

A concept is a set of clips that share the value of a factor; it is causal for the class that this value is the answer
of. It is not for classes of other heads; for those of its own head it speaks against them, which is a cause as well,
and such pairs are left out. Neutral are values of the distractor, and sets that are drawn at random.

For our own test all sets of a kind are of one size and out of one corpus, and stand against all its other clips. Under
the null hypothesis each of them is one more choice of as many clips, and so one thousand permuted vectors serve all
concepts and classes, and each p-value is what `significance.label_test` gives, up to which choices were drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from vtcav_jax import models
from vtcav_jax import tap as taps
from vtcav_jax.evaluation.tcav_benchmark.protocols import Asked, Judged, captum, saha, tensorflow_tcav
from vtcav_jax.evaluation.tcav_benchmark.table import (
    CAUSE,
    DISTRACTOR,
    DRAWN,
    KINDS,
    LEVEL,
    OTHER,
    Pairs,
    Row,
    measured,
    together,
)
from vtcav_jax.evaluation.world_benchmark.eval_set import prepared
from vtcav_jax.models import Network
from vtcav_jax.progress import progress
from vtcav_jax.tcav.experiment.config import Experiment
from vtcav_jax.tcav.features.encode import Encoded, Reading, encode
from vtcav_jax.tcav.features.gram import gram
from vtcav_jax.tcav.features.microbatches import held
from vtcav_jax.tcav.stats.multiple_testing import adjusted
from vtcav_jax.tcav.stats.permutation_test import SLACK, TOLERANCE, gaps, permuted
from vtcav_jax.tcav.stats.vectors import fit, labels
from vtcav_jax.worlds.glyphs import QUESTIONS, World
from vtcav_jax.worlds.render import WORLDS, Clips, make_clips

WORLD = "small"
COUNT, SETS, TARGETS = (
    30,
    10,
    100,
)  # clips of a concept, random sets it is held against, clips of which classes are asked
GROUPS = 4  # of concepts that share no clip: one for each value of a factor
SEEN = {"dynamic": ("shape", "direction", "flash", "scene"), "static": ("shape", "flash", "scene")}
DOUBLES = {"dynamic": ("dis_shape", "dis_direction", "dis_flash"), "static": ("dis_shape",)}
PERMUTATIONS = 999
TARGET_SEED = 10_000  # apart from the concepts' clips


@dataclass(frozen=True)
class Concept:
    """A value of a factor; of a set drawn at random there is none."""

    factor: str
    value: int

    def role(self, head: str, answer: int) -> int | None:
        """To a class; None where the value belongs to another class of its head."""
        if self.factor == head:
            return CAUSE if self.value == answer else None
        return OTHER if self.factor in QUESTIONS else DISTRACTOR if self.factor else DRAWN


def ours(asked: Asked, seed: Sequence[int]) -> Judged:
    """The package's own test by its defaults: p of the step, by exchanging labels. The score is the step in units of
    what it is under exchange (its root mean square): p itself cannot tell apart what is beyond all permutations."""
    settings = Experiment()
    m, k = len(asked.kernel), len(asked.concepts)
    signed = np.stack([labels(rows, np.setdiff1d(np.arange(m), rows), m) for rows in asked.concepts])
    rows = np.concatenate([signed, permuted(signed[0], PERMUTATIONS, np.random.default_rng(seed))])
    unit = fit(asked.kernel, rows, replace(settings.training, tolerance=TOLERANCE)).unit
    mean = np.stack([slopes.mean(0) for slopes in asked.slopes], 1)
    steps = gaps(asked.kernel, rows, unit)[:, None] * (unit @ mean) if settings.statistic == "step" else unit @ mean
    own, null = steps[:k], steps[k:]
    further = (np.abs(null)[None] >= np.abs(own)[:, None] * (1 - SLACK)).sum(1)
    p = (1 + further) / (1 + PERMUTATIONS)
    corrected = np.stack([adjusted(of, settings.correction) for of in p.T], 1) <= LEVEL
    return Judged(np.abs(own) / np.sqrt((null**2).mean(0)), p <= LEVEL, corrected, own > 0)


PROCEDURES = {"ours": ours, "Saha et al.": saha, "tensorflow/tcav": tensorflow_tcav, "captum": captum}
CORRECTIONS = {"ours": "Holm", "Saha et al.": "Bonferroni"}


def table(
    loaded: Network,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    count: int = COUNT,
    stages: Sequence[str] | None = None,
    pool: str = "space",
    network: str = "",
) -> list[Row]:
    """Every measure of each procedure, stage and kind of clips, over all `seeds` of clips together.

    `count` clips are in each set; `stages` by default the ends of the network's parts; `pool` as in `encoding.Reading`:
    the peers flatten (`none`), our default is `space`, and for all procedures it is the same here.
    """
    stages = ends(taps.stages_of(loaded.model)) if stages is None else tuple(stages)
    _check(loaded, seeds, count)
    found: dict[tuple[str, str, str], list[Pairs]] = {}
    steps = len(seeds) * len(stages) * len(SEEN)

    def each() -> Iterator[int]:
        for seed in seeds:
            for stage, kind, concepts, classes, asked in questions(loaded, seed, count, stages, pool):
                for i, (name, judge) in enumerate(PROCEDURES.items()):
                    found.setdefault((name, stage, kind), []).append(paired(judge(asked, [seed, i]), concepts, classes))
                yield 1

    for _ in progress(each(), steps, "concept tables", size=int):
        pass
    for name in PROCEDURES:
        for stage in stages:
            found[name, stage, "both"] = [one for kind in SEEN for one in found[name, stage, kind]]
    return [
        row
        for stage in stages
        for kind in KINDS
        for name in PROCEDURES
        for row in measured(
            together(found[name, stage, kind]),
            (name, network or loaded.preset, pool, stage, kind),
            CORRECTIONS.get(name, ""),
        )
    ]


def ends(known: Sequence[str]) -> tuple[str, ...]:
    """Of all stages those that are no part of another and no step between two."""
    return tuple(name for name in known if "blocks" not in name and "downsample" not in name)


def questions(
    loaded: Network, seed: int, count: int, stages: Sequence[str], pool: str
) -> Iterator[tuple[str, str, list[Concept], list[tuple[str, int]], Asked]]:
    """Of each stage and kind the concepts, the classes, and what is known of them: every clip is encoded once."""
    m = (SETS + 1) * count
    clips = make_clips(WORLD, m, seed)
    aims = make_clips(WORLD, TARGETS, TARGET_SEED + seed)
    classes = [(head, answer) for head in loaded.heads for answer in range(len(QUESTIONS[head]))]
    out = encoded(loaded, clips, aims, stages, pool)
    rows = {(head, answer): np.flatnonzero(aims.labels[head] == answer) for head, answer in classes}
    heads = list(loaded.heads)
    for stage in stages:
        whole = gram(out.examples[stage], out.gradients[stage], len(heads))
        for i, kind in enumerate(SEEN):
            here = slice(i * m, (i + 1) * m)
            slopes = [whole.products[heads.index(head), rows[head, answer], here] for head, answer in classes]
            lengths = [whole.lengths[heads.index(head), rows[head, answer]] for head, answer in classes]
            concepts, sets, groups = sets_of(clips, kind, count, seed)
            rng = np.random.default_rng([seed, i])
            random = np.stack([rng.permutation(np.setdiff1d(np.arange(m), s)).reshape(SETS, count) for s in sets])
            posing = rng.permutation(m)[: SETS * count].reshape(SETS, count)
            kernel = whole.kernel[here, here]
            yield stage, kind, concepts, classes, Asked(kernel, slopes, lengths, sets, random, posing, groups)


def encoded(loaded: Network, clips: Clips, aims: Clips, stages: Sequence[str], pool: str) -> Encoded:
    """The clips as they move, then frozen as they flash; of each target the logit of every head's answer."""
    dynamic = prepared(loaded, clips.video)
    assert isinstance(clips.world, World)
    at = np.array(clips.world.event_times)[clips.factors["t0"]]
    static = np.repeat(dynamic[np.arange(len(dynamic)), at][:, None], dynamic.shape[1], 1)
    answers = np.stack([loaded.head_slices[head].start + aims.labels[head] for head in loaded.heads], 1)
    examples = held(np.concatenate([dynamic, static]))
    reading = Reading(pool, micro_batch=50)
    return encode(loaded.model, examples, held(prepared(loaded, aims.video)), answers, stages, reading)


def sets_of(
    clips: Clips, kind: str, count: int, seed: int
) -> tuple[list[Concept], Int[np.ndarray, "k e"], list[tuple[int, ...]]]:
    """Concepts, their clips, and in groups which concepts share no clip: values of the factors, of the distractor's,
    and as many sets drawn at random."""
    rng = np.random.default_rng([seed, list(SEEN).index(kind), 1])
    concepts, sets, groups = [], [], []
    for value in range(GROUPS):
        for factors in (SEEN[kind], DOUBLES[kind], ("",) * GROUPS):
            left, group = np.ones(len(clips), bool), []
            for factor in factors:
                fit_in = left & (clips.factors[factor] == value) if factor else left
                if fit_in.sum() < count:
                    raise ValueError(
                        f"expected {count} clips with {factor}={value}, found {fit_in.sum()}; ask for a larger count"
                    )
                rows = rng.choice(np.flatnonzero(fit_in), count, replace=False)
                left[rows] = False
                group.append(len(concepts))
                concepts.append(Concept(factor, value))
                sets.append(rows)
            groups.append(tuple(group))
    return concepts, np.stack(sets), groups


def paired(judged: Judged, concepts: Sequence[Concept], classes: Sequence[tuple[str, int]]) -> Pairs:
    roles = np.array([[-1 if (r := concept.role(*one)) is None else r for one in classes] for concept in concepts])
    some = roles >= 0
    number = np.broadcast_to(np.arange(len(concepts))[:, None], roles.shape)
    corrected = None if judged.corrected is None else judged.corrected[some]
    return Pairs(roles[some], number[some], judged.score[some], judged.found[some], corrected, judged.up[some])


def _check(loaded: Network, seeds: Sequence[int], count: int) -> None:
    world, problems = WORLDS[WORLD], []
    if strange := [head for head in loaded.heads if head not in QUESTIONS]:
        problems.append(
            f"expected heads among {', '.join(QUESTIONS)}, got {', '.join(strange)}: train one with --task=train"
        )
    if (shape := models.PRESETS[loaded.preset].clip_spec.shape) != (world.frames, world.size, world.size, 3):
        problems.append(f"expected a network that reads clips of the world {WORLD}, {loaded.preset} reads {shape}")
    if not seeds:
        problems.append("expected at least one seed of clips, got none")
    if count < 5:
        problems.append(f"expected at least 5 clips a set, got {count}")
    if problems:
        raise ValueError("; ".join(problems))
