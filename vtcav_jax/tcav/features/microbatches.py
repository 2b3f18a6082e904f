"""Clips on their way to the devices: micro-batches of one shape, filled up at the end, halved where memory runs out."""

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
    """`count` clips of one `shape`, in an order that stays.

    `batches()` starts anew and gives clips in portions of any size, each with a mask of which rows are real. Not
    `exact`, some of them may turn out to be unreadable and are left out.
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
    """Clips that are in memory already."""
    return ClipBatches(len(videos), videos.shape[1:], lambda: [(videos, np.ones(len(videos), bool))], videos.dtype)


def map_batches(
    fn: Callable[..., Any],
    clips: ClipBatches,
    tables: Sequence[np.ndarray],
    unit: str,
    batch_size: int,
    runtime: Runtime,
) -> Iterator[tuple[int, int, Any]]:
    """`run(videos, *tables' rows)` over all clips: the first one's number, how many are real, and what came out.

    Every call has `size` clips, divided by the mesh's devices; where memory runs out, from then on half as many.
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
                out = jax.tree.map(np.asarray, fn(*device_arrays))  # here, so that what fails fails here
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or batch_size == devices:
                    raise
                batch_size = max(devices, batch_size // 2 // devices * devices)
                print(f"out of memory: going on with {batch_size} clips at a time", file=sys.stderr)
                # What was taken from the source waits for its turn
                source, waiting = chain(waiting, source), []
                continue
            passes.batch_size = batch_size
            yield start, n_real, out
            start, waiting = start + n_real, []
        if start != clips.count and clips.exact:
            raise ValueError(f"expected {clips.count} {unit}, got {start}")

    return progress(parts(), clips.count, unit, size=lambda part: part[1])
