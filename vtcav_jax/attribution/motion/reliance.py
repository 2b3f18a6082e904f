"""Motion reliance of each clip: the share of its score that depends on motion; `summary` aggregates it by class.

The score lost when the clip is frozen needs more than one moment: motion, an event, or any change. The score lost when
the frames are shuffled needs their order, which is motion. The score is a margin, 0 where a class is not preferred to
the others of its head, so shares are relative to 0.

Selective relevance is reported in addition: the share of a map that changes over time, beyond that of the frozen clip.
A moving object moves its relevance even if only its appearance matters, so this alone is no evidence of motion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from vtcav_jax.attribution.motion import optical_flow, selective_relevance
from vtcav_jax.attribution.motion.flow_agreement import flow_agreement
from vtcav_jax.attribution.motion.temporal_probes import (
    frame_orders,
    logits_in_orders,
    probe_from_scores,
    relative_drop,
    temporal_probe,
)
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.attribution.targets import as_target
from vtcav_jax.attribution.videos.clip_windows import map_windows_in_batches
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.source import Source
from vtcav_jax.models import Network
from vtcav_jax.runs.attribution_rows import ClipMotionRow
from vtcav_jax.settings import MAX_SEED, SEED_HELP, check_settings, setting
from vtcav_jax.stats import intervals

TIME_EDITS = ("shuffled", "frozen", "reversed")


ClipMeasurements = tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]  # classes, values, margins by clip


@dataclass(frozen=True)
class MotionConfig:
    """Settings of the measurement: attribution method and stage, threshold on change, and number of frame orders."""

    method: str = "gradient_x_input"
    stage: str | None = None
    motion_threshold_sd: float = setting(
        1.0, "relevance that changes over time by more than this many standard deviations counts as changing", minimum=0
    )
    shuffles: int = 8
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)
    compare_optical_flow: bool = setting(False, "also compare with optical flow (needs OpenCV)")

    def __post_init__(self):
        check_settings(self)


@dataclass(frozen=True)
class MotionEvidence:
    """A clip's row and, for a target of one class, the margins of all classes of its head: of the clip, and with each
    of `TIME_EDITS`. Compared over clips, they show the network's bias on edited clips."""

    row: ClipMotionRow
    classes: tuple[str, ...] = ()
    margins: dict[str, list[float]] = field(default_factory=dict)


def stream_motion(
    network: Network,
    source: Source,
    target_specs: Sequence[TargetSpec],
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
    if config.compare_optical_flow:
        optical_flow.import_cv2()

    def measure_batch(video: np.ndarray) -> dict[str, ClipMeasurements]:
        clips = jnp.asarray(clip_spec.normalise(video))
        moving_masks = (
            np.stack([optical_flow.moving_pixels(clip) for clip in video]) if config.compare_optical_flow else None
        )
        logits = logits_in_orders(network.model, clips, orders)
        return {
            target_spec.name: _measure_clips(network, clips, target_spec, logits, config, moving_masks)
            for target_spec in target_specs
        }

    for result in map_windows_in_batches(
        source,
        clip_spec,
        sampling,
        measure_batch,
        batch_size=batch_size,
        slide_over_video=slide_over_video,
        num_workers=num_workers,
        indices=indices,
    ):
        if isinstance(result, ReadResult):
            yield result, []
            continue
        evidence = []
        for window, (measurements, i) in zip(result.windows, result.results):
            for target, (answers, values, margins) in measurements.items():
                answer = network.labels[answers[i]] if answers[i] >= 0 else target
                fields = {name: float(value[i]) for name, value in values.items()}
                item = window.read.item
                row = ClipMotionRow(item.name, window.clip_index, item.source_video, target, answer, **fields)
                first, behind = next(
                    target_spec.head_range for target_spec in target_specs if target_spec.name == target
                )
                labels = network.labels[first:behind] if margins else ()
                evidence.append(MotionEvidence(row, labels, {name: m[i].tolist() for name, m in margins.items()}))
        yield result.windows[0].read, evidence


def _measure_clips(
    network: Network,
    clips: Any,
    target_spec: TargetSpec,
    logits: np.ndarray,
    config: MotionConfig,
    moving_masks: np.ndarray | None,
) -> ClipMeasurements:
    b, t = clips.shape[:2]
    target = target_spec.target(logits[-1])
    if target_spec.custom is not None:  # a channel's reference is its value for an empty clip, not 0
        probe = temporal_probe(network.model, clips, target, shuffles=config.shuffles, seed=config.seed)
    else:
        score = as_target(target, b, logits.shape[-1])
        probe = probe_from_scores(np.stack([np.asarray(score(jnp.asarray(array), {})) for array in logits]), t, None)
    motion_shares = selective_relevance.motion_share(
        network.model, clips, target, config.method, stage=config.stage, threshold_sd=config.motion_threshold_sd
    )
    fields = {
        "score": probe.score,
        "score_baseline": probe.score_baseline,
        "score_frozen": probe.scores_frozen.mean(1),
        "score_shuffled": probe.scores_shuffled.mean(1),
        "score_reversed": probe.score_reversed,
        "score_half_rate": probe.score_half_rate,
        "drop_frozen": probe.drop_frozen,
        "drop_shuffled": probe.drop_shuffled,
        "changing_mass": motion_shares.clip_split.motion_share,
        "changing_mass_frozen": motion_shares.frozen_split.motion_share,
        "changing_mass_excess": motion_shares.excess,
        "changing_area": motion_shares.clip_split.area,
        "changing_lift": motion_shares.clip_split.lift,
    }
    for name, edited_scores in (("drop_shuffled", probe.scores_shuffled), ("drop_frozen", probe.scores_frozen)):
        shares = np.stack([relative_drop(probe.score, array, probe.score_baseline) for array in edited_scores.T], 1)
        _, fields[f"{name}_low"], fields[f"{name}_high"] = np.array([intervals.mean_ci(clip) for clip in shares]).T
    if moving_masks is not None:
        agreement = flow_agreement(motion_shares.clip_split, moving_masks)
        fields |= {"flow_precision": agreement.precision, "flow_recall": agreement.recall, "flow_iou": agreement.iou}
        fields |= {"flow_energy": agreement.energy}
    margins = {}
    if target_spec.custom is None and target_spec.contrast is None and len(target_spec.classes) < 2:
        head_logits = logits[..., slice(*target_spec.head_range)]
        k = head_logits.shape[-1]
        # The logit minus the mean of the others
        head_logits = (head_logits - head_logits.mean(-1, keepdims=True)) * k / max(k - 1, 1)
        margins = {
            "score": head_logits[-1],
            "shuffled": head_logits[t:-3].mean(0),
            "frozen": head_logits[:t].mean(0),
            "reversed": head_logits[-3],
        }
    return target_spec.answers(logits[-1]), fields, margins
