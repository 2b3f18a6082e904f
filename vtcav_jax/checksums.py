"""SHA-256 of files, folders and values, to notice that stored content has changed or is damaged."""

import hashlib
import json
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    if path.exists() and not path.is_file():  # opening a named pipe would wait for a writer
        raise OSError(f"{path} is not a file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shared_file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file that many items are parts of: it is read once, until its size or time changes."""
    status = path.stat()
    return _sha256_of_version(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256_of_version(path: Path, inode: int, size: int, changed_ns: int) -> str:
    return file_sha256(path)


def path_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, or of the names and bytes of all files in a folder."""
    if not path.is_dir():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = (f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_archive(path: Path) -> None:
    """Raise an error unless all bytes of a zip file, such as an `.npz`, match its checksums."""
    with zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise ValueError(f"{path} is damaged: {broken}")


def json_sha256(value: Any) -> str:
    """Return the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
