"""Stages of adapted models: their discovery, their layout in space and time, and the `Network` around them."""

import fnmatch
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial, keystr, tree_flatten_with_path
from jaxtyping import Array

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.models.network import Network, single_head
from vtcav_jax.names import abridged_list
from vtcav_jax.tap import Tap, identity_tap, trace_of

LAYOUTS = {"bcthw": (0, 4, 1, 2, 3), "btchw": (0, 1, 4, 2, 3), "bthwc": (0, 1, 2, 3, 4)}  # axes of (b, t, h, w, c)
STAGE_AXES = ("bcthw", "bthwc")
Classes = int | Sequence[str] | Mapping[str, Sequence[str]]


def axes_of(layout: str) -> tuple[int, ...]:
    """Return the transposition from (b, t, h, w, c) to a layout."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    return LAYOUTS[layout]


@dataclass(frozen=True)
class Tokens:
    """Places of the tokens of a stage `(b, prefix + t * h * w, c)`, in order of time, rows and columns.

    The stage then is an activation `(b, t, h, w, c)`; the prefix, such as a class token, stays as it is.
    """

    t: int
    h: int
    w: int
    prefix: int = 0

    def to_grid(self, value: Array, name: str) -> Array:
        """Return the tokens as a grid, without the prefix."""
        n = self.prefix + self.t * self.h * self.w
        if value.ndim != 3 or value.shape[1] != n:
            raise ValueError(
                f"{name} is {value.shape}, but {self} has {n} tokens; expected (b, {n}, c): correct `grids`, or remove"
                " this stage from it"
            )
        return value[:, self.prefix :].reshape(len(value), self.t, self.h, self.w, value.shape[-1])

    def from_grid(self, grid: Array, value: Array) -> Array:
        """Return `value` with its tokens replaced by those of `grid`."""
        tokens = grid.reshape(len(grid), -1, grid.shape[-1])
        return jnp.concatenate([value[:, : self.prefix], tokens.astype(value.dtype)], 1) if self.prefix else tokens


@dataclass(frozen=True)
class StageLayout:
    """Layout of stages: `grids` by pattern of stage names, and whether channels of 5-axis values may come second."""

    grids: tuple[tuple[str, Tokens | str], ...] = ()
    channels_first: bool = False

    def apply(self, tap: Tap, name: str, value: Array) -> Array:
        """Pass the value to `tap` with channels last, as a grid if its name matches, and return it as it came."""
        grid = next((grid for pattern, grid in self.grids if fnmatch.fnmatchcase(name, pattern)), None)
        if isinstance(grid, Tokens):
            return grid.from_grid(tap(name, grid.to_grid(value, name)), value)
        channels_first = self.channels_first and _is_channels_first(value.shape) if grid is None else grid == "bcthw"
        if channels_first and value.ndim == 5:
            return jnp.moveaxis(tap(name, jnp.moveaxis(value, 1, -1)), -1, 1)
        return tap(name, value)


def number_calls(tap: Tap) -> Tap:
    """Return a tap that gives a further call of the same stage another name: `relu`, `relu#2`, `relu#3`."""
    calls: dict[str, int] = {}

    def numbered_tap(stage: str, value: Array) -> Array:
        calls[stage] = calls.get(stage, 0) + 1
        return tap(stage if calls[stage] == 1 else f"{stage}#{calls[stage]}", value)

    return numbered_tap


def tap_output(output: Any, tap_value: Callable[[Array], Array]) -> Any:
    """Pass an output, or the first of a tuple, through the tap if it is a floating-point array."""
    first = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(first, Array) or not jnp.issubdtype(first.dtype, jnp.floating):
        return output
    value = tap_value(first)
    return (value, *output[1:]) if isinstance(output, tuple) else value


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """Return whether a value of a PyTorch module has its channels second, unless only its third and fourth axis agree.

    Clips are square, so the axes of rows and columns have equal sizes.
    """
    return len(shape) == 5 and not (shape[2] == shape[3] != shape[4])


def make_layout(grids: Mapping[str, Tokens | str] | None, *, channels_first: bool = False) -> StageLayout:
    if wrong := [grid for grid in (grids or {}).values() if not isinstance(grid, Tokens) and grid not in STAGE_AXES]:
        raise ValueError(f"expected Tokens, bcthw or bthwc in `grids`, got {', '.join(map(repr, wrong))}")
    return StageLayout(tuple((grids or {}).items()), channels_first)


@dataclass(eq=False)
class AdaptedFunction:
    """Function `(parameters, video, tap) -> logits` with its stages; `identity` is a hash of its source.

    It is hashed by identity, so that each adapted model is compiled once.
    """

    run: Callable[[Any, Array, Tap], Any]
    identity: str
    stages: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()  # inside scans and other inner traces, where a tap has no access

    def __call__(self, parameters: Any, video: Array, tap: Tap = identity_tap) -> Any:
        return self.run(parameters, video, tap)


def adapt(
    run: Callable[[Any, Array, Tap], Any],
    parameters: Any,
    *,
    identity: str,
    clip: ClipSpec,
    classes: Classes | None,
    name: str,
    grids: Mapping[str, Tokens | str] | None = None,
) -> Network:
    """Return the network of a function after one abstract run, which finds its stages and checks its output."""
    _require_numbers(parameters)
    function = AdaptedFunction(run, identity)
    model = Partial(function, parameters)
    function.stages, function.hidden, logits = find_stages(model, clip)
    if grids and (unused := [g for g in grids if not any(fnmatch.fnmatchcase(s, g) for s in function.stages)]):
        raise ValueError(
            f"no stage matches {', '.join(map(repr, unused))} of `grids`; the stages are {', '.join(function.stages)}"
        )
    if logits.ndim != 2:
        raise ValueError(f"expected logits (b, classes), got an output of shape {logits.shape}; select them first")
    return Network(model, clip, _heads(classes, logits.shape[-1]), name)


def _require_numbers(parameters: Any) -> None:
    """Raise ValueError that names arrays with NaN; masks may have infinite values."""
    names = [
        keystr(path, simple=True, separator=".")
        for path, leaf in tree_flatten_with_path(parameters)[0]
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and bool(jnp.isnan(leaf).any())
    ]
    if names:
        raise ValueError(
            f"the network has NaN in {abridged_list(names)}; its weights are damaged or their training diverged, use"
            " others"
        )


def find_stages(
    model: Callable[..., Any], clip: ClipSpec
) -> tuple[tuple[str, ...], tuple[str, ...], jax.ShapeDtypeStruct]:
    """Return the stages, those inside inner traces, and the shape of the logits, without computing anything."""
    stages: dict[str, bool] = {}

    def run(model, video):
        outer = trace_of(video)

        def tap(name: str, value: Array) -> Array:
            if name in stages:
                raise ValueError(f"the model calls its tap twice with {name!r}; stage names must be unique")
            stages[name] = trace_of(value) is outer
            return value

        return model(video, tap)

    logits = jax.eval_shape(run, model, jax.ShapeDtypeStruct((1, *clip.shape), jnp.float32))
    if not isinstance(logits, jax.ShapeDtypeStruct):
        raise ValueError(f"expected one array of logits, got {type(logits).__name__}; select the logits first")
    visible, hidden = (tuple(s for s, is_outer in stages.items() if is_outer == outer) for outer in (True, False))
    return visible, hidden, logits


def _heads(classes: Classes | None, n_logits: int) -> dict[str, tuple[str, ...]]:
    if classes is None or isinstance(classes, int):
        heads = single_head(n_logits if classes is None else classes, None)
    elif isinstance(classes, Mapping):
        heads = {head: tuple(names) for head, names in classes.items()}
    else:
        heads = single_head(len(classes), classes)
    n_classes = sum(map(len, heads.values()))
    if n_classes != n_logits:
        raise ValueError(f"the model returns {n_logits} logits, but `classes` has {n_classes}; pass a name for each")
    return heads


def source_identity(*objects: Any) -> str:
    """Return a hash of the source code that defines functions or classes, and of the files that contain it."""
    hasher = hashlib.sha256()
    for item in objects:
        plain = inspect.unwrap(item) if callable(item) else type(item)
        hasher.update(f"{getattr(plain, '__module__', '')}.{getattr(plain, '__qualname__', plain)}".encode())
        try:
            file = inspect.getsourcefile(plain)
            with open(file or "", "rb") as source:
                hasher.update(source.read())
        except (OSError, TypeError):  # defined in a session without a file
            hasher.update(_code_bytes(plain))
    return hasher.hexdigest()


def stable_repr(value: Any) -> str:
    """Return the `repr` without addresses of functions and objects, which differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _code_bytes(item: Any) -> bytes:
    """Return the compiled code of a function, or of the functions of a class."""
    functions = [item] if hasattr(item, "__code__") else [f for f in vars(item).values() if hasattr(f, "__code__")]
    return b"".join(f.__code__.co_code + repr(f.__code__.co_consts).encode() for f in functions)
