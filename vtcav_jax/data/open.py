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
from vtcav_jax.data.clip import Clip, SamplingConfig, read_clip
from vtcav_jax.data.decode import VideoError
from vtcav_jax.names import escape_control_chars, unknown_name_message

SOURCE_KINDS = {
    "FOLDER": "of class folders, or of videos without labels",
    "FILE": "one video",
    "FILE.csv": "a manifest with the columns path and optionally label, label:HEAD, start, end, boxes",
    "tfds:NAME:SPLIT": "a TFDS dataset on this disk; ?data_dir=FOLDER behind it says where if not in TFDS's place",
    "worlds:NAME:N:SEED": "N clips of a synthetic world; N and SEED may be left out",
}


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


def open_source(spec: str | Path) -> Source:
    """The source that `spec` means; see `SOURCE_KINDS`. What is wrong with it is said now, unreadable videos when
    read."""
    text = str(spec)
    path = Path(text).expanduser()
    scheme, colon, rest = text.partition(":")
    if path.is_dir():
        from vtcav_jax.data import decoded_dataset, folder

        dataset_folder = decoded_dataset.find_prepared(path)
        return (
            decoded_dataset.open_prepared(dataset_folder, text)
            if dataset_folder
            else folder.open_video_folder(path, text)
        )
    if path.exists():
        if path.suffix.lower() == ".csv":
            from vtcav_jax.data import manifest

            return manifest.open_manifest(path, text)
        return FileSource(text, {}, (SourceItem(one_line(path.name), {}, path),))
    if scheme == "worlds" and colon:
        from vtcav_jax.data import world_source

        return world_source.open_world(rest, text)
    if scheme == "tfds" and colon:
        from vtcav_jax.data import tfds

        return tfds.open_tfds(rest, text)
    if colon and scheme.isidentifier() and len(scheme) > 1 and "/" not in scheme:
        raise ValueError(
            f"{unknown_name_message('kind of source', [scheme], ['tfds', 'worlds'])}; and there is no file {text}"
        )
    raise ValueError(f"there is no file or folder {text}; a source is one of {', '.join(SOURCE_KINDS)}")


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
