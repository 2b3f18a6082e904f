"""Snapshots of objects: bytes of one version, transferred at most once and only as far as they are read."""

import bisect
import hashlib
import io
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, cast

from vtcav_jax.data.remote.object_store import ObjectStore, ObjectVersion

BLOCK_BYTES = 1 << 17
MAX_FETCH_BYTES = 1 << 23  # consecutive reads fetch more each time, up to this
MAX_SNAPSHOTS = 2  # kept by a process, each as large as what was read of it


class Snapshot:
    """Bytes of one version of an object, or of a range of it, in a temporary file that nobody else sees.

    If the store promises to notice a replacement, blocks are fetched when they are first read. Otherwise everything is
    fetched by one request, so that all bytes are of one version.
    """

    def __init__(
        self, store: ObjectStore, address: str, version: ObjectVersion, offset: int = 0, size: int | None = None
    ):
        self._store, self._address, self._offset = store, address, offset
        self._file = tempfile.TemporaryFile(prefix="vtcav")  # noqa: SIM115 closed by the next line
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._next_block, self._fetch_blocks = 0, 1
        if version.is_fixed:
            assert version.size is not None
            self.size = version.size if size is None else size
            self._blocks = bytearray(-(-self.size // BLOCK_BYTES))  # 1: present
            return
        if size is None:
            store.download(address, cast(io.BufferedIOBase, self._file))
            self.size = self._file.seek(0, 2)
        else:
            self.size = size
            self._file.write(store.read_range(address, offset, offset + size))
        self._blocks = bytearray(b"\1" * -(-self.size // BLOCK_BYTES))

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to before `stop`, fewer at the end."""
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        with self._lock:
            self._fetch(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))
            self._file.seek(start)
            return self._file.read(stop - start)

    def sha256(self) -> str:
        """Return the hash of all bytes."""
        digest = hashlib.sha256()
        for start in range(0, self.size, MAX_FETCH_BYTES):
            digest.update(self.read(start, start + MAX_FETCH_BYTES))
        return digest.hexdigest()

    def _fetch(self, first: int, last: int) -> None:
        """Fetch the missing ones of the blocks from `first` to before `last`, and more if reads are consecutive."""
        while (first := self._blocks.find(0, first, last)) >= 0:
            if first == self._next_block:
                self._fetch_blocks = min(2 * self._fetch_blocks, MAX_FETCH_BYTES // BLOCK_BYTES)
            else:
                self._fetch_blocks = 1
            end = min(max(last, first + self._fetch_blocks), first + MAX_FETCH_BYTES // BLOCK_BYTES, len(self._blocks))
            present = self._blocks.find(1, first, end)
            end = end if present < 0 else present
            start, stop = first * BLOCK_BYTES, min(end * BLOCK_BYTES, self.size)
            data = self._store.read_range(self._address, self._offset + start, self._offset + stop)
            self._file.seek(start)
            self._file.write(data)
            self._blocks[first:end] = b"\1" * (end - first)
            self._next_block = first = end


class SeekableBytes(io.RawIOBase):
    """Place in a known number of bytes, of which subclasses read some."""

    def __init__(self, size: int):
        self._size, self._place = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place


class SnapshotFile(SeekableBytes):
    """Seekable file of a snapshot for decoders."""

    def __init__(self, snapshot: Snapshot):
        super().__init__(snapshot.size)
        self._snapshot = snapshot
        self._skipped: Sequence[tuple[int, int]] = ()

    def skip_ranges(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Return zeros for bytes in these sorted ranges instead of fetching them."""
        self._skipped = ranges

    def readinto(self, buffer: Any) -> int:
        begin = self._place
        stop = min(begin + len(buffer), self._snapshot.size)
        while self._place < stop:
            end, is_skipped = self._next_border(stop)
            data = bytes(end - self._place) if is_skipped else self._snapshot.read(self._place, end)
            buffer[self._place - begin : end - begin] = data
            self._place = end
        return max(0, stop - begin)

    def _next_border(self, stop: int) -> tuple[int, bool]:
        """Return where the part that begins here ends, at most `stop`, and whether it is skipped."""
        i = bisect.bisect_right(self._skipped, self._place, key=lambda part: part[1])
        if i == len(self._skipped):
            return stop, False
        begin, end = self._skipped[i]
        return (min(end, stop), True) if begin <= self._place else (min(begin, stop), False)


_snapshots: OrderedDict[Hashable, Snapshot] = OrderedDict()
_snapshots_lock = threading.Lock()


def cached_snapshot(
    store: ObjectStore, address: str, version: ObjectVersion, offset: int = 0, size: int | None = None
) -> Snapshot:
    """Return the snapshot of this version that the process has, or make one.

    A version without any mark of change can have been replaced since, so that its snapshot is not used again.
    """
    if not (version.checksum or version.change_mark):
        return Snapshot(store, address, version, offset, size)
    key = (address, version, offset, size)
    with _snapshots_lock:
        if key in _snapshots:
            _snapshots.move_to_end(key)
            return _snapshots[key]
    snapshot = Snapshot(store, address, version, offset, size)
    with _snapshots_lock:
        _snapshots[key] = snapshot
        while len(_snapshots) > MAX_SNAPSHOTS:
            _snapshots.popitem(last=False)
    return snapshot
