"""Results of videos on disk, one file each: those of an interrupted run are used again if they are still valid."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtcav_jax.attribution.videos.map_store import result_stem
from vtcav_jax.checksums import check_archive, file_sha256
from vtcav_jax.console import info
from vtcav_jax.data.source import Source, is_unchanged

ReadContent = Callable[[Path], str]  # checks a file and returns `Clip.content` of the video that it belongs to


@dataclass(frozen=True)
class StoredResults:
    """Folder of results with one file per video of a source."""

    folder: Path
    suffix: str
    source: Source
    read_content: ReadContent

    def path(self, i: int) -> Path:
        return self.folder / f"{result_stem(i, self.source.items[i])}{self.suffix}"

    def has_result(self, i: int) -> bool:
        """Return whether there is a file of video i, valid or not."""
        return self.path(i).exists()

    def paths(self) -> list[Path]:
        """Return the files of the source's videos, in their order."""
        return [path for i, path in self._files() if self.path(i) == path]

    def drop_invalid(self) -> tuple[list[int], int]:
        """Remove damaged files and those of videos that have changed; return the videos without one.

        The second value is the number of removed files, which a note names too. Other files are left alone.
        """
        valid, damaged, changed = set(), [], []
        for i, path in self._files():
            if self.path(i) != path:
                continue
            try:
                content = self.read_content(path)
            except Exception:  # a damaged file can raise anything
                damaged.append(path)
                continue
            if is_unchanged(self.source, i, content):
                valid.add(i)
            else:
                changed.append(path)
        for paths, reason in (
            (damaged, "damaged or incomplete"),
            (changed, "of videos whose files have changed since"),
        ):
            note_recomputed(paths, reason)
        for path in (*damaged, *changed):
            path.unlink()
        return [i for i in range(len(self.source.items)) if i not in valid], len(damaged) + len(changed)

    def _files(self) -> list[tuple[int, Path]]:
        """Return the files that begin with the number of a video, with that number, in the order of videos."""
        numbered = [(path.name.partition("_")[0], path) for path in self.folder.glob(f"*{self.suffix}")]
        count = len(self.source.items)
        return sorted((int(n), path) for n, path in numbered if n.isascii() and n.isdigit() and int(n) < count)


def note_recomputed(paths: Iterable[Path], reason: str) -> None:
    """Print how many stored results are computed again, and why."""
    if names := sorted(f"{path.parent.name}/{path.name}" for path in paths):
        plural, verb = ("", "is") if len(names) == 1 else ("s", "are")
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        info(f"note: {len(names)} stored result{plural}, {names[0]}{more}, {verb} {reason}; computed again")


def read_about(path: Path) -> dict[str, Any]:
    """Return the JSON `about` of an `.npz` file, after checking all its bytes; a damaged file raises an error."""
    check_archive(path)
    with np.load(path, allow_pickle=False) as arrays:
        return json.loads(str(arrays["about"]))


def npz_content(path: Path) -> str:
    """Return `Clip.content` of the video of an `.npz` file, after checking its bytes and those of its animations."""
    about = read_about(path)
    for name, digest in about.get("animations", {}).items():
        if file_sha256(path.parent / name) != digest:
            raise ValueError(f"{name} is damaged")
    return str(about["content"])


def animation_hashes(paths: Iterable[Path], folder: Path) -> dict[str, str]:
    """Return the SHA-256 of animations by their path from `folder`, to be stored in an `.npz` file there."""
    return {os.path.relpath(path, folder): file_sha256(path) for path in paths}
