"""Which maps are scored: every method of the package at every stage where it makes sense, maps that ask no network, and
functions of one's own.
"""

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

from vtcav_jax import models, tap
from vtcav_jax.attribution import (
    METHODS,
    SINGLE_PASS_METHODS,
    VIDEO,
    Attribution,
    explain_many,
    perturbation,
    pixel_bounds,
    prepare_explanation,
)
from vtcav_jax.attribution.gradients import smoothgrad_pair
from vtcav_jax.attribution.registry import INPUT_METHODS, MULTI_TARGET_METHODS, SMOOTHGRAD_METHODS, check_options
from vtcav_jax.attribution.targets import Target
from vtcav_jax.evaluation.trivial_maps import MODEL_FREE, baseline_map
from vtcav_jax.models import Network
from vtcav_jax.names import unknown

ONE_PASS = "one pass"  # the group of all methods that share it

ONE_AT_A_TIME = RLock()  # code that is not ours need not know that networks are scored side by side

Function = Callable[..., Any]  # (model, clips, target) -> Attribution or maps (b, t, h, w)


@dataclass(frozen=True)
class Entry:
    """A row of the table: a method, where, and how."""

    method: str  # as the table calls it
    stage: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""  # the method's name in METHODS, if the table calls it otherwise
    function: Function | None = None

    @property
    def known(self) -> str:
        return self.kind or self.method

    @property
    def group(self) -> str:
        """Rows of one group are made together."""
        if self.function is not None:
            return f"own:{self.method}"
        if not self.options:
            if self.known in SINGLE_PASS_METHODS:
                return ONE_PASS
            if self.known in SMOOTHGRAD_METHODS:
                return SMOOTHGRAD_METHODS[0]
        return self.method


# Budgets, for methods that are told how much to spend: what the world's clips of 8 frames need, and less
BUDGETS: dict[str, dict[str, dict[str, Any]]] = {
    "integrated_gradients": {"integrated_gradients (8)": {"ig_steps": 8}, "integrated_gradients": {}},
    "expected_gradients": {"expected_gradients (16)": {"samples": 16}},
    "occlusion": {"occlusion": {"stride": (2, 8, 8)}},
    "rise": {"rise (100)": {"masks": 100}, "rise (300)": {"masks": 300}},
    "shapley": {"shapley (2 orders)": {"orders": 2}, "shapley (8 orders)": {"orders": 8}},
    "frame_shapley": {"frame_shapley": {"groups": 4}},
}
DEAR = ("integrated_gradients", "rise (300)", "shapley (8 orders)")  # only where the method is named
FREE = MODEL_FREE


def lineup(loaded: Network, methods: Sequence[str] = (), own: Sequence[str] = ()) -> tuple[Entry, ...]:
    """Every row for a network; `methods` names some, `own` are functions as `package.module:function`.

    Maps that ask no network are always among them, large budgets (`DEAR`) of methods that are named.
    """
    named = dict.fromkeys((*methods, *FREE) if methods else (*METHODS, *FREE))
    if missing := [m for m in named if m not in METHODS and m not in FREE]:
        raise ValueError(unknown("method", missing, [*METHODS, *FREE]) + "; your own: --method=package.module:function")
    stages = grids(loaded)
    out = [Entry(name, function=imported(name)) for name in dict.fromkeys(own)]
    for name in named:
        if name in FREE:
            out.append(Entry(name, VIDEO))
        elif name in SINGLE_PASS_METHODS:
            at = (VIDEO, *stages) if name in INPUT_METHODS else stages
            out += [Entry(name, stage) for stage in at]
        else:
            budgets = BUDGETS.get(name, {name: {}})
            told = [label for label in budgets if methods or label not in DEAR]
            out += [Entry(label, None, budgets[label], name) for label in told]
    return tuple(out)


