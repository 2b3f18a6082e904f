"""Measure a GPU or TPU within some minutes, in the order of value, against compiled torch; rehearse on a CPU.

  python -m benchmarks.accelerator --minutes=8
  python -m benchmarks.accelerator --rehearse --minutes=3        small clips, to try the steps on a CPU

Each step runs in a process of its own, so that one that fails or runs out of memory costs only itself, and is written
at once to benchmarks/results/accelerator_BACKEND.jsonl (a rehearsal is only printed). A step starts only if its
expected time is left. The steps: differences from torch at each stage in float32, and of bfloat16 from float32; forward
passes and gradients at the batch size with the most clips per second; a whole TCAV run; reading of videos. torch has
the same weights, and is compiled, in bfloat16, with channels last on a GPU.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave GPU memory for torch
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import tables, timing, write_tables
from benchmarks.programs import TARGET, forward, input_gradient
from benchmarks.torch_peer import TorchPeer
from vtcav_jax import models, tap

_MINUTES = flags.DEFINE_float("minutes", 8, "time for all steps", lower_bound=0.1)
_REHEARSE = flags.DEFINE_boolean("rehearse", False, "small clips and batches, without writing results")

NETWORKS = ("video_swin_t_k400", "video_swin_b_k400", "videomae_b_k400", "r3d_18")
PROGRAMS: dict[str, Callable[..., Any]] = {"forward": forward, "gradient": input_gradient}
MAX_BATCH, MIN_GAIN, REPEATS = 64, 1.05, 10  # a batch twice as large must give 5 % more clips per second
Clip = tuple[int, int, int]


def clip_of(preset: str, rehearse: bool) -> Clip:
    frames, height, width, _ = models.get_preset(preset).clip_spec.shape
    return (frames // 2, height // 2, width // 2) if rehearse and preset == "r3d_18" else (frames, height, width)


def measure_differences(preset: str, clip: Clip) -> dict[str, Any]:
    """Return the largest difference over stages: float32 from torch, and bfloat16 from our float32."""
    video = np.random.default_rng(0).normal(size=(1, *clip, 3)).astype(np.float32)
    peer = TorchPeer(preset, video, "float32")
    stages = tap.stages_of(peer.model)
    with jax.default_matmul_precision("highest"):
        logits, exact = tap.activations(peer.model, jnp.asarray(video), stages)
    difference = timing.largest_difference(logits, peer.eager().float().cpu())
    half = TorchPeer(preset, video, "bfloat16").model
    _, rounded = tap.activations(half, jnp.asarray(video), stages)
    by_stage = {
        stage: timing.largest_difference(rounded[stage].astype(jnp.float32), exact[stage].astype(jnp.float32))
        for stage in stages
    }
    worst = max(by_stage, key=lambda stage: by_stage[stage])
    return {
        **{"logits_float32": float(f"{difference:.2g}"), "worst_stage_bfloat16": worst},
        "bfloat16": float(f"{by_stage[worst]:.2g}"),
    }


def measure_program(preset: str, clip: Clip, program: str, max_batch: int, dtype: str) -> dict[str, Any]:
    """Find the best batch size, and time ours and torch's there in turn."""
    model = models.make(preset, dtype=getattr(jnp, dtype))
    run, best, compile_s, batch = PROGRAMS[program], (0.0, 0), 0.0, 1
    while batch <= max_batch:
        video = jnp.zeros((batch, *clip, 3), jnp.float32)
        try:
            timed = timing.measure_alone(run, model, video, repeats=3)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            break
        if batch / timed.median_s < MIN_GAIN * best[0]:
            break
        best, compile_s, batch = (batch / timed.median_s, batch), timed.compile_s, 2 * batch
    batch = best[1]
    video = np.random.default_rng(0).normal(size=(batch, *clip, 3)).astype(np.float32)
    peer = TorchPeer(preset, video, dtype)
    if peer.device == "cuda":
        peer.use_channels_last()
    ours = timing.compile_timed(run, peer.model, video)
    calls = {"ours": ours.call}
    if compiled := peer.compile():
        calls["torch"] = compiled[0] if program == "forward" else partial(peer.input_gradient, TARGET, peer.compiled)
    seconds_of = timing.time_in_turn(calls, timing.affordable_repeats(ours.call, REPEATS, 10.0))
    gflop = timing.gflop(run, peer.model, video)
    peak = timing.matmul_peak_gflops(getattr(jnp, dtype))
    row = timing.as_row(timing.Timing.from_seconds(seconds_of["ours"], compile_s, ours.temp_mib))
    row |= {"batch": batch, "clips_per_s": float(f"{batch / row['median_s']:.4g}"), "gflop": round(gflop, 1)}
    row |= {"peak_gflops": round(peak), "utilisation": round(gflop / row["median_s"] / peak, 3)}
    if "torch" in seconds_of:
        row["torch_s"] = float(f"{timing.Timing.from_seconds(seconds_of['torch']).median_s:.4g}")
        row["torch_ratio"] = round(timing.ratio(seconds_of["torch"], seconds_of["ours"]), 2)
    return row


def measure_tcav() -> dict[str, Any]:
    """Time a whole experiment relative to its passes."""
    from benchmarks.tcav import overhead_rows

    row = overhead_rows(1)[0]
    return {name: row[name] for name in ("clips", "tests", "total_s", "bare_s", "times_bare")}


def measure_decoding() -> dict[str, Any]:
    """Return the clips per second of each reader of small videos."""
    from benchmarks.decode import SIZES, measure_readers

    with tempfile.TemporaryDirectory() as folder:
        rows = measure_readers(Path(folder), SIZES[0], 32, 2)
    return {"clips_per_s_by_reader": {row["reader"]: row["clips_per_s"] for row in rows}}


def steps(rehearse: bool) -> Iterator[tuple[str, str, float, Callable[[], dict[str, Any]]]]:
    """Yield name, network, expected seconds and function of each step, the most valuable first."""
    networks = ("r3d_18",) if rehearse else NETWORKS
    dtype, batch = ("float32", 2) if rehearse else ("bfloat16", MAX_BATCH)
    for preset in dict.fromkeys((networks[0], networks[-1])):
        yield "differences", preset, 40, partial(measure_differences, preset, clip_of(preset, rehearse))
    for preset in networks:
        for program in PROGRAMS:
            run = partial(measure_program, preset, clip_of(preset, rehearse), program, batch, dtype)
            yield program, preset, 60, run
    if not rehearse:
        yield "whole TCAV run", NETWORKS[0], 90, measure_tcav
        yield "reading of videos", "", 60, measure_decoding


def main(argv: list[str]) -> None:
    del argv
    end, rows = time.monotonic() + 60 * _MINUTES.value, []
    for name, preset, expected, run in steps(_REHEARSE.value):
        left = end - time.monotonic()
        if left < expected:
            print(f"{name} {preset}: left out, {left:.0f} s are left of about {expected:.0f} s", file=sys.stderr)
            continue
        print(f"{name} {preset} ...", file=sys.stderr, flush=True)
        row: dict[str, Any] = {"step": name, "preset": preset}
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            try:
                row |= process.submit(run).result(timeout=left)
            except Exception as error:  # a step that fails costs only itself
                row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                for worker in list(process._processes.values()):
                    worker.kill()
        rows.append(row)
        print(row, flush=True)
        if not _REHEARSE.value:
            timing.write_results("accelerator", rows)
    if not _REHEARSE.value:
        print(f"wrote the results and their table in {write_tables.update_pages()}", file=sys.stderr)
    print(tables.accelerator_table(rows))


if __name__ == "__main__":
    app.run(main)
