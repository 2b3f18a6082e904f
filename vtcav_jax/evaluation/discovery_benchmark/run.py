"""W10: methods of concept discovery, scored with the known factors of clips of the world `small`.

Each seed fits the concepts to other clips, and all seeds are scored on the same further clips. Each value of a factor
is matched to one concept, with the labels of the clips that the concepts were fitted to; supervised vectors use the
same clips and labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import jax
import numpy as np
from jaxtyping import Float

from vtcav_jax import tap as taps
from vtcav_jax.console import progress
from vtcav_jax.discovery.importance import head_ranges, importance_of, lead_gradients, weigh_by_codes
from vtcav_jax.evaluation.discovery_benchmark import measures
from vtcav_jax.evaluation.discovery_benchmark.concepts import (
    CLIPS_PER_BATCH,
    DISTRACTOR_FACTORS,
    KEY_FACTORS,
    METHODS,
    NUM_CONCEPTS,
    SUPERVISED,
    VALUES_PER_FACTOR,
    Grids,
    MethodConcepts,
    factor_values,
    find_concepts,
    sample_tokens,
)
from vtcav_jax.evaluation.discovery_benchmark.measures import Draws, Weights
from vtcav_jax.evaluation.tcav_benchmark.run import top_level_stages
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet
from vtcav_jax.evaluation.world_benchmark.questions import EVAL_QUESTIONS
from vtcav_jax.evaluation.world_benchmark.score_rows import bootstrap_interval, bootstrap_skill, bootstrap_weights
from vtcav_jax.evaluation.world_benchmark.world_metrics import compute_world_metrics
from vtcav_jax.models import Network
from vtcav_jax.runs.evaluation_rows import ALL_QUESTIONS, DiscoveryBenchmarkRow
from vtcav_jax.stats.intervals import mean_ci
from vtcav_jax.worlds.render import WorldClips, make_clips

DISCOVERY_WORLD = "small"
N_FIT_CLIPS, N_SCORED_CLIPS = 250, 400
FIT_SEED, SCORED_SEED = 20_000, 30_000  # differ from the seeds of training and evaluation clips
N_DRAWS = 500
CEILING = (SUPERVISED, NUM_CONCEPTS)
QUESTION_OF_FACTOR = {q.head: name for name, q in EVAL_QUESTIONS.items() if q.world == DISCOVERY_WORLD}
RowKey = tuple[str, int, str, str]  # method, number of concepts, network and stage
MeasureDraws = dict[tuple[str, str], Draws]  # by factor and measure


@dataclass(frozen=True, eq=False)
class ScoredClips:
    """The clips that all concepts are scored on, with what does not depend on the concepts.

    The first half measures maps and what is lost without a concept, and the second half importance.
    """

    network: Network
    clips: WorldClips
    first_half: EvalSet
    logits: Float[np.ndarray, "n logits"]
    grids: dict[str, Grids]
    gradients: dict[str, Float[np.ndarray, "heads m t h w c"]]  # of the second half

    @property
    def half(self) -> int:
        return len(self.clips) // 2

    def weights(self, n: int, seed: int = 0) -> Weights:
        return bootstrap_weights(n, seed)[: 1 + N_DRAWS]


@dataclass(frozen=True, eq=False)
class MatchedConcepts:
    """Concepts of one seed, and the one that is matched to each value of each factor."""

    concepts: MethodConcepts
    concept_of_value: Mapping[str, np.ndarray]
    seed: int

    def of_clips(self, clips: WorldClips, factor: str) -> np.ndarray:
        """Return the concept of each clip's value of the factor."""
        return self.concept_of_value[factor][clips.factors[factor]]


def discovery_benchmark_rows(
    eval_set: EvalSet,
    network_name: str = "",
    *,
    seeds: Sequence[int] = (0, 1, 2),
    stages: Sequence[str] | None = None,
    methods: Sequence[tuple[str, int]] = METHODS,
    n_fit: int = N_FIT_CLIPS,
    n_scored: int = N_SCORED_CLIPS,
) -> list[DiscoveryBenchmarkRow]:
    """Return the rows of each stage and method; `eval_set` shows that the network relies on the known causes.

    `stages` defaults to the middle and the last of the network's repeated parts.
    """
    network = eval_set.network
    stages = middle_and_last(taps.stages_of(network.model)) if stages is None else tuple(stages)
    if len(seeds) < 2 or n_fit < CLIPS_PER_BATCH or n_scored < 1 or n_scored % (4 * CLIPS_PER_BATCH):
        raise ValueError(
            f"expected at least 2 seeds, {CLIPS_PER_BATCH} clips to fit and a multiple of {4 * CLIPS_PER_BATCH} to"
            f" score, got {len(seeds)} seeds, {n_fit} and {n_scored} clips"
        )
    scored = read_scored_clips(eval_set, stages, n_scored)
    fit_clips = {seed: make_clips(DISCOVERY_WORLD, n_fit, FIT_SEED + seed) for seed in seeds}
    fit_grids = {seed: read_stages(network, eval_set.preprocess(fit_clips[seed].video), stages)[1] for seed in seeds}
    rows: list[DiscoveryBenchmarkRow] = []

    def measure_stages() -> Iterator[int]:
        for stage in stages:
            samples = {seed: sample_tokens(fit_grids[seed][stage], seed) for seed in seeds}
            ceiling: MeasureDraws = {}
            for method, k in (CEILING, *methods):
                matches = [
                    match_to_factors(
                        find_concepts(
                            *(method, k, samples[seed], fit_grids[seed][stage], fit_clips[seed].factors),
                            *(scored.grids[stage], seed),
                        ),
                        *(method, fit_clips[seed], seed),
                    )
                    for seed in seeds
                ]
                draws = measure_concepts(scored, stage, matches)
                ceiling = ceiling or draws
                key = (method, k, network_name or network.name, stage)
                rows.extend(_rows(key, draws | recovery(draws, ceiling), scored))
                rows.append(_stability_row(key, matches))
                yield 1

    for _ in progress(measure_stages(), len(stages) * (1 + len(methods)), "methods of discovery", size=int):
        pass
    return rows


