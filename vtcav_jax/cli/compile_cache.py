"""The folder of compiled programs that commands share, so that a second command starts without compiling."""

import hashlib
import os
import platform
import sys
from pathlib import Path

MAX_BYTES = 2 * 2**30  # the programs used longest ago are removed first
MIN_COMPILE_SECONDS = 0.05


def use_compile_cache(folder: Path | None) -> None:
    """Keep compiled programs in `folder`, by default in the user's cache, unless the environment names one."""
    if folder is None and "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = default_cache() if folder is None else folder
    options = {
        "jax_compilation_cache_dir": str(folder / processor_key()),
        "jax_compilation_cache_max_size": MAX_BYTES,
        "jax_persistent_cache_min_compile_time_secs": MIN_COMPILE_SECONDS,
    }
    for name, value in options.items():
        os.environ[name.upper()] = str(value)
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)


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
