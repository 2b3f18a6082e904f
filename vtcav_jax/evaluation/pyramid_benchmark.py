"""Test whether a class depends on the channels that its pyramid selects, and whether they separate it from others.

Channels are selected on half of a class's clips and scored on the other half, and vice versa. ABLATION: the loss of
margin when the selected channels are ablated, as a share of the loss when all channels of the stage are. SELECTIVE: how
well their mean activation separates the class from others. 0 is as many random channels; 1 is the whole loss, or the
channels that separate the class best.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vtcav_jax import pyramid, tap
from vtcav_jax.attribution.score_model import ExplainContext, prepare_explanation, to_numpy
from vtcav_jax.attribution.targets import Margin
from vtcav_jax.console import progress, warn
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet
from vtcav_jax.evaluation.world_benchmark.questions import EVAL_QUESTIONS
from vtcav_jax.evaluation.world_benchmark.score_rows import bootstrap_interval, bootstrap_weights
from vtcav_jax.pyramid import Selection
from vtcav_jax.pyramid.ablation import score_without
from vtcav_jax.runs.evaluation_rows import ABLATION_SCORE, SELECTIVITY_SCORE, MethodScoreRow
from vtcav_jax.tap import Model

CHANNELS_PER_STAGE, BENCHMARK_PYRAMID_DEPTH = 8, 3
RANDOM_CHANNEL_DRAWS = 8  # random sets of channels
MAX_CLIPS_PER_SIDE, MIN_CLIPS_PER_SIDE = 20, 4  # clips of a class that select, and as many that score

ChannelsByStage = dict[str, list[int]]


def gradient_pyramid(
    model: Model, class_clips: Array, other_clips: Array, target: Margin
) -> tuple[ChannelsByStage, float]:
    """Select channels by a pyramid with clips of other classes as reference; return them and the forward passes."""
    return _pyramid_channels(model, class_clips, target, reference=other_clips, ig_steps=4)


def zero_reference_pyramid(
    model: Model, class_clips: Array, other_clips: Array, target: Margin
) -> tuple[ChannelsByStage, float]:
    """Select channels by a pyramid with zero activations as reference."""
    return _pyramid_channels(model, class_clips, target)


def most_active_channels(
    model: Model, class_clips: Array, other_clips: Array, target: Margin
) -> tuple[ChannelsByStage, float]:
    """Select the most active channels, whatever the target: a baseline that explains nothing."""
    chain = pyramid.pyramid_levels(prepare_explanation(model, class_clips, target), None, BENCHMARK_PYRAMID_DEPTH)
    names = tuple(name for level in chain for name in level)
    values = tap.activations(model, class_clips, names)[1]
    means = {name: np.asarray(jnp.abs(value).mean((0, 1, 2, 3))) for name, value in values.items()}
    return {name: np.argsort(-mean)[:CHANNELS_PER_STAGE].tolist() for name, mean in means.items()}, 1.0


CHANNEL_SELECTORS: dict[str, Callable[[Model, Array, Array, Margin], tuple[ChannelsByStage, float]]] = {
    "pyramid": gradient_pyramid,
    "pyramid (from nothing)": zero_reference_pyramid,
    "strongest kernels": most_active_channels,
}


def _pyramid_channels(
    model: Model, class_clips: Array, target: Margin, **pyramid_options: Any
) -> tuple[ChannelsByStage, float]:
    class_pyramid = pyramid.build_pyramid(
        model,
        class_clips,
        target,
        depth=BENCHMARK_PYRAMID_DEPTH,
        selection=Selection("top", float(CHANNELS_PER_STAGE)),
        **pyramid_options,
    )
    stages = [name for level in class_pyramid.levels for name in level]
    ranked = sorted(class_pyramid.nodes, key=lambda node: -node.relevance)
    return {
        name: [node.channel for node in ranked if node.stage == name] for name in stages
    }, class_pyramid.forward_passes


@dataclass(frozen=True, eq=False)
class _Side:
    """Clips of a class that select channels and those that score them, each with as many clips of other classes."""

    pyramid_clips: Array
    reference_clips: Array
    held_out_clips: Array
    held_out_reference: Array
    target: Margin


def pyramid_benchmark(eval_set: EvalSet, network_name: str) -> list[MethodScoreRow]:
    """Score the channels of each selector and stage on each question."""
    if too_small := [
        name for name in eval_set.question_ids if not _clips_per_side(eval_set, EVAL_QUESTIONS[name].head)
    ]:
        warn(
            f"pyramids are not scored: a class of {', '.join(too_small)} has fewer than {2 * MIN_CLIPS_PER_SIDE} clips;"
            f" add --max_clips"
        )
        return []
    results: dict[str, list[dict[str, _SideResult]]] = {name: [] for name in eval_set.question_ids}
    heads = {name: EVAL_QUESTIONS[name].head for name in eval_set.question_ids}
    sides = ((name, side) for name, head in heads.items() for side in _sides(eval_set, head))
    count = sum(2 * len(eval_set.network.heads[head]) for head in heads.values())
    for name, side in progress(sides, count, "pyramids", size=lambda _: 1):
        results[name].append(_judge_side(eval_set, len(results[name]), side))
    return [
        row
        for name, side_results in results.items()
        for selector in CHANNEL_SELECTORS
        for row in _score_rows(eval_set, network_name, name, selector, [side[selector] for side in side_results])
    ]


@dataclass(frozen=True, eq=False)
class _SideResult:
    """Scores of one selector's channels on one side, by stage."""

    cost: float
    seconds: float  # per clip
    # Loss of margin without the selected channels, without as many random ones, and without all
    margin_drops: dict[str, Float[np.ndarray, "3 b"]]
    separation: dict[str, Float[np.ndarray, "3 draws"]]


