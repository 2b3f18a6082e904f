"""Maps that were requested on the page, stored in the run folder: found again after a restart, never for other content.

Each file names everything that its map depends on, as the record of an `attribute` run does: hashes of the network and
of the package's code, versions, the video's bytes, sampling, target and method. The folder is bounded; the maps that
were used longest ago are removed first.
"""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vtcav_jax import atomic
from vtcav_jax.checksums import json_sha256
from vtcav_jax.runs.code_version import code_hash, package_versions
from vtcav_jax.serve.films import ClipSampling
from vtcav_jax.serve.maps.clip_maps import ClipMap

REQUESTED_FOLDER = "requested_maps"
MAX_STORED_BYTES, MAX_STORED_MAPS = 256 * 2**20, 2000  # in one run folder


@dataclass(frozen=True)
class MapContent:
    """What a map of a clip depends on, apart from target, method and stage.

    `network` has the hashes of `Network.identity`, `source` is the identity of the videos and `content` that of the
    clip's video, empty if the source determines it.
    """

    network: dict[str, str]
    source: str
    clip: str
    part: int
    sampling: ClipSampling
    content: str
    code: str = field(default_factory=code_hash)
    versions: dict[str, str] = field(default_factory=package_versions)

    @property
    def digest(self) -> str:
        return json_sha256(asdict(self))


@dataclass(frozen=True)
class StoredEntry:
    """What a file says about its map; `is_default`: the stage is the one that the method chooses itself."""

    path: Path
    digest: str  # of the content
    clip: str
    part: int
    target: str
    method: str
    stage: str
    is_default: bool

    def answers(self, target: str, method: str, stage: str) -> bool:
        """Return whether this is the map of a request; an empty stage is the default one."""
        is_stage = self.stage == stage if stage else self.is_default
        return is_stage and (self.target, self.method) == (target, method)


class RequestedMaps:
    """The requested maps of one run folder."""

    def __init__(self, run_folder: Path, max_bytes: int = MAX_STORED_BYTES, max_maps: int = MAX_STORED_MAPS):
        self.folder, self.max_bytes, self.max_maps = run_folder / REQUESTED_FOLDER, max_bytes, max_maps
        self._entries: dict[Path, tuple[tuple[int, int], StoredEntry | None]] = {}
        self._lock = threading.Lock()

    def entries(self, clip: str, part: int) -> list[StoredEntry]:
        """Return the stored maps of a clip, of whatever content."""
        with self._lock:
            known = {}
            for path, stamp in self._files():
                before = self._entries.get(path)
                known[path] = before if before and before[0] == stamp else (stamp, _read_entry(path))
            self._entries = known
            entries = [entry for _, entry in known.values() if entry]
        return [entry for entry in entries if (entry.clip, entry.part) == (clip, part)]

    def load(self, content: MapContent, target: str, method: str, stage: str) -> ClipMap | None:
        """Return the map of this content; None if there is none or its file is damaged, which is then removed."""
        for entry in self.entries(content.clip, content.part):
            if entry.digest != content.digest or not entry.answers(target, method, stage):
                continue
            try:
                with entry.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                    about, values = json.loads(str(arrays["about"])), arrays["map"]
                facts = {name: about[name] for name in ("signed", "answer", "score", "forward_passes")}
                clip_map = ClipMap(entry.target, entry.method, entry.stage, map=values, **facts)
                os.utime(entry.path)  # used now
            except Exception:  # a damaged file can raise anything
                entry.path.unlink(missing_ok=True)
                continue
            return clip_map
        return None

    def save(self, content: MapContent, clip_map: ClipMap, *, is_default: bool) -> None:
        """Store a map, and remove those that were used longest ago if there are too many."""
        names = {"target": clip_map.target, "method": clip_map.method, "stage": clip_map.stage}
        about: dict[str, Any] = {"content": asdict(content), **names}
        about |= {"is_default": is_default, "signed": clip_map.signed, "answer": clip_map.answer}
        about |= {"score": clip_map.score, "forward_passes": clip_map.forward_passes}
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{json_sha256([content.digest, names])[:32]}.npz"
        with atomic.replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, map=clip_map.map, about=np.array(json.dumps(about)))
        self._remove_oldest(path)

    def _remove_oldest(self, newest: Path) -> None:
        files = sorted(self._files(), key=lambda item: item[1][0])
        n_bytes, n_files = sum(size for _, (_, size) in files), len(files)
        for path, (_, size) in files:
            if n_bytes <= self.max_bytes and n_files <= self.max_maps:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                n_bytes, n_files = n_bytes - size, n_files - 1

    def _files(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        """Yield the files with the time of their last use and their size."""
        for path in self.folder.glob("*.npz"):
            try:
                status = path.stat()
            except OSError:  # removed by another server
                continue
            if not atomic.is_temporary(path):
                yield path, (status.st_mtime_ns, status.st_size)


def _read_entry(path: Path) -> StoredEntry | None:
    """Return what a file says about its map, or None if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
        content = about["content"]
        names = {name: str(about[name]) for name in ("target", "method", "stage")}
        entry = StoredEntry(
            path,
            json_sha256(content),
            str(content["clip"]),
            int(content["part"]),
            **names,
            is_default=bool(about["is_default"]),
        )
    except Exception:  # a damaged file can raise anything
        return None
    return entry
