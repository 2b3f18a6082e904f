"""Parameters by their dotted names: strict loading, one file to share, checkpoints that restore onto any devices."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding, SingleDeviceSharding

Place = Callable[[str, jax.ShapeDtypeStruct], Sharding]


def parameters(model: nnx.Module) -> dict[str, Any]:
    """{"layers.0.blocks.1.mlp.fc1.kernel": array}; shapes and dtypes only if the model is abstract."""
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(nnx.state(model))}


def size(model: nnx.Module) -> int:
    """How many numbers training chose: the statistics of batch norms, which are stored as well, do not count."""
    return sum(leaf.get_value().size for _, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)))


def problems(wanted: Mapping[str, Any], arrays: Mapping[str, Any]) -> list[str]:
    """Everything that keeps `arrays` from being the parameters `wanted`: missing, unexpected, shape, type."""
    found = [f"missing {name}" for name in sorted(wanted.keys() - arrays.keys())]
    found += [f"unexpected {name}" for name in sorted(arrays.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & arrays.keys()):
        want, got = wanted[name], arrays[name]
        if want.shape != got.shape or want.dtype != got.dtype:
            found.append(f"{name} is {got.dtype}{list(got.shape)}, the model wants {want.dtype}{list(want.shape)}")
    return found


def load(make_model: Callable[[], nnx.Module], arrays: Mapping[str, Any]) -> nnx.Module:
    """The model of `make_model` with exactly `arrays` as its parameters; random ones are never allocated."""
    graphdef, state = nnx.split(nnx.eval_shape(make_model))
    paths = {".".join(map(str, path)): path for path, _ in nnx.to_flat_state(state)}
    if found := problems(parameters(nnx.merge(graphdef, state)), arrays):
        raise ValueError(f"{len(found)} parameters do not fit the model:\n  " + "\n  ".join(found))
    leaves = ((paths[name], jnp.asarray(arrays[name])) for name in paths)
    return nnx.merge(graphdef, nnx.from_flat_state(leaves))


def save(path: str | Path, model: nnx.Module) -> None:
    """Writes the parameters to a new file (`.safetensors`) or a new orbax directory (any other name)."""
    path = Path(path).absolute()
    check_writable(path)
    if path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part{os.getpid()}")
        try:
            save_file({name: np.asarray(a) for name, a in parameters(model).items()}, part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    else:
        import orbax.checkpoint as ocp

        with ocp.StandardCheckpointer() as checkpointer:  # leaving the block waits for the write
            checkpointer.save(path, parameters(model))


def check_writable(path: Path) -> None:
    """Whether `save` can write there: nothing may be there yet."""
    if path.exists():
        raise ValueError(f"{path} exists already; remove it or choose another name")
    if path.suffix != ".safetensors" and set("[]") & set(str(path.absolute())):
        raise ValueError(
            f"{path}: orbax loses files in a path with [ or ]; choose another name, or one .safetensors file"
        )


def restore(path: str | Path, make_model: Callable[[], nnx.Module], place: Place | None = None) -> nnx.Module:
    """The model of `make_model` with the parameters that `save` wrote, straight onto devices.

    `place(name, struct)` chooses each parameter's sharding; without it all go to the first device.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise ValueError(f"there are no weights at {path}; expected a .safetensors file or an orbax directory")
    one_device = SingleDeviceSharding(jax.devices()[0])
    wanted = parameters(nnx.eval_shape(make_model))
    shardings = {name: place(name, a) if place else one_device for name, a in wanted.items()}
    try:
        stored, read = _safetensors(path) if path.suffix == ".safetensors" else _orbax(path, shardings, one_device)
        if found := problems(wanted, stored):
            raise Misfit(f"{len(found)} parameters of {path} do not fit the model:\n  " + "\n  ".join(found))
        arrays = read()
    except Misfit:
        raise
    except Exception as error:  # orbax and safetensors raise whatever their parts raise, bare Exception included
        raise ValueError(f"{path} is damaged, or is not what `save` wrote: {type(error).__name__}: {error}") from error
    return load(make_model, {name: jax.device_put(a, shardings[name]) for name, a in arrays.items()})


class Misfit(ValueError):
    """The weights are sound and belong to another network."""


def _safetensors(path: Path) -> tuple[Mapping[str, Any], Callable[[], Mapping[str, Any]]]:
    from safetensors.numpy import load_file

    arrays = load_file(path)
    return arrays, lambda: arrays


def _orbax(
    path: Path, shardings: Mapping[str, Sharding], other: Sharding
) -> tuple[Mapping[str, Any], Callable[[], Mapping[str, Any]]]:
    """What is stored, and how to read it: asked for what we want, orbax would cast, or complain poorly."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        stored = dict(checkpointer.metadata(path).item_metadata)
    target = {
        name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=shardings.get(name, other)) for name, a in stored.items()
    }

    def read() -> Mapping[str, Any]:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path, target)

    return target, read
