"""W9: concept tests where it is known which concepts a class goes by, ours and the peers', about the same clips.

A concept is a set of clips that share the value of a factor; it is causal for the class that this value is the answer
of. It is not for classes of other heads; for those of its own head it speaks against them, which is a cause as well,
and such pairs are left out. Neutral are values of the distractor, and sets that are drawn at random.

For our own test all sets of a kind are of one size and out of one corpus, and stand against all its other clips. Under
the null hypothesis each of them is one more choice of as many clips, and so one thousand permuted vectors serve all
concepts and classes, and each p-value is what `permutation_tests` gives, up to which choices were drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from vtcav_jax import tap as taps
from vtcav_jax.console import progress
from vtcav_jax.evaluation.tcav_benchmark.protocols import BenchmarkCase, ProtocolVerdicts, captum, saha, tensorflow_tcav
from vtcav_jax.evaluation.tcav_benchmark.table import (
    BENCHMARK_CLIP_TYPES,
    CAUSE_ROLE,
    DISTRACTOR_ROLE,
    FALSE_POSITIVE_LEVEL,
    OTHER_HEAD_ROLE,
    RANDOM_ROLE,
    ConceptVerdicts,
    merge_verdicts,
    protocol_rows,
)
from vtcav_jax.evaluation.world_benchmark.eval_set import quantise_and_normalise
from vtcav_jax.models import Network
from vtcav_jax.runs.evaluation_rows import TcavBenchmarkRow
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.features.encode import EncodeConfig, EncodeResult, encode
from vtcav_jax.tcav.features.gram import compute_gram
from vtcav_jax.tcav.features.microbatches import in_memory
from vtcav_jax.tcav.stats.multiple_testing import adjust_p
from vtcav_jax.tcav.stats.permutation_test import PERMUTED_VECTOR_TOLERANCE, SLACK, mean_gaps, permute_labels
from vtcav_jax.tcav.stats.vectors import fit, label_vector
from vtcav_jax.worlds.glyphs import GLYPH_QUESTIONS, GlyphWorld
from vtcav_jax.worlds.render import WORLDS, WorldClips, make_clips

TCAV_BENCHMARK_WORLD = "small"
CLIPS_PER_SET, N_RANDOM_SETS, N_TARGET_CLIPS = (
    30,
    10,
    100,
)  # clips of a concept, random sets it is held against, clips of which classes are asked
N_CONCEPT_GROUPS = 4  # of concepts that share no clip: one for each value of a factor
FACTORS_BY_CLIP_TYPE = {"dynamic": ("shape", "direction", "flash", "scene"), "static": ("shape", "flash", "scene")}
DISTRACTOR_FACTORS = {"dynamic": ("dis_shape", "dis_direction", "dis_flash"), "static": ("dis_shape",)}
BENCHMARK_PERMUTATIONS = 999
TARGET_SEED = 10_000  # apart from the concepts' clips


@dataclass(frozen=True)
class FactorConcept:
    """A value of a factor; of a set drawn at random there is none."""

    factor: str
    value: int

    def role(self, head: str, answer: int) -> int | None:
        """To a class; None where the value belongs to another class of its head."""
        if self.factor == head:
            return CAUSE_ROLE if self.value == answer else None
        return OTHER_HEAD_ROLE if self.factor in GLYPH_QUESTIONS else DISTRACTOR_ROLE if self.factor else RANDOM_ROLE


def vtcav_protocol(case: BenchmarkCase, seed: Sequence[int]) -> ProtocolVerdicts:
    """The package's own test by its defaults: p of the step, by exchanging labels. The score is the step in units of
    what it is under exchange (its root mean square): p itself cannot tell apart what is beyond all permutations."""
    config = ExperimentConfig()
    m, k = len(case.kernel), len(case.concepts)
    signed = np.stack([label_vector(rows, np.setdiff1d(np.arange(m), rows), m) for rows in case.concepts])
    rows = np.concatenate([signed, permute_labels(signed[0], BENCHMARK_PERMUTATIONS, np.random.default_rng(seed))])
    unit = fit(case.kernel, rows, replace(config.fit_config, tolerance=PERMUTED_VECTOR_TOLERANCE)).unit
    mean = np.stack([slopes.mean(0) for slopes in case.slopes], 1)
    steps = (
        mean_gaps(case.kernel, rows, unit)[:, None] * (unit @ mean)
        if config.statistic == "step_effect"
        else unit @ mean
    )
    observed, null = steps[:k], steps[k:]
    n_exceeding = (np.abs(null)[None] >= np.abs(observed)[:, None] * (1 - SLACK)).sum(1)
    p = (1 + n_exceeding) / (1 + BENCHMARK_PERMUTATIONS)
    corrected = np.stack([adjust_p(of, config.correction) for of in p.T], 1) <= FALSE_POSITIVE_LEVEL
    return ProtocolVerdicts(
        np.abs(observed) / np.sqrt((null**2).mean(0)), p <= FALSE_POSITIVE_LEVEL, corrected, observed > 0
    )


PROTOCOLS = {"ours": vtcav_protocol, "Saha et al.": saha, "tensorflow/tcav": tensorflow_tcav, "captum": captum}
PROTOCOL_CORRECTIONS = {"ours": "Holm", "Saha et al.": "Bonferroni"}


def tcav_benchmark_rows(
    network: Network,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    clips_per_set: int = CLIPS_PER_SET,
    stages: Sequence[str] | None = None,
    pool: str = "space",
    network_name: str = "",
) -> list[TcavBenchmarkRow]:
    """Every measure of each procedure, stage and kind of clips, over all `seeds` of clips together.

    `count` clips are in each set; `stages` by default the ends of the network's parts; `pool` as in `encoding.Reading`:
    the peers flatten (`none`), our default is `space`, and for all procedures it is the same here.
    """
    stages = top_level_stages(taps.stages_of(network.model)) if stages is None else tuple(stages)
    _check_inputs(network, seeds, clips_per_set)
    verdicts: dict[tuple[str, str, str], list[ConceptVerdicts]] = {}
    steps = len(seeds) * len(stages) * len(FACTORS_BY_CLIP_TYPE)

    def run_protocols() -> Iterator[int]:
        for seed in seeds:
            for stage, clip_type, concepts, classes, case in benchmark_cases(
                network, seed, clips_per_set, stages, pool
            ):
                for i, (name, judge) in enumerate(PROTOCOLS.items()):
                    verdicts.setdefault((name, stage, clip_type), []).append(
                        to_verdicts(judge(case, [seed, i]), concepts, classes)
                    )
                yield 1

    for _ in progress(run_protocols(), steps, "concept tables", size=int):
        pass
    for name in PROTOCOLS:
        for stage in stages:
            verdicts[name, stage, "both"] = [
                one for clip_type in FACTORS_BY_CLIP_TYPE for one in verdicts[name, stage, clip_type]
            ]
    return [
        row
        for stage in stages
        for clip_type in BENCHMARK_CLIP_TYPES
        for name in PROTOCOLS
        for row in protocol_rows(
            merge_verdicts(verdicts[name, stage, clip_type]),
            (name, network_name or network.name, pool, stage, clip_type),
            PROTOCOL_CORRECTIONS.get(name, ""),
        )
    ]


def top_level_stages(stages: Sequence[str]) -> tuple[str, ...]:
    """Of all stages those that are no part of another and no step between two."""
    return tuple(name for name in stages if "blocks" not in name and "downsample" not in name)


def benchmark_cases(
    network: Network, seed: int, clips_per_set: int, stages: Sequence[str], pool: str
) -> Iterator[tuple[str, str, list[FactorConcept], list[tuple[str, int]], BenchmarkCase]]:
    """Of each stage and kind the concepts, the classes, and what is known of them: every clip is encoded once."""
    m = (N_RANDOM_SETS + 1) * clips_per_set
    clips = make_clips(TCAV_BENCHMARK_WORLD, m, seed)
    target_clips = make_clips(TCAV_BENCHMARK_WORLD, N_TARGET_CLIPS, TARGET_SEED + seed)
    classes = [(head, answer) for head in network.heads for answer in range(len(GLYPH_QUESTIONS[head]))]
    out = encode_benchmark_clips(network, clips, target_clips, stages, pool)
    rows = {(head, answer): np.flatnonzero(target_clips.labels[head] == answer) for head, answer in classes}
    heads = list(network.heads)
    for stage in stages:
        stage_gram = compute_gram(out.examples[stage], out.gradients[stage], len(heads))
        for i, clip_type in enumerate(FACTORS_BY_CLIP_TYPE):
            here = slice(i * m, (i + 1) * m)
            slopes = [stage_gram.cross[heads.index(head), rows[head, answer], here] for head, answer in classes]
            gradient_norms = [
                stage_gram.gradient_norms[heads.index(head), rows[head, answer]] for head, answer in classes
            ]
            concepts, concept_sets, groups = draw_concept_sets(clips, clip_type, clips_per_set, seed)
            rng = np.random.default_rng([seed, i])
            random_sets = np.stack(
                [
                    rng.permutation(np.setdiff1d(np.arange(m), s)).reshape(N_RANDOM_SETS, clips_per_set)
                    for s in concept_sets
                ]
            )
            pseudo_concepts = rng.permutation(m)[: N_RANDOM_SETS * clips_per_set].reshape(N_RANDOM_SETS, clips_per_set)
            kernel = stage_gram.kernel[here, here]
            yield (
                stage,
                clip_type,
                concepts,
                classes,
                BenchmarkCase(kernel, slopes, gradient_norms, concept_sets, random_sets, pseudo_concepts, groups),
            )


def encode_benchmark_clips(
    network: Network, clips: WorldClips, target_clips: WorldClips, stages: Sequence[str], pool: str
) -> EncodeResult:
    """The clips as they move, then frozen as they flash; of each target the logit of every head's answer."""
    dynamic = quantise_and_normalise(network, clips.video)
    assert isinstance(clips.world, GlyphWorld)
    event_frames = np.array(clips.world.event_times)[clips.factors["t0"]]
    static = np.repeat(dynamic[np.arange(len(dynamic)), event_frames][:, None], dynamic.shape[1], 1)
    class_indices = np.stack([network.head_slices[head].start + target_clips.labels[head] for head in network.heads], 1)
    examples = in_memory(np.concatenate([dynamic, static]))
    encode_config = EncodeConfig(pool, batch_size=50)
    return encode(
        network.model,
        examples,
        in_memory(quantise_and_normalise(network, target_clips.video)),
        class_indices,
        stages,
        encode_config,
    )


