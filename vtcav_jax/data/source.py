"""`Source`: the interface of everything that clips come from, and sources made of files.

Sources are small, are sent to worker processes, and import neither jax nor a decoder before something is read.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import Clip, SamplingConfig, read_clip
from vtcav_jax.data.decode import VideoError
from vtcav_jax.names import escape_control_chars


@dataclass(frozen=True)
class SourceItem:
    """One clip of a source, before it is read."""

    name: str  # printable, and no other item of the source has it
    labels: dict[str, int] = field(default_factory=dict)  # by head; a head whose answer is not known is not in it
    path: Path | None = None
    start: float | None = None  # of the part that is meant, in seconds
    end: float | None = None
    boxes: Path | None = None  # CSV of where things are


@runtime_checkable
class Source(Protocol):
    """Anything with these five; it must be possible to pickle it."""

    @property
    def spec(self) -> str: ...

    @property
    def heads(self) -> dict[str, tuple[str, ...]]:
        """The names of the classes of each question that items are labelled for; `label` where there is one only."""
        ...

    @property
    def items(self) -> Sequence[SourceItem]: ...

    @property
    def identity(self) -> str:
        """Differs where clips or labels do, as far as that can be told without reading all of it."""
        ...

    def read(self, i: int, clip_spec: ClipSpec, sampling: SamplingConfig) -> Clip:
        """Item i; what cannot be read raises `VideoError`."""
        ...


@dataclass(frozen=True)
class FileSource:
    """Videos in files: a folder, a manifest, or a single one."""

    spec: str
    heads: dict[str, tuple[str, ...]]
    items: tuple[SourceItem, ...]

    @property
    def identity(self) -> str:
        sizes = [item.path.stat().st_size if item.path and item.path.is_file() else -1 for item in self.items]
        file_facts = [(item.name, item.labels, item.start, item.end, size) for item, size in zip(self.items, sizes)]
        return json_sha256([self.heads, file_facts])

    def read(self, i: int, clip_spec: ClipSpec, sampling: SamplingConfig) -> Clip:
        item = self.items[i]
        assert item.path is not None
        if item.path.is_dir():
            raise VideoError(f"{item.path.name} is a folder that cannot be looked into; check its permissions")
        time_range = None
        if item.start is not None or item.end is not None:
            time_range = (item.start or 0.0, float("inf") if item.end is None else item.end)
        return read_clip(item.path, clip_spec, sampling.with_random_start(i), time_range=time_range)


@dataclass(frozen=True)
class LazySequence(Sequence[SourceItem]):
    """Items that are made when they are asked for."""

    length: int
    make_item: Callable[[int], SourceItem]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, i: int) -> SourceItem: ...

    @overload
    def __getitem__(self, i: slice) -> tuple[SourceItem, ...]: ...

    def __getitem__(self, i: int | slice) -> SourceItem | tuple[SourceItem, ...]:
        if isinstance(i, slice):
            return tuple(self.make_item(j) for j in range(self.length)[i])
        return self.make_item(range(self.length)[i])


def one_line(text: str) -> str:
    """For a table: names of files may hold line breaks and whatever else."""
    return escape_control_chars(text).replace("\n", "\\n")


def json_sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def disambiguate(names: Iterable[str]) -> list[str]:
    """The names, with a number behind those that have come before."""
    seen: set[str] = set()
    unique_names = []
    for name in names:
        candidate, count = name, 1
        while candidate in seen:
            count += 1
            candidate = f"{name} ({count})"
        seen.add(candidate)
        unique_names.append(candidate)
    return unique_names
