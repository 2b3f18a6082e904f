"""The CAM family over time and space: activations of a stage, weighted by the target's gradient there.

All come from one forward and one backward pass. Maps keep their sign: the rectification that ends the published
formulas is `Attribution.positive`.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.baselines import freeze_frame
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.score_model import (
    PassResult,
    activations_and_gradients_at,
    prepare_explanation,
    run_pass,
    to_numpy,
)
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

ActivationGrid = Float[Array, "b t h w c"]
CamWeighting = Callable[[Array, Array], Array]  # activation, gradient -> map


def gradcam(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """A weight per channel for the whole clip (Selvaraju et al., 2017), the same at all times: it cannot flicker."""
    return (a * g.mean((1, 2, 3), keepdims=True)).sum(-1)


def gradcam_per_time(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """A weight per channel and time step."""
    return (a * g.mean((2, 3), keepdims=True)).sum(-1)


def hirescam(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """A weight per channel and place (Draelos and Carin, 2020): sums to the score if what follows is linear."""
    return (a * g).sum(-1)


def layercam(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """HiResCAM of positive gradients only (Jiang et al., 2021): fit for early stages."""
    return (a * jax.nn.relu(g)).sum(-1)


def gradcam_plus_plus(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """Positive gradients weighted by how much of the channel each place is to explain (Chattopadhay et al., 2018)."""
    divisor = 2 * g**2 + a.sum((1, 2, 3), keepdims=True) * g**3
    share = jnp.where(divisor == 0, 0, g**2 / jnp.where(divisor == 0, 1, divisor))
    return (a * (share * jax.nn.relu(g)).sum((1, 2, 3), keepdims=True)).sum(-1)


def xgradcam(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """Gradients averaged with the activation as weight (Fu et al., 2020)."""
    total = a.sum((1, 2, 3), keepdims=True)
    weight = jnp.where(total == 0, 0, (a * g).sum((1, 2, 3), keepdims=True) / jnp.where(total == 0, 1, total))
    return (a * weight).sum(-1)


CAM_METHODS: dict[str, CamWeighting] = {
    "gradcam": gradcam,
    "gradcam_per_time": gradcam_per_time,
    "hirescam": hirescam,
    "layercam": layercam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
}


def cam_map(model: Model, clips: ArrayLike, target: Target, stage: str | None = None, *, name: str) -> Attribution:
    """The method `name` of `WEIGHINGS` at `stage`, by default the last one that has time and space."""
    context = prepare_explanation(model, clips, target)
    stage = context.resolve_stage(stage)
    pass_result = run_pass(context, [stage])
    return cam_from_pass(pass_result, stage, name)


def cam_from_pass(pass_result: PassResult, stage: str, name: str) -> Attribution:
    """The method `name` from a pass that others may share."""
    values = _weight_activations(pass_result.activations[stage], pass_result.gradients[stage], CAM_METHODS[name])
    return Attribution(to_numpy(values), stage, True, 3, name)


@partial(jax.jit, static_argnums=2)
def _weight_activations(a: Array, g: Array, weighting: CamWeighting) -> Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return weighting(a.astype(wide), g.astype(wide))


def saliency_tubes(
    model: Model, clips: ArrayLike, target: Target, stage: str | None = None, *, pool_stage: str = "pool"
) -> Attribution:
    """The classifier's own weights on the last activations (CAM, Zhou et al., 2016; in time: Stergiou et al., 2019).

    Defined where the mean of `stage` over time and space, the stage `pooled`, goes into a linear head. Divided by the
    number of places, so that it sums to the score less its bias and equals Grad-CAM.
    """
    context = prepare_explanation(model, clips, target)
    stage = context.resolve_stage(stage)
    if pool_stage not in context.shapes:
        raise ValueError(
            f"saliency tubes need the stage of the pooled features; there is no {pool_stage!r}: use gradcam"
        )
    pass_result = run_pass(context, [stage, pool_stage])
    a, g = pass_result.activations[stage], pass_result.gradients[pool_stage]
    mean = np.asarray(a.mean((1, 2, 3)))
    if g.shape != mean.shape or not np.allclose(pass_result.activations[pool_stage], mean, rtol=1e-3, atol=1e-5):
        raise ValueError(
            f"{pool_stage} is not the mean of {stage} over time and space; use gradcam or hirescam instead"
        )
    return Attribution(to_numpy(jnp.einsum("bthwc,bc->bthw", a, g) / math.prod(a.shape[1:4])), stage, True, 1, "cam")


def gradcam_framewise(model: Model, clips: ArrayLike, target: Target, stage: str | None = None) -> Attribution:
    """Grad-CAM of each frame as a clip that stands still: what is left of it when all that is between frames is gone.

    The map has the clip's own number of frames; of each still clip the middle time step is taken.
    """
    context = prepare_explanation(model, clips, target)
    stage = context.resolve_stage(stage)
    frames = []
    for i in range(context.video.shape[1]):
        pass_result = activations_and_gradients_at(context.score_model, freeze_frame(context.video, i), (stage,))
        values = to_numpy(_weight_activations(pass_result.activations[stage], pass_result.gradients[stage], gradcam))
        frames.append(values[:, values.shape[1] // 2])
    return Attribution(np.stack(frames, 1), stage, True, 3 * context.video.shape[1], "gradcam_framewise")
