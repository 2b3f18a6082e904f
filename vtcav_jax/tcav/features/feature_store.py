"""Where activations and gradients lie between the network and the products: in memory, or as blocks on disk.

They come by rows, a micro-batch of clips at a time, and are read by columns, a block of features of all clips at a
time. On disk a block is a file of its own, so that both are sequential.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

FEATURES_PER_BLOCK = 16384  # features a block: the products add up this many in float32, the blocks in float64


@dataclass(frozen=True)
class Features:
    """`rows` arrays of `shape` each, flattened, as float32 or float64; see `allocate`. Making one touches no file."""

    n_rows: int
    shape: tuple[int, ...]
    dtype: Any = np.float32
    folder: Path | None = None
    width: int = FEATURES_PER_BLOCK
    memory: np.ndarray | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.n_rows * self.size * np.dtype(self.dtype).itemsize

    @property
    def columns(self) -> list[tuple[int, int]]:
        """First feature of each block, and first behind it."""
        return [(i, min(i + self.width, self.size)) for i in range(0, self.size, self.width)]

    def write(self, start: int, values: Float[np.ndarray, "b ..."]) -> None:
        """The rows from `start` on."""
        values = np.asarray(values, self.dtype).reshape(len(values), self.size)
        if self.memory is not None:
            self.memory[start : start + len(values)] = values
            return
        for i, (first, last) in enumerate(self.columns):
            block = np.load(self._path(i), mmap_mode="r+")
            block[start : start + len(values)] = values[:, first:last]

    def block(self, i: int) -> Float[np.ndarray, "rows w"]:
        """All rows of block i of features."""
        first, last = self.columns[i]
        return np.load(self._path(i)) if self.memory is None else self.memory[:, first:last]

    def blocks(self) -> Iterator[Float[np.ndarray, "rows w"]]:
        return (self.block(i) for i in range(len(self.columns)))

    def linear_combination(self, a: Float[np.ndarray, "v rows"]) -> Float[np.ndarray, "v ..."]:
        """`a` times the rows, block by block: the vectors X'a in the stage's own shape."""
        out = np.empty((len(a), self.size), self.dtype)
        for (first, last), block in zip(self.columns, self.blocks()):
            centre = block.mean(0, dtype=np.float64)
            out[:, first:last] = a @ (block - centre) + a.sum(1, keepdims=True) * centre
        return out.reshape(len(a), *self.shape)

    def _path(self, i: int) -> Path:
        assert self.folder is not None
        return self.folder / f"block_{i:05d}.npy"


def allocate(
    n_rows: int,
    shape: tuple[int, ...],
    dtype: Any = np.float32,
    folder: Path | None = None,
    width: int = FEATURES_PER_BLOCK,
) -> Features:
    """Zeros to write to, in memory or in new files of `folder`."""
    if folder is None:
        return Features(n_rows, shape, dtype, None, width, np.zeros((n_rows, math.prod(shape)), dtype))
    features = Features(n_rows, shape, dtype, folder, width)
    folder.mkdir(parents=True, exist_ok=True)
    for i, (first, last) in enumerate(features.columns):
        np.lib.format.open_memmap(features._path(i), "w+", dtype, (n_rows, last - first)).flush()
    return features


def features_from_array(array: Float[np.ndarray, "rows ..."]) -> Features:
    """An array of one row per clip as `Features`, in memory; float16 and the like become float32."""
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    flat = np.ascontiguousarray(array.reshape(len(array), -1), dtype)
    return Features(len(flat), array.shape[1:], dtype, memory=flat)


def allocate_all(
    layouts: dict[str, tuple[int, tuple[int, ...], Any]], budget: int, spill: Path | None
) -> dict[str, Features]:
    """Room for everything in `wanted` (rows, shape, dtype by name): the smallest in memory as far as `budget` bytes go.

    The others become files below `spill`, one folder each.
    """
    bytes_of = {
        name: rows * math.prod(shape) * np.dtype(dtype).itemsize for name, (rows, shape, dtype) in layouts.items()
    }
    total = sum(bytes_of.values())
    if total > budget and spill is None:
        raise ValueError(
            f"activations and gradients need {total / 2**30:.3g} GiB and may use {budget / 2**30:.3g} GiB of memory; "
            "name a folder for the rest, allow more memory, or pool the stages"
        )
    # All have blocks of the same features. They are read whole, so a few of them must fit as well.
    widest = max(rows * np.dtype(dtype).itemsize for rows, _, dtype in layouts.values())
    width = FEATURES_PER_BLOCK if total <= budget else max(256, min(FEATURES_PER_BLOCK, budget // (8 * widest)))
    remaining, allocated = budget, {}
    for name in sorted(layouts, key=lambda name: bytes_of[name]):
        rows, shape, dtype = layouts[name]
        fits = bytes_of[name] <= remaining
        remaining -= bytes_of[name] if fits else 0
        folder = None if fits else Path(str(spill)) / name
        allocated[name] = allocate(rows, shape, dtype, folder, width)
    return {name: allocated[name] for name in layouts}
