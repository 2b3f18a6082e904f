"""Sources made of WebDataset shards: tar files whose members with the same key are one sample.

Members are found once, when the source is opened, and are read as ranges of bytes. Nothing is extracted, so that links,
devices and paths in a tar file have no effect.
"""

import io
import itertools
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vtcav_jax.console import progress, warn
from vtcav_jax.data.remote.addresses import is_address, object_name
from vtcav_jax.data.remote.object_store import ObjectError, store_of
from vtcav_jax.data.remote.snapshot import Snapshot, SnapshotFile
from vtcav_jax.data.remote.stored_video import StoredVideo, file_version, object_version_text
from vtcav_jax.data.source import FileSource, SourceItem, disambiguate, one_line
from vtcav_jax.names import abridged_list

MAX_SHARDS = 100_000
MAX_LABEL_BYTES = 1 << 20
LISTING_THREADS = 8  # tar files listed at the same time; each waits for its store most of the time
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"),
    *(".gif", ".mjpeg", ".h264", ".y4m", ".vob", ".mxf"),
)
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_SAMPLE_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)")  # key, and everything after the first dot


@dataclass(frozen=True)
class ShardSample:
    """Video of a shard with its label, or the reason why it cannot be read."""

    video: StoredVideo
    label: str | None = None
    source: str = ""  # name of the sample if it has several videos, which are not independent


def is_shard_pattern(text: str) -> bool:
    """Return whether a specification names tar files."""
    return text.lower().endswith((".tar", *_COMPRESSED))


def expand_braces(pattern: str) -> list[str]:
    """Return the names of a pattern: `{000..007}` for numbers of this width, `{a,b}` for alternatives."""
    parts = _BRACES.split(pattern)
    choices = [[text] if i % 2 == 0 else _alternatives(text, pattern) for i, text in enumerate(parts)]
    count = 1
    for alternatives in choices:
        count *= len(alternatives)
    if count > MAX_SHARDS:
        raise ValueError(f"{pattern} names {count} tar files; expected at most {MAX_SHARDS}")
    return ["".join(combination) for combination in itertools.product(*choices)]


def _alternatives(text: str, pattern: str) -> Sequence[str]:
    if match := _RANGE.fullmatch(text):
        first, last = int(match[1]), int(match[2])
        if last - first >= MAX_SHARDS:
            raise ValueError(f"{pattern} names {last - first + 1} tar files; expected at most {MAX_SHARDS}")
        if first <= last:
            width = len(match[1]) if match[1].startswith("0") or match[2].startswith("0") else 0
            return [f"{number:0{max(width, len(match[2]) if width else 0)}d}" for number in range(first, last + 1)]
    elif "," in text:
        return text.split(",")
    raise ValueError(f"{pattern}: {{{text}}} is no list of names; expected {{000..007}} or {{a,b}}")


def open_shards(pattern: str, spec: str) -> FileSource:
    """Open the tar files of a pattern; tar files that cannot be read, and damaged ones, are failures of the source."""
    if pattern.lower().endswith(_COMPRESSED):
        raise ValueError(f"{spec} is compressed, so that its members cannot be read by themselves; decompress it first")
    paths = expand_braces(pattern)
    for address in filter(is_address, paths):
        store_of(address)
    with ThreadPoolExecutor(LISTING_THREADS, "shards") as pool:
        samples_by_path = dict(progress(zip(paths, pool.map(list_samples, paths)), len(paths), "shards listed"))
    samples = [sample for path in paths for sample in samples_by_path[path]]
    faults = [sample.video.fault for sample in samples if sample.video.fault]
    if len(faults) == len(samples):
        raise ValueError(faults[0] if faults else f"{spec} has no samples with a video ({', '.join(VIDEO_SUFFIXES)})")
    labels = [sample.label for sample in samples]
    classes = _class_names({label for label in labels if label is not None})
    index = {name: i for i, name in enumerate(classes)}
    names = disambiguate(_item_name(sample.video) for sample in samples)
    items = tuple(
        SourceItem(
            name,
            {} if label is None else {"label": index[label]},
            source=sample.source,
            stored_video=sample.video,
        )
        for name, label, sample in zip(names, labels, samples)
    )
    return FileSource(spec, {"label": tuple(map(one_line, classes))} if classes else {}, items)


def list_samples(path: str) -> list[ShardSample]:
    """Return the samples of a tar file; a fault is a sample that cannot be read."""
    shard = _shard_name(path)
    samples: list[ShardSample] = []
    try:
        file, version = _open_shard(path)
        with file:
            for sample in _read_samples(file, path, version):
                samples.append(sample)
    except (OSError, tarfile.TarError) as error:
        after = f" after {len(samples)} samples" if samples else ""
        damage = f"{shard} is damaged ({error}){after}; copy it again from its source"
        fault = str(error) if isinstance(error, ObjectError) else damage
        samples.append(ShardSample(StoredVideo(path, fault=fault)))
    return samples


