"""Networks from plain functions of a video."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from vtcav_jax.adapters.stages import Classes, Tokens, adapt, axes_of, make_layout, source_identity
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.models.network import Network
from vtcav_jax.tap import Tap


def from_function(
    function: Callable[..., Array],
    parameters: Any = None,
    *,
    clip: ClipSpec,
    classes: Classes | None = None,
    layout: str = "bthwc",
    grids: Mapping[str, Tokens | str] | None = None,
    name: str | None = None,
) -> Network:
    """Return the network of a plain function `(parameters, video, tap) -> logits`.

    ```python
    def network(parameters, video, tap):
        x = tap("features", jax.nn.relu(video @ parameters["w"]))
        return x.mean((1, 2, 3)) @ parameters["v"]

    net = from_function(network, {"w": w, "v": v}, clip=ClipSpec(frames=8, size=32), classes=("left", "right"))
    ```

    Args:
        function: calls `x = tap(name, x)` at each stage (layer) and continues with the returned value. Without
            `parameters` it takes `(video, tap)`; a function without an argument `tap` has no stages.
        parameters: any pytree of arrays; arrays that the function keeps elsewhere become part of the compiled program
            and of no cache key.
        classes: class names, or for several heads the names by head; by default the numbers of the logits.
        layout: axes of the video, bthwc, bcthw or btchw. Clips of the package are always (b, t, h, w, c).
        grids: for stages (b, n, c), by name or pattern, where their tokens are.
    """
    axes = axes_of(layout)
    names = inspect.signature(function).parameters
    has_tap = "tap" in names or _n_arguments(function) > (1 if parameters is None else 2)
    stage_layout = make_layout(grids)

    def run(parameters: Any, video: Array, tap: Tap) -> Any:
        arguments = (() if parameters is None else (parameters,)) + (jnp.transpose(video, axes),)
        if not has_tap:
            return function(*arguments)
        return function(*arguments, lambda stage, value: stage_layout.apply(tap, stage, value))

    return adapt(
        run,
        parameters,
        identity=source_identity(function) + layout,
        clip=clip,
        classes=classes,
        name=name or getattr(function, "__name__", "function"),
        grids=grids,
    )


def _n_arguments(function: Callable[..., Any]) -> int:
    """Return the number of positional arguments without defaults."""
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in inspect.signature(function).parameters.values()
    )
