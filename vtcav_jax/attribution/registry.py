"""Every method by name, and many at once."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jaxtyping import ArrayLike

from vtcav_jax.attribution import attention, cam_methods, gradients, integrated, perturbation
from vtcav_jax.attribution.lrp import methods as lrp_methods
from vtcav_jax.attribution.lrp.rules import Rules
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import explained, passed
from vtcav_jax.attribution.targets import Target
from vtcav_jax.names import unknown
from vtcav_jax.tap import Model

METHODS: dict[str, Callable[..., Attribution]] = {
    "saliency": gradients.saliency,
    "gradient_x_input": gradients.gradient_x_input,
    "smoothgrad": gradients.smoothgrad,
    "smoothgrad_squared": partial(gradients.smoothgrad, squared=True),
    "integrated_gradients": integrated.integrated_gradients,
    "expected_gradients": integrated.expected_gradients,
    "guided_backprop": lrp_methods.guided_backprop,
    **{name: partial(lrp_methods.relevance, rules=rules, name=name) for name, rules in lrp_methods.RULES.items()},
    "deep_taylor": lrp_methods.deep_taylor,
    "occlusion": perturbation.occlusion,
    "rise": perturbation.rise,
    "shapley": perturbation.shapley,
    "frame_shapley": perturbation.frame_shapley,
    **{name: partial(cam_methods.cam, name=name) for name in cam_methods.WEIGHINGS},
    "last_attention": attention.last_attention,
    "rollout": attention.rollout,
    "gradient_rollout": attention.gradient_rollout,
    "cam": cam_methods.saliency_tubes,
    "gradcam_framewise": cam_methods.gradcam_framewise,
}

# Those that need nothing but activations and gradients, and so share a pass.
SHARED: dict[str, Callable[..., Attribution]] = {
    "saliency": gradients.saliency_of_pass,
    "gradient_x_input": gradients.gradient_x_input_of_pass,
    **{name: partial(cam_methods.of_pass, name=name) for name in cam_methods.WEIGHINGS},
}
AT_VIDEO = ("saliency", "gradient_x_input")  # unless a stage is named

SMOOTH = ("smoothgrad", "smoothgrad_squared")  # what is drawn and asked is the same

# What several targets share: all of their passes, or the forward ones.
SEVERAL: dict[str, Callable[..., list[Attribution]]] = {
    **perturbation.SEVERAL,
    "integrated_gradients": integrated.integrated_for,
    "expected_gradients": integrated.expected_for,
}

# These need a pass as well, but the model and several stages with it.
OVER_BLOCKS: dict[str, Callable[..., Attribution]] = {
    "rollout": attention.rollout_of_pass,
    "gradient_rollout": attention.gradient_rollout_of_pass,
}


def explain(
    model: Model, clips: ArrayLike, target: Target, method: str = "attn_lrp", stage: str | None = None, **options: Any
) -> Attribution:
    """The map of `method` for each of `clips`, `(b, t, h, w, c)` and normalised; `options` are the method's own.

    The default is what told most of the truth for little in docs/evaluation.md. Without `stage`: where the method is at
    home, the video for gradients and relevance, and the last grid for CAMs.
    """
    if method not in METHODS:
        raise ValueError(unknown("method", [method], METHODS))
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
    given = inspect.signature(METHODS[method]).parameters.values()
    named = {p.name: p for p in given if p.kind is p.KEYWORD_ONLY}
    if lacking := [name for name, p in named.items() if p.default is p.empty and name not in options]:
        raise ValueError(f"{method} needs {', '.join(f'{name}=...' for name in lacking)} as well")
    if not any(p.kind is p.VAR_KEYWORD for p in given) and (strange := set(options) - set(named)):
        raise ValueError(unknown(f"option of {method}", sorted(strange), named))


def explain_many(
    model: Model,
    clips: ArrayLike,
    target: Target,
    wanted: Sequence[tuple[str, str | None]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Attribution]:
    """A map for each pair of method and stage; `options` are those of the methods named there.

    All of `SHARED` and `OVER_BLOCKS` come from one pass, and so does each set of relevance rules at all its stages;
    both kinds of SmoothGrad come from the same noisy copies.
    """
    options = dict(options or {})
    if missing := [name for name in (*(name for name, _ in wanted), *options) if name not in METHODS]:
        raise ValueError(unknown("method", missing, METHODS))
    what = explained(model, clips, target)
    stages: dict[tuple[str, str | None], list[str]] = {}
    rules: dict[Rules, list[str]] = {}
    for name, stage in wanted:
        if name in OVER_BLOCKS:
            stages[name, stage] = attention.stages_needed(what, stage)
        elif name in SHARED and name not in options:
            stages[name, stage] = [what.stage(stage or (VIDEO if name in AT_VIDEO else None))]
        elif name in lrp_methods.RULES and name not in options:
            rules.setdefault(lrp_methods.RULES[name], []).append(what.stage(stage or VIDEO))
    got = passed(what, sum(stages.values(), [])) if stages else None
    smooth = {name for name, stage in wanted if name in SMOOTH and name not in options and stage in (None, VIDEO)}
    both = dict(zip(SMOOTH, gradients.smoothgrads(model, clips, [target])[0])) if len(smooth) == len(SMOOTH) else {}
    relevant = {
        (some, one.stage): one
        for some, where in rules.items()
        for one in lrp_methods.of_rules(what, where, some, "relevance")
    }

    def one(name: str, stage: str | None) -> Attribution:
        if name in OVER_BLOCKS:
            return OVER_BLOCKS[name](what, got, stage)
        if (name, stage) in stages:
            return SHARED[name](got, *stages[name, stage])
        if name in lrp_methods.RULES and name not in options:
            return replace(relevant[lrp_methods.RULES[name], stage or VIDEO], method=name)
        if name in both and stage in (None, VIDEO):
            return both[name]
        return explain(model, clips, target, name, stage, **options.get(name, {}))

    return [one(name, stage) for name, stage in wanted]
