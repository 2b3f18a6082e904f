"""Gradients by the pixels, or by the activation of any stage."""

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
    """How strongly the score reacts at each place (Simonyan et al., 2014): absolute gradients, added over channels."""
    context = prepare_explanation(model, clips, target)
    return saliency_from_pass(run_pass(context, [context.resolve_stage(stage)]), stage)


def gradient_x_input(model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO) -> Attribution:
    """The score's linear part, place by place: the whole score where the network is linear without biases."""
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
    """The mean gradient, or its mean square, of noisy copies (Smilkov et al., 2017).

    `noise` is the standard deviation as a share of each clip's range. All clips get the same noise, so that a clip's
    map depends neither on its place in the batch nor on the batch's size.
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
    """The mean gradient and its mean square, from the same copies."""
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
    """`totals`, and the gradients at the i-th noisy copy, and their squares."""
    gradients = scorer.gradients(noisy_copy(video, noise, key, i))
    return totals[0] + gradients.sum(-1), totals[1] + (gradients**2).sum(-1)


def noisy_copy(video: Array, noise: ArrayLike, key: Array, i: ArrayLike) -> Array:
    """The i-th copy with noise, the same for all clips but for its strength: `noise` as a share of the clip's range."""
    spans = video.max((1, 2, 3, 4), keepdims=True) - video.min((1, 2, 3, 4), keepdims=True)
    standard_noise = jax.random.normal(jax.random.fold_in(key, i), video.shape[1:], video.dtype)
    return video + jnp.asarray(noise, video.dtype) * spans * standard_noise[None]
