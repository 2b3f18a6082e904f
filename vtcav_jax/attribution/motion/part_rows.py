"""Numbers about the motion parts of maps: rows per clip and threshold, and their means over source videos."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import numpy as np
from jaxtyping import Bool, Float, Shaped

from vtcav_jax.attribution.motion.flow_agreement import flow_agreement
from vtcav_jax.attribution.motion.selective_relevance import SelectiveRelevance
from vtcav_jax.runs.attribution_rows import MotionMapMeanRow, MotionMapRow
from vtcav_jax.stats.intervals import mean_ci

SHARE_MEASURES = ("motion_share", "frozen_share", "area")
FLOW_MEASURES = tuple(name for name in MotionMapRow.__dataclass_fields__ if name.startswith("flow_"))
# Paired differences: measure, minuend, subtrahend
DIFFERENCES = (
    ("excess", "motion_share", "frozen_share"),
    ("flow_precision_gain", "flow_precision", "flow_precision_map"),
    ("flow_precision_smoothed_gain", "flow_precision", "flow_precision_smoothed"),
    ("flow_precision_difference_gain", "flow_precision", "flow_precision_difference"),
    ("flow_energy_gain", "flow_energy", "flow_energy_top"),
)


def part_values(
    relevance: SelectiveRelevance,
    thresholds: Sequence[float],
    moving_masks: Bool[np.ndarray, "b t h w"] | None = None,
    frames: Shaped[np.ndarray, "b t h w 3"] | None = None,
) -> Iterator[tuple[float, dict[str, Float[np.ndarray, " b"]]]]:
    """Yield each threshold with the columns of `MotionMapRow` of every clip; flow columns need `moving_masks`."""
    for threshold_sd in thresholds:
        split = relevance.clip_change.split(threshold_sd)
        values = {
            "motion_share": split.motion_share,
            "frozen_share": relevance.frozen_change.split(threshold_sd).motion_share,
            "area": split.area,
        }
        if moving_masks is not None:
            agreement = flow_agreement(split, moving_masks, frames)
            values |= {f"flow_{name}": value for name, value in vars(agreement).items()}
        yield threshold_sd, values


def part_means(rows: Sequence[MotionMapRow], threshold_sd: float) -> list[MotionMapMeanRow]:
    """Return means by target, method and threshold over all clips, and at `threshold_sd` also by predicted class."""
    means = []
    for key, key_rows in _group(rows, lambda row: (row.target, row.method, row.stage, row.threshold_sd)).items():
        groups = {"": key_rows}
        if key[3] == threshold_sd:
            by_answer = _group(key_rows, lambda row: row.answer)
            groups |= {answer: group for answer, group in sorted(by_answer.items()) if answer != key[0]}
        for answer, group in groups.items():
            means += _mean_rows(group, answer)
    return means


def _mean_rows(rows: Sequence[MotionMapRow], answer: str) -> list[MotionMapMeanRow]:
    first, columns = rows[0], {name: [asdict(row)[name] for row in rows] for name in (*SHARE_MEASURES, *FLOW_MEASURES)}
    values = {name: np.array(column, np.float64) for name, column in columns.items()}
    values |= {name: values[minuend] - values[subtrahend] for name, minuend, subtrahend in DIFFERENCES}
    videos = np.array([row.source_video for row in rows])
    means = []
    for measure, column in values.items():
        known = ~np.isnan(column)
        if not known.any() and measure.startswith("flow_"):
            continue
        least = -1.0 if measure in {name for name, *_ in DIFFERENCES} else 0.0
        mean, low, high = mean_ci(column, units=list(videos))
        means.append(
            MotionMapMeanRow(
                *(first.target, answer, first.method, first.stage, first.threshold_sd, measure, mean),
                *(float(np.maximum(low, least)), float(np.minimum(high, 1.0))),
                *(int(known.sum()), len(set(videos[known]))),
            )
        )
    return means


def _group(rows: Sequence[MotionMapRow], key: Callable) -> dict:
    groups: dict = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
