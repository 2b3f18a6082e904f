"""Ablation of a pyramid's channels: the score drop, compared with that of equally many random channels."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax import tap
from vtcav_jax.attribution.inputs import resolve_clips, resolve_inputs
from vtcav_jax.attribution.score_model import ScoreModel, prepare_explanation, to_numpy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.console import progress
from vtcav_jax.models.network import Network
from vtcav_jax.pyramid.build import reference_activations
from vtcav_jax.pyramid.graph import Pyramid
from vtcav_jax.runs.pyramid_rows import AblationResult
from vtcav_jax.stats import intervals
from vtcav_jax.tap import Model


def ablate_pyramid(
    network: Network | Model,
    clips: ArrayLike,
    target: Target | str,
    pyramid: Pyramid,
    *,
    reference: ArrayLike | None = None,
    counts: Sequence[int] | None = None,
    draws: int = 39,
    seed: int = 0,
) -> tuple[AblationResult, ...]:
    """Ablate the 1, 2, 4, ... most relevant channels of each stage, up to all of them, and as many random ones.

    p = (1 + number of random draws with at least the same drop) / (1 + `draws`). Use other clips than those that the
    pyramid was built from, since its channels were selected on those.

    Args:
        reference: clips of several classes; an ablated channel gets its activation in one of them, by default 0.
        counts: numbers of channels to ablate, instead of 1, 2, 4, ...
    """
    if draws < 1:
        raise ValueError(f"expected draws of at least 1, got {draws}")
    model, video, resolved = resolve_inputs(network, clips, target)
    context = prepare_explanation(model, video, resolved)
    reference = None if reference is None else resolve_clips(network, reference)
    stages = [name for level in pyramid.levels for name in level]
    scores, values = tap.activations(context.score_model, context.video, stages)
    replacement = reference_activations(model, reference, len(context.video), pyramid.levels, seed)
    full_score, random = to_numpy(scores[:, 0]), np.random.default_rng(seed)
    jobs: list[tuple[int, str, list[int], int]] = []
    for depth, level in enumerate(pyramid.levels):
        for stage in level:
            ranked_channels = [node.channel for node in pyramid.nodes_at(depth) if node.stage == stage]
            sizes = (
                _counts(len(ranked_channels)) if counts is None else [n for n in counts if n <= len(ranked_channels)]
            )
            jobs += [(depth, stage, ranked_channels, n) for n in sizes]
    rows = []
    for depth, stage, ranked_channels, n in progress(jobs, len(jobs), "ablations", size=lambda _: 1):
        value = values[stage]
        channels = value.shape[-1]
        replacement_value = jnp.zeros_like(value) if replacement is None else replacement[stage]
        drops = []
        for subset in [ranked_channels[:n], *(random.choice(channels, n, replace=False) for _ in range(draws))]:
            removed = np.zeros(channels, bool)
            removed[subset] = True
            drops.append(
                full_score
                - to_numpy(
                    score_without(
                        context.score_model, context.video, stage, value, replacement_value, jnp.asarray(removed)
                    )
                )
            )
        drop, random_drops = drops[0], np.stack(drops[1:]).mean(1)
        p = (1 + int((random_drops >= drop.mean()).sum())) / (1 + draws)
        low, high = (float(q) for q in np.quantile(random_drops, (0.025, 0.975)))
        rows.append(
            AblationResult(
                depth, stage, n, channels, *intervals.mean_ci(drop), float(random_drops.mean()), low, high, p
            )
        )
    return tuple(rows)


@partial(jax.jit, static_argnames="stage")
def score_without(
    score_model: ScoreModel, video: Array, stage: str, value: Array, replacement_value: Array, removed: Array
) -> Float[Array, " b"]:
    """Return the score with the channels `removed` at a stage set to `replacement_value`."""
    edited = jnp.where(removed[None, None, None, None], replacement_value, value)
    return score_model(video, lambda name, x: edited if name == stage else x)[:, 0]


def _counts(max_count: int) -> list[int]:
    powers = [1 << i for i in range(max_count.bit_length()) if 1 << i < max_count]
    return [*powers, max_count] if max_count else []
