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

WIDTH = 16384  # features a block: the products add up this many in float32, the blocks in float64


@dataclass(frozen=True)
class Features:
    """`rows` arrays of `shape` each, flattened, as float32 or float64; see `allocate`. Making one touches no file."""

    rows: int
    shape: tuple[int, ...]
    dtype: Any = np.float32
    folder: Path | None = None
    width: int = WIDTH
    memory: np.ndarray | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.rows * self.size * np.dtype(self.dtype).itemsize

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

    def combined(self, a: Float[np.ndarray, "v rows"]) -> Float[np.ndarray, "v ..."]:
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
    rows: int, shape: tuple[int, ...], dtype: Any = np.float32, folder: Path | None = None, width: int = WIDTH
) -> Features:
    """Zeros to write to, in memory or in new files of `folder`."""
    if folder is None:
        return Features(rows, shape, dtype, None, width, np.zeros((rows, math.prod(shape)), dtype))
    new = Features(rows, shape, dtype, folder, width)
    folder.mkdir(parents=True, exist_ok=True)
    for i, (first, last) in enumerate(new.columns):
        np.lib.format.open_memmap(new._path(i), "w+", dtype, (rows, last - first)).flush()
    return new


def of(array: Float[np.ndarray, "rows ..."]) -> Features:
    """An array of one row per clip as `Features`, in memory; float16 and the like become float32."""
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    flat = np.ascontiguousarray(array.reshape(len(array), -1), dtype)
    return Features(len(flat), array.shape[1:], dtype, memory=flat)


def place(wanted: dict[str, tuple[int, tuple[int, ...], Any]], budget: int, spill: Path | None) -> dict[str, Features]:
    """Room for everything in `wanted` (rows, shape, dtype by name): the smallest in memory as far as `budget` bytes go.

    The others become files below `spill`, one folder each.
    """
    bytes_of = {
        name: rows * math.prod(shape) * np.dtype(dtype).itemsize for name, (rows, shape, dtype) in wanted.items()
    }
    total = sum(bytes_of.values())
    if total > budget and spill is None:
        raise ValueError(
            f"activations and gradients need {total / 2**30:.3g} GiB and may use {budget / 2**30:.3g} GiB of memory; "
            "name a folder for the rest, allow more memory, or pool the stages"
        )
    # All have blocks of the same features. They are read whole, so a few of them must fit as well.
    widest = max(rows * np.dtype(dtype).itemsize for rows, _, dtype in wanted.values())
    width = WIDTH if total <= budget else max(256, min(WIDTH, budget // (8 * widest)))
    left, placed = budget, {}
    for name in sorted(wanted, key=lambda name: bytes_of[name]):
        rows, shape, dtype = wanted[name]
        fits = bytes_of[name] <= left
        left -= bytes_of[name] if fits else 0
        folder = None if fits else Path(str(spill)) / name
        placed[name] = allocate(rows, shape, dtype, folder, width)
    return {name: placed[name] for name in wanted}