def draw_concept_sets(
    clips: WorldClips, clip_type: str, clips_per_set: int, seed: int
) -> tuple[list[FactorConcept], Int[np.ndarray, "k e"], list[tuple[int, ...]]]:
    """Concepts, their clips, and in groups which concepts share no clip: values of the factors, of the distractor's,
    and as many sets drawn at random."""
    rng = np.random.default_rng([seed, list(FACTORS_BY_CLIP_TYPE).index(clip_type), 1])
    concepts, sets, groups = [], [], []
    for value in range(N_CONCEPT_GROUPS):
        for factors in (FACTORS_BY_CLIP_TYPE[clip_type], DISTRACTOR_FACTORS[clip_type], ("",) * N_CONCEPT_GROUPS):
            available, group = np.ones(len(clips), bool), []
            for factor in factors:
                fit_in = available & (clips.factors[factor] == value) if factor else available
                if fit_in.sum() < clips_per_set:
                    raise ValueError(
                        f"expected {clips_per_set} clips with {factor}={value}, found {fit_in.sum()}; ask for a"
                        f" larger count"
                    )
                rows = rng.choice(np.flatnonzero(fit_in), clips_per_set, replace=False)
                available[rows] = False
                group.append(len(concepts))
                concepts.append(FactorConcept(factor, value))
                sets.append(rows)
            groups.append(tuple(group))
    return concepts, np.stack(sets), groups


