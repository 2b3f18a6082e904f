"""Measure what the default of every attribution method costs for one clip, in forward passes and seconds.

  python -m benchmarks.method_costs

Methods of up to 40 forward passes are timed as they are. Others are timed with fewer masks, samples or steps, and their
seconds are multiplied by the ratio of forward passes; their rows say so. Writes
benchmarks/results/method_costs_BACKEND.jsonl and its table in docs/speed.md.
"""

import sys
import time
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
MAX_TIMED_PASSES = 40
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
        network = random_network(preset)
        model = network.model
        video = jnp.asarray(np.random.default_rng(0).normal(size=(1, *shape, 3)), jnp.float32)
        forward = timing.measure_alone(lambda m, v: m(v), model, video, repeats=5)
        results.append({"preset": preset, "clip": shape, "method": "forward pass", "passes": 1, "timed_passes": 1})
        results[-1]["seconds"] = round(forward.median_s, 3)
        required = {
            "expected_gradients": {"references": video},
            "deep_taylor": {"bounds": attribution.pixel_bounds(network.clip_spec)},
        }
        for method in METHODS:
            needed = required.get(method, {})
            passes = timed_passes = planned_passes(method, shape, **needed)
            options = needed
            if passes > MAX_TIMED_PASSES and method != "gradcam_framewise":
                options = needed | reduced_options(method)
                timed_passes = planned_passes(method, shape, **options)
            row = {"preset": preset, "clip": shape, "method": method, "passes": passes, "timed_passes": timed_passes}
            try:
                seconds = time_method(model, video, method, options)
            except ValueError as error:  # the method does not suit the network, such as attention maps of a CNN
                row["unsuitable"] = str(error)
            else:
                row["seconds"] = round(seconds * passes / timed_passes, 3)
            results.append(row)
            print(row, flush=True)
            jax.clear_caches()
    path = timing.write_results("method_costs", results)
    print(f"wrote {path} and the tables of {write_tables.update_pages()}", file=sys.stderr)


def time_method(model: Any, video: Any, method: str, options: dict[str, Any]) -> float:
    """Return the seconds of the fastest of two calls, after one that compiles."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        attribution.attribute(model, video, TARGET_CLASS, method, **options)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


if __name__ == "__main__":
    app.run(main)
