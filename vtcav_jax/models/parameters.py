"""Random parameters, and their strict loading and saving by dotted names, as safetensors or as Orbax checkpoints."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding, SingleDeviceSharding

from vtcav_jax import atomic
from vtcav_jax.names import abridged_list

ShardingFn = Callable[[str, jax.ShapeDtypeStruct], Sharding]

# torch (out, in, t, h, w) -> flax (t, h, w, in, out)
FLAX_AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}
BATCH_NORM_STATISTICS = {"running_mean": "mean", "running_var": "var"}


class CountedStream(nnx.RngStream):
    """The keys of `nnx.RngStream`, counted in Python.

    A counter in an array makes `nnx.eval_shape` search all operations traced so far at each key: 2.5 s for a network of
    24 blocks, of which this takes 0.4.
    """

    def __init__(self, seed: int):
        super().__init__(seed, tag="default")
        self.n_keys = 0

    def __call__(self) -> jax.Array:
        self.n_keys += 1
        return jax.random.fold_in(self.key[...], self.n_keys - 1)


def initial_rngs(seed: int) -> nnx.Rngs:
    """Return `nnx.Rngs(seed)`, which draws the same parameters, for networks whose construction is also traced."""
    rngs: Any = nnx.Rngs(seed)  # its streams are attributes that type checkers do not know
    rngs.default = CountedStream(seed)
    return rngs


def named_parameters(model: Any) -> dict[str, Any]:
    """Return {"layers.0.blocks.1.mlp.fc1.kernel": array}; shapes and dtypes only if the model is abstract."""
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(nnx.state(model))}


def count_parameters(model: Any) -> int:
    """Return the number of trained values, which excludes the statistics of batch norms where they are known."""
    if not isinstance(model, nnx.Module):
        return sum(leaf.size for leaf in jax.tree.leaves(model))
    return sum(leaf.get_value().size for _, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)))


def parameter_mismatches(expected: Mapping[str, Any], arrays: Mapping[str, Any]) -> list[str]:
    """Return one message per difference between `arrays` and `expected`: missing, unexpected, shape, dtype."""
    mismatches = [f"missing {name}" for name in sorted(expected.keys() - arrays.keys())]
    mismatches += [f"unexpected {name}" for name in sorted(arrays.keys() - expected.keys())]
    for name in sorted(expected.keys() & arrays.keys()):
        expected_array, actual_array = expected[name], arrays[name]
        if expected_array.shape != actual_array.shape or expected_array.dtype != actual_array.dtype:
            mismatches.append(
                f"{name} is {actual_array.dtype}{list(actual_array.shape)}, the model expects"
                f" {expected_array.dtype}{list(expected_array.shape)}"
            )
    return mismatches


def load(make_model: Callable[[], nnx.Module], arrays: Mapping[str, Any]) -> nnx.Module:
    """Return the model of `make_model` with exactly `arrays` as its parameters; allocates no random ones."""
    graphdef, state = nnx.split(nnx.eval_shape(make_model))
    paths = {".".join(map(str, path)): path for path, _ in nnx.to_flat_state(state)}
    if mismatches := parameter_mismatches(named_parameters(nnx.merge(graphdef, state)), arrays):
        raise ValueError(f"{len(mismatches)} parameters do not match the model:\n  " + "\n  ".join(mismatches))
    require_finite(arrays)
    leaves = ((paths[name], jnp.asarray(arrays[name])) for name in paths)
    return nnx.merge(graphdef, nnx.from_flat_state(leaves))


def require_finite(arrays: Mapping[str, Any]) -> None:
    """Raise ValueError that names the parameters with NaN or infinite values."""
    names = [name for name, array in arrays.items() if not _is_finite(array)]
    if names:
        raise ValueError(
            f"{len(names)} of {len(arrays)} parameters have NaN or infinite values: {abridged_list(names)}; the weights"
            " are damaged or their training diverged, use others"
        )


def _is_finite(array: Any) -> bool:
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return True
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return bool(jnp.isfinite(array).all())
    return bool(np.isfinite(np.asarray(array)).all())


def to_flax_layout(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the name and a view with the axes of flax, from those of a torch parameter."""
    stem, _, leaf = name.rpartition(".")
    if leaf == "weight" and tensor.ndim in FLAX_AXES:
        leaf, tensor = "scale" if tensor.ndim == 1 else "kernel", tensor.transpose(FLAX_AXES[tensor.ndim])
    leaf = BATCH_NORM_STATISTICS.get(leaf, leaf)
    return f"{stem}.{leaf}" if stem else leaf, tensor