def _open_shard(path: str) -> tuple[io.RawIOBase | io.BufferedIOBase, str]:
    """Open a tar file, and return its version too."""
    if not is_address(path):
        if not Path(path).is_file():
            raise ObjectError(f"there is no file {path}; expected a tar file")
        return Path(path).open("rb"), file_version(path)
    store = store_of(path)
    version = store.version(path)
    if not version.has_ranges or not (version.checksum or version.change_mark):
        raise ObjectError(
            f"the server of {object_name(path)} has no range requests or no entity tags, so that members cannot be read"
            " by themselves; download it first"
        )
    return SnapshotFile(Snapshot(store, path, version)), object_version_text(version)


def _read_samples(file: Any, path: str, version: str) -> Iterator[ShardSample]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        n_samples, without_video = 0, Counter[str]()
        for key, parts in _group_members(archive):
            videos = [member for name, member in parts.items() if f".{name.rpartition('.')[2]}" in VIDEO_SUFFIXES]
            n_samples += 1
            if not videos:
                without_video[", ".join(sorted(parts))] += 1
                continue
            label, fault = _read_label(file, parts)
            source = one_line(f"{_shard_name(path).removesuffix('.tar')}/{key}")
            for member in videos:
                place = StoredVideo(path, member.offset_data, member.size, one_line(member.name), version, fault)
                yield ShardSample(place, label, source if len(videos) > 1 else "")
        if without_video:
            kinds = abridged_list([f"{count} with {names}" for names, count in without_video.most_common(3)])
            warn(f"{without_video.total()} of {n_samples} samples of {_shard_name(path)} have no video ({kinds})")
        # tarfile takes a damaged header for the end of the archive, which is marked by a block of zeros.
        file.seek(archive.offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"no valid header at byte {archive.offset}")


def _group_members(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yield key and members by extension of each sample: consecutive members of one key with different extensions."""
    key, parts = "", {}
    try:
        for member in archive:
            if (match := _sample_match(member)) is None:
                continue
            extension = match[2].lower()
            if parts and (match[1] != key or extension in parts):
                yield key, parts
                parts = {}
            key = match[1]
            parts[extension] = member
    except (OSError, tarfile.TarError):
        if parts:  # before the damaged place
            yield key, parts
        raise
    if parts:
        yield key, parts


def _sample_match(member: tarfile.TarInfo) -> re.Match[str] | None:
    name = PurePosixPath(member.name).name
    if not member.isreg() or member.issparse() or (name.startswith("__") and name.endswith("__")):
        return None
    return _SAMPLE_NAME.fullmatch(member.name)


def _read_label(file: Any, parts: dict[str, tarfile.TarInfo]) -> tuple[str | None, str]:
    """Return the label in `cls` or `json`, and a reason if it cannot be read."""
    name = "cls" if "cls" in parts else "json"
    if name not in parts:
        return None, ""
    member = parts[name]
    if member.size > MAX_LABEL_BYTES:
        return None, f"{one_line(member.name)} has {member.size} bytes; expected a label"
    place = file.tell()
    file.seek(member.offset_data)
    data = file.read(member.size)
    file.seek(place)
    try:
        text = data.decode("utf-8").strip()
        if name == "cls":
            return (text, "") if text else (None, f"{one_line(member.name)} is empty; expected a label")
        value = json.loads(text)
    except ValueError as error:
        return None, f"{one_line(member.name)} has no label that can be read ({error})"
    label = value.get("label") if isinstance(value, dict) else None
    if label is None:
        return None, ""
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        return None, f"{one_line(member.name)}: the label is {label!r:.50}; expected a name or an index"
    return str(label).strip(), ""


def _class_names(labels: Iterable[str]) -> list[str]:
    """Return the classes: sorted names, or indices from 0 to the largest if all labels are indices."""
    labels = set(labels)
    if labels and all(label.isascii() and label.isdigit() and label == str(int(label)) for label in labels):
        largest = max(map(int, labels))
        if largest < MAX_SHARDS:
            return [str(i) for i in range(largest + 1)]
    return sorted(labels)


def _shard_name(path: str) -> str:
    return one_line(object_name(path) if is_address(path) else Path(path).name)


def _item_name(video: StoredVideo) -> str:
    shard = _shard_name(video.location)
    return f"{shard.removesuffix('.tar')}/{video.member}" if video.member else shard
