"""Relevance: the score handed back layer by layer, so that a map adds up to it; and guided backpropagation."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vtcav_jax import tap as taps
from vtcav_jax.attribution.lrp.interpreter import LrpInterpreter
from vtcav_jax.attribution.lrp.rules import LrpRules
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import ExplainContext, ScoreModel, prepare_explanation, to_numpy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

PixelBounds = tuple[ArrayLike, ArrayLike]

# Epsilon: each input's part in what came out; for ReLU networks nearly gradient times input. Gamma: with more weight on
# what speaks for the output, so less noise. Alpha-beta: what speaks for an output and what speaks against it apart,
# z-plus: only what speaks for it; both without biases, so that all relevance goes on, but for what the shift of a norm
# in front of its layer (MF-Net) gives: that stays there and is in the residual. The last two are for transformers
# (Achtibat et al., 2024; Ali et al., 2022).
LRP_PRESETS: dict[str, LrpRules] = {
    "lrp_epsilon": LrpRules(),
    "lrp_gamma": LrpRules("gamma"),
    "lrp_alpha_beta": LrpRules("alpha_beta", alpha=2.0, beta=1.0, bias=False),
    "lrp_z_plus": LrpRules("alpha_beta", bias=False),
    "attn_lrp": LrpRules(),
    "cp_lrp": LrpRules(attention="cp"),
}


def propagate_relevance(
    model: Model, clips: ArrayLike, target: Target, stage: str = VIDEO, *, rules: LrpRules, name: str = "relevance"
) -> Attribution:
    """The score's relevance at `stage`, by `rules` in every layer.

    `residual` is what biases, stabilisers and attention's parameters kept.
    """
    context = prepare_explanation(model, clips, target)
    return relevance_at(context, [context.resolve_stage(stage)], rules, name)[0]


def relevance_at(
    context: ExplainContext, stages: Sequence[str], rules: LrpRules, name: str, bounds: PixelBounds | None = None
) -> list[Attribution]:
    """The relevance at each of `stages`, from one pass."""
    context.require_reachable(stages)
    maps, score = _relevance(context.score_model, context.video, tuple(dict.fromkeys(stages)), rules, bounds)
    values = [(stage, to_numpy(maps[stage])) for stage in stages]
    return [Attribution(v, s, True, 3, name, to_numpy(score) - v.sum((1, 2, 3))) for s, v in values]


def deep_taylor(model: Model, clips: ArrayLike, target: Target, *, bounds: PixelBounds) -> Attribution:
    """z-plus in every layer and z-B in the first (Montavon et al., 2017).

    `bounds` are the least and greatest values of a normalised pixel; see `pixel_bounds`.
    """
    context = prepare_explanation(model, clips, target)
    return relevance_at(context, [VIDEO], LRP_PRESETS["lrp_z_plus"], "deep_taylor", bounds)[0]


def guided_backprop(model: Model, clips: ArrayLike, target: Target) -> Attribution:
    """A gradient that passes ReLUs only where it is positive, added up over channels; it hardly depends on weights."""
    context = prepare_explanation(model, clips, target)
    maps, _ = _relevance(context.score_model, context.video, (VIDEO,), LrpRules(guided=True), None)
    return Attribution(to_numpy(maps[VIDEO]), VIDEO, True, 3, "guided_backprop")


def require_relus(context: ExplainContext) -> None:
    """Refuses a network that cannot be guided; nothing is computed."""
    guided_pass = partial(_relevance, stages=(VIDEO,), rules=LrpRules(guided=True), bounds=None)
    jax.eval_shape(guided_pass, context.score_model, context.video)


@partial(jax.jit, static_argnames=("stages", "rules"))
def _relevance(
    score_model: ScoreModel, video: Array, stages: tuple[str, ...], rules: LrpRules, bounds: Any
) -> tuple[dict[str, Array], Array]:
    def run(video: Array, zeros: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        scores, seen = taps._run_shifted(score_model, video, zeros)
        return scores[:, 0], seen

    zeros = taps._zeros(score_model, video, tuple(sorted({*stages} - {VIDEO})))
    interpreter = LrpInterpreter(rules, *((None, None) if bounds is None else bounds))
    score, pullback, seen = jax.vjp(interpreter.transform(run), video, zeros, has_aux=True)
    by_video, slopes = pullback(jnp.ones_like(score))
    if rules.guided and not interpreter.relus:
        raise ValueError("guided backpropagation needs a network with ReLUs; this one has none: use a gradient")
    maps = {stage: (slopes[stage] * seen[stage]).sum(-1) for stage in zeros}
    # These two give what belongs to a pixel itself, all others a coefficient of its value
    own_relevance = rules.guided or bounds is not None
    return maps | {VIDEO: (by_video if own_relevance else by_video * video).sum(-1)}, score