def _judge_side(eval_set: EvalSet, number: int, side: _Side) -> dict[str, _SideResult]:
    """Score the channels of each selector; the losses without random and without all channels are shared."""
    model, out = eval_set.padded_network.model, {}
    context = prepare_explanation(model, side.held_out_clips, side.target)
    margin_drops: dict[str, _MarginDrops] = {}
    for selector, select_channels in CHANNEL_SELECTORS.items():
        start = time.perf_counter()
        channels_by_stage, cost = select_channels(model, side.pyramid_clips, side.reference_clips, side.target)
        seconds = (time.perf_counter() - start) / len(side.pyramid_clips)
        if not margin_drops:
            scores, values = tap.activations(context.score_model, context.video, tuple(channels_by_stage))
            substitutes = tap.activations(model, side.held_out_reference, tuple(channels_by_stage))[1]
            full, seed = to_numpy(scores[:, 0]), (eval_set.seed, number)
            margin_drops = {
                stage: _MarginDrops(context, stage, values[stage], substitutes[stage], full, seed)
                for stage in channels_by_stage
            }
        separation = {
            stage: _separation(margin_drops[stage].value, margin_drops[stage].replacement, channels, eval_set.seed)
            for stage, channels in channels_by_stage.items()
        }
        out[selector] = _SideResult(
            cost,
            seconds,
            {stage: margin_drops[stage].drops_for_channels(channels) for stage, channels in channels_by_stage.items()},
            separation,
        )
    return out


def _score_rows(
    eval_set: EvalSet, network_name: str, name: str, selector: str, sides: list[_SideResult]
) -> list[MethodScoreRow]:
    cost, seconds = round(sides[0].cost), float(np.median([side.seconds for side in sides]))
    rows = []
    for stage in sides[0].margin_drops:
        margin_drops = np.concatenate([side.margin_drops[stage] for side in sides], 1)
        mean_drops = margin_drops @ bootstrap_weights(margin_drops.shape[1], eval_set.seed).T
        separation = np.mean([side.separation[stage] for side in sides], 0)
        for metric, samples in ((ABLATION_SCORE, _share(*mean_drops)), (SELECTIVITY_SCORE, _skill(*separation))):
            bounds = bootstrap_interval(samples)
            rows.append(
                MethodScoreRow(
                    selector, stage, network_name, name, metric, *bounds, margin_drops.shape[1], cost, seconds
                )
            )
    return rows


