"""Attribution methods by name: `explain` for one method, `attribute_many` for several that share passes."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

from vtcav_jax.attribution import attention, cam_methods, gradients, integrated
from vtcav_jax.attribution.inputs import resolve_inputs
from vtcav_jax.attribution.lrp import methods as lrp_methods
from vtcav_jax.attribution.lrp.rules import LrpRules
from vtcav_jax.attribution.removal import methods as removal
from vtcav_jax.attribution.removal import optimised_masks
from vtcav_jax.attribution.removal.plans import PLANS
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import prepare_explanation, run_pass
from vtcav_jax.attribution.shared_passes import SharedPasses, Targets
from vtcav_jax.attribution.targets import Target
from vtcav_jax.models.network import Network
from vtcav_jax.names import unknown_name_message
from vtcav_jax.tap import Model

# They need only scores, so several targets share all passes
PERTURBATION_METHODS: dict[str, SharedPasses[..., Attribution]] = {
    "occlusion": removal.occlusion,
    "sos": removal.sos,
    "loco": removal.loco,
    "up": removal.up,
    "lime": removal.lime,
    "kernel_shap": removal.kernel_shap,
    "rise": removal.rise,
    "shapley": removal.shapley,
    "frame_shapley": removal.frame_shapley,
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
    **optimised_masks.MASK_METHODS,
    **{name: partial(cam_methods.cam_map, name=name) for name in cam_methods.CAM_METHODS},
    "last_attention": attention.last_attention,
    "rollout": attention.rollout,
    "gradient_rollout": attention.gradient_rollout,
    "cam": cam_methods.saliency_tubes,
    "gradcam_framewise": cam_methods.gradcam_framewise,
}

# They need only activations and gradients, and so share one pass
SINGLE_PASS_METHODS: dict[str, Callable[..., Attribution]] = {
    "saliency": gradients.saliency_from_pass,
    "gradient_x_input": gradients.gradient_x_input_from_pass,
    **{name: partial(cam_methods.cam_from_pass, name=name) for name in cam_methods.CAM_METHODS},
}
INPUT_METHODS = ("saliency", "gradient_x_input")  # by default at the video

SMOOTHGRAD_METHODS = ("smoothgrad", "smoothgrad_squared")  # they share the noisy copies and their gradients

# Several targets share all passes (perturbation) or the forward passes (path integrals)
MULTI_TARGET_METHODS: dict[str, SharedPasses[..., Attribution]] = {
    **PERTURBATION_METHODS,
    "integrated_gradients": integrated.integrated_gradients,
    "expected_gradients": integrated.expected_gradients,
}

# They need one pass too, and in addition the model and several stages
ATTENTION_METHODS: dict[str, Callable[..., Attribution]] = {
    "rollout": attention.rollout_from_pass,
    "gradient_rollout": attention.gradient_rollout_from_pass,
}

# Forward passes per clip, a backward pass counted as two, from the method's options and the clip's frames
PASSES: dict[str, Callable[[Mapping[str, Any], int], int]] = {
    **dict.fromkeys(("last_attention", "rollout", "cam"), lambda options, frames: 1),
    **dict.fromkeys((*SINGLE_PASS_METHODS, *lrp_methods.LRP_PRESETS), lambda options, frames: 3),
    **dict.fromkeys(("guided_backprop", "deep_taylor", "gradient_rollout"), lambda options, frames: 3),
    "gradcam_framewise": lambda options, frames: 3 * frames,
    **dict.fromkeys(SMOOTHGRAD_METHODS, lambda options, frames: 3 * options["samples"]),
    **dict.fromkeys(
        optimised_masks.MASK_METHODS,
        lambda options, frames: optimised_masks.count_passes(options["areas"], options["steps"], options["budget"]),
    ),
    "integrated_gradients": lambda options, frames: (
        1 + (len(options["baseline"]) if isinstance(options["baseline"], tuple) else 1) * (3 * options["ig_steps"] + 1)
    ),
    "expected_gradients": lambda options, frames: 3 * options["samples"] + len(options["references"]) + 1,
}

OPTION_HINTS = {"references": "references=clips of other videos, shape (n, t, h, w, 3)"}


def attribute(
    network: Network | Model,
    clips: ArrayLike,
    target: Target | str,
    method: str = "attn_lrp",
    stage: str | None = None,
    **options: Any,
) -> Attribution:
    """Compute the attribution map of `method` for each clip.

        network = vtcav.load("worlds_swin")
        attribute(network, frames, "direction:left")                   # AttnLRP of a class, at the pixels
        attribute(network, frames, "direction", "gradcam", "layers.0") # the predicted class of a head
        attribute(model, video, [3, 7], "integrated_gradients", ig_steps=16)
        attribute(model, video, Contrast(3, 7), "shapley", cells=(8, 2, 2))

    The default takes three forward passes; its ground-truth scores in docs/evaluation.md are 0.80 (Swin), 0.89 (CNN)
    and 0.77 (ViT) on a scale from 0 (chance) to 1 (perfect).

    Args:
        network: a `Network`, or a bare model `model(video, tap)`.
        clips: videos `(b, t, h, w, 3)`: uint8 frames, which a `Network` normalises, or normalised floats.
        target: a name such as `"direction:left"`, `"direction"` (the predicted class) or `"left vs right"` (needs a
            `Network`); a class index for all clips, or one per clip, explained as `Margin`; another target such as
            `Contrast`; or a function from logits to one score per clip.
        method: a name in `METHODS`.
        stage: stage (layer) of the map; by default the video for gradients and relevance, the last stage with time and
            space for CAMs.
        options: keyword arguments of the method.
    """
    if method not in METHODS:
        raise ValueError(unknown_name_message("method", [method], METHODS))
    function = METHODS[method]
    check_options(method, options)
    model, video, resolved = resolve_inputs(network, clips, target)
    if stage is not None:
        if "stage" in inspect.signature(function).parameters:
            options["stage"] = stage
        elif stage != VIDEO:
            raise ValueError(f"{method} only makes maps of the video, not of {stage}; omit the stage")
    result = function(model, video, resolved, **options)
    return attach_inputs(result, clips, target) if isinstance(result, Attribution) else result


def attach_inputs(result: Attribution, clips: ArrayLike, target: Target | str) -> Attribution:
    """Return the maps with what a display needs: the target's name, and the frames if they are uint8."""
    is_class = isinstance(target, int | np.integer)
    name = target if isinstance(target, str) else f"class {target}" if is_class else type(target).__name__
    is_frames = getattr(clips, "dtype", None) == np.uint8 and not isinstance(clips, Tracer)
    return replace(result, target=name, frames=np.asarray(clips) if is_frames else None)


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Raise a ValueError if an option of `method` is missing or unknown."""
    parameters = inspect.signature(METHODS[method]).parameters.values()
    keyword_only = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    if missing := [name for name, p in keyword_only.items() if p.default is p.empty and name not in options]:
        raise ValueError(f"{method} requires {', '.join(OPTION_HINTS.get(name, f'{name}=...') for name in missing)}")
    if not any(p.kind is p.VAR_KEYWORD for p in parameters) and (unexpected := set(options) - set(keyword_only)):
        raise ValueError(unknown_name_message(f"option of {method}", sorted(unexpected), keyword_only))


def planned_passes(method: str, clip_shape: tuple[int, int, int], **options: Any) -> int:
    """Return the forward passes per clip that a method takes, without running it; a backward pass counts as two.

    `clip_shape` is frames, height and width. No default of removal methods and optimised masks exceeds 500 passes.
    """
    check_options(method, options)
    defaults = {name: p.default for name, p in inspect.signature(METHODS[method]).parameters.items()}
    settings = defaults | options | {"clip_shape": clip_shape}
    if method in PASSES:
        return PASSES[method](settings, clip_shape[0])
    make_plan = PLANS[method]
    return make_plan(**{name: settings[name] for name in inspect.signature(make_plan).parameters}).passes


def attribute_many(
    network: Network | Model,
    clips: ArrayLike,
    target: Target | str,
    method_stages: Sequence[tuple[str, str | None]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Attribution]:
    """Compute a map for each pair (method, stage), sharing passes; `options` holds keyword arguments by method.

        gradcam, relevance = attribute_many(network, clips, 3, [("gradcam", "layers.2"), ("attn_lrp", None)])

    `SINGLE_PASS_METHODS` and `ATTENTION_METHODS` share one pass, each set of relevance rules one for all its stages,
    and both kinds of SmoothGrad their noisy copies. A method with options has its own passes.
    """
    options = dict(options or {})
    if missing := [name for name in (*(name for name, _ in method_stages), *options) if name not in METHODS]:
        raise ValueError(unknown_name_message("method", missing, METHODS))
    model, video, resolved = resolve_inputs(network, clips, target)
    context = prepare_explanation(model, video, resolved)
    stages: dict[tuple[str, str | None], list[str]] = {}
    rules: dict[LrpRules, list[str]] = {}
    for name, stage in method_stages:
        if name in ATTENTION_METHODS and name not in options:
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
        dict(zip(SMOOTHGRAD_METHODS, gradients.smoothgrad_pair(model, video, resolved)))
        if len(smoothgrad_names) == len(SMOOTHGRAD_METHODS)
        else {}
    )
    relevance_maps = {
        (lrp_rules, relevance_map.stage): relevance_map
        for lrp_rules, rule_stages in rules.items()
        for relevance_map in lrp_methods.relevance_at(context, rule_stages, lrp_rules, "relevance")
    }

    def map_of(name: str, stage: str | None) -> Attribution:
        if name in ATTENTION_METHODS and name not in options:
            return ATTENTION_METHODS[name](context, pass_result, stage)
        if (name, stage) in stages:
            return SINGLE_PASS_METHODS[name](pass_result, *stages[name, stage])
        if name in lrp_methods.LRP_PRESETS and name not in options:
            return replace(relevance_maps[lrp_methods.LRP_PRESETS[name], stage or VIDEO], method=name)
        if name in smoothgrad_maps and stage in (None, VIDEO):
            return smoothgrad_maps[name]
        return attribute(model, video, resolved, name, stage, **options.get(name, {}))

    return [map_of(name, stage) for name, stage in method_stages]


def attribute_targets(
    network: Network | Model,
    clips: ArrayLike,
    targets: Sequence[Target | str],
    method_stages: Sequence[tuple[str, str | None]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[list[Attribution]]:
    """Compute the maps of `attribute_many` for each target; perturbation methods share their passes."""
    options = dict(options or {})
    inputs = [resolve_inputs(network, clips, target) for target in targets]
    model, video = inputs[0][:2]
    shared: dict[tuple[str, str | None], list[Attribution]] = {}
    for name, stage in method_stages:
        if name in PERTURBATION_METHODS and stage in (None, VIDEO):
            check_options(name, options.get(name, {}))
            resolved = Targets([target for _, _, target in inputs])
            shared[name, stage] = PERTURBATION_METHODS[name](model, video, resolved, **options.get(name, {}))
    others = [pair for pair in method_stages if pair not in shared]
    results = []
    for i, (_, _, target) in enumerate(inputs):
        maps = dict(zip(others, attribute_many(model, video, target, others, options)))
        results.append([shared[pair][i] if pair in shared else maps[pair] for pair in method_stages])
    return results