def to_verdicts(
    protocol_verdicts: ProtocolVerdicts, concepts: Sequence[FactorConcept], classes: Sequence[tuple[str, int]]
) -> ConceptVerdicts:
    roles = np.array([[-1 if (r := concept.role(*one)) is None else r for one in classes] for concept in concepts])
    included = roles >= 0
    number = np.broadcast_to(np.arange(len(concepts))[:, None], roles.shape)
    significant_corrected = (
        None if protocol_verdicts.significant_corrected is None else protocol_verdicts.significant_corrected[included]
    )
    return ConceptVerdicts(
        roles[included],
        number[included],
        protocol_verdicts.score[included],
        protocol_verdicts.significant[included],
        significant_corrected,
        protocol_verdicts.raises_score[included],
    )


def _check_inputs(network: Network, seeds: Sequence[int], clips_per_set: int) -> None:
    world, problems = WORLDS[TCAV_BENCHMARK_WORLD], []
    if unknown_heads := [head for head in network.heads if head not in GLYPH_QUESTIONS]:
        problems.append(
            f"expected heads among {', '.join(GLYPH_QUESTIONS)}, got {', '.join(unknown_heads)}: train one with"
            f" --task=train"
        )
    if (shape := network.clip_spec.shape) != (world.frames, world.size, world.size, 3):
        problems.append(
            f"expected a network that reads clips of the world {TCAV_BENCHMARK_WORLD}, {network.name} reads {shape}"
        )
    if not seeds:
        problems.append("expected at least one seed of clips, got none")
    if clips_per_set < 5:
        problems.append(f"expected at least 5 clips a set, got {clips_per_set}")
    if problems:
        raise ValueError("; ".join(problems))
