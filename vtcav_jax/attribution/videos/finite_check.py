"""Clips whose activations overflow: they are left out, with the stage (layer) at which that happens."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from vtcav_jax import tap
from vtcav_jax.attribution.videos.clip_windows import Window
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.models.network import Network


def non_finite_failure(network: Network, windows: Sequence[Window], result: str) -> ReadResult:
    """Return a video as a failure, because `result` has NaN or infinite values for some of its clips.

    Windows without frames are those whose results are finite.
    """
    read, stages = windows[0].read, tap.stages_of(network.model)
    for window in (window for window in windows if window.clip.video.size):
        video = jnp.asarray(network.clip_spec.normalise(window.clip.video[:1]))
        activations = tap.activations(network.model, video, stages)[1] if stages else {}
        logits = tap.compute_logits(network.model, video)
        at_stages = {f"the activations at {stage}": value for stage, value in activations.items()}
        for values, array in {**at_stages, "its logits": logits}.items():
            if not np.isfinite(np.asarray(array)).all():
                return ReadResult(read.index, read.item, None, non_finite_message(read.item.name, values))
    return ReadResult(read.index, read.item, None, non_finite_message(read.item.name, result))


def non_finite_message(name: str, values: str) -> str:
    """Return why a clip is left out; `values` are those at a stage, or a result."""
    return f"{name} is left out: {values} have NaN or infinite values"
