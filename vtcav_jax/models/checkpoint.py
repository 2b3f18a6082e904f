"""Networks with weights: what the converter and training write, what ships with the package, and their classes."""

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
from vtcav_jax.models import parameters
from vtcav_jax.models.network import Heads, Network, single_head
from vtcav_jax.models.zoo import PRESETS, Preset, get_preset, make
from vtcav_jax.names import unknown_name_message

TRAINED_NETWORK_FILE = "model.safetensors"  # in the folder of a training run


def random_network(preset: str, *, seed: int = 0, dtype: Any = jnp.float32) -> Network:
    """A preset with random weights, to try something out."""
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
    """One of `SHIPPED`, or what conversion or training wrote: a directory, or a `.safetensors` with its JSON beside."""
    path = _resolve_path(name_or_path)
    metadata = read_metadata(path)
    heads = {head: tuple(names) for head, names in metadata["heads"].items()}
    model = parameters.restore(bundle_paths(path)[1], _model_factory(metadata, dtype=dtype, remat=remat), sharding_fn)
    preset = metadata["preset"]
    return Network(model, get_preset(preset).clip_spec, heads, str(name_or_path), preset)


def save(path: str | Path, model: nnx.Module, preset: str, heads: Heads, **source: Any) -> None:
    """Writes what `load` reads, all or nothing: beside `path` and then renamed, the weights last.

    `source` tells where the weights come from and is kept in the JSON.
    """
    path = Path(path)
    require_absent(path)
    metadata_file, weights_file = bundle_paths(path)
    metadata = {"preset": preset, "heads": {head: list(names) for head, names in heads.items()}, "source": source}
    text = json.dumps(metadata, indent=1) + "\n"
    if path.suffix == ".safetensors":
        with atomic.replacing(weights_file) as new_weights, atomic.replacing(metadata_file) as new_metadata:
            parameters.write_safetensors(new_weights, model)
            new_metadata.write_text(text, encoding="utf-8")
    else:
        with atomic.replacing(path) as folder:
            folder.mkdir()
            new_metadata, new_weights = bundle_paths(folder)
            parameters.save(new_weights, model)
            new_metadata.write_text(text, encoding="utf-8")


def require_absent(path: Path) -> None:
    """Whether `save` can write there: nothing may be there yet, nor beside it."""
    parameters.check_writable(path)
    if (metadata_file := bundle_paths(path)[0]).exists():
        raise ValueError(f"{metadata_file} exists already; remove it or choose another name")
    existing_parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not existing_parent.is_dir() or not os.access(existing_parent, os.W_OK):
        raise ValueError(
            f"{path} cannot be written: {existing_parent} is not a folder that you may write to; choose another"
        )


def abstract_model(name_or_path: str) -> tuple[nnx.Module, Preset]:
    """A preset's or a stored network's shapes, without its numbers, and its preset."""
    if name_or_path in PRESETS:
        return nnx.eval_shape(partial(make, name_or_path)), get_preset(name_or_path)
    metadata = read_metadata(_resolve_path(name_or_path))
    return nnx.eval_shape(_model_factory(metadata)), get_preset(metadata["preset"])


def shipped_networks() -> dict[str, Path]:
    """The trained networks that come with the package, by name."""
    with resources.as_file(resources.files("vtcav_jax.models").joinpath("shipped")) as folder:
        return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def _resolve_path(name_or_path: str | Path) -> Path:
    """A path that is there comes before a name; the folder of a training run stands for the network in it."""
    path = Path(name_or_path)
    if (path / TRAINED_NETWORK_FILE).is_file():
        return path / TRAINED_NETWORK_FILE
    return path if path.exists() else shipped_networks().get(str(name_or_path), path)


def _model_factory(metadata: Mapping[str, Any], **options: Any) -> partial[nnx.Module]:
    return partial(make, metadata["preset"], num_classes=sum(map(len, metadata["heads"].values())), **options)


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON beside stored weights: preset, heads, source."""
    metadata_file, _ = bundle_paths(path)
    if str(path) in PRESETS and not path.exists():
        raise ValueError(
            f"{path} is a network without weights: convert weights for it (`python -m weights_conversion`), or name "
            f"one that is trained: {', '.join(shipped_networks())}"
        )
    if not path.exists():
        raise ValueError(
            unknown_name_message("network", [str(path)], [*shipped_networks(), *PRESETS]) + "; nor is there such a path"
        )
    try:
        metadata = json.loads(metadata_file.read_text(encoding="utf-8"))
        preset, heads = metadata["preset"], metadata["heads"]
        get_preset(preset)
        if not isinstance(heads, dict) or not heads:
            raise ValueError(f"heads is {heads!r}")
        for head, names in heads.items():
            validate_labels(names, len(names), head)
            if not head or not head.isprintable() or ":" in head:
                raise ValueError(f"a head is called {head!r}")
        return {"preset": preset, "heads": heads, "source": metadata.get("source")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        fault = "missing" if isinstance(error, FileNotFoundError | NotADirectoryError) else f"damaged ({error!r})"
        raise ValueError(
            f"{path} is not a network that was converted or trained: {metadata_file.name} is "
            f"{fault}; make it with `python -m weights_conversion` or --task=train"
        ) from error


def validate_labels(labels: Any, num_classes: int, where: str) -> list[str]:
    """One printable name per class, all different, or an error."""
    if not isinstance(labels, list) or len(labels) != num_classes or not labels:
        count = f"{len(labels)} names" if isinstance(labels, list) else repr(labels)
        raise ValueError(f"{where}: {count} for {num_classes} classes; expected one name a class")
    if wrong := [i for i, name in enumerate(labels) if not isinstance(name, str) or not name or not name.isprintable()]:
        raise ValueError(f"{where}: the names of classes {wrong[:10]} are empty or hold unprintable characters")
    if len(set(labels)) < len(labels):
        duplicates = sorted({name for name in labels if labels.count(name) > 1})
        raise ValueError(f"{where}: several classes are called {', '.join(duplicates[:5])}; expected a name for each")
    return labels


def bundle_paths(path: Path) -> tuple[Path, Path]:
    """Where a stored network keeps its description and its parameters."""
    if path.suffix == ".safetensors":
        return path.with_suffix(".json"), path
    return path / "model.json", path / "params"
