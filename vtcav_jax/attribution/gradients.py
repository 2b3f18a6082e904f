"""Gradient maps for the pixels or for the activations of any stage."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import (
    MultiScoreModel,
    PassResult,
    prepare_explanation,
    prepare_multi_score,
    run_pass,
    to_numpy,
)
from vtcav_jax.attribution.shared_passes import SharedPasses
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model


def saliency(model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO) -> Attribution:
    """Compute `sum_c |dscore/dx_c|`, the sensitivity of the score at each place.

    Reference: Simonyan et al., "Deep Inside Convolutional Networks: Visualising Image Classification Models and
    Saliency Maps", 2014, arXiv:1312.6034.
    """
    context = prepare_explanation(model, clips, target)
    return saliency_from_pass(run_pass(context, [context.resolve_stage(stage)]), stage)


def gradient_x_input(model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO) -> Attribution:
    """Compute `sum_c x_c * dscore/dx_c`, which sums to the score if the network is linear without biases."""
    context = prepare_explanation(model, clips, target)
    return gradient_x_input_from_pass(run_pass(context, [context.resolve_stage(stage)]), stage)


def saliency_from_pass(pass_result: PassResult, stage: str) -> Attribution:
    return Attribution(to_numpy(jnp.abs(pass_result.gradients[stage]).sum(-1)), stage, False, 3, "saliency")


def gradient_x_input_from_pass(pass_result: PassResult, stage: str) -> Attribution:
    values = to_numpy((pass_result.activations[stage] * pass_result.gradients[stage]).sum(-1))
    completeness_gap = to_numpy(pass_result.score) - values.sum((1, 2, 3))
    return Attribution(values, stage, True, 3, "gradient_x_input", completeness_gap)


def smoothgrad(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    squared: bool = False,
) -> Attribution:
    """Average the gradient, or its square if `squared`, over `samples` noisy copies of the clip, summed over channels.

    `noise` is the standard deviation as a share of each clip's value range. All clips get the same noise pattern, so a
    clip's map does not depend on its batch.

    Reference: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017, arXiv:1706.03825.
    """
    return smoothgrad_pair(model, clips, target, samples=samples, noise=noise, seed=seed)[squared]


@SharedPasses
def smoothgrad_pair(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> list[tuple[Attribution, Attribution]]:
    """Compute the mean gradient and the mean squared gradient from the same noisy copies."""
    if samples < 1 or noise < 0:
        raise ValueError(f"expected samples of at least 1 and noise of at least 0, got {samples} and {noise}")
    scorer, video = prepare_multi_score(model, clips, targets)
    totals, key = (jnp.zeros((len(targets), *video.shape[:4]), video.dtype),) * 2, jax.random.key(seed)
    for i in range(samples):
        totals = _add_noisy_gradients(scorer, video, noise, totals, key, i)
    return [
        (
            Attribution(plain, VIDEO, True, 3 * samples, "smoothgrad"),
            Attribution(squared, VIDEO, False, 3 * samples, "smoothgrad_squared"),
        )
        for plain, squared in zip(*(to_numpy(total / samples) for total in totals))
    ]


@jax.jit
def _add_noisy_gradients(
    scorer: MultiScoreModel, video: Array, noise: ArrayLike, totals: tuple[Array, Array], key: Array, i: ArrayLike
) -> tuple[Array, Array]:
    """Add the gradients at the i-th noisy copy, and their squares, to `totals`."""
    gradients = scorer.gradients(noisy_copy(video, noise, key, i))
    return totals[0] + gradients.sum(-1), totals[1] + (gradients**2).sum(-1)


def noisy_copy(video: Array, noise: ArrayLike, key: Array, i: ArrayLike) -> Array:
    """Return the i-th noisy copy: one noise pattern for all clips, scaled by `noise` times each clip's value range."""
    spans = video.max((1, 2, 3, 4), keepdims=True) - video.min((1, 2, 3, 4), keepdims=True)
    standard_noise = jax.random.normal(jax.random.fold_in(key, i), video.shape[1:], video.dtype)
    return video + jnp.asarray(noise, video.dtype) * spans * standard_noise[None]
