"""Class synthesis: clips that maximise the score of a class, channel or concept, made from noise.

The clips are optimised as amplitudes of waves over time and space, which are the larger the longer the wave, so that
neighbouring pixels and frames change together. A penalty on differences between consecutive frames makes them more
coherent over time.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

from vtcav_jax.attribution.inputs import resolve_target
from vtcav_jax.attribution.score_model import ScoreModel, clip_scores, prepare_explanation
from vtcav_jax.attribution.targets import Target
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.console import progress
from vtcav_jax.models.network import Network

START_AMPLITUDE = 0.1  # standard deviation of the waves' amplitudes
SHIFT_SHARE = 8  # at each step, clips are shifted around their borders by at most an eighth of their size


@dataclass(frozen=True, eq=False)
class SynthesisedClips:
    """Clips that maximise a score; `scores` are those of `frames`, `curve` the mean score at each step before."""

    frames: UInt8[np.ndarray, "n t h w 3"]
    scores: Float[np.ndarray, " n"]
    curve: Float[np.ndarray, " steps"]


def synthesise_clips(
    network: Network,
    target: Target | str,
    n: int = 4,
    *,
    steps: int = 256,
    learning_rate: float = 0.3,
    coherence: float = 10.0,
    noise: float = 0.05,
    seed: int = 0,
) -> SynthesisedClips:
    """Make `n` clips that maximise the score of `target`, each from its own noise.

        clips = synthesise_clips(network, "direction:left")
        save_animation("left.webp", clips.frames)

    The result shows what suffices for a high score, which need not look like any video of the class.

    Args:
        target: a target of `attribute`: a class name, a channel such as `layers.2#17`, or a `ConceptTarget`.
        steps: gradients, of three forward passes each.
        learning_rate: of Adam; it falls to 0 along a cosine.
        coherence: what the score must gain for a mean difference between consecutive frames of the whole range from
            black to white.
        noise: standard deviation of noise that is added to the pixels at each step, as a share of the range.
        seed: of the start, the shifts and the noise.

    Related: Stergiou and Deligiannis, "Leaping Into Memories: Space-Time Deep Feature Synthesis", 2023,
    arXiv:2303.09941; here the clips need no example of the class and no statistics of the network's layers.
    """
    if n < 1 or steps < 1:
        raise ValueError(f"expected at least one clip and one step, got {n} and {steps}")
    spec = network.clip_spec
    blank = jnp.zeros((n, *spec.shape), jnp.float32)
    resolved = resolve_target(network, blank, target) if isinstance(target, str) else target
    score_model = prepare_explanation(network.model, blank, resolved).score_model
    random = np.random.default_rng(seed)
    half = (n, *spec.shape[:2], spec.shape[2] // 2 + 1, 3, 2)  # real and imaginary parts of waves
    waves = jnp.asarray(START_AMPLITUDE * random.standard_normal(half), jnp.float32)
    optimiser = optax.adam(1.0)
    state, curve = optimiser.init(waves), []
    shifts = random.integers(-(spec.shape[1] // SHIFT_SHARE), spec.shape[1] // SHIFT_SHARE + 1, (steps, 2))
    for i in progress(range(steps), steps, "steps of synthesis", size=lambda _: 1):
        rate = learning_rate * (1 + np.cos(np.pi * i / steps)) / 2
        settings = jnp.asarray((rate, coherence, noise), jnp.float32)
        shift, key = jnp.asarray(shifts[i], jnp.int32), jax.random.fold_in(jax.random.key(seed), i)
        waves, state, scores = _ascend(score_model, waves, state, settings, shift, key, spec)
        curve.append(float(scores.mean()))
    frames = np.asarray(jnp.round(255 * _pixels(waves, spec))).astype(np.uint8)
    return SynthesisedClips(frames, clip_scores(score_model, spec.normalise(jnp.asarray(frames))), np.array(curve))


@partial(jax.jit, static_argnames="spec")
def _ascend(
    score_model: ScoreModel, waves: Array, state: Any, settings: Array, shift: Array, key: Array, spec: ClipSpec
) -> tuple[Any, Any, Array]:
    """Return the waves and the optimiser's state after one step, and the scores before it."""

    def loss(waves: Array) -> tuple[Array, Array]:
        pixels = _pixels(waves, spec)
        difference = jnp.abs(pixels[:, 1:] - pixels[:, :-1]).mean((1, 2, 3, 4))
        noisy = jnp.roll(pixels, shift, (2, 3)) + settings[2] * jax.random.normal(key, pixels.shape, pixels.dtype)
        scores = score_model.score(_normalise(noisy, spec))
        return (settings[1] * difference - scores).sum(), scores

    gradient, scores = jax.grad(loss, has_aux=True)(waves)
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies a float by the step's number
        updates, state = optax.adam(settings[0]).update(gradient, state)
    return optax.apply_updates(waves, updates), state, scores


def _pixels(waves: Float[Array, "n t h f 3 2"], spec: ClipSpec) -> Float[Array, "n t h w 3"]:
    """Return pixels between 0 and 1, from waves whose amplitudes are divided by their frequencies."""
    t, h, w = spec.shape[:3]
    squares = [np.fft.fftfreq(t)[:, None, None] ** 2, np.fft.fftfreq(h)[:, None] ** 2, np.fft.rfftfreq(w) ** 2]
    frequency = np.sqrt(squares[0] + squares[1] + squares[2])
    weights = np.sqrt(t * h * w) / np.maximum(frequency, 1 / max(t, h, w)) / max(t, h, w)
    spectrum = jax.lax.complex(waves[..., 0], waves[..., 1]) * jnp.asarray(weights[None, ..., None], jnp.complex64)
    return jax.nn.sigmoid(jnp.fft.irfftn(spectrum, (t, h, w), axes=(1, 2, 3)))


def _normalise(pixels: Array, spec: ClipSpec) -> Array:
    mean, std = (jnp.asarray(np.reshape(v, (1, 1, 1, 1, 3)), pixels.dtype) for v in (spec.mean, spec.std))
    return (pixels - mean) / std
