"""The folder of compiled programs that commands share, so that a second command starts without compiling."""

import hashlib
import os
import platform
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from vtcav_jax.console import warn

MAX_BYTES = 2 * 2**30  # the programs used longest ago are removed first
MIN_COMPILE_SECONDS = 0.05
_PROBE_BYTES = 4096  # written to find out if a folder can be used
_CACHE_WARNING = re.compile(r"Error (reading|writing) persistent compilation cache entry for '.*?': (\w+)")
# Errors of a lock that another process holds and of access, which say nothing about a stored program
_NO_DAMAGE = ("Timeout", "OSError", "PermissionError", "FileNotFoundError")


def use_compile_cache(folder: Path | None) -> None:
    """Keep compiled programs in `folder`, by default in the user's cache, unless the environment names one.

    A folder that cannot be written is one note, and then programs are not kept.
    """
    options: dict[str, Any] = {}
    if folder is None and "JAX_COMPILATION_CACHE_DIR" in os.environ:
        name = os.environ["JAX_COMPILATION_CACHE_DIR"]
        if not name or "://" in name:  # no cache, or one in a store
            return
        place = Path(name)
    else:
        place = (default_cache() if folder is None else folder) / processor_key()
        options = {
            "jax_compilation_cache_dir": str(place),
            "jax_compilation_cache_max_size": MAX_BYTES,
            "jax_persistent_cache_min_compile_time_secs": MIN_COMPILE_SECONDS,
        }
    if fault := _write_fault(place):
        warn(
            f"compiled programs are not kept, since {place} cannot be written ({fault}); pass --compile_cache=FOLDER"
            " with a folder that can be"
        )
        options = {"jax_enable_compilation_cache": False}
    else:
        warnings.filterwarnings("always", message=_CACHE_WARNING.pattern)
        warnings.showwarning = _CacheWarnings(place, warnings.showwarning)
    for name, value in options.items():
        os.environ[name.upper()] = str(value)
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)


def _write_fault(folder: Path) -> str:
    """Return why no file can be written in a folder, which is made; empty if one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


class _CacheWarnings:
    """Replacement of `warnings.showwarning`: one note for all of JAX's warnings about the cache, and its repair."""

    def __init__(self, folder: Path, show_other: Any):
        self.folder, self.is_noted = folder, False
        self.show_other = show_other.show_other if isinstance(show_other, _CacheWarnings) else show_other

    def __call__(self, message: Warning | str, *arguments: Any, **options: Any) -> None:
        if (match := _CACHE_WARNING.match(str(message))) is None:
            return self.show_other(message, *arguments, **options)
        if not self.is_noted:
            self.is_noted = True
            verb = {"reading": "read", "writing": "written"}[match[1]]
            warn(
                f"a compiled program in {self.folder} could not be {verb} ({match[2]}), and is compiled again; if this"
                " note returns, check the space on the disk and remove the folder"
            )
        remove_damaged_programs(self.folder, was_read=match[1] == "reading" and match[2] not in _NO_DAMAGE)


def remove_damaged_programs(folder: Path, was_read: bool) -> None:
    """Remove stored programs that were not written to their end, and if `was_read` the one that was read last.

    JAX never writes over a stored program, so that a damaged one would stay. It writes the time of reading beside it.
    A program that another process has just read can be meant instead: then it is compiled once more.
    """
    try:
        programs = {
            path: path.with_name(f"{path.name.removesuffix('-cache')}-atime") for path in folder.glob("*-cache")
        }
        damaged = [path for path, time_file in programs.items() if not time_file.exists()]
        if was_read and (complete := programs.keys() - set(damaged)):
            damaged.append(max(complete, key=lambda path: int.from_bytes(programs[path].read_bytes(), "little")))
        for path in damaged:
            path.unlink(missing_ok=True)
            programs[path].unlink(missing_ok=True)
    except OSError:  # the cache is no part of the results
        return


def default_cache() -> Path:
    """Return the folder `vtcav_jax` in the user's folder for caches."""
    if sys.platform == "darwin":
        parent = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        parent = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return parent / "vtcav_jax" / "compiled"


def processor_key() -> str:
    """Return a name for the processor: programs for another one, of a shared home folder, may not run."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
