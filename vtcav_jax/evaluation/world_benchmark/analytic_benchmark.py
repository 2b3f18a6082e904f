"""W0: a network wired by hand, for which the Shapley value of every voxel is known in closed form."""

from dataclasses import dataclass

import numpy as np

from vtcav_jax.attribution import Class, attribute
from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.evaluation.trivial_maps import TRIVIAL_MAPS, trivial_maps
from vtcav_jax.evaluation.world_benchmark.entries import Entry, call_custom_method
from vtcav_jax.evaluation.world_benchmark.world_metrics import Parts
from vtcav_jax.worlds.handwired_network import MOTION_PAIRS, binary_clips, shapley_values

ANALYTIC_NETWORK, ANALYTIC_QUESTION = "motion_pairs", "W0"


@dataclass(frozen=True, eq=False)
class AnalyticAgreement:
    """Agreement of maps with the exact Shapley values."""

    stage: str
    forward_passes: int
    parts: Parts


def score_on_analytic(entry: Entry, n_clips: int = 200, seed: int = 0) -> AnalyticAgreement:
    """Return the signed overlap of map and Shapley values, each scaled to an absolute sum of 1; 0 is a uniform map."""
    video, labels = binary_clips(n_clips, seed)
    true_values = shapley_values(video)[labels, np.arange(n_clips)]
    target = Class(labels)
    if entry.function is not None:
        attribution = call_custom_method(entry.function, entry.method, MOTION_PAIRS, video, target)
        maps, stage, cost = (
            area_resize(attribution.map, video.shape[1:4]),
            attribution.stage,
            attribution.forward_passes,
        )
    elif entry.method in TRIVIAL_MAPS:
        maps, stage, cost = trivial_maps(video, seed, [entry.method])[entry.method], VIDEO, 0
    else:
        attribution = attribute(MOTION_PAIRS, video, target, entry.method_name, VIDEO, **entry.options)
        maps, stage, cost = attribution.map, attribution.stage, attribution.forward_passes
    explainable = true_values.any((1, 2, 3))  # a clip without any pair has nothing to explain
    maps, true_values = np.asarray(maps, np.float64)[explainable], true_values[explainable]
    uniform = np.ones_like(true_values)
    return AnalyticAgreement(
        stage, cost, np.stack([_agreement(values, true_values) for values in (maps, uniform)])[None]
    )


def _agreement(maps: np.ndarray, true_values: np.ndarray) -> np.ndarray:
    size = np.abs(maps).sum((1, 2, 3), keepdims=True)
    share = np.divide(maps, size, out=np.full_like(maps, 1 / maps[0].size), where=size > 0)
    return 1 - np.abs(share - true_values / true_values.sum((1, 2, 3), keepdims=True)).sum((1, 2, 3)) / 2


def runs_on_analytic(entry: Entry) -> bool:
    """Return whether an entry applies: it explains voxels and needs no reference clips."""
    voxels = entry.stage in (None, VIDEO) and entry.method_name not in ("deep_taylor", "expected_gradients")
    return entry.function is not None or voxels
