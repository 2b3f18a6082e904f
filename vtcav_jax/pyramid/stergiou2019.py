"""The shares of Stergiou et al. (2019): mean kernel times mean activation, for plain convolutions in a row.

What their code got wrong and is mended here: no division by the sum (a negative sum put the most inhibiting channel
first), groups see their own channels only, a channel is looked up in the layer that it is of, a kernel that serves
several parents is one node. What is theirs and stays: normalisation and activations between two convolutions are
ignored, and a kernel that averages to 0, as one that looks for change does, drives nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from vtcav_jax.attribution.score_model import to_numpy
from vtcav_jax.pyramid.cut_stages import PyramidLevel


def stergiou_shares(
    model: Any, values: dict[str, Array], nodes: Sequence[dict[str, Any]], parents: Sequence[int], earlier: PyramidLevel
) -> dict[str, np.ndarray]:
    """Shares by stage `(parents, b, c)`, each row from 0 to its largest and then of sum 1."""
    if len(earlier) > 1:
        raise ValueError(f"the paper's shares are of one stage after another; {' + '.join(earlier)} are several")
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
    """Mean kernel times mean activation, scaled from 0 (the least) to 1."""
    inputs, outputs, channels = kernel.shape[1], kernel.shape[2], activity.shape[-1]
    if channels % inputs:
        raise ValueError(
            f"a kernel of {inputs} inputs does not lie behind a stage of {channels} channels; name stages of "
            "successive convolutions"
        )
    group = channel // (outputs * inputs // channels)
    mean = np.zeros(channels, activity.dtype)
    mean[group * inputs : (group + 1) * inputs] = kernel[:, :, channel].mean(0)
    product = activity * mean
    low, high = product.min(-1, keepdims=True), product.max(-1, keepdims=True)
    return np.divide(product - low, high - low, out=np.zeros_like(product), where=high > low)


def _kernel(model: Any, stage: str) -> Float[np.ndarray, "h i o"]:
    """The kernel of the convolution that a stage is named after, its support as one axis."""
    module = model
    for part in stage.split("."):
        module = module[int(part)] if part.isdigit() else getattr(module, part, None)
        if module is None:
            break
    kernel = getattr(module, "kernel", None)
    array = None if kernel is None else np.asarray(kernel[...])
    if array is None or array.ndim != 5:
        raise ValueError(
            f"{stage} is not named after a convolution; edge_rule stergiou2019 needs one there, gradient does not"
        )
    return array.reshape(-1, *array.shape[3:])
