"""Stability of a pyramid's channels under noise on the clips."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from vtcav_jax.attribution.gradients import noisy_copy
from vtcav_jax.attribution.inputs import resolve_clips, resolve_inputs
from vtcav_jax.attribution.targets import Target
from vtcav_jax.models.network import Network
from vtcav_jax.pyramid.build import build_pyramid
from vtcav_jax.pyramid.graph import Pyramid
from vtcav_jax.tap import Model


def noise_stability(
    network: Network | Model,
    clips: ArrayLike,
    target: Target | str,
    pyramid: Pyramid,
    *,
    noise: float = 0.05,
    draws: int = 5,
    seed: int = 0,
    **options: Any,
) -> tuple[tuple[float, ...], ...]:
    """Return, for each level, the Jaccard overlap of the pyramid's channels with those of each of `draws` noisy copies.

    `noise` is the standard deviation as a share of each clip's value range. Pass the `seed` and `options` that the
    pyramid was built with: another seed draws other reference clips, which also changes the overlap.
    """
    if noise < 0 or draws < 1:
        raise ValueError(f"expected noise of at least 0 and draws of at least 1, got {noise} and {draws}")
    model, resolved_clips, resolved = resolve_inputs(network, clips, target)
    video = jnp.asarray(resolved_clips)
    if isinstance(network, Network) and options.get("reference") is not None:
        options["reference"] = resolve_clips(network, options["reference"])
    key = jax.random.key(seed)
    channels_by_level = [_channels(pyramid, level) for level in range(len(pyramid.levels))]
    rows: list[list[float]] = [[] for _ in channels_by_level]
    for i in range(draws):
        noisy_pyramid = build_pyramid(
            model,
            noisy_copy(video, noise, key, i),
            resolved,
            stages=pyramid.levels,
            selection=pyramid.selection,
            edge_rule=pyramid.edge_rule,
            seed=seed,
            **options,
        )
        for level, channels in enumerate(channels_by_level):
            noisy_channels = _channels(noisy_pyramid, level)
            union = channels | noisy_channels
            rows[level].append(len(channels & noisy_channels) / len(union) if union else float(np.nan))
    return tuple(tuple(row) for row in rows)


def _channels(pyramid: Pyramid, level: int) -> set[tuple[str, int]]:
    return {(node.stage, node.channel) for node in pyramid.nodes_at(level)}
