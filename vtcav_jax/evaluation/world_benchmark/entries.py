"""Entries of the benchmark: each method at each stage where it applies, trivial maps, and custom functions."""

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from threading import RLock
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vtcav_jax import tap
from vtcav_jax.attribution import (
    METHODS,
    SINGLE_PASS_METHODS,
    VIDEO,
    Attribution,
    attribute_many,
    pixel_bounds,
    prepare_explanation,
)
from vtcav_jax.attribution.gradients import smoothgrad_pair
from vtcav_jax.attribution.registry import (
    INPUT_METHODS,
    MULTI_TARGET_METHODS,
    PERTURBATION_METHODS,
    SMOOTHGRAD_METHODS,
    check_options,
)
from vtcav_jax.attribution.shared_passes import Targets
from vtcav_jax.attribution.targets import Target
from vtcav_jax.evaluation.trivial_maps import TRIVIAL_MAPS, trivial_maps
from vtcav_jax.models import Network
from vtcav_jax.names import unknown_name_message
from vtcav_jax.runs.evaluation_rows import REFERENCE_MAPS

SINGLE_PASS_GROUP = "one pass"  # group of the methods that share one forward and backward pass

CUSTOM_CODE_LOCK = RLock()  # networks are scored in parallel, and custom functions may not be thread-safe

CustomMethod = Callable[..., Any]  # (model, clips, target) -> Attribution or maps (b, t, h, w)


@dataclass(frozen=True)
class Entry:
    """Method, stage and options of one row of the table."""

    method: str  # name in the table
    stage: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    alias_of: str = ""  # name in METHODS, if it differs
    function: CustomMethod | None = None

    @property
    def method_name(self) -> str:
        return self.alias_of or self.method

    @property
    def group(self) -> str:
        """Name of the group of entries whose maps are computed together."""
        if self.function is not None:
            return f"own:{self.method}"
        if not self.options:
            if self.method_name in SINGLE_PASS_METHODS:
                return SINGLE_PASS_GROUP
            if self.method_name in SMOOTHGRAD_METHODS:
                return SMOOTHGRAD_METHODS[0]
        return self.method


# Budgets of methods with adjustable cost: enough for the worlds' clips of 8 frames, and smaller
METHOD_BUDGETS: dict[str, dict[str, dict[str, Any]]] = {
    "integrated_gradients": {"integrated_gradients (8)": {"ig_steps": 8}, "integrated_gradients": {}},
    "expected_gradients": {"expected_gradients (16)": {"samples": 16}},
    "occlusion": {"occlusion": {"window": (2, 8, 8), "stride": (2, 8, 8)}},
    "sos": {"sos (150)": {"budget": 150}, "sos": {}},
    "loco": {"loco (supervoxels)": {"segments": "supervoxels", "cells": (4, 4, 4)}, "loco": {}},
    "up": {"up": {"cells": (4, 4, 4)}},
    "lime": {"lime (200)": {"masks": 200, "cells": (4, 4, 4)}, "lime (500)": {}},
    "kernel_shap": {"kernel_shap (200)": {"masks": 200, "cells": (4, 4, 4)}, "kernel_shap (500)": {}},
    "rise": {"rise (100)": {"masks": 100}, "rise (300)": {"masks": 300}},
    "shapley": {"shapley (2 orders)": {"orders": 2}, "shapley (8 orders)": {"orders": 8}},
    "frame_shapley": {"frame_shapley": {"groups": 4}},
    "extremal": {"extremal (200)": {"budget": 200}, "extremal": {}},
    "step": {"step (200)": {"budget": 200}, "step": {}},
}
# Only if the method is requested by name
EXPENSIVE = (
    *("integrated_gradients", "rise (300)", "shapley (8 orders)"),
    *("sos", "loco", "lime (500)", "kernel_shap (500)", "extremal", "step"),
)


def build_entries(
    network: Network, methods: Sequence[str] = (), custom_methods: Sequence[str] = ()
) -> tuple[Entry, ...]:
    """Return the entries for a network: of `methods` (default: all) and of `custom_methods`, `package.module:function`.

    Reference and trivial maps are always included; large budgets (`EXPENSIVE`) only for methods in `methods`.
    """
    baselines = (*TRIVIAL_MAPS, *REFERENCE_MAPS)
    method_names = dict.fromkeys((*(methods or METHODS), *baselines))
    if missing := [m for m in method_names if m not in METHODS and m not in baselines]:
        raise ValueError(
            unknown_name_message("method", missing, [*METHODS, *baselines])
            + "; your own: --custom_method=package.module:function"
        )
    stages = distinct_grid_stages(network)
    out = [Entry(name, function=import_function(name)) for name in dict.fromkeys(custom_methods)]
    for name in method_names:
        if name in baselines:
            out.append(Entry(name, VIDEO))
        elif name in SINGLE_PASS_METHODS:
            method_stages = (VIDEO, *stages) if name in INPUT_METHODS else stages
            out += [Entry(name, stage) for stage in method_stages]
        else:
            budgets = METHOD_BUDGETS.get(name, {name: {}})
            labels = [label for label in budgets if methods or label not in EXPENSIVE]
            out += [Entry(label, None, budgets[label], name) for label in labels]
    return tuple(out)


