"""Atomic writes: a file or folder appears under its name complete, or not at all.

The content is written to a uniquely named `.NAME.part...` in the same folder and then renamed, so processes and
threads never see incomplete content under the final name. A killed process leaves its temporary file behind.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

TEMPORARY_MARK = ".part"


def is_temporary(path: Path) -> bool:
    """Return whether the name is that of an incomplete file or folder."""
    return path.name.startswith(".") and TEMPORARY_MARK in path.name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder; rename it to `path` on success, remove it on failure.

    Several in one `with` statement are renamed from the last to the first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{TEMPORARY_MARK}{uuid4().hex[:12]}")
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
    """Replace a disk-full error by one that names `folder` and how to continue."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # libraries with their own writers raise the last two
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if is_full or os.strerror(errno.ENOSPC) in str(error):
            raise ValueError(
                f"the disk of {folder} is full; free some space and run the command again, finished work is saved"
            ) from error
        raise
