"""Locks that keep two processes from writing the same folder."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no locks
    fcntl = None

LOCK_FILE = ".lock"  # not a result file, which might be replaced while it is locked
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_locked_files: ContextVar[dict[Path, int] | None] = ContextVar("locked_files", default=None)  # open descriptors


@contextmanager
def exclusive_folders() -> Iterator[None]:
    """Lock the folders that `lock_folder` names in this context: other processes cannot write them until it ends."""
    locks: dict[Path, int] = {}
    token = _locked_files.set(locks)
    try:
        yield
    finally:
        _locked_files.reset(token)
        for path, descriptor in locks.items():
            path.unlink(missing_ok=True)
            os.close(descriptor)


def lock_folder(folder: str | Path) -> None:
    """Create a folder and lock it, also against a process that dies; on file systems without locks do not lock.

    Does nothing outside `exclusive_folders`, or if `folder` is a file, which callers reject.
    """
    folder, locks = Path(folder).resolve(), _locked_files.get()
    path = folder / LOCK_FILE
    if locks is None or path in locks or fcntl is None or (folder.exists() and not folder.is_dir()):
        return
    while True:
        descriptor = _open_lock(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise ValueError(
                    f"another process is using {folder}; wait until it ends, or choose another folder"
                ) from None
            if error.errno not in UNSUPPORTED:
                raise
            path.unlink(missing_ok=True)
            return
        if _is_file_of(path, descriptor):
            locks[path] = descriptor
            return
        os.close(descriptor)  # its previous owner has removed the file since it was opened


def _open_lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ValueError(f"cannot write into {path.parent}: {error.strerror}; choose another folder") from error


def is_lock(path: Path) -> bool:
    """Return whether the file is a lock, which says nothing about the content of its folder."""
    return path.name == LOCK_FILE


def _is_file_of(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
