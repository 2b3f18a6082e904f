"""Hash of a model, by which stored results name the weights that made them."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from vtcav_jax.checksums import json_sha256


def fingerprint(model: Any) -> str:
    """Return a hash of a network's parameters and of the source file that defines it."""
    hasher = hashlib.sha256()
    for path, leaf in tree_flatten_with_path(model)[0]:
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        hasher.update(f"{keystr(path)} {array.dtype} {array.shape}".encode())
        hasher.update(array.tobytes())
    maker = getattr(model, "func", type(model))
    if identity := getattr(maker, "identity", ""):  # of an adapted model: the hash of its source
        return json_sha256([hasher.hexdigest(), identity])
    hasher.update(f"{maker.__module__}.{maker.__qualname__}".encode())
    if (file := _source_file(maker.__module__)) is not None:
        hasher.update(file.read_bytes())
    return hasher.hexdigest()


def _source_file(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file and Path(file).is_file() else None
