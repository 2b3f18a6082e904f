"""Benchmark forward passes against torchvision, and their share of the hardware's peak.

  python -m benchmarks.forward                       standard shapes for this kind of device
  python -m benchmarks.forward --preset=video_swin_b_k400 --clip=32,224,224 --dtype=bfloat16 --batch=8

Writes benchmarks/results/forward_BACKEND.jsonl and its table.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave GPU memory for torch
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import tables, timing, write_tables
from benchmarks.torchvision_peer import TorchvisionPeer
from vtcav_jax import models

_PRESET = flags.DEFINE_string("preset", None, "one network instead of the standard rows")
_CLIP = flags.DEFINE_list("clip", ["16", "224", "224"], "frames, height, width; with --preset")
_BATCH = flags.DEFINE_integer("batch", 1, "batch size; with --preset", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "data type; with --preset")
_REPEATS = flags.DEFINE_integer("repeats", 20, "timed calls of each implementation", lower_bound=2)
_LARGEST = flags.DEFINE_boolean(
    "largest_batch", None, "search for the largest batch size that fits; default: only on a GPU"
)

# preset, (frames, height, width), clips, dtype
ROWS_CPU = [
    ("video_swin_t_k400", (16, 224, 224), 1, "float32"),
    ("video_swin_t_k400", (32, 224, 224), 1, "float32"),
    ("video_swin_tiny", (8, 32, 32), 32, "float32"),
]
ROWS_ACCELERATOR = [
    ("video_swin_t_k400", (32, 224, 224), 1, "bfloat16"),
    ("video_swin_t_k400", (32, 224, 224), 16, "bfloat16"),
    ("video_swin_b_k400", (32, 224, 224), 8, "bfloat16"),
    ("video_swin_t_k400", (16, 224, 224), 16, "float32"),
]


def forward(model, video):
    return model(video)


def measure_forward(preset: str, clip: tuple[int, ...], batch: int, dtype: str, repeats: int, search: bool) -> dict:
    print(f"{preset} {batch} x {'x'.join(map(str, clip))} {dtype} ...", file=sys.stderr, flush=True)
    model = models.make(preset, dtype=getattr(jnp, dtype))
    video = np.random.default_rng(0).normal(size=(batch, *clip, 3)).astype(np.float32)
    ours = timing.compile_timed(forward, model, video)
    calls = {"ours": ours.call}
    out = {"preset": preset, "clip": list(clip), "batch": batch, "dtype": dtype}
    try:
        peer = TorchvisionPeer(preset, model, video, dtype)
        out["difference"] = float(f"{timing.largest_difference(ours.call(), peer.eager().float().cpu()):.2g}")
        calls["torchvision"] = peer.eager
        if compiled_call := peer.compile():
            calls["torchvision_compiled"], out["torch_compile_s"] = compiled_call[0], round(compiled_call[1], 2)
    except ModuleNotFoundError as error:
        print(f"no comparison: {error} is not installed", file=sys.stderr)
    seconds = timing.time_in_turn(calls, repeats)
    out |= timing.as_row(timing.Timing.from_seconds(seconds["ours"], ours.compile_s, ours.temp_mib))
    gflop = timing.gflop(forward, model, video)
    peak = timing.matmul_peak_gflops(getattr(jnp, dtype))
    out |= {
        "gflop": round(gflop, 1),
        "peak_gflops": round(peak),
        "share_of_peak": round(gflop / out["median_s"] / peak, 3),
    }
    for name in calls.keys() - {"ours"}:
        out[f"{name}_s"] = float(f"{timing.Timing.from_seconds(seconds[name]).median_s:.4g}")
        out[f"{name}_ratio"] = round(timing.ratio(seconds[name], seconds["ours"]), 2)
    if search:
        out["largest_batch"] = largest_batch(model, clip)
    return out


def largest_batch(model, clip: tuple[int, ...]) -> int:
    """Double the batch size until memory runs out, and return the last that fits."""
    batch = 1
    while True:
        try:
            jax.block_until_ready(jax.jit(forward)(model, jnp.zeros((2 * batch, *clip, 3), jnp.float32)))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return batch
        batch *= 2


def main(argv: list[str]) -> None:
    del argv
    cpu = jax.default_backend() == "cpu"
    rows = ROWS_CPU if cpu else ROWS_ACCELERATOR
    if _PRESET.value:
        rows = [(_PRESET.value, tuple(map(int, _CLIP.value)), _BATCH.value, _DTYPE.value)]
    search = (not cpu) if _LARGEST.value is None else _LARGEST.value
    results = [measure_forward(*case, repeats=_REPEATS.value, search=search) for case in rows]
    print(tables.forward_table(results))
    if not _PRESET.value:
        print(
            f"wrote {timing.write_results('forward', results)} and its table in {write_tables.update_pages()}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    app.run(main)
