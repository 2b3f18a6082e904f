"""`StoredVideo`: a video that is no file of its own: an object of a store or web server, or a member of a tar file."""

import hashlib
import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vtcav_jax.checksums import json_sha256
from vtcav_jax.data.remote.addresses import is_address, object_name, printable_address, without_signature
from vtcav_jax.data.remote.object_store import ObjectError, ObjectVersion, store_of
from vtcav_jax.data.remote.snapshot import SeekableBytes, SnapshotFile, cached_snapshot

CHECKSUM_PREFIX = "object:"  # of contents that a store vouches for; others are the SHA-256 of the bytes
_REQUESTS = itertools.count()


def file_version(path: str) -> str:
    """Return a text that changes when a local file is replaced or written."""
    status = os.stat(path)
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def object_version_text(version: ObjectVersion) -> str:
    """Return a text that changes when an object is replaced; an entity tag of an object that settles is no change."""
    return f"{version.size} {version.change_mark or version.checksum}"


@dataclass(frozen=True)
class StoredVideo:
    """Video at an address, or in a range of bytes of a tar file; only its place is stored, and sent to workers."""

    location: str  # address, or path of a tar file
    offset: int = 0
    size: int | None = None  # None: the whole object
    member: str = ""  # name in the tar file
    container: str = ""  # version of the tar file when its members were listed
    fault: str = ""  # reason why it cannot be read, if that is known already

    @property
    def name(self) -> str:
        """Name for messages, without credentials."""
        if self.member:
            return self.member
        return object_name(self.location) if is_address(self.location) else Path(self.location).name

    def __str__(self) -> str:
        place = printable_address(self.location) if is_address(self.location) else self.location
        return f"{place}::{self.member}" if self.member else place

    def resolve(self) -> "ResolvedVideo":
        """Return the present version of the video; raise OSError if it cannot be reached."""
        if self.fault:
            raise ObjectError(self.fault)
        if not is_address(self.location):
            self._check_container(file_version(self.location))
            return ResolvedVideo(self, None)
        version = store_of(self.location).version(self.location)
        self._check_container(object_version_text(version))
        if not (version.checksum or version.change_mark):  # it can have been replaced since it was last read
            version = replace(version, change_mark=f"request {next(_REQUESTS)}")
        return ResolvedVideo(self, version)

    def _check_container(self, current: str) -> None:
        if self.container and current != self.container:
            raise ObjectError(f"{self} was replaced since it was listed; run again")


@dataclass(frozen=True)
class ResolvedVideo:
    """Version of a stored video; two that are equal have the same bytes."""

    video: StoredVideo
    version: ObjectVersion | None  # None: in a local tar file

    @property
    def name(self) -> str:
        return self.video.name

    def __str__(self) -> str:
        return str(self.video)

    @property
    def reads_ranges(self) -> bool:
        """Return True if parts that are not read are not transferred either."""
        return self.version is not None and self.version.is_fixed

    def content(self) -> str:
        """Return what identifies the bytes: a checksum that the store vouches for, else their SHA-256."""
        if self.version is None or self.version.checksum is None:
            with self.open() as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        facts = [self.version.size, self.version.checksum, self.video.offset, self.video.size]
        return CHECKSUM_PREFIX + json_sha256([without_signature(self.video.location), *facts])

    def open(self) -> Any:
        """Open the bytes of the video."""
        place = self.video
        if self.version is None:
            assert place.size is not None
            return FileRange(Path(place.location), place.offset, place.size)
        store = store_of(place.location)
        return SnapshotFile(cached_snapshot(store, place.location, self.version, place.offset, place.size))

    def check_unchanged(self) -> None:
        """Raise OSError if the video was replaced since it was resolved, so that what was read may be of both."""
        if self.version is None or self.version.checksum or self.video.container:
            latest = self.video.resolve().version
            if latest and self.version and object_version_text(latest) != object_version_text(self.version):
                raise ObjectError(f"{self} was replaced while it was read; run again")


class FileRange(SeekableBytes):
    """Seekable file of a range of another file's bytes."""

    def __init__(self, path: Path, offset: int, size: int):
        super().__init__(size)
        self._file, self._offset = path.open("rb"), offset

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._place)
        data = self._file.read(min(len(buffer), max(0, self._size - self._place)))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
