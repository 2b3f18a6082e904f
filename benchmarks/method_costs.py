"""Measure what the default of every attribution method costs for one clip, in forward passes and seconds.

  python -m benchmarks.method_costs

A forward pass is timed before and after each method, and the method's time per forward pass that it takes is given
relative to it; seconds are this ratio, the number of passes and the forward pass of benchmarks.forward, multiplied.
Methods with many passes are timed with fewer masks, samples or steps. Some methods of the larger network are not timed:
their seconds are the number of passes times the forward pass. Writes benchmarks/results/method_costs_BACKEND.jsonl and
its table in docs/speed.md.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import timing, write_tables
from vtcav_jax import attribution
from vtcav_jax.attribution.registry import METHODS, planned_passes
from vtcav_jax.models.checkpoint import random_network

_PRESETS = flags.DEFINE_list("presets", ["r3d_18", "video_swin_t_k400"], "networks, with random weights")

CLIPS = {"r3d_18": (16, 112, 112), "video_swin_t_k400": (32, 224, 224)}
MAX_TIMED_PASSES = {"r3d_18": 40, "video_swin_t_k400": 12}
FEWER: dict[str, dict[str, Any]] = {
    **{name: {"samples": 4} for name in ("smoothgrad", "smoothgrad_squared", "expected_gradients")},
    "integrated_gradients": {"ig_steps": 4},
}
FEWER_MASKS: dict[str, Any] = {"budget": 30}  # of removal methods and optimised masks
SHAPLEY_OF_FEW_GROUPS = {"frame_shapley": {"groups": 4}, "shapley": {"cells": (2, 2, 1)}}
TARGET_CLASS = 7


def reduced_options(method: str) -> dict[str, Any]:
    return FEWER.get(method) or SHAPLEY_OF_FEW_GROUPS.get(method) or FEWER_MASKS


def main(argv: list[str]) -> None:
    del argv
    results = []
    for preset in _PRESETS.value:
        shape = CLIPS[preset]
        forward_s = published_forward_seconds(preset, shape)
        network = random_network(preset)
        model = network.model
        video = jnp.asarray(np.random.default_rng(0).normal(size=(1, *shape, 3)), jnp.float32)
        required = {
            "expected_gradients": {"references": video},
            "deep_taylor": {"bounds": attribution.pixel_bounds(network.clip_spec)},
        }
        forward = timing.compile_timed(lambda m, v: m(v), model, video).call
        time_call(forward)
        for method in METHODS:
            options: dict[str, Any] = required.get(method, {})
            passes = timed_passes = planned_passes(method, shape, **options)
            row = {"preset": preset, "clip": shape, "forward_s": forward_s, "method": method, "passes": passes}
            if passes > MAX_TIMED_PASSES[preset] and method != "gradcam_framewise":
                options = options | reduced_options(method)
                timed_passes = planned_passes(method, shape, **options)
            if timed_passes <= MAX_TIMED_PASSES[preset]:
                try:
                    attribution.attribute(model, video, TARGET_CLASS, method, **options)  # compiles
                except ValueError as error:  # the method does not suit the network, such as attention maps of a CNN
                    results.append(row | {"unsuitable": str(error)})
                    continue
                call = partial(attribution.attribute, model, video, TARGET_CLASS, method, **options)
                before, seconds, after = time_call(forward), time_call(call), time_call(forward)
                row |= {"timed_passes": timed_passes, "ratio": round(seconds / timed_passes / (before + after) * 2, 3)}
            results.append(row)
            print(row, flush=True)
        jax.clear_caches()
    path = timing.write_results("method_costs", results)
    print(f"wrote {path} and the tables of {write_tables.update_pages()}", file=sys.stderr)


def published_forward_seconds(preset: str, clip: tuple[int, ...]) -> float:
    """Return the seconds per clip that benchmarks.forward measured on this kind of device."""
    file = timing.RESULTS / f"forward_{jax.default_backend()}.jsonl"
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return next(
        round(row["median_s"] / row["batch"], 4)
        for row in rows
        if (row["preset"], tuple(row["clip"]), row["dtype"]) == (preset, clip, "float32")
    )


def time_call(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    app.run(main)
