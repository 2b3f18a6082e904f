"""Motion reliance of each clip: the share of its score that depends on motion; `summary` aggregates it by class.

The score lost when the clip is frozen needs more than one moment: motion, an event, or any change. The score lost when
the frames are shuffled needs their order, which is motion. The score is a margin, 0 where a class is not preferred to
the others of its head, so shares are relative to 0.

Selective relevance is reported in addition: the share of a map that changes over time, beyond that of the frozen clip.
A moving object moves its relevance even if only its appearance matters, so this alone is no evidence of motion.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.attribution.baselines import pixel_bounds
from vtcav_jax.attribution.cam_methods import CAM_METHODS
from vtcav_jax.attribution.motion import optical_flow
from vtcav_jax.attribution.motion.map_split import DEFAULT_THRESHOLDS, DERIVATIVE_VARIANTS, SplitVariant
from vtcav_jax.attribution.motion.part_rows import part_values
from vtcav_jax.attribution.motion.selective_relevance import SelectiveRelevance, selective_relevance_of_targets
from vtcav_jax.attribution.motion.temporal_probes import (
    frame_orders,
    logits_in_orders,
    probe_from_scores,
    relative_drop,
    temporal_probe,
)
from vtcav_jax.attribution.registry import planned_passes
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.attribution.targets import as_target
from vtcav_jax.attribution.videos.clip_windows import map_windows_in_batches
from vtcav_jax.attribution.videos.explain_videos import MethodStages, resolve_methods
from vtcav_jax.attribution.videos.finite_check import non_finite_failure
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.source import Source
from vtcav_jax.models import Network
from vtcav_jax.runs.attribution_rows import ClipMotionRow, MotionMapRow
from vtcav_jax.settings import MAX_SEED, SEED_HELP, check_settings, setting
from vtcav_jax.stats import intervals

TIME_EDITS = ("shuffled", "frozen", "reversed")
SCORE_COLUMNS = ("score", "score_baseline", *(f"score_{edit}" for edit in TIME_EDITS), "score_half_rate")


class MapMeasurement(NamedTuple):
    """Columns of `MotionMapRow` of the clips of a batch, for one method, stage and threshold."""

    method: str
    stage: str
    threshold_sd: float
    values: dict[str, np.ndarray]


class ClipMeasurements(NamedTuple):
    """Explained and predicted classes, columns of `ClipMotionRow`, margins and measurements of maps of the clips of a
    batch."""

    answers: np.ndarray
    predictions: np.ndarray
    values: dict[str, np.ndarray]
    margins: dict[str, np.ndarray]
    maps: list[MapMeasurement]


def parse_thresholds(values: Sequence[str]) -> tuple[float, ...] | None:
    """Return the numbers of a flag such as `--motion_thresholds=0,1,2`; None without values."""
    try:
        return tuple(float(value) for value in values) or None
    except ValueError as error:
        raise ValueError(f"expected numbers, got {','.join(values)}") from error


@dataclass(frozen=True)
class MotionConfig:
    """Settings of the measurement: attribution methods, motion parts of their maps, and number of frame orders."""

    methods: tuple[str, ...] = setting(
        ("gradient_x_input",),
        "attribution methods of the maps that are split into a motion part and a static part, separated by commas:"
        " METHOD or METHOD@STAGE",
    )
    stages: tuple[str, ...] = setting((), "layers of the maps [default: each method's default layer]")
    motion_variant: SplitVariant = setting(
        "absolute",
        "how the motion part is separated; absolute: relevance that changes over time; paper2020: the same as published"
        " (only relevance that fades); d_dtd: difference from the map of each frame repeated; paper2019: the same as"
        " published (maps scaled to a maximum of 1); the last two take one more map per frame",
    )
    motion_threshold_sd: float = setting(
        1.0, "changes by more than this many standard deviations are the motion part", minimum=0
    )
    motion_thresholds: tuple[float, ...] | None = setting(
        None, "thresholds of the curves in the report [default: 0,1,2,3,4]", convert=parse_thresholds
    )
    shuffles: int = 8
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)
    compare_optical_flow: bool = setting(
        False,
        "also measure how much of each map and of its motion part is on moving pixels: known for synthetic worlds,"
        " otherwise by optical flow (needs OpenCV)",
    )

    def __post_init__(self):
        bad = [value for value in self.motion_thresholds or () if not 0 <= value < np.inf]
        check_settings(self, *([("motion_thresholds", f"expected numbers of at least 0, got {bad[0]}")] if bad else []))

    @property
    def all_thresholds(self) -> tuple[float, ...]:
        """Thresholds of the curves, and the one of the motion part, in ascending order."""
        return tuple(sorted({*(self.motion_thresholds or DEFAULT_THRESHOLDS), self.motion_threshold_sd}))


@dataclass(frozen=True)
class MotionEvidence:
    """A clip's row and, for a target of one class, the margins of all classes of its head: of the clip, and with each
    of `TIME_EDITS`. Compared over clips, they show the network's bias on edited clips. `maps` has a row per method and
    threshold."""

    row: ClipMotionRow
    classes: tuple[str, ...] = ()
    margins: dict[str, list[float]] = field(default_factory=dict)
    maps: tuple[MotionMapRow, ...] = ()


def resolve_motion_methods(network: Network, config: MotionConfig, target_specs: Sequence[TargetSpec]) -> MethodStages:
    """Return the pairs (method, stage) of the maps; raise a ValueError for any that has no motion part."""
    method_stages = resolve_methods(network, config.methods, config.stages, target_specs)
    options, video = method_options(network), np.zeros((1, *network.clip_spec.shape), np.float32)
    for name, _ in method_stages:
        planned_passes(name, network.clip_spec.shape[:3], **options.get(name, {}))
    if config.motion_variant not in DERIVATIVE_VARIANTS:
        return method_stages
    for target_spec in target_specs:
        context = prepare_explanation(
            network.model, video, target_spec.target(np.zeros((1, len(network.labels)), np.float32))
        )
        for name, stage in method_stages:
            at = context.resolve_stage(stage) if stage or name in CAM_METHODS else None
            if at and (steps := context.shapes[at][1]) < 2:
                raise ValueError(
                    f"{name} at {at} has maps of {steps} time step, which have no change over time; use a stage with"
                    " more (METHOD@STAGE), or --motion_variant=d_dtd"
                )
    return method_stages


def method_options(network: Network) -> dict[str, dict[str, Any]]:
    """Return the options that methods require, which follow from the network's clips."""
    return {"deep_taylor": {"bounds": pixel_bounds(network.clip_spec)}}


