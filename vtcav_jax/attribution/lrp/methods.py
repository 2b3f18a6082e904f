"""Relevance: the score handed back layer by layer, so that a map adds up to it; and guided backpropagation."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vtcav_jax import tap as taps
from vtcav_jax.attribution.lrp.interpreter import Reading
from vtcav_jax.attribution.lrp.rules import Rules
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import Explained, Scored, explained, on_host
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

Bounds = tuple[ArrayLike, ArrayLike]

# Epsilon: each input's part in what came out; for ReLU networks nearly gradient times input. Gamma: with more weight on
# what speaks for the output, so less noise. Alpha-beta: what speaks for an output and what speaks against it apart,
# z-plus: only what speaks for it; both without biases, so that all relevance goes on, but for what the shift of a norm
# in front of its layer (MF-Net) gives: that stays there and is in the residual. The last two are for transformers
# (Achtibat et al., 2024; Ali et al., 2022).
RULES: dict[str, Rules] = {
    "lrp_epsilon": Rules(),
    "lrp_gamma": Rules("gamma"),
    "lrp_alpha_beta": Rules("alpha_beta", alpha=2.0, beta=1.0, bias=False),
    "lrp_z_plus": Rules("alpha_beta", bias=False),
    "attn_lrp": Rules(),
    "cp_lrp": Rules(attention="cp"),
}


def relevance(
    model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO, *, rules: Rules, name: str = "relevance"
) -> Attribution:
    """The score's relevance at `stage`, by `rules` in every layer.

    `residual` is what biases, stabilisers and attention's parameters kept.
    """
    what = explained(model, clips, target)
    return of_rules(what, [what.stage(stage)], rules, name)[0]


def of_rules(
    what: Explained, stages: Sequence[str], rules: Rules, name: str, bounds: Bounds | None = None
) -> list[Attribution]:
    """The relevance at each of `stages`, from one pass."""
    what.require(stages)
    maps, score = _relevance(what.scored, what.video, tuple(dict.fromkeys(stages)), rules, bounds)
    values = [(stage, on_host(maps[stage])) for stage in stages]
    return [Attribution(v, s, True, 3, name, on_host(score) - v.sum((1, 2, 3))) for s, v in values]


def deep_taylor(model: Model, clips: ArrayLike, target: Target, *, bounds: Bounds) -> Attribution:
    """z-plus in every layer and z-B in the first (Montavon et al., 2017).

    `bounds` are the least and greatest values of a normalised pixel; see `pixel_bounds`.
    """
    what = explained(model, clips, target)
    return of_rules(what, [VIDEO], RULES["lrp_z_plus"], "deep_taylor", bounds)[0]


def guided_backprop(model: Model, clips: ArrayLike, target: Target) -> Attribution:
    """A gradient that passes ReLUs only where it is positive, added up over channels; it hardly depends on weights."""
    what = explained(model, clips, target)
    maps, _ = _relevance(what.scored, what.video, (VIDEO,), Rules(guided=True), None)
    return Attribution(on_host(maps[VIDEO]), VIDEO, True, 3, "guided_backprop")


def require_relus(what: Explained) -> None:
    """Refuses a network that cannot be guided; nothing is computed."""
    guided = partial(_relevance, stages=(VIDEO,), rules=Rules(guided=True), bounds=None)
    jax.eval_shape(guided, what.scored, what.video)


@partial(jax.jit, static_argnames=("stages", "rules"))
def _relevance(
    scored: Scored, video: Array, stages: tuple[str, ...], rules: Rules, bounds: Any
) -> tuple[dict[str, Array], Array]:
    def run(video: Array, zeros: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        scores, seen = taps._run_shifted(scored, video, zeros)
        return scores[:, 0], seen

    zeros = taps._zeros(scored, video, tuple(sorted({*stages} - {VIDEO})))
    reading = Reading(rules, *((None, None) if bounds is None else bounds))
    score, pullback, seen = jax.vjp(reading.function(run), video, zeros, has_aux=True)
    by_video, slopes = pullback(jnp.ones_like(score))
    if rules.guided and not reading.relus:
        raise ValueError("guided backpropagation needs a network with ReLUs; this one has none: use a gradient")
    maps = {stage: (slopes[stage] * seen[stage]).sum(-1) for stage in zeros}
    # These two give what belongs to a pixel itself, all others a coefficient of its value
    direct = rules.guided or bounds is not None
    return maps | {VIDEO: (by_video if direct else by_video * video).sum(-1)}, score
