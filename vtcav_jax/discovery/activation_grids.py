"""Activations of clips as grids `(b, t, h, w, c)`, on all devices, for the two passes of discovery."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8

from vtcav_jax import tap as taps
from vtcav_jax.concepts.crops import middle_index
from vtcav_jax.models import Network
from vtcav_jax.runtime import Runtime


@dataclass(frozen=True)
class GridReader:
    """Reads activations of uint8 clips at several stages; with `motion_only`, minus those of the frozen clip.

    The network must be on all devices of the runtime (`on_devices`).
    """

    network: Network
    stages: tuple[str, ...]
    motion_only: bool
    runtime: Runtime

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape `(t, h, w, c)` of one clip at each stage, without running the network."""
        video = jax.ShapeDtypeStruct((1, *self.network.clip_spec.shape), np.float32)
        run = partial(taps.activations, stages=self.stages)
        values = jax.eval_shape(lambda model, video: run(model, video)[1], self.network.model, video)
        if faults := [f"{stage} {value.shape[1:]}" for stage, value in values.items() if value.ndim not in (2, 5)]:
            raise ValueError(
                f"expected stages of grids (t, h, w, channels) or of single vectors, got {', '.join(faults)}; name"
                " another stage, or declare its grid with vtcav.Tokens when the network is made"
            )
        return {stage: (1, 1, 1, *value.shape[1:])[-4:] for stage, value in values.items()}

    def place(self, frames: UInt8[np.ndarray, "b t h w 3"]) -> Array:
        """Return normalised clips, divided among the devices."""
        axes = PartitionSpec(self.runtime.mesh.axis_names)
        return jax.device_put(self.network.clip_spec.normalise(frames), NamedSharding(self.runtime.mesh, axes))

    def __call__(self, frames: UInt8[np.ndarray, "b t h w 3"]) -> dict[str, np.ndarray]:
        grids = read_grids(self.network.model, self.place(frames), self.stages, self.motion_only)[1]
        return jax.tree.map(np.asarray, grids)


def on_devices(network: Network, runtime: Runtime) -> Network:
    """Return the network with its parameters copied to each device."""
    return replace(network, model=jax.device_put(network.model, NamedSharding(runtime.mesh, PartitionSpec())))


@partial(jax.jit, static_argnames=("stages", "motion_only"))
def read_grids(
    model: Any, video: Float[Array, "b t h w 3"], stages: Sequence[str], motion_only: bool
) -> tuple[Float[Array, "b k"], dict[str, Float[Array, "b t2 h2 w2 c"]]]:
    """Return logits and activations of clips, minus the activations of the frozen clips if `motion_only`."""
    logits, values = taps.activations(model, video, stages)
    if motion_only:
        still = taps.activations(model, freeze_clips(video), stages)[1]
        values = {stage: value - still[stage] for stage, value in values.items()}
    return logits, {stage: as_grid(value) for stage, value in values.items()}


def freeze_clips(video: Float[Array, "b t h w 3"]) -> Float[Array, "b t h w 3"]:
    """Return clips that repeat their middle frame, as the frozen controls of concept clips do."""
    middle = middle_index(video.shape[1])
    return jnp.broadcast_to(video[:, middle : middle + 1], video.shape)


def as_grid(value: Array) -> Float[Array, "b t h w c"]:
    value = value.astype(jnp.float32)
    return value if value.ndim == 5 else value[:, None, None, None]
