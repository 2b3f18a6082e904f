"""Strict conversion of a torch state dict to our parameters: names, layouts, and no missing or unexpected tensors.

`key_mapping` maps public names to those of our attributes; then only the last component changes (`weight` becomes
`kernel` or `scale`, `running_mean` becomes `mean`).
"""

import re
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import numpy as np
from flax import nnx

from vtcav_jax import models
from vtcav_jax.models import parameters
from vtcav_jax.models.parameters import to_flax_layout
from vtcav_jax.names import unknown_name_message
from weights_conversion.key_mapping import FAMILIES, family_of, our_tensors, reorder_axes

PARTS = ("weight", "bias")
WRAPPERS = ("state_dict", "model_state", "model", "module")


def convert(preset: str, state_dict: Mapping[str, Any], *, num_classes: int | None = None) -> dict[str, np.ndarray]:
    """Convert a torch state dict to the parameters of `models.make(preset)`; an error lists all mismatches.

    Accepts the names of public code, at the top level or under `state_dict`, with or without `module.`. Buffers that
    our network does not have are checked and dropped.
    """
    tensors = {name: as_numpy(name, value) for name, value in unwrap_state_dict(state_dict).items()}
    return match_parameters(preset, abstract_network(preset, num_classes), our_tensors(family_of(preset), tensors))


def abstract_network(preset: str, num_classes: int | None) -> nnx.Module:
    """Return the abstract network, cached because tracing over a hundred layers takes seconds; do not mutate."""
    return _trace_network(preset, num_classes or models.get_preset(preset).num_classes)


@cache
def _trace_network(preset: str, num_classes: int) -> nnx.Module:
    return nnx.eval_shape(partial(models.make, preset, num_classes=num_classes))


