"""`Source`, the interface of clip sources, and the source of video files.

Sources are small and picklable, since they are sent to workers; they import neither jax nor a decoder before a read.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, overload, runtime_checkable
from urllib.parse import unquote

from vtcav_jax.checksums import file_sha256, json_sha256, shared_file_sha256
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import Clip, SamplingConfig, read_clip
from vtcav_jax.data.decode import VideoError
from vtcav_jax.data.remote.stored_video import StoredVideo
from vtcav_jax.names import escape_control_chars


@dataclass(frozen=True)
class SourceItem:
    """Name, labels and location of one item of a source."""

    name: str  # printable and unique in the source
    labels: dict[str, int] = field(default_factory=dict)  # class index by head; unlabelled heads are missing
    path: Path | None = None
    start: float | None = None  # seconds; `start` and `end` select a part of the video
    end: float | None = None
    boxes: Path | None = None  # CSV of bounding boxes
    source: str = ""  # video that the item was cut from, if other items can be from the same one
    stored_video: StoredVideo | None = None  # in place of `path`: at an address, or in a tar file
    further_labels: dict[str, tuple[int, ...]] = field(default_factory=dict)  # other classes of a head that it shows

    @property
    def source_video(self) -> str:
        """Name of the video that the item comes from: clips of one video are not independent observations."""
        return self.source or self.name

    @property
    def recording(self) -> str:
        """Name of the video that the item's file was cut from; empty if the file itself is that video, or unknown."""
        places = [self.path.as_posix()] if self.path is not None else []
        if self.stored_video is not None:
            places += [self.stored_video.location, unquote(self.stored_video.location)]
        return "" if any(place.endswith(self.source) for place in places) else self.source


@runtime_checkable
class Source(Protocol):
    """Interface of clip sources; implementations must be picklable."""

    @property
    def spec(self) -> str: ...

    @property
    def heads(self) -> dict[str, tuple[str, ...]]:
        """Class names of each head that items are labelled for; a single head is named `label`."""
        ...

    @property
    def items(self) -> Sequence[SourceItem]: ...

    @property
    def identity(self) -> str:
        """Hash of the names, parts and labels of the items; see `item_content` for what their files contain."""
        ...

    def read(self, i: int, clip_spec: ClipSpec, sampling: SamplingConfig) -> Clip:
        """Read item i; raise `VideoError` if it cannot be read."""
        ...


def item_content(source: Source, i: int) -> str | None:
    """Return `Clip.content` of an item without decoding it; None if the source's identity determines the content."""
    item = source.items[i]
    if item.stored_video is not None:
        return item.stored_video.resolve().content()
    if item.path is not None:
        return file_sha256(item.path) if item.start is None and item.end is None else shared_file_sha256(item.path)
    stored_content = getattr(source, "content", None)
    return None if stored_content is None else stored_content(i)


def is_unchanged(source: Source, i: int, content: str) -> bool:
    """Return whether an item still has the content that a result was computed from; a missing file has not."""
    try:
        return item_content(source, i) in (None, content)
    except OSError:
        return False


@dataclass(frozen=True)
class FileSource:
    """Source of videos: a folder, a manifest, annotations of a data set, a single file, addresses, or tar files."""

    spec: str
    heads: dict[str, tuple[str, ...]]
    items: tuple[SourceItem, ...]
    notes: tuple[str, ...] = ()  # on videos that are missing

    @property
    def identity(self) -> str:
        file_facts = [(item.name, item.labels, item.start, item.end) for item in self.items]
        sources = [item.source for item in self.items]
        further = [item.further_labels for item in self.items]
        optional_facts = [facts for facts in (sources, further) if any(facts)]
        return json_sha256([self.heads, file_facts, *optional_facts])

    def read(self, i: int, clip_spec: ClipSpec, sampling: SamplingConfig) -> Clip:
        item = self.items[i]
        video = item.stored_video or item.path
        assert video is not None
        if item.path is not None and item.path.is_dir():
            raise VideoError(f"{item.path.name} is a folder that cannot be listed; check its permissions")
        time_range = None
        if item.start is not None or item.end is not None:
            time_range = (item.start or 0.0, float("inf") if item.end is None else item.end)
        return read_clip(video, clip_spec, sampling.with_random_start(i), time_range=time_range)


@dataclass(frozen=True)
class LazySequence(Sequence[SourceItem]):
    """Sequence whose items are made on access."""

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
    """Escape line breaks and control characters, which file names may contain, for use in tables."""
    return escape_control_chars(text).replace("\n", "\\n")


def disambiguate(names: Iterable[str]) -> list[str]:
    """Make names unique by appending a number to repeated ones."""
    seen: set[str] = set()
    counts: dict[str, int] = {}  # the last number of each name, so that many equal names take linear time
    unique_names = []
    for name in names:
        candidate, count = name, counts.get(name, 1)
        while candidate in seen:
            count += 1
            candidate = f"{name} ({count})"
        counts[name] = count
        seen.add(candidate)
        unique_names.append(candidate)
    return unique_names
