"""W9: benchmark of concept tests with known causes, for the package's test and those of other packages.

A concept is a set of clips that share the value of one factor. It is a cause of the class that this value defines, and
not of classes of other heads. For the other classes of its own head it is evidence against them, which is also causal,
so these pairs are left out. Values of the distractor's factors and random sets are neutral.

For the package's test, all sets of one clip type have the same size, come from one pool of clips, and are compared with
the rest of this pool. Under the null hypothesis each is a random choice from it, so that the same permuted vectors
serve all concepts and classes, and each p-value equals that of `permutation_tests` up to the drawn permutations.
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
CLIPS_PER_SET, N_RANDOM_SETS, N_TARGET_CLIPS = 30, 10, 100  # random sets are those that one concept is compared with
N_CONCEPT_GROUPS = 4  # one per value of a factor; concepts of a group share no clip
FACTORS_BY_CLIP_TYPE = {"dynamic": ("shape", "direction", "flash", "scene"), "static": ("shape", "flash", "scene")}
DISTRACTOR_FACTORS = {"dynamic": ("dis_shape", "dis_direction", "dis_flash"), "static": ("dis_shape",)}
BENCHMARK_PERMUTATIONS = 999
TARGET_SEED = 10_000  # so that target clips differ from concept clips


@dataclass(frozen=True)
class FactorConcept:
    """Concept defined by the value of a factor; `factor` is "" for a random set."""

    factor: str
    value: int

    def role(self, head: str, answer: int) -> int | None:
        """Return the role of the concept for a class; None for another class of the concept's head."""
        if self.factor == head:
            return CAUSE_ROLE if self.value == answer else None
        return OTHER_HEAD_ROLE if self.factor in GLYPH_QUESTIONS else DISTRACTOR_ROLE if self.factor else RANDOM_ROLE


def vtcav_protocol(case: BenchmarkCase, seed: Sequence[int]) -> ProtocolVerdicts:
    """Judge a case by the package's test with its defaults: the permutation p-value of the step effect.

    The score is the step effect over its root mean square under permutation, because p-values tie where an effect
    exceeds all permutations.
    """
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
    corrected = np.stack([adjust_p(column, config.correction) for column in p.T], 1) <= FALSE_POSITIVE_LEVEL
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
    """Return the rows of each method, stage and clip type, over all `seeds` of clips together.

    `stages` defaults to the top-level stages. `pool` is as in `EncodeConfig` and the same for all methods: other
    packages flatten (`none`), and the default of this one is `space`.
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
                part for clip_type in FACTORS_BY_CLIP_TYPE for part in verdicts[name, stage, clip_type]
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
    """Return the stages that are neither blocks within a stage nor downsampling between stages."""
    return tuple(name for name in stages if "blocks" not in name and "downsample" not in name)


def benchmark_cases(
    network: Network, seed: int, clips_per_set: int, stages: Sequence[str], pool: str
) -> Iterator[tuple[str, str, list[FactorConcept], list[tuple[str, int]], BenchmarkCase]]:
    """Yield stage, clip type, concepts, classes and case; each clip is encoded once."""
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
    """Encode the dynamic clips, then copies frozen at the flash, and gradients of each head's correct logit."""
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
    """Return concepts, their clips, and groups of concepts that share no clip.

    Concepts are values of the factors, values of the distractor's factors, and random sets.
    """
    rng = np.random.default_rng([seed, list(FACTORS_BY_CLIP_TYPE).index(clip_type), 1])
    concepts, sets, groups = [], [], []
    for value in range(N_CONCEPT_GROUPS):
        for factors in (FACTORS_BY_CLIP_TYPE[clip_type], DISTRACTOR_FACTORS[clip_type], ("",) * N_CONCEPT_GROUPS):
            available, group = np.ones(len(clips), bool), []
            for factor in factors:
                fit_in = available & (clips.factors[factor] == value) if factor else available
                if fit_in.sum() < clips_per_set:
                    raise ValueError(
                        f"expected {clips_per_set} clips with {factor}={value}, found {fit_in.sum()}; increase"
                        " clips_per_set, which also enlarges the pool of clips"
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
    roles = np.array([[-1 if (r := concept.role(*c)) is None else r for c in classes] for concept in concepts])
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
            f"expected heads among {', '.join(GLYPH_QUESTIONS)}, got {', '.join(unknown_heads)}: train a network with"
            f" `vtcav train`"
        )
    if (shape := network.clip_spec.shape) != (world.frames, world.size, world.size, 3):
        problems.append(
            f"expected a network that reads clips of the world {TCAV_BENCHMARK_WORLD}, {network.name} reads {shape}"
        )
    if not seeds:
        problems.append("expected at least one seed of clips, got none")
    if clips_per_set < 5:
        problems.append(f"expected at least 5 clips per set, got {clips_per_set}")
    if problems:
        raise ValueError("; ".join(problems))