def grids(loaded: Network) -> tuple[str, ...]:
    """Stages with time and space, of those that share a grid in a row the first and the last."""
    geometry = models.PRESETS[loaded.preset].clip_spec
    shapes = prepare_explanation(loaded.model, jnp.zeros((1, *geometry.shape)), 0).shapes
    found = [(name, shape[1:4]) for name, shape in shapes.items() if len(shape) == 5 and name != VIDEO]
    kept = []
    for i, (name, shape) in enumerate(found):
        inside = 0 < i < len(found) - 1 and found[i - 1][1] == shape == found[i + 1][1]
        if not inside:
            kept.append(name)
    return tuple(kept)


def imported(name: str) -> Function:
    """`package.module:function`, also of the folder that one is in."""
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(import_module(module), function)
    except Exception as error:  # whatever is in a module that is not ours
        told = f"expected package.module:function, a function that can be imported; {name}: {error!r}"
        raise ValueError(told) from error
    if not callable(found):
        raise ValueError(f"expected {name} to be a function (model, clips, target) -> maps, got {type(found).__name__}")
    return found


def maps(
    loaded: Network,
    entries: Sequence[Entry],
    video: Float[np.ndarray, "b t h w c"],
    targets: Sequence[Target],
    given: Mapping[str, Any],
) -> list[list[Attribution]]:
    """Of entries of one group, for each target; `given` has the clips that some methods compare with."""
    first = entries[0]
    if first.function is not None:
        return [[own_map(first.function, first.method, loaded.model, video, target)] for target in targets]
    if first.method in FREE:
        values = baseline_map(first.method, video, 0)
        return [[Attribution(values, VIDEO, False, 0, first.method)] for _ in targets]
    options = dict(first.options) | {k: v for k, v in given.items() if k in _parameters(first.known)}
    at_home = all(entry.stage in (None, VIDEO) for entry in entries)
    if first.known in MULTI_TARGET_METHODS and at_home:
        check_options(first.known, options)
        return [[one] for one in MULTI_TARGET_METHODS[first.known](loaded.model, video, targets, **options)]
    if first.known in SMOOTHGRAD_METHODS and at_home and not options:
        found = smoothgrad_pair(loaded.model, video, targets)
        return [[both[SMOOTHGRAD_METHODS.index(entry.known)] for entry in entries] for both in found]
    wanted = [(entry.known, entry.stage) for entry in entries]
    own = {first.known: options} if options else None
    return [explain_many(loaded.model, video, target, wanted, own) for target in targets]


def shares(entry: Entry) -> bool:
    """Whether several targets cost no more than one."""
    return entry.function is None and (entry.method in FREE or entry.known in perturbation.MULTI_TARGET_PERTURBATIONS)


def given(loaded: Network, video: Float[np.ndarray, "n t h w c"]) -> dict[str, Any]:
    """What some methods must be told: which clips are usual, and how far a pixel can go."""
    return {"references": video[:16], "bounds": pixel_bounds(models.PRESETS[loaded.preset].clip_spec)}


def _parameters(method: str) -> set[str]:
    return set(inspect.signature(METHODS[method]).parameters)


def own_map(function: Function, name: str, model: tap.Model, video: np.ndarray, target: Target) -> Attribution:
    """What the function gives for a copy of the clips: it may change them."""
    try:
        with ONE_AT_A_TIME:
            found = function(model, np.array(video), target)
    except Exception as error:  # of code that is not ours
        raise ValueError(f"{name} failed: {type(error).__name__}: {error}") from error
    try:
        values = np.asarray(found.map if isinstance(found, Attribution) else found, np.float32)
    except Exception as error:  # of whatever was given
        told = f"{type(found).__name__}, which is no array: {error}"
        raise ValueError(f"{name} must give maps (clips, time, height, width), got {told}") from error
    if values.ndim != 4 or len(values) != len(video) or not np.isfinite(values).all():
        raise ValueError(
            f"{name} must give finite maps (clips, time, height, width) for {len(video)} clips, got shape"
            f" {values.shape}" + ("" if np.isfinite(values).all() else " with NaN or infinity")
        )
    return found if isinstance(found, Attribution) else Attribution(values, VIDEO, True, 0, name)
