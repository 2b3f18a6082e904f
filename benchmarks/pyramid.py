"""Benchmark pyramids, relative to a forward pass, for the networks of the paper.

  python -m benchmarks.pyramid

Stergiou et al. (2019) report 21 to 70 ms for the backward part through three layers, on two GTX 1080 Ti. Writes
benchmarks/results/pyramid_BACKEND.jsonl and its table.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import tables, timing, write_tables
from vtcav_jax import models, pyramid
from vtcav_jax.attribution import Class, prepare_explanation
from vtcav_jax.pyramid import Selection

_REPEATS = flags.DEFINE_integer("repeats", 5, "timed calls of each computation", lower_bound=2)
_NETWORKS = flags.DEFINE_list(
    "networks", ["mfnet", "i3d", "resnet3d_50", "resnet3d_101", "resnet3d_152", "resnext3d_101_stem128"], "presets"
)

CHANNELS, DEPTH, SIDE = 32, 3, 112


def measure_preset(preset: str, repeats: int) -> dict:
    print(f"{preset} ...", file=sys.stderr, flush=True)
    model = models.make(preset)
    clip_spec = models.PRESETS[preset].clip_spec
    clip = (min(clip_spec.frames, 16), SIDE, SIDE)
    random = np.random.default_rng(0)
    video = jnp.asarray(random.normal(size=(1, *clip, 3)).astype(np.float32))
    target, selection = Class(0), Selection("top", float(CHANNELS), CHANNELS)
    stages = pyramid.pyramid_levels(prepare_explanation(model, video, target), None, DEPTH)
    forward = jax.jit(lambda m, v: m(v))
    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: jax.block_until_ready(forward(model, video)),
        "pyramid": lambda: pyramid.build_pyramid(model, video, target, stages=stages, selection=selection),
    }
    start = time.perf_counter()
    built = pyramid.build_pyramid(model, video, target, stages=stages, selection=selection)
    compile_s = time.perf_counter() - start
    seconds = timing.time_in_turn(calls, repeats, warmups=1)
    row = {
        "preset": preset,
        "clip": list(clip),
        "batch": 1,
        "gflop": round(timing.gflop(lambda m, v: m(v), model, video), 1),
    }
    row |= {"levels": [" + ".join(level) for level in stages], "kernels": len(built.nodes), "edges": len(built.edges)}
    row |= timing.as_row(timing.Timing.from_seconds(seconds["pyramid"], compile_s))
    forward_s = float(np.median(seconds["forward"]))
    return row | {"forward_s": forward_s, "in_forwards": round(timing.ratio(seconds["pyramid"], seconds["forward"]), 2)}


def main(argv: list[str]) -> None:
    del argv
    results = [measure_preset(preset, _REPEATS.value) for preset in _NETWORKS.value]
    print(tables.pyramid_table(results))
    path = timing.replace_results("pyramid", results, ["preset"])
    print(f"wrote {path} and its table in {write_tables.update_pages()}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
