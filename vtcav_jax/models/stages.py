"""Choice of stages (layers) by name, by glob, or by default."""

import fnmatch
from collections.abc import Sequence

import jax
import numpy as np

from vtcav_jax import tap
from vtcav_jax.models.network import Network
from vtcav_jax.names import unknown_name_message


def resolve_stages(globs: Sequence[str], network: Network) -> tuple[str, ...]:
    """Return the network's stages that match any of the globs, in its order, or by default its outermost blocks."""
    stages = tap.stages_of(network.model)
    if not globs:
        return default_stages(network)
    if missing := [glob for glob in globs if not any(fnmatch.fnmatchcase(name, glob) for name in stages)]:
        raise ValueError(unknown_name_message("stage", missing, stages))
    return tuple(name for name in stages if any(fnmatch.fnmatchcase(name, glob) for glob in globs))


def default_stages(network: Network) -> tuple[str, ...]:
    """Return the outermost numbered blocks, such as layers.2 but not layers.2.blocks.0, that have space and time axes.

    Without such blocks, return all stages that have these axes or no positions at all, and without those, all stages.
    The shapes come from tracing; nothing is computed.
    """
    stages = tap.stages_of(network.model)
    video = jax.ShapeDtypeStruct((1, *network.clip_spec.shape), np.float32)
    _, activations = jax.eval_shape(lambda model, video: tap.activations(model, video, stages), network.model, video)
    poolable = tuple(stage for stage in stages if activations[stage].ndim in (2, 5))
    blocks = [stage for stage in poolable if activations[stage].ndim == 5 and stage.rpartition(".")[2].isdecimal()]
    depth = min((stage.count(".") for stage in blocks), default=0)
    return tuple(stage for stage in blocks if stage.count(".") == depth) or poolable or stages
