"""Relevance that passes along one direction of the activations at a stage (layer), as a map of the video.

Relevance is a value times a coefficient; for gradient x input the coefficient is the gradient of the score. At each
place of the stage, the coefficient C is replaced by its component along the unit vector v, (v . C) v, so that the
relevance there becomes (a . v)(v . C), with the activation a; the rules then propagate it back to the video. For a
channel this sets the coefficients of all other channels to 0. Every rule is linear in the coefficient: the maps of all
channels, or of any orthonormal basis, sum to the map of everything that passes through the stage.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax import tap as taps
from vtcav_jax.attribution.inputs import resolve_inputs
from vtcav_jax.attribution.lrp.interpreter import LrpInterpreter
from vtcav_jax.attribution.lrp.methods import LRP_PRESETS
from vtcav_jax.attribution.lrp.rules import LrpRules
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import ExplainContext, ScoreModel, prepare_explanation, to_numpy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.models.network import Network
from vtcav_jax.names import unknown_name_message
from vtcav_jax.tap import Model

# Rules of the backward pass, None for the gradient. Guided backpropagation is not linear in the coefficient
CONDITIONAL_METHODS: dict[str, LrpRules | None] = {"gradient_x_input": None, **LRP_PRESETS}


def conditional_relevance(
    network: Network | Model,
    clips: ArrayLike,
    target: Target | str,
    stage: str,
    concept: int | ArrayLike,
    method: str = "attn_lrp",
    *,
    map_stage: str = VIDEO,
) -> Attribution:
    """Compute the relevance for the target that passes through one channel or along one concept vector of a stage.

        conditional_relevance(network, frames, "direction:left", "layers.1", 12)        # a channel
        conditional_relevance(network, frames, "direction:left", "layers.1", vector)    # a direction (c,)

    `completeness_gap` is the relevance along the concept at the stage minus the sum of the map: what the layers below
    absorb. Paths that bypass the stage are not part of the map.

    Args:
        concept: a channel, or a vector `(c,)`, or one for each place, `(t, h, w, c)` with axes of length 1 for the same
            vector everywhere. Vectors are scaled to length 1 at each place; a vector of 0 passes nothing there.
        method: `gradient_x_input` or relevance propagation, a name in `CONDITIONAL_METHODS`.
        map_stage: stage of the map: the video, `stage`, or a stage between them.

    Reference: Achtibat et al., "From attribution maps to human-understandable explanations through Concept Relevance
    Propagation", Nature Machine Intelligence, 2023.
    """
    rules = rules_of(method)
    model, video, resolved = resolve_inputs(network, clips, target)
    context = prepare_explanation(model, video, resolved)
    require_order(context, stage, map_stage)
    vector = unit_vector(concept, stage, context.shapes[stage])
    values, at_stage = propagate(context.score_model, context.video, jnp.asarray(vector), stage, map_stage, rules)
    name = f"channel {concept}" if isinstance(concept, int | np.integer) else "a direction"
    values = to_numpy(values)
    gap = to_numpy(at_stage).sum((1, 2, 3)) - values.sum((1, 2, 3))
    return Attribution(values, map_stage, True, 3, f"{method} through {name} of {stage}", gap)


def rules_of(method: str) -> LrpRules | None:
    """Return the rules of a method, None for the gradient; raise a ValueError for other methods."""
    if method not in CONDITIONAL_METHODS:
        raise ValueError(f"{unknown_name_message('method of conditional relevance', [method], CONDITIONAL_METHODS)}")
    return CONDITIONAL_METHODS[method]


def require_order(context: ExplainContext, stage: str, map_stage: str = VIDEO) -> None:
    """Raise a ValueError unless relevance flows from the target through `stage` to `map_stage`."""
    context.require_reachable([context.resolve_stage(stage)])
    order = list(context.shapes)
    if stage == VIDEO:
        raise ValueError("the concept must be at a stage of the network, not in the video")
    if order.index(context.resolve_stage(map_stage)) > order.index(stage):
        raise ValueError(f"relevance flows from {stage} back to the video; {map_stage} comes after {stage}")


def unit_vector(concept: int | ArrayLike, stage: str, shape: tuple[int, ...]) -> Float[np.ndarray, "*places c"]:
    """Return the vector of a channel, or a vector with length 1 at each place; `shape` is `(b, t, h, w, c)`."""
    channels = shape[-1]
    if isinstance(concept, int | np.integer):
        if not 0 <= concept < channels:
            raise ValueError(f"{stage} has channels 0 to {channels - 1}; there is no channel {concept}")
        return np.eye(1, channels, int(concept), dtype=np.float32)[0]
    vector = np.asarray(concept, np.float32)
    fits = vector.ndim == 4 and all(n in (1, m) for n, m in zip(vector.shape, shape[1:])) and vector.shape[-1] > 1
    if not (vector.shape == (channels,) or (fits and vector.shape[-1] == channels)):
        raise ValueError(
            f"a clip's activation at {stage} is {shape[1:]}; the concept must be a channel, or a vector of shape"
            f" ({channels},) or {shape[1:]}, got {vector.shape}"
        )
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    if not np.isfinite(length).all() or not length.any():
        raise ValueError(f"expected a concept vector of finite numbers that are not all 0 at {stage}")
    return vector / np.where(length > 0, length, 1)


@partial(jax.jit, static_argnames=("stage", "rules"))
def stage_relevance(
    score_model: ScoreModel, video: Array, stage: str, rules: LrpRules | None
) -> tuple[Float[Array, " b"], Array, Array]:
    """Return the score, and the activation and the coefficient of relevance at a stage, `(b, t, h, w, c)`."""
    zeros = taps._zeros(score_model, video, (stage,))

    def run(video: Array, zeros: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        scores, seen = taps._run_shifted(score_model, video, zeros)
        return scores[:, 0], seen

    forward = run if rules is None else LrpInterpreter(rules).transform(run)
    score, pullback, seen = jax.vjp(partial(forward, video), zeros, has_aux=True)
    return score, seen[stage], pullback(jnp.ones_like(score))[0][stage]


@partial(jax.jit, static_argnames=("stage", "map_stage", "rules"))
def propagate(
    score_model: ScoreModel, video: Array, vector: Array, stage: str, map_stage: str, rules: LrpRules | None
) -> tuple[Float[Array, "b t h w"], Float[Array, "b t2 h2 w2"]]:
    """Return the map of the relevance along `vector` at `map_stage`, and that at the stage of the vector.

    The passes above and below the stage are compiled together, so that both use one forward pass.
    """
    _, value, coefficient = stage_relevance(score_model, video, stage, rules)
    coefficient = along(coefficient, vector)
    at_stage = (value * coefficient).sum(-1)
    if map_stage == stage:
        return at_stage, at_stage
    zeros = taps._zeros(score_model, video, tuple(sorted({stage, map_stage} - {VIDEO})))

    def run(video: Array, zeros: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        _, seen = taps._run_shifted(score_model, video, zeros)
        return seen[stage], seen

    forward: Any = run if rules is None else LrpInterpreter(rules).transform(run)
    _, pullback, seen = jax.vjp(forward, video, zeros, has_aux=True)
    by_video, slopes = pullback(coefficient)
    values = by_video * video if map_stage == VIDEO else slopes[map_stage] * seen[map_stage]
    return values.sum(-1), at_stage


def along(coefficient: Array, vector: Array) -> Array:
    """Return the component of the coefficient along a vector of length 1, at each place."""
    vector = jnp.broadcast_to(vector.astype(coefficient.dtype), coefficient.shape[1:])[None]
    return (coefficient * vector).sum(-1, keepdims=True) * vector


@jax.jit
def totals_along(value: Array, coefficient: Array, vectors: Float[Array, "n c"]) -> Float[Array, "b n"]:
    """Return the relevance at a stage along each of n directions, summed over places."""
    b, c = len(value), value.shape[-1]
    products = jnp.einsum("bpc,bpd->bcd", value.reshape(b, -1, c), coefficient.reshape(b, -1, c), precision="highest")
    return jnp.einsum("nc,bcd,nd->bn", vectors, products, vectors, precision="highest")
