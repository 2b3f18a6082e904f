"""Locks that keep two processes from writing the same run folder."""

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

_locked_records: ContextVar[dict[Path, int] | None] = ContextVar("locked_records", default=None)  # open descriptors


@contextmanager
def exclusive_runs() -> Iterator[None]:
    """Lock the runs that `open_run` opens in this context: other processes cannot open them until it ends."""
    locks: dict[Path, int] = {}
    token = _locked_records.set(locks)
    try:
        yield
    finally:
        _locked_records.reset(token)
        for descriptor in locks.values():
            os.close(descriptor)


def lock_record(record_file: Path) -> None:
    """Lock a record, also against a process that dies; on file systems without locks do nothing."""
    locks = _locked_records.get()
    if locks is None or record_file in locks or fcntl is None:
        return
    locks[record_file] = os.open(record_file, os.O_RDONLY)
    try:
        fcntl.flock(locks[record_file], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"another process is using {record_file.parent}; wait until it ends, or choose another folder (--run)"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
