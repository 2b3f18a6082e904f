"""Networks from `flax.nnx` modules that do not take a tap; every submodule is a stage, by its attribute path."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from vtcav_jax.adapters.stages import (
    Classes,
    Tokens,
    adapt,
    axes_of,
    make_layout,
    number_calls,
    source_identity,
    stable_repr,
    tap_output,
)
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.models.network import Network
from vtcav_jax.names import abridged_list
from vtcav_jax.tap import Tap

_CALLS_LOCK = threading.RLock()  # while classes are traced with a tap


def from_nnx(
    module: nnx.Module,
    *,
    clip: ClipSpec,
    classes: Classes | None = None,
    layout: str = "bthwc",
    arguments: Mapping[str, Any] | None = None,
    logits: Callable[[Any], Array] = lambda output: output,
    grids: Mapping[str, Tokens | str] | None = None,
    name: str | None = None,
) -> Network:
    """Return the network of an nnx module in evaluation mode (`module.eval()`).

    Stages are the submodules by their attributes, such as `blocks.1.attn`, in the order in which they run; a further
    call of the same submodule is `blocks.1.attn#2`. Submodules inside `nnx.scan`, `nnx.remat` or `nnx.jit` are no
    stages. A module that takes a tap itself needs no adapter: `Network(module, clip, heads)`.

    The arguments are those of `from_linen`.
    """
    axes, stage_layout, further = axes_of(layout), make_layout(grids), dict(arguments or {})
    _require_evaluation_mode(module)
    graph, random_state, state = nnx.split(module, nnx.RngState, ...)  # random numbers are no parameters

    def run(state: Any, video: Array, tap: Tap) -> Any:
        bound = nnx.merge(graph, random_state, state)
        stage_tap = number_calls(lambda stage, value: stage_layout.apply(tap, stage, value))
        with _tapped_calls(bound, stage_tap):
            return logits(bound(jnp.transpose(video, axes), **further))

    modules = {type(part) for _, part in nnx.iter_modules(module) if not type(part).__module__.startswith("flax.")}
    return adapt(
        run,
        state,
        identity=source_identity(*sorted(modules, key=str)) + stable_repr(graph) + layout + stable_repr(further),
        clip=clip,
        classes=classes,
        name=name or type(module).__name__,
        grids=grids,
    )


def _require_evaluation_mode(module: nnx.Module) -> None:
    """Raise ValueError if dropout is active or batch norm uses the statistics of the batch."""
    modes = {"deterministic": False, "use_running_average": False}  # attributes that `module.eval()` sets to true
    parts = [
        ".".join(map(str, (*path, name)))
        for path, part in nnx.iter_modules(module)
        for name, in_training in modes.items()
        if getattr(part, name, None) is in_training
    ]
    if parts:
        raise ValueError(f"the module is in training mode ({abridged_list(parts)} is False); call module.eval() first")


@contextmanager
def _tapped_calls(module: nnx.Module, tap: Tap) -> Iterator[None]:
    """Pass the outputs of all submodules through the tap while a call is traced.

    nnx has no interception of calls, and Python looks up `__call__` in the class, so the classes are changed for the
    duration of the call and act on the instances of this module only.
    """
    names = {id(part): ".".join(map(str, path)) for path, part in nnx.iter_modules(module) if path}
    parts = [type(part) for path, part in nnx.iter_modules(module) if path and callable(part)]
    definers = {base for part in parts for base in [b for b in part.__mro__ if "__call__" in vars(b)][:1]}
    originals: dict[Any, Callable[..., Any]] = {part: vars(part)["__call__"] for part in definers}
    running: set[int] = set()  # a call of the parent class's method is part of the module's own call

    def tapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self, *args: Any, **kwargs: Any) -> Any:
            stage = None if id(self) in running else names.get(id(self))
            if stage is None:
                return original(self, *args, **kwargs)
            running.add(id(self))
            try:
                output = original(self, *args, **kwargs)
            finally:
                running.discard(id(self))
            return tap_output(output, partial(tap, stage))

        return call

    with _CALLS_LOCK:
        try:
            for part, original in originals.items():
                part.__call__ = tapped(original)
            yield
        finally:
            for part, original in originals.items():
                part.__call__ = original