def explain_motion(
    network: Network, clips: Any, targets: Sequence[Any], method_stages: MethodStages, config: MotionConfig
) -> Iterator[list[SelectiveRelevance]]:
    """Yield the motion parts of the maps of each target, by method."""
    used = {name: options for name, options in method_options(network).items() if name in dict(method_stages)}
    return selective_relevance_of_targets(
        network.model,
        clips,
        targets,
        method_stages,
        used,
        threshold_sd=config.motion_threshold_sd,
        variant=config.motion_variant,
    )


def stream_motion(
    network: Network,
    source: Source,
    target_specs: Sequence[TargetSpec],
    method_stages: MethodStages,
    config: MotionConfig,
    sampling: SamplingConfig,
    *,
    batch_size: int = 4,
    slide_over_video: bool = False,
    num_workers: int = 2,
    indices: Sequence[int] | None = None,
) -> Iterator[tuple[ReadResult, list[MotionEvidence]]]:
    """Yield each video, or those in `indices`, with the evidence of its clips; empty if it cannot be decoded."""
    clip_spec = network.clip_spec
    orders = frame_orders(clip_spec.frames, config.shuffles, config.seed)
    properties = [optical_flow.moving_pixels_of_windows(source, clip_spec)] if config.compare_optical_flow else []

    @np.errstate(invalid="ignore")  # clips whose activations overflow are left out below
    def measure_batch(video: np.ndarray, moving_masks: np.ndarray | None = None) -> dict[str, ClipMeasurements]:
        clips = jnp.asarray(clip_spec.normalise(video))
        logits = logits_in_orders(network.model, clips, orders)
        targets = [target_spec.target(logits[-1]) for target_spec in target_specs]
        relevance = explain_motion(network, clips, targets, method_stages, config)
        return {
            target_spec.name: _measure_clips(network, clips, target_spec, target, logits, config)._replace(
                maps=[
                    MapMeasurement(parts.attribution.method, parts.attribution.stage, threshold_sd, values)
                    for parts in parts_of_target
                    for threshold_sd, values in part_values(parts, config.all_thresholds, moving_masks, video)
                ]
            )
            for target_spec, target, parts_of_target in zip(target_specs, targets, relevance)
        }

    for result in map_windows_in_batches(
        source,
        clip_spec,
        sampling,
        measure_batch,
        batch_size=batch_size,
        properties=properties,
        slide_over_video=slide_over_video,
        num_workers=num_workers,
        indices=indices,
    ):
        if isinstance(result, ReadResult):
            yield result, []
            continue
        evidence = []
        for window, (measurements, i) in zip(result.windows, result.results):
            for target_spec in target_specs:
                measurement, item, target = measurements[target_spec.name], window.read.item, target_spec.name
                answer = network.labels[measurement.answers[i]] if measurement.answers[i] >= 0 else target
                names = item.name, window.clip_index, item.source_video, target, answer
                map_rows = [
                    MotionMapRow(*names, method, stage, threshold_sd, **_values_of_clip(values, i))
                    for method, stage, threshold_sd, values in measurement.maps
                ]
                first = next(row for row in map_rows if row.threshold_sd == config.motion_threshold_sd)
                predicted = measurement.predictions[i]
                row = ClipMotionRow(
                    *names,
                    **_values_of_clip(measurement.values, i),
                    **_first_map_columns(first),
                    prediction=network.labels[predicted] if predicted >= 0 else "",
                )
                labels = network.labels[slice(*target_spec.head_range)] if measurement.margins else ()
                margins = {name: values[i].tolist() for name, values in measurement.margins.items()}
                evidence.append(MotionEvidence(row, labels, margins, tuple(map_rows)))
        if all(math.isfinite(getattr(item.row, name)) for item in evidence for name in SCORE_COLUMNS):
            yield result.windows[0].read, evidence
        else:
            yield non_finite_failure(network, result.windows, "its scores"), []


