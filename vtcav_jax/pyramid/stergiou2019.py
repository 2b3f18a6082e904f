"""Shares of Stergiou et al. (2019): mean kernel times mean activation, for successive plain convolutions.

Corrected errors of their code: products are not divided by their sum (a negative sum ranked the most inhibiting channel
first), groups use only their own channels, a channel is looked up in its own layer, and a channel with several parents
is one node. Limits of the method that remain: normalisation and activations between two convolutions are ignored, and
a kernel with a mean of 0, such as a detector of change, has no effect.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from vtcav_jax.attribution.score_model import to_numpy
from vtcav_jax.pyramid.levels import PyramidLevel


def stergiou_shares(
    model: Any, values: dict[str, Array], nodes: Sequence[dict[str, Any]], parents: Sequence[int], earlier: PyramidLevel
) -> dict[str, np.ndarray]:
    """Return shares by stage, `(parents, b, c)`; each row is scaled to 0..1 and then to a sum of 1."""
    if len(earlier) > 1:
        raise ValueError(f"edge_rule stergiou2019 needs levels of one stage each, got {' + '.join(earlier)}")
    (stage,) = list(earlier)
    activity = to_numpy(values[stage].mean((1, 2, 3)))
    rows = [np.maximum(_drive(_kernel(model, nodes[i]["stage"]), nodes[i]["channel"], activity), 0) for i in parents]
    shares = np.stack(rows)
    totals = shares.sum(-1, keepdims=True)
    shares = np.divide(shares, totals, out=np.zeros_like(shares), where=totals > 0)
    return {stage: shares}


def _drive(
    kernel: Float[np.ndarray, "h i o"], channel: int, activity: Float[np.ndarray, "b c"]
) -> Float[np.ndarray, "b c"]:
    """Return mean kernel times mean activation, scaled from the minimum (0) to the maximum (1)."""
    inputs, outputs, channels = kernel.shape[1], kernel.shape[2], activity.shape[-1]
    if channels % inputs:
        raise ValueError(
            f"a kernel of {inputs} inputs cannot follow a stage of {channels} channels; pass stages of "
            "successive convolutions"
        )
    group = channel // (outputs * inputs // channels)
    mean = np.zeros(channels, activity.dtype)
    mean[group * inputs : (group + 1) * inputs] = kernel[:, :, channel].mean(0)
    product = activity * mean
    low, high = product.min(-1, keepdims=True), product.max(-1, keepdims=True)
    return np.divide(product - low, high - low, out=np.zeros_like(product), where=high > low)


def _kernel(model: Any, stage: str) -> Float[np.ndarray, "h i o"]:
    """Return the kernel of the convolution with a stage's name, its time and space flattened to one axis."""
    module = model
    for part in stage.split("."):
        module = module[int(part)] if part.isdigit() else getattr(module, part, None)
        if module is None:
            break
    kernel = getattr(module, "kernel", None)
    array = None if kernel is None else np.asarray(kernel[...])
    if array is None or array.ndim != 5:
        raise ValueError(
            f"{stage} is not the name of a convolution, which edge_rule stergiou2019 needs; use edge_rule gradient"
        )
    return array.reshape(-1, *array.shape[3:])
