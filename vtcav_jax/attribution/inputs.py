"""The inputs of the public functions: a `Network` or a bare model, uint8 or normalised clips, a target or its name."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax import tap
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.models.network import Network
from vtcav_jax.tap import Model


def resolve_model(network: Network | Model) -> Model:
    """Return the model of a `Network`; a bare model is returned as it is."""
    return network.model if isinstance(network, Network) else network


def resolve_clips(network: Network | Model, clips: ArrayLike) -> Float[Array, "b t h w c"]:
    """Return clips as the model reads them: uint8 clips are normalised as `network.clip_spec` says, floats are kept."""
    video = clips if isinstance(clips, Tracer) else jnp.asarray(clips)
    if video.dtype != jnp.uint8:
        return video
    if not isinstance(network, Network):
        raise ValueError("uint8 clips need a Network, whose clip_spec says how to normalise them; got a bare model")
    return network.clip_spec.normalise(video)


def resolve_target(network: Network | Model, video: Array, target: Any) -> Any:
    """Return the target that a text such as `direction:left` or `direction` (the predicted class) names."""
    if not isinstance(target, str):
        return target
    if not isinstance(network, Network):
        raise ValueError(f"the target {target!r} is a name, which needs a Network with class names; got a bare model")
    (spec,) = parse_targets(network, [target])
    logits, _ = tap.activations(network.model, video, ())
    return spec.target(np.asarray(logits))
