"""What a map gets wrong, in numbers: does it flicker, know the direction of time, lie on things, hang on the weights?

Saha et al. (2024) hold such faults against Grad-CAM without measuring them; here any method can be measured.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool, Float

from vtcav_jax.attribution.baselines import BASELINES
from vtcav_jax.attribution.registry import explain
from vtcav_jax.attribution.resample import by_area, frame_of_step, shifted
from vtcav_jax.attribution.score_model import explained
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

MEASURES = ("flicker", "still_flicker", "direction", "background", "elsewhere", "randomised")

Maps = Float[np.ndarray, "b t h w"]
Each = Float[np.ndarray, " b"]


@dataclass(frozen=True, eq=False)
class Limits:
    """Of each clip; NaN where it cannot be told.

    `flicker`: change between time steps along what moves, in units of the map. `still_flicker`: the same of the clip
    frozen, where nothing changes that could be shown. `direction`: 1 - the correlation of the map with that of the
    clip played backwards; at 0 the map is the same whichever way time goes. `background`: the share of relevance
    outside of what the question is about, `elsewhere` the share of the volume there, which a map that knows nothing
    has. `randomised`: the rank correlation of the map with that of a network whose weights are shuffled.
    """

    method: str
    stage: str
    flicker: Each
    still_flicker: Each
    direction: Each
    background: Each
    elsewhere: Each
    randomised: Each


@dataclass(frozen=True)
class LimitRow:
    """A measure of `Limits` over clips: its mean and the bootstrap interval; `clips` are those where it can be told."""

    target: str
    method: str
    stage: str
    measure: str
    mean: float
    low: float
    high: float
    clips: int


def limits(
    model: Model,
    clips: ArrayLike,
    target: Target,
    method: str,
    stage: str | None = None,
    *,
    things: Bool[np.ndarray, "b t h w"] | None = None,
    flow: Float[np.ndarray, "b t1 h w 2"] | None = None,
    shuffle: int = 0,
    **options: Any,
) -> Limits:
    """`things` are the pixels that the question is about; `flow`, in pixels (x, y), how what is seen in a frame has
    moved since the frame before. Weights are shuffled by the seed `shuffle`."""
    video = explained(model, clips, target).video

    def maps_of(model: Model, video: ArrayLike) -> Maps:
        return explain(model, video, target, method, stage, **options).map

    found = explain(model, video, target, method, stage, **options)
    backwards = maps_of(model, video[:, ::-1])[:, ::-1]
    unknown = np.full(len(video), np.nan)
    shuffled = shuffled_weights(model, shuffle)
    background, elsewhere = (unknown, unknown) if things is None else outside(found.map, things)
    return Limits(
        found.method,
        found.stage,
        unknown if flow is None else flicker(found.map, flow),
        flicker(maps_of(model, BASELINES["frozen"](video)), None),
        1 - correlation(found.map, backwards),
        background,
        elsewhere,
        unknown if shuffled is None else rank_correlation(np.abs(found.map), np.abs(maps_of(shuffled, video))),
    )


def flicker(maps: Maps, flow: Float[np.ndarray, "b t1 height width 2"] | None) -> Each:
    """The mean over steps of the absolute change, in units of the map before; without `flow` nothing is carried along.

    Between two steps of a coarse map, things are taken to move on as between the last two frames.
    """
    b, t, h, w = maps.shape
    if t < 2:
        return np.full(b, np.nan)
    carried = maps[:, :-1]
    if flow is not None:
        frames, sizes = flow.shape[1] + 1, np.array(flow.shape[3:1:-1])
        at = [frame_of_step(s, t, frames) for s in range(t)]
        gaps = np.diff(at)[None, :, None, None, None]
        steps = by_area(flow[:, [i - 1 for i in at[1:]]], (t - 1, h, w)) * gaps * (np.array([w, h]) / sizes)
        carried = np.stack([[shifted(m, d) for m, d in zip(*clip)] for clip in zip(carried, steps)])
    change = np.abs(maps[:, 1:] - carried).sum((2, 3))
    size = np.abs(maps[:, :-1]).sum((2, 3))
    return np.where(size > 0, change / np.where(size > 0, size, 1), np.nan).mean(1)


def outside(maps: Maps, things: Bool[np.ndarray, "b frames height width"]) -> tuple[Each, Each]:
    """The share of absolute relevance outside of `things`, and the share of the volume."""
    away = 1 - by_area(things.astype(np.float32), maps.shape[1:])
    size = np.abs(maps)
    with np.errstate(invalid="ignore"):
        return (size * away).sum((1, 2, 3)) / size.sum((1, 2, 3)), away.mean((1, 2, 3))


def correlation(a: Maps, b: Maps) -> Each:
    """Pearson's, clip by clip; NaN where a map is the same everywhere."""
    x, y = (m.reshape(len(m), -1).astype(np.float64) for m in (a, b))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))


def rank_correlation(a: Maps, b: Maps) -> Each:
    """Spearman's; equal values share their mean rank."""
    return correlation(*(np.stack([_ranks(one) for one in m]) for m in (a, b)))


def shuffled_weights(model: Model, seed: int) -> Model | None:
    """Every parameter with its entries in another order: as large as before, and nothing is left of what was learnt.

    None if the model has no parameter that an order could change.
    """
    leaves, tree = jax.tree.flatten(model)
    if all(np.size(leaf) < 2 for leaf in leaves):
        return None
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        tree, [jax.random.permutation(k, jnp.ravel(leaf)).reshape(leaf.shape) for k, leaf in zip(keys, leaves)]
    )


def _ranks(values: Float[np.ndarray, "t h w"]) -> Float[np.ndarray, "t h w"]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place].reshape(values.shape)
