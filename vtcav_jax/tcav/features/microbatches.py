"""Micro-batches of clips for the devices: all of one shape, padded at the end, halved when memory runs out."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Bool, Float

from vtcav_jax.console import progress
from vtcav_jax.runtime import Runtime

Batch = tuple[Float[np.ndarray, "b t h w c"], Bool[np.ndarray, " b"]]


@dataclass(frozen=True)
class ClipBatches:
    """`count` clips of one `shape` in a fixed order.

    Each call of `batches` iterates from the start, in portions of any size with a mask of the rows that are real. If
    not `exact`, unreadable clips may be missing.
    """

    count: int
    shape: tuple[int, int, int, int]
    batches: Callable[[], Iterable[Batch]]
    dtype: Any = np.float32
    exact: bool = True

    def __iter__(self) -> Iterator[Float[np.ndarray, "t h w c"]]:
        for videos, real in self.batches():
            yield from np.asarray(videos)[np.asarray(real)]


def in_memory(videos: Float[np.ndarray, "b t h w c"]) -> ClipBatches:
    """Return clips that are in memory as `ClipBatches`."""
    return ClipBatches(len(videos), videos.shape[1:], lambda: [(videos, np.ones(len(videos), bool))], videos.dtype)


def map_batches(
    fn: Callable[..., Any],
    clips: ClipBatches,
    tables: Sequence[np.ndarray],
    unit: str,
    batch_size: int,
    runtime: Runtime,
) -> Iterator[tuple[int, int, Any]]:
    """Yield index of the first clip, number of real clips and result of `fn(videos, *rows of tables)` for all clips.

    Every call has `batch_size` clips, divided among the mesh's devices; when memory runs out, the size is halved.
    """
    mesh, passes = runtime.mesh, runtime.passes
    devices = mesh.devices.size
    batch_size = max(devices, min(batch_size, -(-clips.count // devices) * devices) // devices * devices)
    by_clip = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def parts() -> Iterator[tuple[int, int, Any]]:
        nonlocal batch_size
        start, source, waiting = 0, iter(clips), []
        while waiting := [*waiting, *islice(source, batch_size - len(waiting))]:
            n_real = len(waiting)
            if start + n_real > clips.count or any(video.shape != clips.shape for video in waiting):
                shapes = sorted({video.shape for video in waiting})
                raise ValueError(
                    f"expected {clips.count} {unit} of shape {clips.shape}, got more, or of shape {shapes}"
                )
            rows = np.minimum(np.arange(batch_size), n_real - 1)
            videos = np.stack([waiting[i] for i in rows])
            try:
                device_arrays = jax.device_put([videos, *(table[start + rows] for table in tables)], by_clip)
                out = jax.tree.map(np.asarray, fn(*device_arrays))  # waits, so that errors are raised here
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or batch_size == devices:
                    raise
                batch_size = max(devices, batch_size // 2 // devices * devices)
                print(f"out of memory: continuing with {batch_size} clips at a time", file=sys.stderr)
                # Put the clips that were taken from the source back
                source, waiting = chain(waiting, source), []
                continue
            passes.batch_size = batch_size
            yield start, n_real, out
            start, waiting = start + n_real, []
        if start != clips.count and clips.exact:
            raise ValueError(f"expected {clips.count} {unit}, got {start}")

    return progress(parts(), clips.count, unit, size=lambda part: part[1])
