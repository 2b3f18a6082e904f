"""Class activation maps (CAM) over time and space: activations `a` of a stage, weighted by the score's gradients `g`.

All use one forward and one backward pass. Maps keep their sign; `Attribution.positive` applies the final ReLU of the
published formulas.
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
    """Weight each channel by its mean gradient over the clip: `sum_c a_c * mean_thw(g_c)`; weights cannot flicker.

    Reference: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    2017, arXiv:1610.02391.
    """
    return (a * g.mean((1, 2, 3), keepdims=True)).sum(-1)


def gradcam_per_time(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """Weight each channel by its mean gradient at each time step: `sum_c a_c * mean_hw(g_c)`."""
    return (a * g.mean((2, 3), keepdims=True)).sum(-1)


def hirescam(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """Weight each channel at each place by its gradient: `sum_c a_c * g_c`.

    Sums to the score, minus the bias, if the rest of the network is linear.

    Reference: Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
    networks", 2020, arXiv:2011.08891.
    """
    return (a * g).sum(-1)


def layercam(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """Use only the positive gradients of HiResCAM: `sum_c a_c * relu(g_c)`; suited to early stages.

    Reference: Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", 2021.
    """
    return (a * jax.nn.relu(g)).sum(-1)


def gradcam_plus_plus(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """Compute `sum_c a_c * sum_thw(s_c * relu(g_c))` with `s_c = g_c^2 / (2 g_c^2 + g_c^3 * sum_thw(a_c))`.

    Reference: Chattopadhay et al., "Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks", 2018,
    arXiv:1710.11063.
    """
    divisor = 2 * g**2 + a.sum((1, 2, 3), keepdims=True) * g**3
    share = jnp.where(divisor == 0, 0, g**2 / jnp.where(divisor == 0, 1, divisor))
    return (a * (share * jax.nn.relu(g)).sum((1, 2, 3), keepdims=True)).sum(-1)


def xgradcam(a: ActivationGrid, g: ActivationGrid) -> Float[Array, "b t h w"]:
    """Weight each channel by `sum_thw(a_c * g_c) / sum_thw(a_c)`, its mean gradient weighted by activation.

    Reference: Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs", 2020,
    arXiv:2008.02312.
    """
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
    """Compute the map of `CAM_METHODS[name]` at `stage`; by default the last stage with time and space."""
    context = prepare_explanation(model, clips, target)
    stage = context.resolve_stage(stage)
    pass_result = run_pass(context, [stage])
    return cam_from_pass(pass_result, stage, name)


def cam_from_pass(pass_result: PassResult, stage: str, name: str) -> Attribution:
    """Compute the map of `CAM_METHODS[name]` from a pass that other methods may share."""
    values = _weight_activations(pass_result.activations[stage], pass_result.gradients[stage], CAM_METHODS[name])
    return Attribution(to_numpy(values), stage, True, 3, name)


@partial(jax.jit, static_argnums=2)
def _weight_activations(a: Array, g: Array, weighting: CamWeighting) -> Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return weighting(a.astype(wide), g.astype(wide))


def saliency_tubes(
    model: Model, clips: ArrayLike, target: Target, stage: str | None = None, *, pool_stage: str = "pool"
) -> Attribution:
    """Weight the last activations by the classifier's weights: `sum_c a_c * w_c / (t * h * w)`.

    Requires that a linear head follows the stage `pool_stage`, the mean of `stage` over time and space. The map then
    sums to the score minus its bias and equals Grad-CAM.

    References: Zhou et al., "Learning Deep Features for Discriminative Localization", 2016, arXiv:1512.04150 (CAM);
    Stergiou et al., "Saliency Tubes: Visual Explanations for Spatio-Temporal Convolutions", 2019, arXiv:1902.01078.
    """
    context = prepare_explanation(model, clips, target)
    stage = context.resolve_stage(stage)
    if pool_stage not in context.shapes:
        raise ValueError(
            f"cam needs the stage of the pooled features, but there is no {pool_stage!r}; name it as pool_stage, or "
            "use gradcam"
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
    """Compute Grad-CAM of each frame, repeated as a static clip: a control without motion between frames.

    The map has one time step per frame of the clip: the middle time step of the static clip's map.
    """
    context = prepare_explanation(model, clips, target)
    stage = context.resolve_stage(stage)
    frames = []
    for i in range(context.video.shape[1]):
        pass_result = activations_and_gradients_at(context.score_model, freeze_frame(context.video, i), (stage,))
        values = to_numpy(_weight_activations(pass_result.activations[stage], pass_result.gradients[stage], gradcam))
        frames.append(values[:, values.shape[1] // 2])
    return Attribution(np.stack(frames, 1), stage, True, 3 * context.video.shape[1], "gradcam_framewise")
