"""Optimised masks: the parts of a clip, of a given total size, that alone keep the score as high as possible.

A mask has a value between 0 (replaced by the baseline) and 1 (visible) for each cell of a grid, interpolated linearly.
Its gradient takes one forward and one backward pass.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.baselines import Baseline, resolve_baseline
from vtcav_jax.attribution.removal.engine import HOLD
from vtcav_jax.attribution.removal.plans import DEFAULT_BUDGET, fit_cells
from vtcav_jax.attribution.removal.segments import Counts, check_counts
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import ScoreModel, clip_scores, prepare_explanation, to_numpy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

AREAS = (0.05, 0.1, 0.2)
MASK_CELLS = (8, 8, 8)
# Scores are in units of the clip's rise over the baseline, so that the weights suit all networks
AREA_WEIGHT, TUBE_WEIGHT = 100.0, 30.0
MIN_RISE = 1e-6  # of the score, where a clip scores like its baseline
LEARNING_RATE, MEMORY_OF_GRADIENTS, MEMORY_OF_SQUARES = 0.1, 0.9, 0.999  # of Adam
START = 0.5  # of all cells; the sorted penalty starts at 0, so that the score decides which cells rise first

Cells = Float[Array, "b ct ch cw"]


def extremal(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    areas: Sequence[float] = AREAS,
    cells: Counts | None = None,
    steps: int | None = None,
    baseline: Baseline = "zero",
    budget: int | None = None,
) -> Attribution:
    """Optimise masks that keep the score high with a share `areas` of the clip visible; the map is their mean.

    The loss has two terms: minus the masked clip's rise over the baseline, in units of the clip's own rise (from 1 unit
    on 1 plus the logarithm), and the mean squared difference of the sorted mask from 0s and 1s with the requested area.

    Args:
        areas: visible shares of the volume. They are optimised one after another.
        cells: cells along time, height and width; by default 8 each, or fewer for shorter axes.
        steps: gradients per area, by default as many as fit `budget`.
        baseline: replacement of what is masked. "hold" is the frame before, `y_t = m_t x_t + (1 - m_t) y_(t-1)`: with
            `cells=(t, 1, 1)`, the mask shows which changes over time the score needs.
        budget: maximum number of forward passes, 500 by default; a gradient counts as three.

    Reference: Fong et al., "Understanding Deep Networks via Extremal Perturbations and Smooth Masks", 2019,
    arXiv:1910.08485.
    """
    return _optimised_masks(model, clips, target, areas, cells, steps, baseline, budget, "extremal", 0.0)


def step(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    areas: Sequence[float] = AREAS,
    cells: Counts | None = None,
    steps: int | None = None,
    baseline: Baseline = "zero",
    budget: int | None = None,
) -> Attribution:
    """Optimise masks as `extremal` does, but made of tubes that are visible for some time (STEP).

    A tube has a third of the mask's time steps and 2 x 2 cells. In addition to the area, a penalty moves the mean of
    as many tubes as fill the area towards 1, and that of all others towards 0; areas are met less exactly. The
    arguments are those of `extremal`.

    Reference: Li et al., "Towards Visually Explaining Video Understanding Networks with Perturbation", 2021,
    arXiv:2005.00375.
    """
    return _optimised_masks(model, clips, target, areas, cells, steps, baseline, budget, "step", TUBE_WEIGHT)


MASK_METHODS: dict[str, Callable[..., Attribution]] = {"extremal": extremal, "step": step}


def count_steps(areas: Sequence[float], steps: int | None, budget: int | None) -> int:
    """Return the gradients per area; raise a ValueError if the budget is too small."""
    if not areas or not all(0 < area < 1 for area in areas):
        raise ValueError(f"expected areas between 0 and 1, shares of the clip, got {tuple(areas)}")
    limit = ((budget or DEFAULT_BUDGET) - 2) // (3 * len(areas))
    n_steps = max(limit, 1) if steps is None else steps
    if n_steps < 1 or (n_steps > limit and (steps is None or budget is not None)):
        raise ValueError(
            f"expected at least one step, and at most the {limit} for each of {len(areas)} areas that a budget of"
            f" {budget or DEFAULT_BUDGET} forward passes allows, got {n_steps}; use fewer, or a larger budget"
        )
    return n_steps


def count_passes(areas: Sequence[float], steps: int | None, budget: int | None) -> int:
    """Return the forward passes per clip: a gradient counts as three, and the clip and its baseline are scored."""
    return 2 + 3 * len(areas) * count_steps(areas, steps, budget)


def _optimised_masks(
    model: Model,
    clips: ArrayLike,
    target: Target,
    areas: Sequence[float],
    cells: Counts | None,
    steps: int | None,
    baseline: Baseline,
    budget: int | None,
    name: str,
    tube_weight: float,
) -> Attribution:
    n_steps = count_steps(areas, steps, budget)
    context = prepare_explanation(model, clips, target)
    score_model, video = context.score_model, context.video
    shape = video.shape[1:4]
    counts = fit_cells(shape, MASK_CELLS) if cells is None else cells
    check_counts(shape, counts)
    holds = isinstance(baseline, str) and baseline == HOLD
    background = jnp.broadcast_to(video[:, :1], video.shape) if holds else resolve_baseline(video, baseline)
    low, high = (clip_scores(score_model, values) for values in (background, video))
    low_and_unit = jnp.asarray(np.stack([low, np.maximum(np.abs(high - low), MIN_RISE)]), video.dtype)
    total = np.zeros(video.shape[:4])
    for area in areas:
        mask = jnp.full((len(video), *counts), START, video.dtype)
        moments = jnp.zeros((2, *mask.shape), video.dtype)
        for i in range(n_steps):
            # A call per step: in a compiled loop, XLA's convolutions on a CPU take eight times as long
            weights = jnp.asarray((area, AREA_WEIGHT * i / n_steps, tube_weight * i / n_steps), video.dtype)
            inputs, age = (video, background, low_and_unit), jnp.asarray(i + 1, video.dtype)
            mask, moments = _descend(score_model, mask, moments, age, *inputs, weights, holds, tube_weight > 0)
        total += np.asarray(interpolate(mask, shape), np.float64)
    return Attribution(
        to_numpy(jnp.asarray(total / len(areas), video.dtype)), VIDEO, False, count_passes(areas, steps, budget), name
    )


@partial(jax.jit, static_argnames=("holds", "has_tubes"))
def _descend(score_model, mask, moments, age, video, background, low_and_unit, weights, holds, has_tubes):
    """Return the mask, limited to 0 to 1, and the moments of its gradients after one step of Adam."""
    gradient = jax.grad(mask_loss)(mask, score_model, video, background, low_and_unit, weights, holds, has_tubes)
    first = moments[0] + (1 - MEMORY_OF_GRADIENTS) * (gradient - moments[0])
    second = moments[1] + (1 - MEMORY_OF_SQUARES) * (gradient**2 - moments[1])
    mean, square = first / (1 - MEMORY_OF_GRADIENTS**age), second / (1 - MEMORY_OF_SQUARES**age)
    return jnp.clip(mask - LEARNING_RATE * mean / (jnp.sqrt(square) + 1e-8), 0, 1), jnp.stack([first, second])


def mask_loss(
    mask: Cells,
    score_model: ScoreModel,
    video: Float[Array, "b t h w c"],
    background: Float[Array, "b t h w c"],
    low_and_unit: Float[Array, "2 b"],
    weights: Float[Array, "3"],
    holds: bool,
    has_tubes: bool,
) -> Float[Array, ""]:
    """Return the sum of the clips' losses.

    `low_and_unit` are the score of the baseline and the rise from it to the clip's score; `weights` are the area, and
    the weights of its penalty and of that of tubes.
    """
    area, area_weight, tube_weight = weights
    visible = interpolate(mask, video.shape[1:4])[..., None]
    masked = hold_softly(video, visible) if holds else background + (video - background) * visible
    rise = (score_model.score(masked) - low_and_unit[0]) / low_and_unit[1]
    # Some masked clips score several times as high as the clip, and would outweigh the penalty
    size = jnp.maximum(jnp.abs(rise), 1)
    loss = area_weight * _area_penalty(mask, area) - rise / size - jnp.sign(rise) * jnp.log(size)
    return (loss + tube_weight * _tube_penalty(mask, area) if has_tubes else loss).sum()


def interpolate(mask: Cells, shape: Sequence[int]) -> Float[Array, "b t h w"]:
    """Return the mask's values at the voxels of a clip, linear between the centres of cells."""
    for axis, (n, cells) in enumerate(zip(shape, mask.shape[1:]), start=1):
        place = np.clip((np.arange(n) + 0.5) * cells / n - 0.5, 0, cells - 1)
        weights = jnp.asarray(np.maximum(1 - np.abs(place[:, None] - np.arange(cells)), 0), mask.dtype)
        mask = jnp.moveaxis(jnp.tensordot(mask, weights, axes=((axis,), (1,)), precision="highest"), -1, axis)
    return mask


