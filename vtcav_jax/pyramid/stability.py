"""Would the same kernels be found if the clips were a little different?"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from vtcav_jax.attribution.gradients import noisy_copy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.pyramid.build import build_pyramid
from vtcav_jax.pyramid.graph import Pyramid
from vtcav_jax.tap import Model


def noise_stability(
    model: Model,
    clips: ArrayLike,
    target: Target,
    pyramid: Pyramid,
    *,
    noise: float = 0.05,
    draws: int = 5,
    seed: int = 0,
    **options: Any,
) -> tuple[tuple[float, ...], ...]:
    """Of each level, the overlap (Jaccard) of the pyramid's kernels with those found in each of `draws` noisy copies.

    `noise` is the standard deviation as a share of each clip's range; `seed` and `options` are those that the pyramid
    was built with: with another seed other clips of a reference would be drawn, and not noise alone would count.
    """
    if noise < 0 or draws < 1:
        raise ValueError(f"expected noise of at least 0 and draws of at least 1, got {noise} and {draws}")
    video = jnp.asarray(clips)
    key = jax.random.key(seed)
    kernels_by_level = [_kernels(pyramid, level) for level in range(len(pyramid.levels))]
    rows: list[list[float]] = [[] for _ in kernels_by_level]
    for i in range(draws):
        noisy_pyramid = build_pyramid(
            model,
            noisy_copy(video, noise, key, i),
            target,
            stages=pyramid.levels,
            selection=pyramid.selection,
            edge_rule=pyramid.edge_rule,
            seed=seed,
            **options,
        )
        for level, kernels in enumerate(kernels_by_level):
            noisy_kernels = _kernels(noisy_pyramid, level)
            union = kernels | noisy_kernels
            rows[level].append(len(kernels & noisy_kernels) / len(union) if union else float(np.nan))
    return tuple(tuple(row) for row in rows)


def _kernels(pyramid: Pyramid, level: int) -> set[tuple[str, int]]:
    return {(node.stage, node.channel) for node in pyramid.nodes_at(level)}
