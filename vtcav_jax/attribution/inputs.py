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


def resolve_inputs(network: Network | Model, clips: ArrayLike, target: Target | str) -> tuple[Model, ArrayLike, Any]:
    """Return the model, normalised clips and the target of a call; what is resolved already is returned as it is."""
    model = network.model if isinstance(network, Network) else network
    video = resolve_clips(network, clips)
    return model, video, resolve_target(network, video, target) if isinstance(target, str) else target


def resolve_clips(network: Network | Model, clips: ArrayLike) -> ArrayLike:
    """Return clips as the model reads them: a `Network` normalises uint8 frames by its `clip_spec`."""
    if isinstance(clips, Tracer) or getattr(clips, "dtype", None) != np.uint8:
        return clips
    if not isinstance(network, Network):
        raise ValueError("uint8 clips need a Network, whose clip_spec says how to normalise them; got a bare model")
    return network.clip_spec.normalise(jnp.asarray(clips))


def resolve_target(network: Network | Model, video: ArrayLike, name: str) -> Any:
    """Return the target with this name, such as `direction:left`, or `direction` for the predicted class of a head."""
    if not isinstance(network, Network):
        raise ValueError(f"the target {name!r} is a name, which needs a Network with class names; got a bare model")
    (spec,) = parse_targets(network, [name])
    return spec.target(np.asarray(tap.compute_logits(network.model, video)))
