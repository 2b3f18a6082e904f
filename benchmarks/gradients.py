"""Benchmark gradients at several stages, relative to a forward pass and to torch autograd.

  python -m benchmarks.gradients

Writes benchmarks/results/gradients_BACKEND.jsonl and its table.
"""

import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave GPU memory for torch
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import tables, timing, write_tables
from benchmarks.torchvision_peer import TorchvisionPeer
from vtcav_jax import models, tap
from weights_conversion import torch_reference

_REPEATS = flags.DEFINE_integer("repeats", 20, "timed calls of each implementation", lower_bound=2)

LAYERS = ("layers.0", "layers.1", "layers.2", "layers.3")
TARGET = 7


def forward(model, video):
    return model(video)


def gradients(stages: tuple[str, ...], model, video):
    target = jnp.full(len(video), TARGET, jnp.int32)
    return tap.activations_and_gradients(model, video, target, stages).gradients


def measure_gradients(preset: str, clip: tuple[int, ...], batch: int, dtype: str, repeats: int) -> list[dict]:
    print(f"{preset} {batch} x {'x'.join(map(str, clip))} {dtype} ...", file=sys.stderr, flush=True)
    model = models.make(preset, dtype=getattr(jnp, dtype))
    video = np.random.default_rng(0).normal(size=(batch, *clip, 3)).astype(np.float32)
    stage_sets = {"4 layers": LAYERS, "every stage": tap.stages_of(model)}
    programs = {"forward": forward} | {name: partial(gradients, stages) for name, stages in stage_sets.items()}
    ready = {name: timing.compile_timed(program, model, video) for name, program in programs.items()}
    calls = {name: program_of_name.call for name, program_of_name in ready.items()}
    differences: dict[str, float] = {}
    try:
        peer = TorchvisionPeer(preset, model, video, dtype)
        for name, stages in stage_sets.items():
            theirs, ours = peer.gradients(stages, TARGET), calls[name]()
            pairs = [(ours[s], torch_reference.to_our_axes(s, theirs[s].float().cpu().numpy())) for s in stages]
            differences[name] = max(timing.largest_difference(a, b) for a, b in pairs)
            calls[f"torchvision, {name}"] = lambda stages=stages: peer.gradients(stages, TARGET)
        calls["torchvision, forward"] = peer.eager
    except ModuleNotFoundError as error:
        print(f"no comparison: {error} is not installed", file=sys.stderr)
    seconds = timing.time_in_turn(calls, repeats)
    peak = timing.matmul_peak_gflops(getattr(jnp, dtype))
    out = []
    for name, program_of_name in ready.items():
        gflop = timing.gflop(programs[name], model, video)
        result = {"preset": preset, "clip": list(clip), "batch": batch, "dtype": dtype, "what": name}
        result |= timing.as_row(
            timing.Timing.from_seconds(seconds[name], program_of_name.compile_s, program_of_name.temp_mib)
        )
        result |= {"gflop": round(gflop, 1), "share_of_peak": round(gflop / result["median_s"] / peak, 3)}
        result["times_forward"] = round(timing.ratio(seconds[name], seconds["forward"]), 2)
        if theirs := seconds.get(f"torchvision, {name}"):
            result["torchvision_s"] = float(f"{timing.Timing.from_seconds(theirs).median_s:.4g}")
            result["torchvision_ratio"] = round(timing.ratio(theirs, seconds[name]), 2)
        if name in differences:
            result["difference"] = float(f"{differences[name]:.2g}")
        out.append(result)
    return out


def main(argv: list[str]) -> None:
    del argv
    cpu = jax.default_backend() == "cpu"
    cases = (
        [((16, 224, 224), 1, "float32")] if cpu else [((32, 224, 224), 8, "bfloat16"), ((32, 224, 224), 8, "float32")]
    )
    results = [row for case in cases for row in measure_gradients("video_swin_t_k400", *case, repeats=_REPEATS.value)]
    print(tables.gradients_table(results))
    print(
        f"wrote {timing.write_results('gradients', results)} and its table in {write_tables.update_pages()}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    app.run(main)
