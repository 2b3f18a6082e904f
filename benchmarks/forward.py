"""Benchmark forward passes against the torch original, also run in jax by torchax, and their share of the peak.

  python -m benchmarks.forward                       standard networks and shapes for this kind of device
  python -m benchmarks.forward --preset=vivit_b_k400
  python -m benchmarks.forward --preset=video_swin_b_k400 --clip=32,224,224 --dtype=bfloat16 --batch=8

All sides have the same random weights. Writes the standard rows to benchmarks/results/forward_BACKEND.jsonl one by one,
in the place of earlier ones of the same network, and the table; a row with another --clip is only printed.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave GPU memory for torch
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import tables, timing, write_tables
from benchmarks.programs import forward
from benchmarks.torch_peer import TorchPeer
from vtcav_jax import models

_PRESET = flags.DEFINE_string("preset", None, "one network instead of all standard ones")
_CLIP = flags.DEFINE_list("clip", None, "frames, height, width; with --preset. Default: those of the standard rows")
_BATCH = flags.DEFINE_integer("batch", 1, "batch size; with --preset", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "data type; with --preset")
_REPEATS = flags.DEFINE_integer("repeats", 20, "timed calls of each implementation; at least 5 if slow", lower_bound=2)
_COMPILE = flags.DEFINE_list(
    "torch_compile",
    [],
    "beginnings of names of networks that torch.compile, which takes minutes, also times",
)
_LARGEST = flags.DEFINE_boolean(
    "largest_batch", None, "search for the largest batch size that fits; default: only on a GPU"
)

# preset, (frames, height, width), clips, dtype
ROWS_CPU = [
    ("video_swin_t_k400", (16, 224, 224), 1, "float32"),
    ("video_swin_t_k400", (32, 224, 224), 1, "float32"),
    ("video_swin_tiny", (8, 32, 32), 32, "float32"),
    ("videomae_s_k400", (16, 224, 224), 1, "float32"),
    ("videomae_b_k400", (16, 224, 224), 1, "float32"),
    ("timesformer_b_k400", (8, 224, 224), 1, "float32"),
    ("vivit_b_k400", (32, 224, 224), 1, "float32"),
    ("vjepa2_l_ssv2", (16, 256, 256), 1, "float32"),
    ("mvit_v2_s", (16, 224, 224), 1, "float32"),
    ("r3d_18", (16, 112, 112), 1, "float32"),
    ("mc3_18", (16, 112, 112), 1, "float32"),
    ("r2plus1d_18", (16, 112, 112), 1, "float32"),
    ("s3d", (16, 224, 224), 1, "float32"),
    ("c3d", (16, 112, 112), 1, "float32"),
    ("i3d", (16, 224, 224), 1, "float32"),
    ("mfnet", (16, 112, 112), 1, "float32"),
    ("resnet3d_50", (16, 112, 112), 1, "float32"),
    ("resnext3d_101_stem128", (16, 112, 112), 1, "float32"),
]
ROWS_ACCELERATOR = [
    ("video_swin_t_k400", (32, 224, 224), 1, "bfloat16"),
    ("video_swin_t_k400", (32, 224, 224), 16, "bfloat16"),
    ("video_swin_b_k400", (32, 224, 224), 8, "bfloat16"),
    ("video_swin_t_k400", (16, 224, 224), 16, "float32"),
]


def measure_forward(
    preset: str, clip: tuple[int, ...], batch: int, dtype: str, max_repeats: int, with_compile: bool, search: bool
) -> dict:
    print(f"{preset} {batch} x {'x'.join(map(str, clip))} {dtype} ...", file=sys.stderr, flush=True)
    video = np.random.default_rng(0).normal(size=(batch, *clip, 3)).astype(np.float32)
    out = {"preset": preset, "clip": list(clip), "batch": batch, "dtype": dtype}
    calls = {}
    try:
        peer = TorchPeer(preset, video, dtype)
        model = peer.model
        out["reference"] = peer.library
        calls["torch"] = peer.eager
        if with_compile and (compiled_call := peer.compile()):  # before torchax, with which torch.compile fails
            calls["torch_compiled"], out["torch_compile_s"] = compiled_call[0], round(compiled_call[1], 2)
        torchax = timing.compile_timed(forward, peer.through_torchax(), video)
        calls["torchax"], out["torchax_compile_s"] = torchax.call, round(torchax.compile_s, 2)
    except ModuleNotFoundError as error:
        print(f"no comparison: {error} is not installed", file=sys.stderr)
        model = models.make(preset, dtype=getattr(jnp, dtype))
    ours = timing.compile_timed(forward, model, video)
    logits = ours.call()
    for name, call in calls.items():
        theirs = call() if name == "torchax" else call().float().cpu()
        out["difference" if name == "torch" else f"{name}_difference"] = float(
            f"{timing.largest_difference(logits, theirs):.2g}"
        )
    repeats = timing.affordable_repeats(ours.call, max_repeats)
    seconds = timing.time_in_turn({"ours": ours.call, **calls}, repeats)
    out |= timing.as_row(timing.Timing.from_seconds(seconds["ours"], ours.compile_s, ours.temp_mib))
    gflop = timing.gflop(forward, model, video)
    peak = timing.matmul_peak_gflops(getattr(jnp, dtype))
    out |= {
        "gflop": round(gflop, 1),
        "peak_gflops": round(peak),
        "share_of_peak": round(gflop / out["median_s"] / peak, 3),
    }
    for name in calls:
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


def standard_rows() -> list[tuple[str, tuple[int, ...], int, str]]:
    rows = ROWS_CPU if jax.default_backend() == "cpu" else ROWS_ACCELERATOR
    preset = _PRESET.value
    if preset is None:
        return rows
    of_preset = [row for row in rows if row[0] == preset]
    if of_preset and not _CLIP.value:
        return of_preset
    clip = tuple(map(int, _CLIP.value)) if _CLIP.value else models.get_preset(preset).clip_spec.shape[:3]
    return [(preset, clip, _BATCH.value, _DTYPE.value)]


def main(argv: list[str]) -> None:
    del argv
    search = jax.default_backend() != "cpu" if _LARGEST.value is None else _LARGEST.value
    results = []
    rows = standard_rows()
    is_standard = set(rows) <= {*ROWS_CPU, *ROWS_ACCELERATOR}
    for row in rows:
        with_compile = row[0].startswith(tuple(_COMPILE.value))
        # torchax stays in its process, and torch.compile of a later row would fail
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            results.append(process.submit(measure_forward, *row, _REPEATS.value, with_compile, search).result())
        if is_standard:
            timing.replace_results("forward", results, ("preset",))
    print(tables.forward_table(results))
    if is_standard:
        print(f"wrote the results and their table in {write_tables.update_pages()}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
