"""Every method by name, and many at once."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jaxtyping import ArrayLike

from vtcav_jax.attribution import attention, cam_methods, gradients, integrated, perturbation
from vtcav_jax.attribution.lrp import methods as lrp_methods
from vtcav_jax.attribution.lrp.rules import LrpRules
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import prepare_explanation, run_pass
from vtcav_jax.attribution.shared_passes import SharedPasses
from vtcav_jax.attribution.targets import Target
from vtcav_jax.names import unknown_name_message
from vtcav_jax.tap import Model

# Those that ask for scores alone, so that several targets share all of their passes
PERTURBATION_METHODS: dict[str, SharedPasses[..., Attribution]] = {
    "occlusion": perturbation.occlusion,
    "rise": perturbation.rise,
    "shapley": perturbation.shapley,
    "frame_shapley": perturbation.frame_shapley,
}

METHODS: dict[str, Callable[..., Attribution]] = {
    "saliency": gradients.saliency,
    "gradient_x_input": gradients.gradient_x_input,
    "smoothgrad": gradients.smoothgrad,
    "smoothgrad_squared": partial(gradients.smoothgrad, squared=True),
    "integrated_gradients": integrated.integrated_gradients,
    "expected_gradients": integrated.expected_gradients,
    "guided_backprop": lrp_methods.guided_backprop,
    **{
        name: partial(lrp_methods.propagate_relevance, rules=rules, name=name)
        for name, rules in lrp_methods.LRP_PRESETS.items()
    },
    "deep_taylor": lrp_methods.deep_taylor,
    **PERTURBATION_METHODS,
    **{name: partial(cam_methods.cam_map, name=name) for name in cam_methods.CAM_METHODS},
    "last_attention": attention.last_attention,
    "rollout": attention.rollout,
    "gradient_rollout": attention.gradient_rollout,
    "cam": cam_methods.saliency_tubes,
    "gradcam_framewise": cam_methods.gradcam_framewise,
}

# Those that need nothing but activations and gradients, and so share a pass.
SINGLE_PASS_METHODS: dict[str, Callable[..., Attribution]] = {
    "saliency": gradients.saliency_from_pass,
    "gradient_x_input": gradients.gradient_x_input_from_pass,
    **{name: partial(cam_methods.cam_from_pass, name=name) for name in cam_methods.CAM_METHODS},
}
INPUT_METHODS = ("saliency", "gradient_x_input")  # unless a stage is named

SMOOTHGRAD_METHODS = ("smoothgrad", "smoothgrad_squared")  # what is drawn and asked is the same

# What several targets share: all of their passes, or the forward ones.
MULTI_TARGET_METHODS: dict[str, SharedPasses[..., Attribution]] = {
    **PERTURBATION_METHODS,
    "integrated_gradients": integrated.integrated_gradients,
    "expected_gradients": integrated.expected_gradients,
}

# These need a pass as well, but the model and several stages with it.
ATTENTION_METHODS: dict[str, Callable[..., Attribution]] = {
    "rollout": attention.rollout_from_pass,
    "gradient_rollout": attention.gradient_rollout_from_pass,
}


def explain(
    model: Model, clips: ArrayLike, target: Target, method: str = "attn_lrp", stage: str | None = None, **options: Any
) -> Attribution:
    """The map of `method` for each of `clips`, `(b, t, h, w, c)` and normalised; `options` are the method's own.

    The default is what told most of the truth for little in docs/evaluation.md. Without `stage`: where the method is at
    home, the video for gradients and relevance, and the last grid for CAMs.
    """
    if method not in METHODS:
        raise ValueError(unknown_name_message("method", [method], METHODS))
    function = METHODS[method]
    check_options(method, options)
    if stage is None:
        return function(model, clips, target, **options)
    if "stage" not in inspect.signature(function).parameters:
        if stage == VIDEO:
            return function(model, clips, target, **options)
        raise ValueError(f"{method} makes maps of the video, not of {stage}; leave the stage out")
    return function(model, clips, target, stage=stage, **options)


def check_options(method: str, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(METHODS[method]).parameters.values()
    keyword_only = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    if missing := [name for name, p in keyword_only.items() if p.default is p.empty and name not in options]:
        raise ValueError(f"{method} needs {', '.join(f'{name}=...' for name in missing)} as well")
    if not any(p.kind is p.VAR_KEYWORD for p in parameters) and (unexpected := set(options) - set(keyword_only)):
        raise ValueError(unknown_name_message(f"option of {method}", sorted(unexpected), keyword_only))


def explain_many(
    model: Model,
    clips: ArrayLike,
    target: Target,
    method_stages: Sequence[tuple[str, str | None]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Attribution]:
    """A map for each pair of method and stage; `options` are those of the methods named there.

    All of `SINGLE_PASS_METHODS` and `ATTENTION_METHODS` come from one pass, and so does each set of relevance rules at
    all its stages; both kinds of SmoothGrad come from the same noisy copies.
    """
    options = dict(options or {})
    if missing := [name for name in (*(name for name, _ in method_stages), *options) if name not in METHODS]:
        raise ValueError(unknown_name_message("method", missing, METHODS))
    context = prepare_explanation(model, clips, target)
    stages: dict[tuple[str, str | None], list[str]] = {}
    rules: dict[LrpRules, list[str]] = {}
    for name, stage in method_stages:
        if name in ATTENTION_METHODS:
            stages[name, stage] = attention.attention_stages(context, stage)
        elif name in SINGLE_PASS_METHODS and name not in options:
            stages[name, stage] = [context.resolve_stage(stage or (VIDEO if name in INPUT_METHODS else None))]
        elif name in lrp_methods.LRP_PRESETS and name not in options:
            rules.setdefault(lrp_methods.LRP_PRESETS[name], []).append(context.resolve_stage(stage or VIDEO))
    pass_result = run_pass(context, [stage for part in stages.values() for stage in part]) if stages else None
    smoothgrad_names = {
        name
        for name, stage in method_stages
        if name in SMOOTHGRAD_METHODS and name not in options and stage in (None, VIDEO)
    }
    smoothgrad_maps = (
        dict(zip(SMOOTHGRAD_METHODS, gradients.smoothgrad_pair(model, clips, target)))
        if len(smoothgrad_names) == len(SMOOTHGRAD_METHODS)
        else {}
    )
    relevance_maps = {
        (lrp_rules, relevance_map.stage): relevance_map
        for lrp_rules, rule_stages in rules.items()
        for relevance_map in lrp_methods.relevance_at(context, rule_stages, lrp_rules, "relevance")
    }

    def explain_one(name: str, stage: str | None) -> Attribution:
        if name in ATTENTION_METHODS:
            return ATTENTION_METHODS[name](context, pass_result, stage)
        if (name, stage) in stages:
            return SINGLE_PASS_METHODS[name](pass_result, *stages[name, stage])
        if name in lrp_methods.LRP_PRESETS and name not in options:
            return replace(relevance_maps[lrp_methods.LRP_PRESETS[name], stage or VIDEO], method=name)
        if name in smoothgrad_maps and stage in (None, VIDEO):
            return smoothgrad_maps[name]
        return explain(model, clips, target, name, stage, **options.get(name, {}))

    return [explain_one(name, stage) for name, stage in method_stages]
