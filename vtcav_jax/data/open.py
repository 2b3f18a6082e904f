"""Where clips come from, behind one interface: `open_source("FOLDER")`, `"FILE.csv"`, `"tfds:NAME:SPLIT"`, ...

Sources are small, are sent to worker processes, and import neither jax nor a decoder before something is read.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import Clip, How, read_clip
from vtcav_jax.data.decode import VideoError
from vtcav_jax.names import printable, unknown

KINDS = {
    "FOLDER": "of class folders, or of videos without labels",
    "FILE": "one video",
    "FILE.csv": "a manifest with the columns path and optionally label, label:HEAD, start, end, boxes",
    "tfds:NAME:SPLIT": "a TFDS dataset on this disk; ?data_dir=FOLDER behind it says where if not in TFDS's place",
    "worlds:NAME:N:SEED": "N clips of a synthetic world; N and SEED may be left out",
}


@dataclass(frozen=True)
class Item:
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
    def items(self) -> Sequence[Item]: ...

    @property
    def identity(self) -> str:
        """Differs where clips or labels do, as far as that can be told without reading all of it."""
        ...

    def read(self, i: int, geometry: ClipSpec, how: How) -> Clip:
        """Item i; what cannot be read raises `VideoError`."""
        ...


@dataclass(frozen=True)
class Files:
    """Videos in files: a folder, a manifest, or a single one."""

    spec: str
    heads: dict[str, tuple[str, ...]]
    items: tuple[Item, ...]

    @property
    def identity(self) -> str:
        sizes = [item.path.stat().st_size if item.path and item.path.is_file() else -1 for item in self.items]
        told = [(item.name, item.labels, item.start, item.end, size) for item, size in zip(self.items, sizes)]
        return digest([self.heads, told])

    def read(self, i: int, geometry: ClipSpec, how: How) -> Clip:
        item = self.items[i]
        assert item.path is not None
        if item.path.is_dir():
            raise VideoError(f"{item.path.name} is a folder that cannot be looked into; check its permissions")
        part = None
        if item.start is not None or item.end is not None:
            part = (item.start or 0.0, float("inf") if item.end is None else item.end)
        return read_clip(item.path, geometry, how.drawn(i), within=part)


@dataclass(frozen=True)
class Lazy(Sequence[Item]):
    """Items that are made when they are asked for."""

    length: int
    make: Callable[[int], Item]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, i: int) -> Item: ...

    @overload
    def __getitem__(self, i: slice) -> tuple[Item, ...]: ...

    def __getitem__(self, i: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(i, slice):
            return tuple(self.make(j) for j in range(self.length)[i])
        return self.make(range(self.length)[i])


def open_source(spec: str | Path) -> Source:
    """The source that `spec` means; see `KINDS`. What is wrong with it is said now, unreadable videos when read."""
    text = str(spec)
    path = Path(text).expanduser()
    scheme, colon, rest = text.partition(":")
    if path.is_dir():
        from vtcav_jax.data import decoded_dataset, folder

        found = decoded_dataset.find(path)
        return decoded_dataset.opened(found, text) if found else folder.opened(path, text)
    if path.exists():
        if path.suffix.lower() == ".csv":
            from vtcav_jax.data import manifest

            return manifest.opened(path, text)
        return Files(text, {}, (Item(one_line(path.name), {}, path),))
    if scheme == "worlds" and colon:
        from vtcav_jax.data import world_source

        return world_source.opened(rest, text)
    if scheme == "tfds" and colon:
        from vtcav_jax.data import tfds

        return tfds.opened(rest, text)
    if colon and scheme.isidentifier() and len(scheme) > 1 and "/" not in scheme:
        raise ValueError(f"{unknown('kind of source', [scheme], ['tfds', 'worlds'])}; and there is no file {text}")
    raise ValueError(f"there is no file or folder {text}; a source is one of {', '.join(KINDS)}")


def one_line(text: str) -> str:
    """For a table: names of files may hold line breaks and whatever else."""
    return printable(text).replace("\n", "\\n")


def digest(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def unique(names: Iterable[str]) -> list[str]:
    """The names, with a number behind those that have come before."""
    seen: set[str] = set()
    out = []
    for name in names:
        other, count = name, 1
        while other in seen:
            count += 1
            other = f"{name} ({count})"
        seen.add(other)
        out.append(other)
    return out
