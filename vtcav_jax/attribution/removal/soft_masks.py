"""Soft random masks of RISE, which are not made of segments, and the map from their scores."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vtcav_jax.attribution.removal.designs import N_GROUPS
from vtcav_jax.attribution.removal.segments import Counts, check_counts


@dataclass(frozen=True, eq=False)
class SoftMasks:
    """Values on grids slightly larger than the clip, and where the clip starts in them, within a cell."""

    clip_shape: tuple[int, int, int]
    cells: Counts
    grids: Float[np.ndarray, "n ct ch cw"]
    starts: Float[np.ndarray, "n 3"]
    groups: Int[np.ndarray, " n"]

    @property
    def passes(self) -> int:
        return len(self.grids)

    def voxels(self, rows: Int[np.ndarray, " m"]) -> Float[Array, "m 1 t h w"]:
        """Return the masks of `rows`, interpolated linearly."""
        grids, starts = (jnp.asarray(a[rows], jnp.float32) for a in (self.grids, self.starts))
        return _interpolate(grids, starts, self.clip_shape, self.cells)[:, None]


def draw_soft_masks(clip_shape: tuple[int, int, int], cells: Counts, masks: int, keep: float, seed: int) -> SoftMasks:
    """Draw independent masks; each cell is visible with probability `keep`.

    Not in pairs of opposites: both masks of a pair have the same noise from the main effects of other cells. With 100
    masks, correlations of maps between seeds were 0.51 with pairs and 0.73 without (`worlds_cnn`).
    """
    check_counts(clip_shape, cells)
    if masks < 2 or not 0 < keep < 1:
        raise ValueError(f"expected masks of at least 2 and keep between 0 and 1, got {masks} and {keep}")
    random = np.random.default_rng(seed)
    grids_and_starts = [(random.random([c + 3 for c in cells]) < keep, 0.5 + random.random(3)) for _ in range(masks)]
    grids, starts = (np.stack(parts) for parts in zip(*grids_and_starts))
    return SoftMasks(clip_shape, cells, grids.astype(np.float32), starts, np.arange(masks) % N_GROUPS)


@partial(jax.jit, static_argnames=("clip_shape", "cells"))
def _interpolate(grids: Array, starts: Array, clip_shape: tuple[int, int, int], cells: Counts) -> Array:
    for axis, (n, c) in enumerate(zip(clip_shape, cells)):
        place = starts[:, axis, None] + jnp.arange(n, dtype=starts.dtype)[None] * (c / n)  # within 0.5 to c + 1.5
        weights = jnp.maximum(1 - jnp.abs(place[..., None] - jnp.arange(c + 3, dtype=starts.dtype)[None, None]), 0)
        grids = jnp.einsum("ma...,mna->m...n", grids, weights, precision="highest")
    return grids


def rise_values(
    masks: SoftMasks, scores: Float[np.ndarray, "n k b"], masks_per_call: int
) -> tuple[Float[np.ndarray, "k b t h w"], Float[np.ndarray, "k b t h w"] | None]:
    """Return the mean score with each voxel minus the mean score without it, and its standard error.

    The error is a jackknife over the groups of masks; None if there is only one group.
    """
    n, shape = len(scores), (*scores.shape[1:], *masks.clip_shape)
    centred = (scores - scores.mean(0)).reshape(n, -1)  # a constant cancels, and would cost precision
    weights = np.concatenate([centred, np.ones((n, 1))], 1)

    def weighted_sums(rows: np.ndarray) -> np.ndarray:
        parts = np.array_split(rows, -(-len(rows) // masks_per_call))
        return sum((np.asarray(_weighted_sum(masks.voxels(p), weights[p]), np.float64) for p in parts), np.zeros(()))

    def difference(sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
        inside, visible = sums[:-1], sums[-1]
        outside = weights[rows, :-1].sum(0)[:, None, None, None] - inside
        with np.errstate(invalid="ignore", divide="ignore"):  # a voxel may be visible in all masks, or in none
            values = inside / visible - outside / (len(rows) - visible)
        return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).reshape(shape)

    sums = weighted_sums(np.arange(n))
    values, groups = difference(sums, np.arange(n)), np.unique(masks.groups)
    if len(groups) < 2:
        return values, None
    squares = np.zeros(shape)
    for group in groups:
        left_out, rest = (np.flatnonzero((masks.groups == group) == is_left_out) for is_left_out in (True, False))
        squares += (difference(sums - weighted_sums(left_out), rest) - values) ** 2
    return values, np.sqrt(squares * (len(groups) - 1) / len(groups))


@jax.jit
def _weighted_sum(masks: Array, weights: Array) -> Array:
    return jnp.einsum("mthw,mr->rthw", masks[:, 0], weights.astype(masks.dtype), precision="highest")
