"""Gradients by the pixels, or by the activation of any stage."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import Passed, Several, explained, on_host, passed, several
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model


def saliency(model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO) -> Attribution:
    """How strongly the score reacts at each place (Simonyan et al., 2014): absolute gradients, added over channels."""
    what = explained(model, clips, target)
    return saliency_of_pass(passed(what, [what.stage(stage)]), stage)


def gradient_x_input(model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO) -> Attribution:
    """The score's linear part, place by place: the whole score where the network is linear without biases."""
    what = explained(model, clips, target)
    return gradient_x_input_of_pass(passed(what, [what.stage(stage)]), stage)


def saliency_of_pass(got: Passed, stage: str) -> Attribution:
    return Attribution(on_host(jnp.abs(got.gradients[stage]).sum(-1)), stage, False, 3, "saliency")


def gradient_x_input_of_pass(got: Passed, stage: str) -> Attribution:
    values = on_host((got.activations[stage] * got.gradients[stage]).sum(-1))
    residual = on_host(got.score) - values.sum((1, 2, 3))
    return Attribution(values, stage, True, 3, "gradient_x_input", residual)


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
    return smoothgrads(model, clips, [target], samples=samples, noise=noise, seed=seed)[0][squared]


def smoothgrads(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> list[tuple[Attribution, Attribution]]:
    """Of several targets the mean gradient and its mean square, from the same copies."""
    if samples < 1 or noise < 0:
        raise ValueError(f"expected samples of at least 1 and noise of at least 0, got {samples} and {noise}")
    asked, video = several(model, clips, targets)
    totals, key = (jnp.zeros((len(targets), *video.shape[:4]), video.dtype),) * 2, jax.random.key(seed)
    for i in range(samples):
        totals = _with_noisy(asked, video, noise, totals, key, i)
    return [
        (
            Attribution(plain, VIDEO, True, 3 * samples, "smoothgrad"),
            Attribution(squared, VIDEO, False, 3 * samples, "smoothgrad_squared"),
        )
        for plain, squared in zip(*(on_host(total / samples) for total in totals))
    ]


@jax.jit
def _with_noisy(
    asked: Several, video: Array, noise: ArrayLike, totals: tuple[Array, Array], key: Array, i: ArrayLike
) -> tuple[Array, Array]:
    """`totals`, and the gradients at the i-th noisy copy, and their squares."""
    gradients = asked.gradients(noisy(video, noise, key, i))
    return totals[0] + gradients.sum(-1), totals[1] + (gradients**2).sum(-1)


def noisy(video: Array, noise: ArrayLike, key: Array, i: ArrayLike) -> Array:
    """The i-th copy with noise, the same for all clips but for its strength: `noise` as a share of the clip's range."""
    spans = video.max((1, 2, 3, 4), keepdims=True) - video.min((1, 2, 3, 4), keepdims=True)
    drawn = jax.random.normal(jax.random.fold_in(key, i), video.shape[1:], video.dtype)
    return video + jnp.asarray(noise, video.dtype) * spans * drawn[None]
