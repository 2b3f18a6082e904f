"""Storage of activations and gradients between the network and the products: in memory, or as blocks on disk.

They are written by rows (micro-batches of clips) and read by columns (blocks of features of all clips). On disk each
block is a file, so that both accesses are sequential.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

FEATURES_PER_BLOCK = 16384  # products are summed in float32 within a block and in float64 across blocks


@dataclass(frozen=True)
class Features:
    """`n_rows` flattened arrays of `shape` in float32 or float64; the constructor creates no files (see `allocate`)."""

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
        """Start and end of each block's features."""
        return [(i, min(i + self.width, self.size)) for i in range(0, self.size, self.width)]

    def write(self, start: int, values: Float[np.ndarray, "b ..."]) -> None:
        """Write rows, beginning with row `start`."""
        values = np.asarray(values, self.dtype).reshape(len(values), self.size)
        if self.memory is not None:
            self.memory[start : start + len(values)] = values
            return
        for i, (first, last) in enumerate(self.columns):
            block = np.load(self._path(i), mmap_mode="r+")
            block[start : start + len(values)] = values[:, first:last]

    def block(self, i: int) -> Float[np.ndarray, "rows w"]:
        """Return block i of features for all rows."""
        first, last = self.columns[i]
        return np.load(self._path(i)) if self.memory is None else self.memory[:, first:last]

    def blocks(self) -> Iterator[Float[np.ndarray, "rows w"]]:
        return (self.block(i) for i in range(len(self.columns)))

    def linear_combination(self, a: Float[np.ndarray, "v rows"]) -> Float[np.ndarray, "v ..."]:
        """Compute `a` times the rows, block by block: the vectors X'a in the shape of the stage."""
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
    """Allocate features of zeros in memory, or in new files of `folder`."""
    if folder is None:
        return Features(n_rows, shape, dtype, None, width, np.zeros((n_rows, math.prod(shape)), dtype))
    features = Features(n_rows, shape, dtype, folder, width)
    folder.mkdir(parents=True, exist_ok=True)
    for i, (first, last) in enumerate(features.columns):
        np.lib.format.open_memmap(features._path(i), "w+", dtype, (n_rows, last - first)).flush()
    return features


def features_from_array(array: Float[np.ndarray, "rows ..."]) -> Features:
    """Return an array with one row per clip as in-memory `Features`, in float64 if it is float64, else in float32."""
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    flat = np.ascontiguousarray(array.reshape(len(array), -1), dtype)
    return Features(len(flat), array.shape[1:], dtype, memory=flat)


def allocate_all(
    layouts: dict[str, tuple[int, tuple[int, ...], Any]], budget: int, spill: Path | None
) -> dict[str, Features]:
    """Allocate features by name (rows, shape, dtype), smallest first in memory up to `budget`, then in `spill`."""
    bytes_of = {
        name: rows * math.prod(shape) * np.dtype(dtype).itemsize for name, (rows, shape, dtype) in layouts.items()
    }
    total = sum(bytes_of.values())
    if total > budget and spill is None:
        raise ValueError(
            f"activations and gradients need {total / 2**30:.3g} GiB, more than the budget of {budget / 2**30:.3g} GiB;"
            " pass a folder for the rest (spill), increase the budget, or pool the activations"
        )
    # Products need the same blocks of all features, and several blocks must fit into memory at once
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
