"""Reading of checkpoint files without running code in them."""

import hashlib
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read the state dict in a `.pth` / `.pt` (tensors only, no code) or `.safetensors` file."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}; expected a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)})")
    if path.suffix not in CHECKPOINT_SUFFIXES:
        raise ValueError(f"{path.name} ends in {path.suffix!r}; expected one of {', '.join(CHECKPOINT_SUFFIXES)}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ValueError("reading a .pth file needs torch: pip install 'vtcav-jax[convert]'") from error
    if is_truncated(path):
        raise ValueError(truncation_message(path))
    try:
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused_name = re.search(r"GLOBAL ([\w.]+\w)", str(error))
        reason = (
            f"it refers to {refused_name[1]}, which loading would run"
            if refused_name
            else "it is not a plain state dict"
        )
        raise ValueError(
            f"{path.name} was not read: {reason}; expected names and tensors only. If you trust the file, save only its"
            " state dict as .safetensors, in a separate environment."
        ) from error
    except (RuntimeError, EOFError, OSError, LookupError, AttributeError, TypeError, ValueError, struct.error) as error:
        raise ValueError(truncation_message(path) + f" ({first_line(error)})") from error
    if not isinstance(state_dict, Mapping):
        raise ValueError(
            f"{path.name} contains a {type(state_dict).__name__}; expected a state dict: names and tensors"
        )
    return state_dict


def read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError

    try:
        from safetensors.torch import load_file  # supports bfloat16
    except ModuleNotFoundError:
        from safetensors.numpy import load_file
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise ValueError(truncation_message(path) + f" ({first_line(error)})") from error


def is_truncated(path: Path) -> bool:
    """Return True if a torch file, which is a zip archive, lacks its directory at the end or has a wrong checksum."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return path.stat().st_size < 16  # the old format is a pickle, which only loading can check
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, OSError, zlib.error):
        return True


def truncation_message(path: Path) -> str:
    return f"{path.name} ({path.stat().st_size:,} bytes) is damaged or truncated; copy or download it again."


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