def _values_of_clip(values: Mapping[str, np.ndarray], i: int) -> dict[str, float]:
    return {name: float(value[i]) for name, value in values.items()}


def _first_map_columns(row: MotionMapRow) -> dict[str, Any]:
    """Return the columns of `ClipMotionRow` about the map by the first method."""
    return {
        "changing_mass": row.motion_share,
        "changing_mass_frozen": row.frozen_share,
        "changing_mass_excess": row.motion_share - row.frozen_share,
        "changing_area": row.area,
        "changing_lift": row.motion_share / row.area if row.area > 0 else math.nan,
        "method": row.method,
    }


def _measure_clips(
    network: Network,
    clips: Any,
    target_spec: TargetSpec,
    target: Any,
    logits: np.ndarray,
    config: MotionConfig,
) -> ClipMeasurements:
    """Measure the scores of the clips in edited time; `maps` is left empty."""
    b, t = clips.shape[:2]
    if target_spec.custom is not None:  # a channel's reference is its value for an empty clip, not 0
        probe = temporal_probe(network.model, clips, target, shuffles=config.shuffles, seed=config.seed)
    else:
        score = as_target(target, b, logits.shape[-1])
        probe = probe_from_scores(np.stack([np.asarray(score(jnp.asarray(array), {})) for array in logits]), t, None)
    fields = {
        "score": probe.score,
        "score_baseline": probe.score_baseline,
        "score_frozen": probe.scores_frozen.mean(1),
        "score_shuffled": probe.scores_shuffled.mean(1),
        "score_reversed": probe.score_reversed,
        "score_half_rate": probe.score_half_rate,
        "drop_frozen": probe.drop_frozen,
        "drop_shuffled": probe.drop_shuffled,
    }
    for name, edited_scores in (("drop_shuffled", probe.scores_shuffled), ("drop_frozen", probe.scores_frozen)):
        shares = np.stack([relative_drop(probe.score, array, probe.score_baseline) for array in edited_scores.T], 1)
        _, fields[f"{name}_low"], fields[f"{name}_high"] = np.array([intervals.mean_ci(clip) for clip in shares]).T
    margins = {}
    if target_spec.has_margins:
        ordered = target_spec.margins(logits)
        margins = {
            "score": ordered[-1],
            "shuffled": ordered[t:-3].mean(0),
            "frozen": ordered[:t].mean(0),
            "reversed": ordered[-3],
        }
    predictions = target_spec.predicted_classes(logits[-1])
    fields["probability"] = _head_probabilities(logits[-1], predictions, target_spec.head_range)
    return ClipMeasurements(target_spec.answers(logits[-1]), predictions, fields, margins, [])


def _head_probabilities(
    logits: Float[np.ndarray, "b k"], classes: Int[np.ndarray, " b"], head_range: tuple[int, int]
) -> Float[np.ndarray, " b"]:
    """Return the probability of one class of each clip among those of its head; NaN if the class is -1."""
    if not len(logits) or classes[0] < 0:
        return np.full(len(logits), math.nan)
    start, stop = head_range
    head = logits[:, start:stop].astype(np.float64)
    exponentials = np.exp(head - head.max(1, keepdims=True))
    return exponentials[np.arange(len(head)), classes - start] / exponentials.sum(1)
