"""A run's folder: what was asked, what came out, so that the same command continues it and another one is refused."""

import csv
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None

RECORD = "run.json"
SHARING = ("tcav", "explain", "motion", "pyramid")  # tasks whose results may lie in one folder
PACKAGES = ("vtcav-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

_held: ContextVar[dict[Path, int] | None] = ContextVar("held", default=None)  # descriptors of records, locked


@contextmanager
def alone() -> Iterator[None]:
    """Within it, what `open_run` opens is ours: another process that asks for the same is refused until we end."""
    held: dict[Path, int] = {}
    token = _held.set(held)
    try:
        yield
    finally:
        _held.reset(token)
        for descriptor in held.values():
            os.close(descriptor)


def open_run(folder: str | Path, asked: Mapping[str, Any], flags: str = "") -> Path:
    """The folder of a run, new or to be continued; `asked` is all that its results depend on.

    Writes `run.json` (what was asked, versions) and `flags.txt`. A folder that holds a run of something else is refused
    with every difference; but what another task is asked is written beside it, so that several can share a page.
    """
    folder = Path(folder)
    asked = json.loads(json.dumps(asked))
    about, flags_file = record(folder, asked.get("task"))
    if about.exists():
        before = _asked(about)
        if asked.get("task") != before.get("task"):
            was = before.get("task") or "another kind"
            raise ValueError(f"{folder} is a run of something else (of {was}); choose another --run, or remove it")
        if different := [name for name in sorted({*asked, *before}) if asked.get(name) != before.get(name)]:
            told = "; ".join(f"{name} was {before.get(name)!r}, is {asked.get(name)!r}" for name in different)
            raise ValueError(f"{folder} is a run of something else ({told}); choose another --run, or remove it")
    elif about.name == RECORD and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty and not a run; choose another --run")
    folder.mkdir(parents=True, exist_ok=True)
    if not about.exists():
        write_text(flags_file, flags)
        write_text(about, json.dumps({"asked": asked, "versions": versions()}, indent=1) + "\n")
    _hold(about)
    return folder


def _hold(about: Path) -> None:
    """The lock goes with the process, however it ends. A file system that has no locks does without."""
    held = _held.get()
    if held is None or about in held or fcntl is None:
        return
    held[about] = os.open(about, os.O_RDONLY)
    try:
        fcntl.flock(held[about], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"another process is at work on {about.parent}; wait for its end, or choose another --run"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def record(folder: Path, task: str | None) -> tuple[Path, Path]:
    """Where the folder keeps what a task was asked, and its flags: the first one's run.json is told from the others'
    by their names."""
    first = folder / RECORD
    if first.exists() and (before := _asked(first).get("task")) != task and task in SHARING and before in SHARING:
        return folder / f"run_{task}.json", folder / f"flags_{task}.txt"
    return first, folder / "flags.txt"


def _asked(about: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(about.read_text(encoding="utf-8"))["asked"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{about} is damaged; remove {about.parent}, or choose another --run") from error


def versions() -> dict[str, str]:
    """Of what the numbers depend on, as far as it is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A CSV that is there whole or not at all."""
    part = _part(path)
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    part = _part(path)
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


@contextmanager
def told_when_full(place: Path) -> Iterator[None]:
    """Says what to do where a disk is full, of whatever keeps what is done."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter from libraries that write by themselves
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or os.strerror(errno.ENOSPC) in str(error):
            raise ValueError(
                f"the disk of {place} is full; free some space and give the same command again, what is done is kept"
            ) from error
        raise


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part{os.getpid()}")
