"""Sanity measures of attribution maps: flicker, effect of time reversal, relevance outside, effect of weights.

Saha et al., "Exploring Explainability in Video Action Recognition", 2024, arXiv:2404.09067, describe such faults of
Grad-CAM without measuring them; these functions measure them for any method.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool, Float

from vtcav_jax.attribution.baselines import BASELINES
from vtcav_jax.attribution.registry import attribute
from vtcav_jax.attribution.resample import area_resize, frame_of_step, warp
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

SANITY_MEASURES = (
    *("flicker", "static_flicker", "time_reversal_change", "mass_outside", "area_outside"),
    "randomised_weights_similarity",
)

Maps = Float[np.ndarray, "b t h w"]
SanityValues = Float[np.ndarray, " b"]


@dataclass(frozen=True, eq=False)
class SanityScores:
    """Sanity measures of each clip; NaN where undefined.

    `flicker`: mean absolute change between time steps along the optical flow, relative to the map. `static_flicker`:
    the same for the frozen clip, without flow. `time_reversal_change`: 1 - Pearson correlation with the map of the
    reversed clip; 0 if the direction of time has no effect. `mass_outside`: share of absolute relevance outside the
    region that the target is about; `area_outside`: share of the volume there, the value of a uniform map.
    `randomised_weights_similarity`: Spearman correlation with the map of a network with shuffled weights.
    """

    method: str
    stage: str
    flicker: SanityValues
    static_flicker: SanityValues
    time_reversal_change: SanityValues
    mass_outside: SanityValues
    area_outside: SanityValues
    randomised_weights_similarity: SanityValues


def sanity_scores(
    model: Model,
    clips: ArrayLike,
    target: Target,
    method: str,
    stage: str | None = None,
    *,
    region: Bool[np.ndarray, "b t h w"] | None = None,
    flow: Float[np.ndarray, "b t1 h w 2"] | None = None,
    shuffle_seed: int = 0,
    **options: Any,
) -> SanityScores:
    """Compute the sanity measures of one method's maps; `options` are those of the method.

    Args:
        region: pixels of the object that the target is about.
        flow: displacement (x, y) of each pixel since the previous frame.
        shuffle_seed: seed of the shuffled weights.
    """
    video = prepare_explanation(model, clips, target).video

    def explain_map(model: Model, video: ArrayLike) -> Maps:
        return attribute(model, video, target, method, stage, **options).map

    attribution = attribute(model, video, target, method, stage, **options)
    reversed_maps = explain_map(model, video[:, ::-1])[:, ::-1]
    nan = np.full(len(video), np.nan)
    shuffled_model = shuffle_parameters(model, shuffle_seed)
    mass, area = (nan, nan) if region is None else relevance_outside(attribution.map, region)
    return SanityScores(
        attribution.method,
        attribution.stage,
        nan if flow is None else flicker(attribution.map, flow),
        flicker(explain_map(model, BASELINES["frozen"](video)), None),
        1 - pearson(attribution.map, reversed_maps),
        mass,
        area,
        nan
        if shuffled_model is None
        else spearman(np.abs(attribution.map), np.abs(explain_map(shuffled_model, video))),
    )


def flicker(maps: Maps, flow: Float[np.ndarray, "b t1 height width 2"] | None) -> SanityValues:
    """Return the mean over time steps of `sum |map - previous| / sum |previous|`, the previous map moved along `flow`.

    The flow between two steps of a map is that of the last pair of frames times the number of frames between them.
    """
    b, t, h, w = maps.shape
    if t < 2:
        return np.full(b, np.nan)
    warped = maps[:, :-1]
    if flow is not None:
        frames, sizes = flow.shape[1] + 1, np.array(flow.shape[3:1:-1])
        step_frames = [frame_of_step(s, t, frames) for s in range(t)]
        gaps = np.diff(step_frames)[None, :, None, None, None]
        steps = (
            area_resize(flow[:, [i - 1 for i in step_frames[1:]]], (t - 1, h, w)) * gaps * (np.array([w, h]) / sizes)
        )
        warped = np.stack([[warp(m, d) for m, d in zip(*clip)] for clip in zip(warped, steps)])
    change_mass = np.abs(maps[:, 1:] - warped).sum((2, 3))
    size = np.abs(maps[:, :-1]).sum((2, 3))
    return np.where(size > 0, change_mass / np.where(size > 0, size, 1), np.nan).mean(1)


def relevance_outside(
    maps: Maps, region: Bool[np.ndarray, "b frames height width"]
) -> tuple[SanityValues, SanityValues]:
    """Return the share of absolute relevance outside `region`, and the share of the volume outside."""
    outside_weight = 1 - area_resize(region.astype(np.float32), maps.shape[1:])
    size = np.abs(maps)
    with np.errstate(invalid="ignore"):
        return (size * outside_weight).sum((1, 2, 3)) / size.sum((1, 2, 3)), outside_weight.mean((1, 2, 3))


def pearson(a: Maps, b: Maps) -> SanityValues:
    """Return the Pearson correlation of each clip; NaN where a map is constant."""
    x, y = (m.reshape(len(m), -1).astype(np.float64) for m in (a, b))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))


def spearman(a: Maps, b: Maps) -> SanityValues:
    """Return the Spearman correlation of each clip; ties share their mean rank."""
    from scipy.stats import rankdata

    return pearson(*(rankdata(m.reshape(len(m), -1), axis=1).reshape(m.shape) for m in (a, b)))


def shuffle_parameters(model: Model, seed: int) -> Model | None:
    """Shuffle the entries of each parameter, which keeps their distribution and removes their learned structure.

    Return None if no parameter has more than one entry.
    """
    leaves, tree = jax.tree.flatten(model)
    if all(np.size(leaf) < 2 for leaf in leaves):
        return None
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        tree, [jax.random.permutation(k, jnp.ravel(leaf)).reshape(leaf.shape) for k, leaf in zip(keys, leaves)]
    )
