"""The inputs of the public functions: a `Network` or a bare model, uint8 or normalised clips, a target or its name."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

from vtcav_jax import tap
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.attribution.targets import Target
from vtcav_jax.models.network import Network
from vtcav_jax.tap import Model

MAX_RANGE_FACTOR = 10  # normalised clips with noise or edits may exceed the range, but not by this factor


def resolve_inputs(network: Network | Model, clips: ArrayLike, target: Target | str) -> tuple[Model, ArrayLike, Any]:
    """Return the model, normalised clips and the target of a call; what is resolved already is returned as it is."""
    model = network.model if isinstance(network, Network) else network
    video = resolve_clips(network, clips)
    return model, video, resolve_target(network, video, target) if isinstance(target, str) else target


def resolve_clips(network: Network | Model, clips: ArrayLike) -> ArrayLike:
    """Return clips as the model reads them: a `Network` normalises uint8 frames by its `clip_spec`."""
    _check_clip_shape(np.shape(clips))
    if isinstance(clips, Tracer):
        return clips
    if getattr(clips, "dtype", None) != np.uint8:
        if isinstance(network, Network):
            _check_normalised(network, clips)
        return clips
    if not isinstance(network, Network):
        raise ValueError("uint8 clips need a Network, whose clip_spec says how to normalise them; got a bare model")
    return network.clip_spec.normalise(jnp.asarray(clips))


def _check_clip_shape(shape: tuple[int, ...]) -> None:
    """Raise ValueError for a missing batch axis and for channels that are not last."""
    expected = f"expected clips (b, t, h, w, 3), got {shape}"
    if len(shape) == 4:
        raise ValueError(f"{expected}; add a batch axis: clips[None]")
    if len(shape) != 5:
        raise ValueError(expected)
    if shape[-1] != 3 and 3 in shape[1:3]:
        raise ValueError(f"{expected}; move the channels last: np.moveaxis(clips, {1 + shape[1:3].index(3)}, -1)")


def _check_normalised(network: Network, clips: ArrayLike) -> None:
    """Raise ValueError for floats far outside the range of normalised frames."""
    spec = network.clip_spec
    low = min(-mean / std for mean, std in zip(spec.mean, spec.std))
    high = max((1 - mean) / std for mean, std in zip(spec.mean, spec.std))
    largest = float(jnp.max(jnp.abs(jnp.asarray(clips))))
    if largest > MAX_RANGE_FACTOR * max(-low, high):
        raise ValueError(
            f"float clips must be normalised (about {low:.2g} to {high:.2g} for this network), got up to"
            f" {largest:.4g}; pass uint8 frames"
        )


def resolve_target(network: Network | Model, video: ArrayLike, name: str) -> Any:
    """Return the target with this name, such as `direction:left`, or `direction` for the predicted class of a head."""
    if not isinstance(network, Network):
        raise ValueError(f"the target {name!r} is a name, which needs a Network with class names; got a bare model")
    (spec,) = parse_targets(network, [name])
    return spec.target(np.asarray(tap.compute_logits(network.model, video)))
