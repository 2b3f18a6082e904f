"""Every method by name, and many at once."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jaxtyping import ArrayLike

from vtcav_jax.attribution import attention, cams, gradients, lrp, paths, removal
from vtcav_jax.attribution.passes import explained, passed
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.targets import Target
from vtcav_jax.names import unknown
from vtcav_jax.tap import Model

METHODS: dict[str, Callable[..., Attribution]] = {
    "saliency": gradients.saliency,
    "gradient_x_input": gradients.gradient_x_input,
    "smoothgrad": gradients.smoothgrad,
    "smoothgrad_squared": partial(gradients.smoothgrad, squared=True),
    "integrated_gradients": paths.integrated_gradients,
    "expected_gradients": paths.expected_gradients,
    "guided_backprop": lrp.guided_backprop,
    "lrp_epsilon": lrp.lrp_epsilon,
    "lrp_gamma": lrp.lrp_gamma,
    "lrp_alpha_beta": lrp.lrp_alpha_beta,
    "lrp_z_plus": lrp.lrp_z_plus,
    "deep_taylor": lrp.deep_taylor,
    "attn_lrp": lrp.attn_lrp,
    "cp_lrp": lrp.cp_lrp,
    "occlusion": removal.occlusion,
    "shapley": removal.shapley,
    "frame_shapley": removal.frame_shapley,
    **{name: partial(cams.cam, name=name) for name in cams.WEIGHINGS},
    "last_attention": attention.last_attention,
    "rollout": attention.rollout,
    "gradient_rollout": attention.gradient_rollout,
    "cam": cams.saliency_tubes,
    "gradcam_framewise": cams.gradcam_framewise,
}

# Those that need nothing but activations and gradients, and so share a pass.
SHARED: dict[str, Callable[..., Attribution]] = {
    "saliency": gradients.saliency_of_pass,
    "gradient_x_input": gradients.gradient_x_input_of_pass,
    **{name: partial(cams.of_pass, name=name) for name in cams.WEIGHINGS},
}


# These too, but need the model and several stages.
OVER_BLOCKS: dict[str, Callable[..., Attribution]] = {
    "rollout": attention.rollout_of_pass,
    "gradient_rollout": attention.gradient_rollout_of_pass,
}


def explain(
    model: Model, clips: ArrayLike, target: Target, method: str = "gradcam", stage: str | None = None, **options: Any
) -> Attribution:
    """The map of `method` for each of `clips`, `(b, t, h, w, c)` and normalised; `options` are the method's own.

    Without `stage`: where the method is at home, the video for gradients and the last grid for CAMs.
    """
    if method not in METHODS:
        raise ValueError(unknown("method", [method], METHODS))
    function = METHODS[method]
    if stage is None:
        return function(model, clips, target, **options)
    if "stage" not in inspect.signature(function).parameters:
        if stage == VIDEO:
            return function(model, clips, target, **options)
        raise ValueError(f"{method} makes maps of the video, not of {stage}; leave the stage out")
    return function(model, clips, target, stage=stage, **options)


def explain_many(
    model: Model, clips: ArrayLike, target: Target, wanted: Sequence[tuple[str, str | None]]
) -> list[Attribution]:
    """A map for each pair of method and stage; those of `SHARED` and `OVER_BLOCKS` come from one pass."""
    if missing := [name for name, _ in wanted if name not in METHODS]:
        raise ValueError(unknown("method", missing, METHODS))
    what = explained(model, clips, target)
    stages = {}
    for name, stage in wanted:
        if name in SHARED:
            at_home = VIDEO if name in ("saliency", "gradient_x_input") else None
            stages[name, stage] = [what.stage(stage or at_home)]
        elif name in OVER_BLOCKS:
            stages[name, stage] = attention.stages_needed(what, stage)
    got = passed(what, sum(stages.values(), [])) if stages else None

    def one(name: str, stage: str | None) -> Attribution:
        if name in SHARED:
            return SHARED[name](got, *stages[name, stage])
        if name in OVER_BLOCKS:
            return OVER_BLOCKS[name](what, got, stage)
        return explain(model, clips, target, name, stage)

    return [one(name, stage) for name, stage in wanted]