def match_parameters(preset: str, model: nnx.Module, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays by parameter name if they match the shapes of `model`, which may be abstract."""
    expected = parameters.named_parameters(model)
    arrays, mismatches = {}, []
    for name, tensor in tensors.items():
        if name.endswith(".relative_position_index"):
            mismatches += check_position_index(name, tensor, model)
            continue
        if name.endswith(".num_batches_tracked"):
            mismatches += check_batch_counter(name, tensor, expected)
            continue
        flax_name, array = to_flax_layout(name, reorder_axes(name, tensor))
        if not np.isfinite(array).all():
            mismatches.append(f"{name} contains non-finite values")
        arrays[flax_name] = np.ascontiguousarray(array)
    mismatches = parameters.parameter_mismatches(expected, arrays) + mismatches
    if mismatches:
        raise ValueError(
            f"these weights do not match {preset}. {suggest_fix(preset, expected, arrays, tensors)}\n  "
            + "\n  ".join(mismatches)
        )
    return arrays


def unwrap_state_dict(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the mapping from names to tensors, without the wrappers that public checkpoints use."""
    for key in WRAPPERS:
        if isinstance(inner := state_dict.get(key), Mapping):
            return unwrap_state_dict(inner)
    if wrong := [name for name in state_dict if not isinstance(name, str)]:
        raise ValueError(f"the checkpoint has keys that are not names ({wrong[:3]}); expected a state dict")
    if state_dict and all(name.startswith("module.") for name in state_dict):
        return unwrap_state_dict({name.removeprefix("module."): value for name, value in state_dict.items()})
    if not state_dict:
        raise ValueError(f"the checkpoint has no tensors; expected names and tensors, possibly under {WRAPPERS}")
    return state_dict


def join_heads(
    preset: str, state_dict: Mapping[str, Any], layers: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the state dict with one last layer in place of several, and the number of classes of each head.

    `layers` maps each head to the name of its last layer: {"verb": "fc_verb", "noun": "fc_noun"}. The logits are those
    of all heads, in this order.
    """
    tensors = dict(unwrap_state_dict(state_dict))
    known = sorted(name.removesuffix(".weight") for name in tensors if name.endswith(".weight"))
    if missing := [layer for layer in layers.values() if any(f"{layer}.{part}" not in tensors for part in PARTS)]:
        raise ValueError(unknown_name_message("last layer", missing, known))
    parts = {part: [as_numpy(part, tensors.pop(f"{layer}.{part}")) for layer in layers.values()] for part in PARTS}
    sizes = {head: len(bias) for head, bias in zip(layers, parts["bias"])}
    joined = {f"{family_of(preset).head}.{part}": np.concatenate(arrays) for part, arrays in parts.items()}
    if present := sorted(joined.keys() & tensors.keys()):
        raise ValueError(f"the checkpoint also has {', '.join(present)}; expected no last layer besides {layers}")
    return tensors | joined, sizes


def as_numpy(name: str, value: Any) -> np.ndarray:
    """Convert a dense tensor to numpy, half and double precision to float32; raise ValueError for anything else."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise ValueError(f"{name} is a {type(value).__name__}, expected a tensor; pass the model's state dict itself")
    if hasattr(value, "detach"):
        try:
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() and value.element_size() < 4 else value).numpy()
        except (TypeError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{name} is not a plain dense tensor ({error}); save it as one") from error
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype in (np.float16, np.float64) else array


def check_position_index(name: str, tensor: np.ndarray, model: Any) -> list[str]:
    """Check that the reference's stored table row of each pair of tokens is the same as ours."""
    match = re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.attn\.relative_position_index", name)
    try:
        window = model.layers[int(match[1])].blocks[int(match[2])].attn.window if match else None
    except IndexError:
        window = None
    if window is None:
        return [f"unexpected {name}"]
    expected = relative_position_index(window)
    if tensor.size != expected.size or not np.array_equal(tensor.reshape(expected.shape), expected):
        return [f"{name} does not match a window of {window}: the weights were trained with another window"]
    return []


def check_batch_counter(name: str, tensor: np.ndarray, expected: Mapping[str, Any]) -> list[str]:
    """Check that a counter of training batches belongs to one of our batch norms; its value is not used."""
    has_counterpart = f"{name.rpartition('.')[0]}.var" in expected
    return (
        []
        if has_counterpart and tensor.shape == () and np.issubdtype(tensor.dtype, np.integer)
        else [f"unexpected {name}"]
    )


def relative_position_index(window: tuple[int, int, int]) -> np.ndarray:
    """Return the row of the bias table for tokens i and j of a window: their offset, in mixed radix."""
    place = np.stack(np.meshgrid(*map(np.arange, window), indexing="ij")).reshape(3, -1)
    offset = place[:, :, None] - place[:, None, :] + (np.array(window) - 1)[:, None, None]
    return np.asarray(np.ravel_multi_index(tuple(offset), [2 * size - 1 for size in window]))


def suggest_fix(
    preset: str, expected: Mapping[str, Any], arrays: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray]
) -> str:
    """Return the advice of an error message: another number of classes, another preset, or the supported names."""
    classes = {name: a.shape[-1] for name, a in arrays.items() if name == "head.bias" and a.ndim == 1}
    n_classes = classes.get("head.bias")
    body = {name for name in expected if not name.startswith("head.")}
    if all(name in arrays and arrays[name].shape == expected[name].shape for name in expected):
        return "All parameters of the network match; the following tensors are wrong or unexpected."
    if n_classes and all(name in arrays and arrays[name].shape == expected[name].shape for name in body):
        return (
            f"The checkpoint has {n_classes} classes, expected {expected['head.bias'].shape[0]}: "
            f"pass num_classes={n_classes} (--num_classes={n_classes}) to use its head."
        )
    for other in models.PRESETS:
        family = family_of(other)
        if family.signature_key not in map(family.to_our_name, tensors):
            continue
        theirs = our_tensors(family, tensors)
        shapes = {}
        for name, tensor in theirs.items():
            if not name.endswith(("num_batches_tracked", "relative_position_index")):
                ours, array = to_flax_layout(name, reorder_axes(name, tensor))
                shapes[ours] = array.shape
        count = shapes.get("head.bias", (None,))[0]
        if {name: a.shape for name, a in parameters.named_parameters(abstract_network(other, count)).items()} == shapes:
            return f"They match {other}."
    known = "; ".join(sorted({family.name_source for family in FAMILIES.values()}))
    return f"They match none of {', '.join(models.PRESETS)}; supported are {known}."
