"""Content-addressed cache of results: an entry's key is a hash of everything that it depends on.

An entry is one file that is written under a temporary name and renamed, so that it is complete or absent even if the
process is killed; processes that compute the same entry write the same content. Entries are never modified, and a
checksum tells whether one is damaged. The folder can be deleted at any time, at the cost of recomputing its content.
"""

import hashlib
import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vtcav_jax import atomic
from vtcav_jax.checksums import check_archive, json_sha256
from vtcav_jax.platforms import platform
from vtcav_jax.runs.code_version import code_hash
from vtcav_jax.tcav.features.feature_store import Features

# Source files that determine what a network computes from a video file
INPUT_CODE = (
    *("models/**/*.py", "data/*.py", "concepts/crops.py", "concepts/concept_sets.py"),
    *("tap.py", "clip_spec.py", "platforms.py"),
)
ENCODING_CODE = (
    *("tcav/features/encode.py", "tcav/features/pooling.py", "tcav/features/microbatches.py"),
    *("tcav/features/cache.py", "tcav/experiment/fill_cache.py"),
)

KEY_NAME = "cache key"  # in each archive and JSON file, so that a foreign file is recognised
CHECKSUM_BYTES = 4  # at the end of each `.npy`


@dataclass(frozen=True)
class Cache:
    """A folder of arrays and JSON values by key; `damaged` has the files that were removed, to be computed again."""

    folder: Path
    damaged: list[str] = field(default_factory=list, compare=False)
    _intact: set[Path] = field(default_factory=set, init=False, repr=False, compare=False)  # each is checked once

    def path(self, key: str, suffix: str = ".npy") -> Path:
        return self.folder / key[:2] / f"{key}{suffix}"

    def has(self, key: str, suffix: str = ".npy") -> bool:
        """Return whether there is an intact entry; a damaged one is removed."""
        path = self.path(key, suffix)
        if not path.exists():
            return False
        if path in self._intact:
            return True
        try:
            _check_entry(path, key)
        except Exception:  # a damaged file can raise anything
            path.unlink(missing_ok=True)
            self.damaged.append(path.name)
            return False
        self._intact.add(path)
        return True

    def put(self, key: str, value: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.save(buffer, value, allow_pickle=False)
        with atomic.replacing(self.path(key)) as part, part.open("wb") as file:
            file.write(buffer.getbuffer())
            file.write(_checksum(buffer.getbuffer()))  # what reads the array ignores bytes after it
        self._intact.add(self.path(key))

    def get(self, key: str) -> np.ndarray:
        return np.load(self.path(key), allow_pickle=False)

    def put_arrays(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        with atomic.replacing(self.path(key, ".npz")) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays, **{KEY_NAME: np.array(key)})

    def get_arrays(self, key: str) -> dict[str, np.ndarray]:
        with np.load(self.path(key, ".npz"), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name != KEY_NAME}

    def put_json(self, key: str, value: Any) -> None:
        entry = {KEY_NAME: key, "value": value, "sha256": json_sha256(value)}
        atomic.write_text(self.path(key, ".json"), json.dumps(entry))

    def get_json(self, key: str) -> Any:
        return json.loads(self.path(key, ".json").read_text(encoding="utf-8"))["value"]


def _checksum(data: Any) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "big")


def _check_entry(path: Path, key: str) -> None:
    """Raise an error for a file that is damaged or of another origin."""
    if path.suffix == ".npy":
        data = np.memmap(path, np.uint8, "r")
        if _checksum(data[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:].tobytes():
            raise ValueError(f"{path} does not have its checksum")
        return
    if path.suffix == ".npz":
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            stored_key = str(archive[KEY_NAME])
    else:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if json_sha256(entry["value"]) != entry["sha256"]:
            raise ValueError(f"{path} does not have its checksum")
        stored_key = entry[KEY_NAME]
    if stored_key != key:
        raise ValueError(f"{path} has another key")


@dataclass(frozen=True)
class CachedFeatures(Features):
    """Features whose rows are files of the cache, read block by block."""

    paths: Sequence[Path] = field(default=(), repr=False)

    def block(self, i: int) -> Float[np.ndarray, "rows w"]:
        first, last = self.columns[i]
        out = np.empty((self.n_rows, last - first), self.dtype)
        for row, path in zip(out, self.paths):
            row[:] = np.load(path, mmap_mode="r", allow_pickle=False).reshape(-1)[first:last]
        return out


def load_features(
    store: Cache, keys: Sequence[str], shape: tuple[int, ...], dtype: Any, budget: int, n_rows: int
) -> Features:
    """Load entries as features: in memory if all `n_rows` of the stage fit in `budget` bytes, else read in blocks."""
    row_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    paths = [store.path(key) for key in keys]
    width = block_width(n_rows, row_bytes // np.dtype(dtype).itemsize, np.dtype(dtype).itemsize, budget)
    lazy = CachedFeatures(len(keys), shape, dtype, None, width, paths=paths)
    if n_rows * row_bytes > budget:
        return lazy
    memory = np.empty((len(keys), lazy.size), dtype)
    for row, path in zip(memory, paths):
        row[:] = np.load(path, allow_pickle=False).reshape(-1)
    return Features(len(keys), shape, dtype, None, width, memory)


def block_width(n_rows: int, size: int, itemsize: int, budget: int) -> int:
    """Return the number of features per block such that a block and its copies stay within the budget."""
    full_width = Features(n_rows, (size,)).width
    return (
        full_width
        if n_rows * size * itemsize <= budget
        else max(256, min(full_width, budget // (8 * n_rows * itemsize)))
    )


def damaged_note(names: Sequence[str]) -> list[str]:
    """Return a note on damaged entries, none without any."""
    if not names:
        return []
    count = "1 damaged entry of the cache was" if len(names) == 1 else f"{len(names)} damaged entries of the cache were"
    return [f"{count} computed again, such as {names[0]}"]


def content_key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def source_hash(*patterns: str) -> str:
    """Return a hash of source files (default: all from video files to features), so that keys change with the code."""
    patterns = patterns or (*INPUT_CODE, *ENCODING_CODE)
    return content_key(metadata.version("jaxlib"), platform(), code_hash(*patterns))
