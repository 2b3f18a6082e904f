"""Would the same kernels be found if the clips were a little different?"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from vtcav_jax.attribution.gradients import noisy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.pyramid.build import build
from vtcav_jax.pyramid.graph import Pyramid
from vtcav_jax.tap import Model


def under_noise(
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
    own = [_kernels(pyramid, level) for level in range(len(pyramid.levels))]
    rows: list[list[float]] = [[] for _ in own]
    for i in range(draws):
        other = build(
            model,
            noisy(video, noise, key, i),
            target,
            stages=pyramid.levels,
            selection=pyramid.selection,
            edges=pyramid.kind,
            seed=seed,
            **options,
        )
        for level, kernels in enumerate(own):
            found = _kernels(other, level)
            either = kernels | found
            rows[level].append(len(kernels & found) / len(either) if either else float(np.nan))
    return tuple(tuple(row) for row in rows)


def _kernels(pyramid: Pyramid, level: int) -> set[tuple[str, int]]:
    return {(node.stage, node.channel) for node in pyramid.at(level)}