def save(path: str | Path, model: nnx.Module) -> None:
    """Write the parameters to a new file (`.safetensors`) or a new Orbax directory (any other name)."""
    path = Path(path).absolute()
    check_writable(path)
    if path.suffix == ".safetensors":
        with atomic.replacing(path) as temporary:
            write_safetensors(temporary, model)
    else:
        import orbax.checkpoint as ocp

        with ocp.StandardCheckpointer() as checkpointer:  # leaving the block waits for the write
            checkpointer.save(path, named_parameters(model))


def write_safetensors(path: Path, model: nnx.Module) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.asarray(a) for name, a in named_parameters(model).items()}, path)


def check_writable(path: Path) -> None:
    """Raise ValueError if `save` cannot write to `path`, because it exists or Orbax does not support its name."""
    if path.exists():
        raise ValueError(f"{path} exists already; remove it or choose another name")
    if path.suffix != ".safetensors" and set("[]") & set(str(path.absolute())):
        raise ValueError(
            f"{path}: Orbax loses files in a path with [ or ]; choose another name, or a .safetensors file"
        )


def restore(
    path: str | Path, make_model: Callable[[], nnx.Module], sharding_fn: ShardingFn | None = None
) -> nnx.Module:
    """Return the model of `make_model` with the parameters that `save` wrote, read directly onto devices.

    `sharding_fn(name, struct)` returns each parameter's sharding; without it, all are placed on the first device.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise ValueError(f"there are no weights at {path}; expected a .safetensors file or an Orbax directory")
    one_device = SingleDeviceSharding(jax.local_devices()[0])
    expected = named_parameters(nnx.eval_shape(make_model))
    shardings = {name: sharding_fn(name, a) if sharding_fn else one_device for name, a in expected.items()}
    try:
        stored_arrays, read = (
            _safetensors(path) if path.suffix == ".safetensors" else _orbax(path, shardings, one_device)
        )
        if mismatches := parameter_mismatches(expected, stored_arrays):
            raise WeightsMismatchError(
                f"{len(mismatches)} parameters of {path} do not match the model:\n  " + "\n  ".join(mismatches)
            )
        arrays = read()
    except WeightsMismatchError:
        raise
    except Exception as error:  # Orbax and safetensors raise many types, including bare Exception
        raise ValueError(f"{path} is damaged or not written by `save`: {type(error).__name__}: {error}") from error
    try:
        return load(make_model, {name: jax.device_put(a, shardings[name]) for name, a in arrays.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class WeightsMismatchError(ValueError):
    """Error of intact weights that belong to another network."""


def _safetensors(path: Path) -> tuple[Mapping[str, Any], Callable[[], Mapping[str, Any]]]:
    from safetensors.numpy import load_file

    arrays = load_file(path)
    return arrays, lambda: arrays


def _orbax(
    path: Path, shardings: Mapping[str, Sharding], default_sharding: Sharding
) -> tuple[Mapping[str, Any], Callable[[], Mapping[str, Any]]]:
    """Return the stored shapes and a function that reads them; given the expected ones, Orbax would cast silently."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        stored_metadata = dict(checkpointer.metadata(path).item_metadata)
    target = {
        name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=shardings.get(name, default_sharding))
        for name, a in stored_metadata.items()
    }

    def read() -> Mapping[str, Any]:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path, target)

    return target, read
