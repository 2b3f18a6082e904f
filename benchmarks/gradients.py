"""Benchmark gradients of one class at many stages (layers) or at the video, relative to a forward pass and to torch.

  python -m benchmarks.gradients
  python -m benchmarks.gradients --preset=vivit_b_k400

Both sides have the same random weights. Writes benchmarks/results/gradients_BACKEND.jsonl network by network, in the
place of earlier rows of the same network, and its table; networks without standard rows are only printed.
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
from benchmarks.programs import TARGET, forward, input_gradient
from benchmarks.torch_peer import TorchPeer
from vtcav_jax import models, tap

_PRESET = flags.DEFINE_string("preset", None, "one network instead of all standard ones")
_REPEATS = flags.DEFINE_integer("repeats", 20, "timed calls of each implementation; at least 5 if slow", lower_bound=2)

SWIN_LAYERS = ("layers.0", "layers.1", "layers.2", "layers.3")
AT_VIDEO = "the video"

# preset, (frames, height, width), clips, dtype
ROWS_CPU = [
    ("video_swin_t_k400", (16, 224, 224), 1, "float32"),
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
    ("video_swin_t_k400", (32, 224, 224), 8, "bfloat16"),
    ("video_swin_t_k400", (32, 224, 224), 8, "float32"),
]


def stage_sets(stages: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the stages of each computation: every stage, and those that Video-TCAV takes by default or all blocks.

    Convolutional networks and MViT have none, and are compared at the video.
    """
    if "layers.0" in stages:
        return {"4 layers": SWIN_LAYERS, "every stage": stages}
    if blocks := tuple(stage for stage in stages if stage.startswith("encoder.layer.")):
        return {"every block": blocks, "every stage": stages}
    return {}


def gradients(stages: tuple[str, ...], model, video):
    target = jnp.full(len(video), TARGET, jnp.int32)
    return tap.activations_and_gradients(model, video, target, stages).gradients


def measure_gradients(preset: str, clip: tuple[int, ...], batch: int, dtype: str) -> list[dict]:
    print(f"{preset} {batch} x {'x'.join(map(str, clip))} {dtype} ...", file=sys.stderr, flush=True)
    video = np.random.default_rng(0).normal(size=(batch, *clip, 3)).astype(np.float32)
    try:
        peer = TorchPeer(preset, video, dtype)
        model = peer.model
    except ModuleNotFoundError as error:
        print(f"no comparison: {error} is not installed", file=sys.stderr)
        peer, model = None, models.make(preset, dtype=getattr(jnp, dtype))
    sets = stage_sets(tap.stages_of(model))
    programs = {"forward": forward} | {name: partial(gradients, stages) for name, stages in sets.items()}
    if not sets:
        programs[AT_VIDEO] = input_gradient
    ready = {name: timing.compile_timed(program, model, video) for name, program in programs.items()}
    calls = {name: program_of_name.call for name, program_of_name in ready.items()}
    differences: dict[str, float] = {}
    if peer is not None:
        for name, stages in sets.items():
            theirs, ours = peer.gradients(stages, TARGET), calls[name]()
            differences[name] = max(timing.largest_difference(ours[s], theirs[s].float().cpu()) for s in stages)
            calls[f"torch, {name}"] = partial(peer.gradients, stages, TARGET)
        if not sets:
            differences[AT_VIDEO] = timing.largest_difference(
                calls[AT_VIDEO](), peer.input_gradient(TARGET).float().cpu()
            )
            calls[f"torch, {AT_VIDEO}"] = partial(peer.input_gradient, TARGET)
        calls["torch, forward"] = peer.eager
    seconds = timing.time_in_turn(calls, timing.affordable_repeats(calls["forward"], _REPEATS.value))
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
        if theirs := seconds.get(f"torch, {name}"):
            result["torch_s"] = float(f"{timing.Timing.from_seconds(theirs).median_s:.4g}")
            result["torch_ratio"] = round(timing.ratio(theirs, seconds[name]), 2)
        if peer is not None:
            result["reference"] = peer.library
        if name in differences:
            result["difference"] = float(f"{differences[name]:.2g}")
        out.append(result)
    return out


def main(argv: list[str]) -> None:
    del argv
    rows = ROWS_CPU if jax.default_backend() == "cpu" else ROWS_ACCELERATOR
    if _PRESET.value:
        clip = models.get_preset(_PRESET.value).clip_spec.shape[:3]
        rows = [row for row in rows if row[0] == _PRESET.value] or [(_PRESET.value, clip, 1, "float32")]
    is_standard = set(rows) <= {*ROWS_CPU, *ROWS_ACCELERATOR}
    results = []
    for row in rows:
        results += measure_gradients(*row)
        if is_standard:
            timing.replace_results("gradients", results, ("preset",))
    print(tables.gradients_table(results))
    if is_standard:
        print(f"wrote the results and their table in {write_tables.update_pages()}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