def middle_and_last(stages: Sequence[str]) -> tuple[str, ...]:
    """Return the middle and the last of the numbered stages that are not part of another."""
    numbered = [name for name in top_level_stages(stages) if name.rpartition(".")[2].isdigit()]
    if not numbered:
        raise ValueError(f"expected numbered stages such as layers.0, got {', '.join(stages)}: pass stages")
    return tuple(dict.fromkeys((numbered[(len(numbered) - 1) // 2], numbered[-1])))


def read_stages(
    network: Network, video: Float[np.ndarray, "n frames height width 3"], stages: tuple[str, ...]
) -> tuple[Float[np.ndarray, "n logits"], dict[str, Grids]]:
    """Return logits, and the activations of clips at the stages."""
    parts = [
        jax.tree.map(np.asarray, taps.activations(network.model, video[i : i + CLIPS_PER_BATCH], stages))
        for i in range(0, len(video), CLIPS_PER_BATCH)
    ]
    grids = {stage: np.concatenate([values[stage] for _, values in parts]) for stage in stages}
    return np.concatenate([logits for logits, _ in parts]), grids


def read_gradients(
    network: Network, video: Float[np.ndarray, "n frames height width 3"], stages: tuple[str, ...]
) -> dict[str, Float[np.ndarray, "heads n t h w c"]]:
    """Return the gradients of the lead of each head's predicted class at the stages."""
    batches = (video[i : i + CLIPS_PER_BATCH] for i in range(0, len(video), CLIPS_PER_BATCH))
    parts = [
        jax.tree.map(np.asarray, lead_gradients(network.model, x, head_ranges(network), stages)[1]) for x in batches
    ]
    return {stage: np.concatenate([part[stage] for part in parts], 1) for stage in stages}


def read_scored_clips(eval_set: EvalSet, stages: tuple[str, ...], n_clips: int) -> ScoredClips:
    """Generate the scored clips, and read activations, logits and gradients."""
    clips = make_clips(DISCOVERY_WORLD, n_clips, SCORED_SEED)
    network, video = eval_set.network, eval_set.preprocess(clips.video)
    first_half = replace(eval_set, clips=clips[: n_clips // 2], question_ids=tuple(QUESTION_OF_FACTOR.values()))
    gradients = read_gradients(network, video[n_clips // 2 :], stages)
    logits, grids = read_stages(network, video, stages)
    return ScoredClips(network, clips, first_half, logits, grids, gradients)


def match_to_factors(concepts: MethodConcepts, method: str, fit_clips: WorldClips, seed: int) -> MatchedConcepts:
    """Match the concepts to the values of the key's factors and the scene, and separately of the distractor's."""
    matched = {}
    for names in (KEY_FACTORS, DISTRACTOR_FACTORS):
        columns = (
            np.arange(VALUES_PER_FACTOR * len(names)) + VALUES_PER_FACTOR * len(matched)  # in the order of the factors
            if method == SUPERVISED
            else measures.match_concepts(concepts.fit_scores, factor_values(fit_clips.factors, names))
        )
        matched |= dict(zip(names, columns.reshape(len(names), VALUES_PER_FACTOR), strict=True))
    return MatchedConcepts(concepts, matched, seed)


def measure_concepts(scored: ScoredClips, stage: str, matches: Sequence[MatchedConcepts]) -> MeasureDraws:
    """Return the draws of all measures but recovery and stability, averaged over seeds."""
    by_seed = [
        _aurocs(scored, match) | _map_scores(scored, match) | _completeness(scored, match) | _use(scored, stage, match)
        for match in matches
    ]
    draws = {key: np.mean([seed_draws[key] for seed_draws in by_seed], 0) for key in by_seed[0]}
    return draws | _over_factors(draws)


def recovery(draws: MeasureDraws, ceiling: MeasureDraws) -> MeasureDraws:
    """Return the AUROC above chance relative to that of supervised vectors, for the factors that these recover."""
    out = {
        (factor, "RECOVERY"): (draws[factor, "AUROC"] - 0.5) / (ceiling[factor, "AUROC"] - 0.5)
        for factor in KEY_FACTORS
    }
    return out | _over_factors(out)


def _over_factors(draws: MeasureDraws) -> MeasureDraws:
    names = dict.fromkeys(name for _, name in draws)
    parts = {name: [draws[factor, name] for factor in KEY_FACTORS if (factor, name) in draws] for name in names}
    return {(ALL_QUESTIONS, name): np.nanmean(part, 0) for name, part in parts.items()}


def _aurocs(scored: ScoredClips, match: MatchedConcepts) -> MeasureDraws:
    factors, weights = scored.clips.factors, scored.weights(len(scored.clips))
    return {
        (factor, "AUROC"): measures.auroc_draws(
            match.concepts.scores[:, concepts], factor_values(factors, [factor]), weights
        )
        for factor, concepts in match.concept_of_value.items()
    }


def _map_scores(scored: ScoredClips, match: MatchedConcepts) -> MeasureDraws:
    eval_set, out = scored.first_half, {}
    codes = match.concepts.codes[: scored.half]
    for factor, question in QUESTION_OF_FACTOR.items():
        concept = match.of_clips(eval_set.clips, factor)[:, None, None, None, None]
        maps = np.take_along_axis(codes, concept, -1)[..., 0]
        metrics = compute_world_metrics(eval_set.read(maps, "net"), eval_set.ground_truth[question], {})
        for metric in ("WHERE", "WHEN"):
            if metric in metrics:
                out[factor, metric] = bootstrap_skill(metrics[metric], 0)[: 1 + N_DRAWS]
    return out


def _completeness(scored: ScoredClips, match: MatchedConcepts) -> MeasureDraws:
    weights = scored.weights(len(scored.clips) - scored.half)
    return {
        (head, "COMPLETENESS"): measures.readout_draws(
            match.concepts.scores, scored.logits[:, where].argmax(1), weights
        )
        for head, where in scored.network.head_slices.items()
    }


def _use(scored: ScoredClips, stage: str, match: MatchedConcepts) -> MeasureDraws:
    """Return USE and RANK; random directions have the length of the contribution of the matched concept."""
    half, clips, concepts = scored.half, scored.first_half.clips, match.concepts
    grids, logits, codes = scored.grids[stage][:half], scored.logits[:half], concepts.codes[:half]
    losses = measures.lead_losses(scored.network, stage, grids, np.moveaxis(codes, -1, 0), concepts.directions, logits)
    rng = np.random.default_rng(match.seed)
    random = rng.standard_normal((len(QUESTION_OF_FACTOR), half, 1, 1, 1, grids.shape[-1])).astype(np.float32)
    random /= np.linalg.norm(random, axis=-1, keepdims=True)
    matched_codes = [
        np.take_along_axis(codes, match.of_clips(clips, factor)[:, None, None, None, None], -1)[..., 0]
        for factor in QUESTION_OF_FACTOR
    ]
    random_losses = measures.lead_losses(scored.network, stage, grids, np.stack(matched_codes), random, logits)
    weighted = weigh_by_codes(concepts.codes[scored.half :], scored.gradients[stage])
    importance = importance_of(np.asarray(weighted), concepts.directions)
    leads = measures.head_leads(scored.network, logits[None], logits)[:, 0]
    weights = scored.weights(half)
    out: MeasureDraws = {}
    for h, head in enumerate(scored.network.heads):
        total = weights @ leads[h]
        f = list(QUESTION_OF_FACTOR).index(head)
        out[head, "USE"] = weights @ losses[h, np.arange(half), match.of_clips(clips, head)] / total
        out[head, "USE_RANDOM"] = weights @ random_losses[h, :, f] / total
        out[head, "RANK"] = measures.rank_draws(
            importance[h], losses[h], (scored.weights(len(importance[h]), 1), weights)
        )
    return out


def _rows(key: RowKey, draws: MeasureDraws, scored: ScoredClips) -> list[DiscoveryBenchmarkRow]:
    n_clips = {"AUROC": len(scored.clips), "RECOVERY": len(scored.clips), "COMPLETENESS": scored.half}
    return [
        DiscoveryBenchmarkRow(*key, factor, name, *measure_interval(name, values), n_clips.get(name, scored.half))
        for (factor, name), values in draws.items()
    ]


def measure_interval(measure: str, draws: Draws) -> tuple[float, float, float]:
    """Return a value and its 95 % interval; that of RANK is centred on the value.

    Resampling repeats clips, so that means are noisier than those of the sample, and each draw's correlation is lower.
    """
    value, low, high = bootstrap_interval(draws)
    if measure == "RANK":
        half = (high - low) / 2
        low, high = max(value - half, -1.0), min(value + half, 1.0)
    return value, low, high


def _stability_row(key: RowKey, matches: Sequence[MatchedConcepts]) -> DiscoveryBenchmarkRow:
    cosines = [
        measures.one_to_one_cosines(a.concepts.directions, b.concepts.directions) for a, b in combinations(matches, 2)
    ]
    return DiscoveryBenchmarkRow(*key, ALL_QUESTIONS, "STABILITY", *mean_ci(np.concatenate(cosines)), 0)