def hold_softly(video: Float[Array, "b t h w c"], visible: Float[Array, "b t _ _ _"]) -> Float[Array, "b t h w c"]:
    frames = [video[:, 0]]
    for t in range(1, video.shape[1]):
        frames.append(frames[-1] + (video[:, t] - frames[-1]) * visible[:, t])
    return jnp.stack(frames, 1)


def _area_penalty(mask: Cells, area: Array) -> Float[Array, " b"]:
    """Return the mean squared difference between the sorted cells and 0s followed by a share `area` of 1s."""
    values = jnp.sort(mask.reshape(len(mask), -1), axis=1)
    n = values.shape[1]
    sorted_target = jnp.clip(jnp.arange(1, n + 1, dtype=mask.dtype) - n * (1 - area), 0, 1)
    return ((values - sorted_target[None]) ** 2).mean(1)


def _tube_penalty(mask: Cells, area: Array) -> Float[Array, " b"]:
    """Return how far the means of the fullest tubes, as many as fill the area, are from 1, and the others from 0."""
    tube = (max(round(mask.shape[1] / 3), 1), *(min(2, n) for n in mask.shape[2:]))
    means = jax.lax.reduce_window(mask, 0.0, jax.lax.add, (1, *tube), (1, 1, 1, 1), "VALID") / math.prod(tube)
    means = jnp.sort(means.reshape(len(mask), -1), axis=1)
    n = means.shape[1]
    n_full = jnp.clip(jnp.ceil(area * math.prod(mask.shape[1:]) / math.prod(tube)), 1, n - 1)
    is_full = (jnp.arange(n, dtype=mask.dtype) >= n - n_full)[None]
    full, empty = jnp.where(is_full, (means - 1) ** 2, 0), jnp.where(is_full, 0, means**2)
    return full.sum(1) / n_full + empty.sum(1) / (n - n_full)
