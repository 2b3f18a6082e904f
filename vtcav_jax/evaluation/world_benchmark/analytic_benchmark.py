"""W0: a network wired by hand, where every voxel's Shapley value is known, so that maps are right or wrong exactly."""

from dataclasses import dataclass

import numpy as np

from vtcav_jax.attribution import Class, explain
from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.evaluation.trivial_maps import baseline_map
from vtcav_jax.evaluation.world_benchmark.entries import FREE, Entry, own_map
from vtcav_jax.evaluation.world_benchmark.world_metrics import Parts
from vtcav_jax.worlds.handwired_network import binary_clips, network, shapley_values

NETWORK, WORLD = "motion_pairs", "W0"


@dataclass(frozen=True, eq=False)
class Exactly:
    """Maps against the closed form."""

    stage: str
    forwards: int
    parts: Parts


def exact(entry: Entry, clips: int = 200, seed: int = 0) -> Exactly:
    """How much of |map| and |Shapley values|, both summing to 1 and with their signs, agrees; 0 is an even map."""
    video, answers = binary_clips(clips, seed)
    truth = shapley_values(video)[answers, np.arange(clips)]
    target = Class(answers)
    if entry.function is not None:
        made = own_map(entry.function, entry.method, network, video, target)
        maps, stage, cost = area_resize(made.map, video.shape[1:4]), made.stage, made.forward_passes
    elif entry.method in FREE:
        maps, stage, cost = baseline_map(entry.method, video, seed), VIDEO, 0
    else:
        made = explain(network, video, target, entry.known, VIDEO, **entry.options)
        maps, stage, cost = made.map, made.stage, made.forward_passes
    told = truth.any((1, 2, 3))  # a clip without a single pair has nothing to be explained
    maps, truth = np.asarray(maps, np.float64)[told], truth[told]
    even = np.ones_like(truth)
    return Exactly(stage, cost, np.stack([_agreement(values, truth) for values in (maps, even)])[None])


def _agreement(maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
    size = np.abs(maps).sum((1, 2, 3), keepdims=True)
    share = np.divide(maps, size, out=np.full_like(maps, 1 / maps[0].size), where=size > 0)
    return 1 - np.abs(share - truth / truth.sum((1, 2, 3), keepdims=True)).sum((1, 2, 3)) / 2


def applies(entry: Entry) -> bool:
    """Maps of voxels, by methods that need no other clips."""
    voxels = entry.stage in (None, VIDEO) and entry.known not in ("deep_taylor", "expected_gradients")
    return entry.function is not None or voxels
