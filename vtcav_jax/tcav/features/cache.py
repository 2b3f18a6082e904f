"""What was computed once, under a name made of all that it depends on.

An entry is one file that is written beside its place and renamed: it is there whole or not at all, whoever is killed,
and where two processes make the same one they write the same. Nothing is ever changed in place, so that a name that is
there is right. The folder may be removed at any time; it costs the time to compute its content again.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path
from jaxtyping import Float

import vtcav_jax
from vtcav_jax import atomic
from vtcav_jax.tcav.features.feature_store import Features

# Whatever changes what a network makes of a file.
CODE = ("models/**/*.py", "data/*.py", "concepts/crops.py", "concepts/concept_sets.py", "tap.py", "clip_spec.py")
ENCODING = ("tcav/features/encode.py", "tcav/features/pooling.py", "tcav/features/microbatches.py")


@dataclass(frozen=True)
class Cache:
    """A folder of arrays and of tables, by key."""

    folder: Path

    def path(self, key: str, suffix: str = ".npy") -> Path:
        return self.folder / key[:2] / f"{key}{suffix}"

    def has(self, key: str, suffix: str = ".npy") -> bool:
        return self.path(key, suffix).exists()

    def put(self, key: str, value: np.ndarray) -> None:
        with atomic.replacing(self.path(key)) as part, part.open("wb") as file:
            np.save(file, value, allow_pickle=False)

    def get(self, key: str) -> np.ndarray:
        return np.load(self.path(key), allow_pickle=False)

    def put_arrays(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        with atomic.replacing(self.path(key, ".npz")) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def get_arrays(self, key: str) -> dict[str, np.ndarray]:
        with np.load(self.path(key, ".npz"), allow_pickle=False) as found:
            return dict(found)

    def put_json(self, key: str, value: Any) -> None:
        atomic.write_text(self.path(key, ".json"), json.dumps(value))

    def get_json(self, key: str) -> Any:
        return json.loads(self.path(key, ".json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Kept(Features):
    """Features that are rows of a cache, one file each: read block by block, never all of them at once."""

    paths: Sequence[Path] = field(default=(), repr=False)

    def block(self, i: int) -> Float[np.ndarray, "rows w"]:
        first, last = self.columns[i]
        out = np.empty((self.rows, last - first), self.dtype)
        for row, path in zip(out, self.paths):
            row[:] = np.load(path, mmap_mode="r", allow_pickle=False).reshape(-1)[first:last]
        return out


def kept(store: Cache, keys: Sequence[str], shape: tuple[int, ...], dtype: Any, budget: int, rows: int) -> Features:
    """The entries as features: in memory if all `rows` of the stage fit in `budget` bytes, else read by blocks."""
    row = math.prod(shape) * np.dtype(dtype).itemsize
    paths = [store.path(key) for key in keys]
    width = block_width(rows, row // np.dtype(dtype).itemsize, np.dtype(dtype).itemsize, budget)
    lazy = Kept(len(keys), shape, dtype, None, width, paths=paths)
    if rows * row > budget:
        return lazy
    memory = np.empty((len(keys), lazy.size), dtype)
    for line, path in zip(memory, paths):
        line[:] = np.load(path, allow_pickle=False).reshape(-1)
    return Features(len(keys), shape, dtype, None, width, memory)


def block_width(rows: int, size: int, itemsize: int, budget: int) -> int:
    """Features a block, so that a block and its copies stay within the budget."""
    whole = Features(rows, (size,)).width
    return whole if rows * size * itemsize <= budget else max(256, min(whole, budget // (8 * rows * itemsize)))


def key_of(*told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def fingerprint(model: Any) -> str:
    """Of a network: its parameters, and the code that runs them."""
    found = hashlib.sha256()
    for path, leaf in tree_flatten_with_path(model)[0]:
        array = np.asarray(leaf)
        found.update(f"{keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    maker = getattr(model, "func", type(model))
    found.update(f"{maker.__module__}.{maker.__qualname__}".encode())
    if (file := _source_of(maker.__module__)) is not None:
        found.update(file.read_bytes())
    return found.hexdigest()


def _source_of(module: str) -> Path | None:
    import sys

    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file and Path(file).is_file() else None


@cache
def code_version(*patterns: str) -> str:
    """Of everything between a file and what is kept of it, by default its features: a change of code must not meet old
    numbers."""
    root = Path(vtcav_jax.__file__).parent
    found = hashlib.sha256(f"{metadata.version('jaxlib')} {jax.default_backend()}".encode())
    for pattern in patterns or (*CODE, *ENCODING):
        for path in sorted(root.glob(pattern)):
            found.update(path.read_bytes())
    return found.hexdigest()