def distinct_grid_stages(network: Network) -> tuple[str, ...]:
    """Return the stages with time and space; of consecutive stages on the same grid, only the first and the last."""
    clip_spec = network.clip_spec
    shapes = prepare_explanation(network.model, jnp.zeros((1, *clip_spec.shape)), 0).shapes
    grid_shapes = [(name, shape[1:4]) for name, shape in shapes.items() if len(shape) == 5 and name != VIDEO]
    distinct = []
    for i, (name, shape) in enumerate(grid_shapes):
        is_interior = 0 < i < len(grid_shapes) - 1 and grid_shapes[i - 1][1] == shape == grid_shapes[i + 1][1]
        if not is_interior:
            distinct.append(name)
    return tuple(distinct)


def import_function(name: str) -> CustomMethod:
    """Import `package.module:function`; the current folder is on the path."""
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        imported_function = getattr(import_module(module), function)
    except Exception as error:  # a custom module can raise anything
        message = f"expected package.module:function, a function that can be imported; {name}: {error!r}"
        raise ValueError(message) from error
    if not callable(imported_function):
        raise ValueError(
            f"expected {name} to be a function (model, clips, target) -> maps, got {type(imported_function).__name__}"
        )
    return imported_function


def make_maps(
    network: Network,
    entries: Sequence[Entry],
    video: Float[np.ndarray, "b t h w c"],
    targets: Sequence[Target],
    extra_options: Mapping[str, Any],
) -> list[list[Attribution]]:
    """Return the maps of each target and entry; `entries` are of one group, `extra_options` are `reference_data`."""
    first = entries[0]
    if first.function is not None:
        return [[call_custom_method(first.function, first.method, network.model, video, target)] for target in targets]
    if first.method in TRIVIAL_MAPS:
        values = trivial_maps(video, 0, [first.method])[first.method]
        return [[Attribution(values, VIDEO, False, 0, first.method)] for _ in targets]
    options = dict(first.options) | {k: v for k, v in extra_options.items() if k in _parameters(first.method_name)}
    at_default_stage = all(entry.stage in (None, VIDEO) for entry in entries)
    if first.method_name in MULTI_TARGET_METHODS and at_default_stage:
        check_options(first.method_name, options)
        return [
            [attribution]
            for attribution in MULTI_TARGET_METHODS[first.method_name](
                network.model, video, Targets(targets), **options
            )
        ]
    if first.method_name in SMOOTHGRAD_METHODS and at_default_stage and not options:
        smooth_pairs = smoothgrad_pair(network.model, video, Targets(targets))
        return [[both[SMOOTHGRAD_METHODS.index(entry.method_name)] for entry in entries] for both in smooth_pairs]
    method_stages = [(entry.method_name, entry.stage) for entry in entries]
    options_by_method = {first.method_name: options} if options else None
    return [attribute_many(network.model, video, target, method_stages, options_by_method) for target in targets]


def batches_targets(entry: Entry) -> bool:
    """Return whether several targets cost no more than one."""
    return entry.function is None and (entry.method in TRIVIAL_MAPS or entry.method_name in PERTURBATION_METHODS)


def reference_data(network: Network, video: Float[np.ndarray, "n t h w c"]) -> dict[str, Any]:
    """Return extra inputs of some methods: reference clips and the range of pixel values."""
    return {"references": video[:16], "bounds": pixel_bounds(network.clip_spec)}


def _parameters(method: str) -> set[str]:
    return set(inspect.signature(METHODS[method]).parameters)


def call_custom_method(
    function: CustomMethod, name: str, model: tap.Model, video: np.ndarray, target: Target
) -> Attribution:
    """Return the custom function's maps; it gets a copy of the clips, which it may modify."""
    try:
        with CUSTOM_CODE_LOCK:
            result = function(model, np.array(video), target)
    except Exception as error:  # a custom function can raise anything
        raise ValueError(f"{name} failed: {type(error).__name__}: {error}") from error
    try:
        values = np.asarray(result.map if isinstance(result, Attribution) else result, np.float32)
    except Exception as error:  # the result can be anything
        description = f"{type(result).__name__}, which is not an array: {error}"
        raise ValueError(f"{name} must return maps (clips, time, height, width), got {description}") from error
    if values.ndim != 4 or len(values) != len(video) or not np.isfinite(values).all():
        raise ValueError(
            f"{name} must return finite maps (clips, time, height, width) for {len(video)} clips, got shape"
            f" {values.shape}" + ("" if np.isfinite(values).all() else " with NaN or infinity")
        )
    return result if isinstance(result, Attribution) else Attribution(values, VIDEO, True, 0, name)
