"""Hashes of the package's source files, by which stored results name the code that made them."""

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

import vtcav_jax

RECORDED_PACKAGES = ("vtcav-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
PAGE_CODE = "report"  # folder of the code that makes pages from results


@cache
def code_hash(*patterns: str) -> str:
    """Return a hash of the package's source files that match `patterns`; by default, of all that compute results."""
    root = Path(vtcav_jax.__file__).parent
    hasher = hashlib.sha256()
    for pattern in patterns or ("**/*.py",):
        for path in sorted(root.glob(pattern)):
            if patterns or path.relative_to(root).parts[0] != PAGE_CODE:
                hasher.update(path.read_bytes())
    return hasher.hexdigest()


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that results depend on."""
    installed = {}
    for name in RECORDED_PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
