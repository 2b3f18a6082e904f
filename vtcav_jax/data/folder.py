"""Source made of a folder: one folder of videos per class, or videos without labels."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from vtcav_jax.data.source import FileSource, SourceItem, disambiguate, one_line

# Suffixes of files that accompany videos in datasets. Any other file counts as a video, so that broken ones are
# reported.
NON_VIDEO_SUFFIXES = frozenset(
    [
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".txt",
        ".md",
        ".rst",
        ".xml",
        ".yaml",
        ".yml",
        ".html",
        ".pdf",
        ".log",
        ".flags",
        ".srt",
        ".vtt",
        ".ass",
        ".sub",
        ".jpg",
        ".svg",
        ".jpeg",
        ".png",
        ".bmp",
        ".webp",
        ".tif",
        ".tiff",
        ".wav",
        ".mp3",
        ".flac",
        ".m4a",
        ".npy",
        ".npz",
        ".pkl",
        ".pt",
        ".pth",
        ".h5",
        ".hdf5",
        ".mat",
        ".parquet",
        ".safetensors",
        ".zip",
        ".tar",
        ".gz",
        ".tgz",
        ".bz2",
        ".xz",
        ".7z",
        ".rar",
        ".py",
        ".sh",
        ".ipynb",
        ".db",
        ".ini",
        ".part",
        ".tmp",
        ".md5",
        ".sha1",
        ".sha256",
        ".torrent",
        ".aria2",
    ]
)
NON_VIDEO_NAMES = frozenset({"readme", "license", "licence", "copying", "changelog", "makefile", "checksums"})


def open_video_folder(folder: Path, spec: str) -> FileSource:
    """Open a folder; classes are its first-level folders that contain videos at any depth, sorted by name."""
    paths = [path.relative_to(folder) for path in _find_videos(folder, frozenset())]
    if paths == [Path()]:
        raise ValueError(f"{spec} cannot be listed; check its permissions")
    if not paths:
        raise ValueError(no_video_message(spec, (path.name for path in folder.iterdir())))
    # A class folder that cannot be listed, and a broken link, say nothing about the layout; reading them fails later.
    class_of = {path: _class_of(path, folder) for path in paths}
    unlabelled_paths = [path for path in paths if not class_of[path] and (folder / path).exists()]
    classes = sorted({name for name in class_of.values() if name})
    if unlabelled_paths and classes:
        raise ValueError(
            f"{spec} contains class folders and {len(unlabelled_paths)} videos without a class"
            f" ({unlabelled_paths[0]!s:.100}); move them into a folder, or use a CSV manifest"
        )
    names = disambiguate(one_line(path.as_posix()) for path in paths)
    class_index = {name: i for i, name in enumerate(classes)}
    items = (
        SourceItem(name, {"label": class_index[class_of[path]]} if class_of[path] else {}, folder / path)
        for name, path in zip(names, paths)
    )
    return FileSource(spec, {"label": tuple(map(one_line, classes))} if classes else {}, tuple(items))


def no_video_message(folder: str, names: Iterable[str]) -> str:
    """Return the message for a folder of these names without videos; tar files of videos are opened by their names."""
    message = f"there is no video in {folder}; expected videos, or one folder of videos per class"
    if shards := sorted(name for name in names if name.lower().endswith(".tar")):
        example = one_line(f"{folder.rstrip('/')}/{shards[0]}")
        message += f"; for tar files of videos pass their names, such as {example} or SHARDS-{{000..007}}.tar"
    return message


def _class_of(path: Path, folder: Path) -> str:
    """Return the first-level folder of a path in `folder`; empty for a video without one."""
    first, *rest = path.parts
    return first if rest or (folder / path).is_dir() else ""


def _find_videos(folder: Path, ancestors: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Yield files at any depth, following links except to ancestors, and yield each unreadable folder itself."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    folder_id = (status.st_dev, status.st_ino)
    if folder_id in ancestors:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if _is_folder(entry):
            yield from _find_videos(path, ancestors | {folder_id})
        elif is_video_name(entry.name):
            yield path


def is_video_name(name: str) -> bool:
    """Return whether a file of this name counts as a video, and not as one that accompanies videos."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix not in NON_VIDEO_SUFFIXES and name.lower() not in NON_VIDEO_NAMES


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
