"""Sensitivity to time over depth: what each stage (layer) and channel loses when time is edited.

Two quantities per stage, for clips whose frames are shuffled, frozen or reversed:

- The change of the activation: squared change of its time mean at each place, relative to the squared difference to
  clips of other videos. A network that processes each frame by itself has 0 at every stage.
- The loss of score when the activation itself is shuffled, frozen or reversed along time and the rest of the network
  runs on. At the input this is the loss of the edited clip. It falls where the network has turned motion into features
  that no longer depend on when they occur.

Per channel, the score that the channel carries, and how much of it an edit of the clip removes, are first-order
estimates from the gradient.

Related: Byvshev et al., "Are 3D convolutional networks inherently biased towards appearance?", 2022, CVIU 220; the
definitions here are our own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from vtcav_jax import tap as taps
from vtcav_jax.attribution.cut_stages import find_cut_stages
from vtcav_jax.attribution.motion.reliance import TIME_EDITS, MotionEvidence
from vtcav_jax.attribution.motion.summary import summarise_by_class
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.score_model import prepare_explanation, run_pass, to_numpy
from vtcav_jax.attribution.target_spec import TargetSpec, parse_targets
from vtcav_jax.console import progress
from vtcav_jax.models.network import Network
from vtcav_jax.models.stages import default_stages, resolve_stages
from vtcav_jax.names import unknown_name_message
from vtcav_jax.runs.attribution_rows import ClipMotionRow
from vtcav_jax.runs.time_sensitivity_rows import ACTIVATION_CHANGE, CARRIED_SCORE, SCORE_LOSS, TimeSensitivityRow
from vtcav_jax.stats.intervals import mean_ci, ratio_ci, unit_indices

MAX_FROZEN_STEPS, MAX_DEPTH_STAGES = 8, 10

Values = dict[tuple[str, ...], np.ndarray]  # of each clip, by quantity, stage, and edit or target


@dataclass(frozen=True, eq=False)
class ChannelSensitivity:
    """Values of each clip and channel of a stage; dictionaries are by time edit, or by target and time edit."""

    changes: dict[str, Float[np.ndarray, "n c"]]  # squared change of the time mean, summed over places
    distances: Float[np.ndarray, "n c"]  # the same between a clip and clips of other videos
    carried: dict[str, Float[np.ndarray, "n c"]]  # by target: gradient x (activation - time mean of other videos)
    removed: dict[tuple[str, str], Float[np.ndarray, "n c"]]  # gradient x (activation - activation of the edited clip)


@dataclass(frozen=True, eq=False)
class TimeSensitivity:
    """Sensitivity of each stage to time, in forward order, in clips from `source_videos`.

    `evidence` has the scores with the activation of a stage edited, also of the stage "video"; `summarise_by_class`
    turns them into losses of score.
    """

    source_videos: tuple[str, ...]
    evidence: dict[str, list[MotionEvidence]]
    channels: dict[str, ChannelSensitivity]


def time_sensitivity(
    network: Network,
    clips: UInt8[np.ndarray, "n t h w 3"],
    heads: Sequence[str] = (),
    *,
    stages: Sequence[str] = (),
    source_videos: Sequence[str] = (),
    shuffles: int = 4,
    seed: int = 0,
    batch_size: int = 4,
) -> TimeSensitivity:
    """Measure how much each stage and channel, and the score of the predicted class, depends on time.

        sensitivity = time_sensitivity(network, clips, ["direction", "shape"])
        summarise_by_class(sensitivity.evidence["layers.1"])   # loss of score by target and predicted class

    Args:
        clips: clips of at least two source videos.
        heads: heads whose predicted class is explained, such as `direction`; by default every head.
        stages: names or globs; by default `depth_stages`.
        source_videos: the video of each clip; by default each clip is from a video of its own.
        shuffles: number of random orders. Clips and activations are frozen at each of up to eight evenly spaced steps.
    """
    if unknown := [head for head in heads if head not in network.heads]:
        raise ValueError(unknown_name_message("head", unknown, network.heads))
    target_specs = parse_targets(network, heads)
    videos = tuple(source_videos or map(str, range(len(clips))))
    if len(videos) != len(clips) or len(set(videos)) < 2:
        raise ValueError(
            "expected clips of at least two source videos, because changes are compared with the differences between"
            f" videos; got {len(clips)} clips and {len(set(videos))} source videos"
        )
    stages = resolve_stages(stages, network) if stages else depth_stages(network)
    starts, parts = range(0, len(clips), batch_size), []
    for start in progress(starts, len(starts), "batches with time edited at each stage", size=lambda _: 1):
        batch = clips[start : start + batch_size]
        padded = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch), 0)])
        parts.append(
            _measure_batch(
                network, jnp.asarray(network.clip_spec.normalise(padded)), target_specs, stages, shuffles, seed
            )
        )
    values: Values = {key: np.concatenate([part[key] for part in parts])[: len(clips)] for key in parts[0]}
    return TimeSensitivity(
        videos,
        {stage: _make_evidence(network, values, target_specs, stage, videos) for stage in (VIDEO, *stages)},
        {stage: _compare_channels(values, target_specs, stage, videos) for stage in stages},
    )


def depth_stages(network: Network) -> tuple[str, ...]:
    """Return up to ten evenly spaced cut stages; without any, such as past a class token, the outermost blocks.

    No connection bypasses a cut stage, so that editing it edits all that the later stages read.
    """
    video = jax.ShapeDtypeStruct((1, *network.clip_spec.shape), np.float32)
    stages = find_cut_stages(taps.as_pytree(network.model), video) or default_stages(network)
    positions = np.linspace(0, len(stages) - 1, min(len(stages), MAX_DEPTH_STAGES)).round().astype(int)
    return tuple(stages[i] for i in positions.tolist())


def time_edits(steps: int, shuffles: int, seed: int) -> dict[str, Int[np.ndarray, "n steps"]]:
    """Return the orders of time steps of each edit: at random but never as they are, one step repeated, reversed."""
    t, random = np.arange(steps), np.random.default_rng(seed)
    shuffled: list[np.ndarray] = []
    while len(shuffled) < shuffles:
        order = random.permutation(steps)
        if not np.array_equal(order, t):
            shuffled.append(order)
    frozen_steps = np.unique(np.linspace(0, steps - 1, min(steps, MAX_FROZEN_STEPS)).round().astype(int))
    frozen = np.repeat(frozen_steps[:, None], steps, 1)
    return dict(zip(TIME_EDITS, (np.stack(shuffled), frozen, t[None, ::-1])))


def _measure_batch(
    network: Network,
    video: Array,
    target_specs: Sequence[TargetSpec],
    stages: Sequence[str],
    shuffles: int,
    seed: int,
) -> Values:
    """Return logits with time edited at each stage, and what editing the clips does to the channels of each stage."""
    model = taps.as_pytree(network.model)
    logits, activations = taps.activations(model, video, stages)
    values: Values = {("logits", "", "score"): to_numpy(logits)}
    contexts = [prepare_explanation(model, video, spec.target(to_numpy(logits))) for spec in target_specs]
    gradients = [run_pass(context, stages).gradients for context in contexts]
    names = [spec.name for spec in target_specs]
    means, products = jax.tree.map(to_numpy, _summarise(activations, gradients))
    for stage in stages:
        values["mean", stage] = means[stage]
        for name, gradient, product in zip(names, gradients, products):
            values["gradient", stage, name] = to_numpy(_over_time(gradient[stage], "sum"))
            values["product", stage, name] = product[stage]
    for edit, orders in time_edits(video.shape[1], shuffles, seed).items():
        results = []
        for order in orders:
            edited_logits, edited = taps.activations(model, video[:, order], stages)
            results.append(jax.tree.map(to_numpy, (edited_logits, *_summarise(edited, gradients))))
        values["logits", VIDEO, edit] = np.mean([result[0] for result in results], 0)
        if edit == "frozen":  # the mean over frozen clips: without motion, it is the time mean of the clip
            results = [jax.tree.map(lambda *arrays: np.mean(arrays, 0), *results)]
        for stage in stages:
            changes = [((result[1][stage] - means[stage]) ** 2).sum((1, 2), dtype=np.float64) for result in results]
            values["change", stage, edit] = np.mean(changes, 0)
            for i, name in enumerate(names):
                product = np.mean([result[2][i][stage] for result in results], 0)
                values["removed", stage, name, edit] = products[i][stage] - product
    for stage, activation in activations.items():
        steps = activation.shape[1] if activation.ndim == 5 else 1
        for edit in TIME_EDITS:  # without several time steps, nothing can be edited
            orders = time_edits(steps, shuffles, seed)[edit] if steps > 1 else []
            edited = [_logits_with(model, video, stage, activation[:, order]) for order in orders]
            values["logits", stage, edit] = np.mean([to_numpy(array) for array in edited or [logits]], 0)
    return values


@partial(jax.jit, static_argnames="stage")
def _logits_with(model: Any, video: Array, stage: str, activation: Array) -> Float[Array, "b k"]:
    """Return the logits with this activation at a stage; what comes before the stage is not computed."""
    return model(video, lambda name, value: activation if name == stage else value)


@jax.jit
def _summarise(
    activations: dict[str, Array], gradients: list[dict[str, Array]]
) -> tuple[dict[str, Array], list[dict[str, Array]]]:
    """Return the time mean of activations, and for each target the sum of gradient x activation of each channel."""
    products = [
        {stage: _over_time(gradient[stage] * value, "sum").sum((1, 2)) for stage, value in activations.items()}
        for gradient in gradients
    ]
    return {stage: _over_time(value, "mean") for stage, value in activations.items()}, products


def _over_time(value: Array, reduction: str) -> Float[Array, "b h w c"]:
    """Return the sum or mean over time; positions without a declared grid, or none, count as one row of places."""
    if value.ndim == 5:
        return value.sum(1) if reduction == "sum" else value.mean(1)
    return value.reshape(len(value), 1, -1, value.shape[-1])


def _make_evidence(
    network: Network, values: Values, target_specs: Sequence[TargetSpec], stage: str, videos: Sequence[str]
) -> list[MotionEvidence]:
    """Return the margins of each clip and target, unedited and with time edited at a stage."""
    evidence = []
    clip_logits = values["logits", "", "score"]
    for spec in target_specs:
        answers, (first, behind) = spec.answers(clip_logits), spec.head_range
        logits = {"score": clip_logits} | {edit: values["logits", stage, edit] for edit in TIME_EDITS}
        margins = {name: spec.margins(array) for name, array in logits.items()}
        for i, video in enumerate(videos):
            answer = int(answers[i])
            scores = {name: float(margin[i, answer - first]) for name, margin in margins.items()}
            numbers: dict[str, Any] = dict.fromkeys(_FLOAT_FIELDS, math.nan)
            numbers |= {"score_baseline": 0.0, "score": scores.pop("score")}
            numbers |= {f"score_{edit}": score for edit, score in scores.items()}
            row = ClipMotionRow(str(i), 0, video, spec.name, network.labels[answer], **numbers)
            per_class = {name: margin[i].tolist() for name, margin in margins.items()}
            evidence.append(MotionEvidence(row, network.labels[first:behind], per_class))
    return evidence


def _compare_channels(
    values: Values, target_specs: Sequence[TargetSpec], stage: str, videos: Sequence[str]
) -> ChannelSensitivity:
    """Return what edits change in each channel, relative to clips of other videos."""
    means = values["mean", stage].astype(np.float64)
    unit = unit_indices(videos)
    others = (unit[:, None] != unit[None]) / (unit[:, None] != unit[None]).sum(1, keepdims=True)
    squares, mean_of_others = (means**2).sum((1, 2)), np.tensordot(others, means, 1)
    carried = {
        spec.name: values["product", stage, spec.name]
        - (values["gradient", stage, spec.name] * mean_of_others).sum((1, 2))
        for spec in target_specs
    }
    return ChannelSensitivity(
        {edit: values["change", stage, edit] for edit in TIME_EDITS},
        squares + others @ squares - 2 * (means * mean_of_others).sum((1, 2)),
        carried,
        {(spec.name, edit): values["removed", stage, spec.name, edit] for spec in target_specs for edit in TIME_EDITS},
    )


_FLOAT_FIELDS = [field.name for field in fields(ClipMotionRow) if field.type is float]


def sensitivity_rows(sensitivity: TimeSensitivity, *, max_channels: int = 50) -> list[TimeSensitivityRow]:
    """Return the rows of every stage, and of the `max_channels` of each that carry most of a target's score."""
    videos = sensitivity.source_videos
    n_videos, rows = len(set(videos)), []
    for stage, evidence in sensitivity.evidence.items():
        for class_row in summarise_by_class(evidence):
            for edit in TIME_EDITS:
                value, low, high = (getattr(class_row, f"drop_{edit}{end}") for end in ("", "_low", "_high"))
                name = stage, -1, class_row.target, class_row.answer, SCORE_LOSS, edit
                rows.append(TimeSensitivityRow(*name, value, low, high, class_row.n_clips, class_row.n_videos))
    for stage, channels in sensitivity.channels.items():
        counts = len(videos), n_videos
        for edit, changes in channels.changes.items():
            change = ratio_ci(changes.sum(1), channels.distances.sum(1), units=videos)
            rows.append(TimeSensitivityRow(stage, -1, "", "", ACTIVATION_CHANGE, edit, *change, *counts))
        strongest = {
            target: np.argsort(-carried.mean(0), kind="stable")[:max_channels].tolist()
            for target, carried in channels.carried.items()
        }
        for channel in sorted({channel for numbers in strongest.values() for channel in numbers}):
            for edit, changes in channels.changes.items():
                change = ratio_ci(changes[:, channel], channels.distances[:, channel], units=videos)
                rows.append(TimeSensitivityRow(stage, channel, "", "", ACTIVATION_CHANGE, edit, *change, *counts))
        for target, numbers in strongest.items():
            for channel in numbers:
                carried, name = channels.carried[target][:, channel], (stage, channel, target, "")
                rows.append(TimeSensitivityRow(*name, CARRIED_SCORE, "", *mean_ci(carried, units=videos), *counts))
                for edit in TIME_EDITS:
                    lost = ratio_ci(channels.removed[target, edit][:, channel], carried, units=videos)
                    rows.append(TimeSensitivityRow(*name, SCORE_LOSS, edit, *lost, *counts))
    return rows