@dataclass(frozen=True, eq=False)
class _MarginDrops:
    """Losses of margin when channels of a stage take their values in clips of other classes (`replacement`)."""

    context: ExplainContext
    stage: str
    value: Array
    replacement: Array
    full: np.ndarray
    seed: tuple[int, int]  # differs by side, so that each draws its own random channels
    random_drops: dict[int, np.ndarray] = field(default_factory=dict)  # by number of channels

    def drops_for_channels(self, channels: list[int]) -> Float[np.ndarray, "3 b"]:
        return np.stack(
            [self._drop_without(np.array(channels, int)), self._mean_random_drop(len(channels)), self._drop_of_all]
        )

    @property
    def _all_channels(self) -> np.ndarray:
        return np.arange(self.value.shape[-1])

    @cached_property
    def _drop_of_all(self) -> Float[np.ndarray, " b"]:
        return self._drop_without(self._all_channels)

    def _mean_random_drop(self, count: int) -> Float[np.ndarray, " b"]:
        if count not in self.random_drops:
            random = np.random.default_rng(self.seed)
            random_results = [
                self._drop_without(random.choice(self._all_channels, count, replace=False))
                for _ in range(RANDOM_CHANNEL_DRAWS)
            ]
            self.random_drops[count] = np.mean(random_results, 0)
        return self.random_drops[count]

    def _drop_without(self, channels: np.ndarray) -> Float[np.ndarray, " b"]:
        removed_mask = jnp.asarray(np.isin(self._all_channels, channels))
        return self.full - to_numpy(
            score_without(
                self.context.score_model, self.context.video, self.stage, self.value, self.replacement, removed_mask
            )
        )


def _sides(eval_set: EvalSet, head: str) -> Iterator[_Side]:
    """Yield each class twice, with its halves exchanged; all sides have equally many clips, to compile once."""
    labels, where, n = eval_set.clips.labels[head], eval_set.network.head_slices[head], _clips_per_side(eval_set, head)
    for c in range(where.stop - where.start):
        class_rows, other_rows = np.flatnonzero(labels == c), np.flatnonzero(labels != c)
        halves = [(class_rows[i::2][:n], other_rows[i::2][:n]) for i in (0, 1)]
        target = Margin(np.full(n, where.start + c), (where.start, where.stop))
        for pyramid_half, held_out_half in (halves, halves[::-1]):
            pyramid_clips, reference_clips, held_out_clips, held_out_reference = (
                jnp.asarray(eval_set.video[rows]) for rows in (*pyramid_half, *held_out_half)
            )
            yield _Side(pyramid_clips, reference_clips, held_out_clips, held_out_reference, target)


def _clips_per_side(eval_set: EvalSet, head: str) -> int:
    """Return the number of clips per class and side, or 0 if there are too few."""
    labels, where = eval_set.clips.labels[head], eval_set.network.head_slices[head]
    n = min(MAX_CLIPS_PER_SIDE, *(int((labels == c).sum()) // 2 for c in range(where.stop - where.start)))
    return n if n >= MIN_CLIPS_PER_SIDE else 0


def _separation(
    class_values: Array, other_values: Array, channels: list[int], seed: int
) -> Float[np.ndarray, "3 draws"]:
    """Return the separation of class means, in standard deviations, of the selected, all, and the best channels."""
    class_means, other_means = (np.asarray(value.mean((1, 2, 3)), np.float64) for value in (class_values, other_values))
    spread = np.sqrt((class_means.var(0) + other_means.var(0)) / 2) + 1e-9
    sign = np.sign(class_means.mean(0) - other_means.mean(0))
    weights = bootstrap_weights(len(class_means), seed)
    means = [weights @ values / weights.sum(1, keepdims=True) for values in (class_means, other_means)]
    far = sign * (means[0] - means[1]) / spread  # signs and best channels come from all clips, not from each draw
    best = np.argsort(-far[0])[: max(len(channels), 1)]
    return np.stack([far[:, channels].mean(1) if channels else far.mean(1), far.mean(1), far[:, best].mean(1)])


def _share(observed: np.ndarray, chance: np.ndarray, everything: np.ndarray) -> Float[np.ndarray, " draws"]:
    """Return the share of the loss; NaN where ablating all channels loses no more than random ones."""
    there = everything > chance
    return np.where(there, (observed - chance) / np.where(there, everything - chance, 1), np.nan)


def _skill(observed: np.ndarray, chance: np.ndarray, best: np.ndarray) -> Float[np.ndarray, " draws"]:
    return (observed - chance) / np.maximum(best - chance, 1e-9)
