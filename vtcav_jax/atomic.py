"""Atomic writes: a file or folder appears under its name complete, or not at all.

The content is written beside its place as `.NAME.part...` and renamed. A killed process leaves such a file behind;
another process, or another thread, never sees it under the final name and never writes to the same one.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path for a file or a folder: renamed to `path` on success, removed on failure.

    Several of them in one `with` statement are renamed from the last to the first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part{uuid4().hex[:12]}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def explain_disk_full(folder: Path) -> Iterator[None]:
    """Turns the error of a full disk into one that names `folder` and says how to go on."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # libraries with their own writers raise RuntimeError
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if is_full or os.strerror(errno.ENOSPC) in str(error):
            raise ValueError(
                f"the disk of {folder} is full; free some space and give the same command again, what is done is kept"
            ) from error
        raise
