"""Networks with weights: those written by the converter or by training, and those shipped with the package."""

import json
import os
from collections.abc import Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from vtcav_jax import atomic
from vtcav_jax.checksums import path_sha256
from vtcav_jax.json_file import load_json
from vtcav_jax.models import parameters
from vtcav_jax.models.class_names import validate_labels
from vtcav_jax.models.network import Heads, Network, single_head
from vtcav_jax.models.zoo import PRESETS, Preset, get_preset, make
from vtcav_jax.names import unknown_name_message

TRAINED_NETWORK_FILE = "model.safetensors"  # in the run folder of a training


def random_network(preset: str, *, seed: int = 0, dtype: Any = jnp.float32) -> Network:
    """Return the network of a preset with random weights."""
    entry = get_preset(preset)
    heads = single_head(entry.num_classes, entry.labels)
    return Network(make(preset, seed=seed, dtype=dtype), entry.clip_spec, heads, preset, preset)


def load(
    name_or_path: str | Path,
    *,
    dtype: Any = jnp.float32,
    remat: bool = False,
    sharding_fn: parameters.ShardingFn | None = None,
) -> Network:
    """Load a shipped network by name, or one written by conversion or training.

    A path is a directory, a `.safetensors` file with its JSON in the same folder, or the run folder of a training.
    `dtype` is that of the arithmetic; `remat` saves memory in the backward pass; `sharding_fn` places parameters.

    ```python
    network = load("worlds_cnn")
    logits = network.model(network.clip_spec.normalise(frames))  # uint8 frames (b, t, h, w, 3)
    ```
    """
    path = _resolve_path(name_or_path)
    metadata = read_metadata(path)
    heads = {head: tuple(names) for head, names in metadata["heads"].items()}
    metadata_file, weights_file = bundle_paths(path)
    if metadata["sha256"] and weights_file.exists() and path_sha256(weights_file) != metadata["sha256"]:
        raise ValueError(
            f"{weights_file} is damaged or was replaced: its SHA-256 differs from the one in {metadata_file.name}; copy"
            f' both again, or delete "sha256" there if you changed the weights yourself'
        )
    model = parameters.restore(weights_file, _model_factory(metadata, dtype=dtype, remat=remat), sharding_fn)
    preset = metadata["preset"]
    return Network(model, get_preset(preset).clip_spec, heads, str(name_or_path), preset)


def save(path: str | Path, model: nnx.Module, preset: str, heads: Heads, **source: Any) -> None:
    """Write a network for `load` atomically: to temporary names and then renamed, the weights last.

    `source` documents the origin of the weights and is stored in the JSON.
    """
    path = Path(path)
    require_absent(path)
    metadata_file, weights_file = bundle_paths(path)
    metadata = {"preset": preset, "heads": {head: list(names) for head, names in heads.items()}, "source": source}
    if path.suffix == ".safetensors":
        with atomic.replacing(weights_file) as new_weights, atomic.replacing(metadata_file) as new_metadata:
            parameters.write_safetensors(new_weights, model)
            _write_metadata(new_metadata, metadata, new_weights)
    else:
        with atomic.replacing(path) as folder:
            folder.mkdir()
            new_metadata, new_weights = bundle_paths(folder)
            parameters.save(new_weights, model)
            _write_metadata(new_metadata, metadata, new_weights)


def _write_metadata(path: Path, metadata: Mapping[str, Any], weights: Path) -> None:
    text = json.dumps({**metadata, "sha256": path_sha256(weights)}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def require_absent(path: Path) -> None:
    """Raise ValueError if `save` cannot write there: a file exists, or the folder is not writable."""
    parameters.check_writable(path)
    if (metadata_file := bundle_paths(path)[0]).exists():
        raise ValueError(f"{metadata_file} exists already; remove it or choose another name")
    existing_parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not existing_parent.is_dir() or not os.access(existing_parent, os.W_OK):
        raise ValueError(f"{path} cannot be written: {existing_parent} is not a writable folder; choose another")


def abstract_model(name_or_path: str, **options: Any) -> tuple[nnx.Module, Preset]:
    """Return the abstract model (shapes without values) of a preset or a stored network, and its preset.

    `options` are those of `make`.
    """
    if name_or_path in PRESETS:
        return nnx.eval_shape(partial(make, name_or_path, **options)), get_preset(name_or_path)
    metadata = read_metadata(_resolve_path(name_or_path))
    return nnx.eval_shape(_model_factory(metadata, **options)), get_preset(metadata["preset"])


def shipped_networks() -> dict[str, Path]:
    """Return the paths of the trained networks shipped with the package, by name."""
    with resources.as_file(resources.files("vtcav_jax.models").joinpath("shipped")) as folder:
        return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def _resolve_path(name_or_path: str | Path) -> Path:
    """Return the path of a network; an existing path takes precedence over a name."""
    path = Path(name_or_path)
    if (path / TRAINED_NETWORK_FILE).is_file():
        return path / TRAINED_NETWORK_FILE
    return path if path.exists() else shipped_networks().get(str(name_or_path), path)


def _model_factory(metadata: Mapping[str, Any], **options: Any) -> partial[nnx.Module]:
    return partial(make, metadata["preset"], num_classes=sum(map(len, metadata["heads"].values())), **options)


def read_metadata(path: Path) -> dict[str, Any]:
    """Read and check the JSON of a stored network: preset, heads, source."""
    metadata_file, _ = bundle_paths(path)
    if str(path) in PRESETS and not path.exists():
        raise ValueError(
            f"{path} is a network without weights: convert weights for it (`python -m weights_conversion`), or use a "
            f"trained network: {', '.join(shipped_networks())}"
        )
    if not path.exists():
        raise ValueError(
            unknown_name_message("network", [str(path)], [*shipped_networks(), *PRESETS]) + "; this path does not exist"
        )
    try:
        metadata = load_json(metadata_file)
        preset, heads = metadata["preset"], metadata["heads"]
        get_preset(preset)
        if not isinstance(heads, dict) or not heads:
            raise ValueError(f"heads is {heads!r}")
        for head, names in heads.items():
            validate_labels(names, len(names), head)
            if not head or not head.isprintable() or ":" in head:
                raise ValueError(f"invalid name of a head: {head!r}")
        return {"preset": preset, "heads": heads, "source": metadata.get("source"), "sha256": metadata.get("sha256")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        fault = "missing" if isinstance(error, FileNotFoundError | NotADirectoryError) else f"damaged ({error!r})"
        raise ValueError(
            f"{path} is not a converted or trained network: {metadata_file.name} is {fault}; make it with"
            " `python -m weights_conversion` or `vtcav train`"
        ) from error


def bundle_paths(path: Path) -> tuple[Path, Path]:
    """Return the paths of the JSON and of the parameters of a stored network."""
    if path.suffix == ".safetensors":
        return path.with_suffix(".json"), path
    return path / "model.json", path / "params"
