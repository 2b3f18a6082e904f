"""Relevance: the score handed back layer by layer, so that a map adds up to it; and guided backpropagation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vtcav_jax.attribution.passes import Scored, explained, on_host
from vtcav_jax.attribution.propagation import Reading
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.rules import Rules
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model


def relevance(
    model: Model,
    clips: ArrayLike,
    target: Target,
    stage: str = VIDEO,
    *,
    rules: Rules = Rules(),  # noqa: B008, frozen
    bounds: tuple[ArrayLike, ArrayLike] | None = None,
    name: str = "relevance",
) -> Attribution:
    """The score's relevance at `stage`, by `rules` in every layer.

    `bounds` are the least and greatest values of a normalised pixel, for the z-B rule in the first layer.
    `residual` is what biases, stabilisers and attention's parameters kept.
    """
    what = explained(model, clips, target)
    stage = what.stage(stage)
    if bounds is not None and stage != VIDEO:
        raise ValueError(f"bounds are those of pixels and change nothing at {stage}; leave them out")
    values, score = _relevance(what.scored, what.video, stage, rules, bounds)
    residual = on_host(score) - on_host(values).sum((1, 2, 3))
    return Attribution(on_host(values), stage, True, 3, name, residual)


def lrp_epsilon(model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO, *, epsilon: float = 1e-6):
    """Each input's part in what came out; for ReLU networks nearly gradient times input."""
    return relevance(model, clips, target, stage, rules=Rules(epsilon=epsilon), name="lrp_epsilon")


def lrp_gamma(model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO, *, gamma: float = 0.25):
    """With more weight on what speaks for the output: less noise."""
    return relevance(model, clips, target, stage, rules=Rules("gamma", gamma=gamma), name="lrp_gamma")


def lrp_alpha_beta(
    model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO, *, alpha: float = 2.0, beta: float = 1.0
):
    """What speaks for an output and what speaks against it apart, without biases."""
    rules = Rules("alpha_beta", alpha=alpha, beta=beta, bias=False)
    return relevance(model, clips, target, stage, rules=rules, name="lrp_alpha_beta")


def lrp_z_plus(model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO):
    """Only what speaks for an output, without biases: all relevance goes on."""
    rules = Rules("alpha_beta", bias=False)
    return relevance(model, clips, target, stage, rules=rules, name="lrp_z_plus")


def deep_taylor(model: Model, clips: ArrayLike, target: Target, *, bounds: tuple[ArrayLike, ArrayLike]):
    """z-plus in every layer and z-B in the first (Montavon et al., 2017)."""
    rules = Rules("alpha_beta", bias=False)
    return relevance(model, clips, target, rules=rules, bounds=bounds, name="deep_taylor")


def attn_lrp(model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO, *, rules: Rules = Rules()):  # noqa: B008
    """Relevance for transformers (Achtibat et al., 2024): through the softmax, products shared evenly."""
    return relevance(model, clips, target, stage, rules=rules, name="attn_lrp")


def cp_lrp(model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO):
    """Relevance for transformers with attention as a constant (Ali et al., 2022)."""
    return relevance(model, clips, target, stage, rules=Rules(attention="cp"), name="cp_lrp")


def guided_backprop(model: Model, clips: ArrayLike, target: Target) -> Attribution:
    """A gradient that passes ReLUs only where it is positive, added up over channels; it hardly depends on weights."""
    what = explained(model, clips, target)
    values, _ = _relevance(what.scored, what.video, VIDEO, Rules(guided=True), None)
    return Attribution(on_host(values), VIDEO, True, 3, "guided_backprop")


@partial(jax.jit, static_argnames=("stage", "rules"))
def _relevance(scored: Scored, video: Array, stage: str, rules: Rules, bounds: Any) -> tuple[Array, Array]:
    def run(video: Array, zero: Array | None) -> tuple[Array, Array]:
        seen = {}

        def tap(name: str, value: Array) -> Array:
            if name == stage and zero is not None:
                value = seen[name] = value + zero
            return value

        return scored(video, tap)[:, 0], seen.get(stage, video)

    zero = None if stage == VIDEO else jnp.zeros_like(jax.eval_shape(lambda v: _at(scored, v, stage), video))
    low, high = (None, None) if bounds is None else bounds
    reading = Reading(rules, low, high)
    score, pullback, value = jax.vjp(reading.function(run), video, zero, has_aux=True)
    by_video, by_zero = pullback(jnp.ones_like(score))
    if rules.guided and not reading.relus:
        raise ValueError("guided backpropagation needs a network with ReLUs; this one has none: use a gradient")
    slope = by_video if stage == VIDEO else by_zero
    direct = rules.guided or bounds is not None
    return (slope if direct else slope * value).sum(-1), score


def _at(scored: Scored, video: Array, stage: str) -> Array:
    seen = {}

    def tap(name: str, value: Array) -> Array:
        if name == stage:
            seen[name] = value
        return value

    scored(video, tap)
    return seen[stage]
