"""Locks of run folders: two processes never write the same run."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None

_locked_records: ContextVar[dict[Path, int] | None] = ContextVar("locked_records", default=None)  # open descriptors


@contextmanager
def exclusive_runs() -> Iterator[None]:
    """Within it, what `open_run` opens is ours: another process that asks for the same is refused until we end."""
    locks: dict[Path, int] = {}
    token = _locked_records.set(locks)
    try:
        yield
    finally:
        _locked_records.reset(token)
        for descriptor in locks.values():
            os.close(descriptor)


def lock_record(record_file: Path) -> None:
    """The lock goes with the process, however it ends. A file system that has no locks does without."""
    locks = _locked_records.get()
    if locks is None or record_file in locks or fcntl is None:
        return
    locks[record_file] = os.open(record_file, os.O_RDONLY)
    try:
        fcntl.flock(locks[record_file], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"another process is at work on {record_file.parent}; wait for its end, or choose another --run"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
