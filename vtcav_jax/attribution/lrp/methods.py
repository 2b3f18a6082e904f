"""Layer-wise relevance propagation (LRP): the score redistributed layer by layer; and guided backpropagation."""

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

# Epsilon: proportional to each input's contribution; for ReLU networks nearly gradient times input. Gamma: more weight
# on contributions with the output's sign, for less noise. Alpha-beta: positive and negative contributions separately;
# z-plus: positive ones only. Both ignore biases, so that relevance is conserved except at a norm before its layer
# (MF-Net), whose shift absorbs some (see completeness_gap). The last two are for transformers.
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
    """Compute the score's relevance at `stage`, with `rules` in every layer.

    `completeness_gap` is the relevance absorbed by biases, stabilisers and the parameters of attention.

    References: Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
    Propagation", 2015; Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers",
    2024, arXiv:2402.05602 (attn_lrp); Ali et al., "XAI for Transformers: Better Explanations through Conservative
    Propagation", 2022, arXiv:2202.07304 (cp_lrp).
    """
    context = prepare_explanation(model, clips, target)
    return relevance_at(context, [context.resolve_stage(stage)], rules, name)[0]


def relevance_at(
    context: ExplainContext, stages: Sequence[str], rules: LrpRules, name: str, bounds: PixelBounds | None = None
) -> list[Attribution]:
    """Compute the relevance at each of `stages`, from one pass."""
    context.require_reachable(stages)
    maps, score = _relevance(context.score_model, context.video, tuple(dict.fromkeys(stages)), rules, bounds)
    values = [(stage, to_numpy(maps[stage])) for stage in stages]
    return [Attribution(v, s, True, 3, name, to_numpy(score) - v.sum((1, 2, 3))) for s, v in values]


def deep_taylor(model: Model, clips: ArrayLike, target: Target, *, bounds: PixelBounds) -> Attribution:
    """Compute deep Taylor relevance: the z-plus rule in every layer, the z-B rule in the first.

    `bounds` are the minimum and maximum of a normalised pixel: `bounds=pixel_bounds(network.clip_spec)`.

    Reference: Montavon et al., "Explaining NonLinear Classification Decisions with Deep Taylor Decomposition", 2017,
    arXiv:1512.02479.
    """
    context = prepare_explanation(model, clips, target)
    return relevance_at(context, [VIDEO], LRP_PRESETS["lrp_z_plus"], "deep_taylor", bounds)[0]


def guided_backprop(model: Model, clips: ArrayLike, target: Target) -> Attribution:
    """Compute the gradient with negative values set to 0 at every ReLU, summed over channels.

    The map may depend weakly on the weights; `sanity_scores` measures it as `randomised_weights_similarity`.

    Reference: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2015, arXiv:1412.6806.
    """
    context = prepare_explanation(model, clips, target)
    maps, _ = _relevance(context.score_model, context.video, (VIDEO,), LrpRules(guided=True), None)
    return Attribution(to_numpy(maps[VIDEO]), VIDEO, True, 3, "guided_backprop")


def require_relus(context: ExplainContext) -> None:
    """Raise a ValueError if the network has no ReLU, without computing anything."""
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
    # Guided backpropagation and z-B return relevance itself, the other rules a coefficient of the pixel value
    own_relevance = rules.guided or bounds is not None
    return maps | {VIDEO: (by_video if own_relevance else by_video * video).sum(-1)}, score
