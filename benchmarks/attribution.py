"""Benchmark attribution maps against captum, pytorch-grad-cam and zennit, and twelve maps from one pass.

  python -m benchmarks.attribution

Each comparison uses the same network, clips and class, and is timed only if the maps agree. Writes
benchmarks/results/attribution_BACKEND.jsonl and its table.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave GPU memory for torch
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import tables, timing, write_tables
from benchmarks.attribution_peers import Peers
from vtcav_jax import attribution, models
from vtcav_jax.attribution import LrpRules
from vtcav_jax.models.small_cnn import SmallCnn

_REPEATS = flags.DEFINE_integer("repeats", 10, "timed calls of each implementation", lower_bound=2)

MAX_DIFFERENCE = 1e-4  # relative to the map's maximum; float32 operations are ordered differently
BENCHMARK_IG_STEPS = 16
EPSILON = 0.01  # with less, rounding dominates where an untrained network's sums are near 0
CNN = ("small_cnn", (16, 112, 112), 1)  # preset, clip, batch size
SWIN = ("video_swin_t_k400", (16, 224, 224), 1)
CAMS = tuple(attribution.CAM_METHODS)
TWELVE_MAP_STAGES = {"small_cnn": ("convs.1", "convs.2"), "video_swin_t_k400": ("layers.3", "norm")}

Call = Callable[[], object]


def compare_with_peers(repeats: int) -> list[dict]:
    preset, clip, batch = CNN
    model, video, classes = random_inputs(preset, clip, batch)
    assert isinstance(model, SmallCnn)
    target = attribution.Class(classes)
    peers = Peers(model, np.asarray(video), classes)
    require_agreement("logits", np.asarray(jax.jit(lambda m, v: m(v))(model, video)), peers.logits())

    def ours(method: str, **options) -> Call:
        return lambda: attribution.attribute(model, video, target, method, **options).map

    pairs: dict[str, tuple[str, Call, Call]] = {
        f"integrated gradients, {BENCHMARK_IG_STEPS} nodes": (
            "captum",
            ours("integrated_gradients", ig_steps=BENCHMARK_IG_STEPS),
            peers.captum_integrated_gradients(BENCHMARK_IG_STEPS),
        ),
        "Grad-CAM": ("pytorch-grad-cam", ours("gradcam"), peers.grad_cam("GradCAM")),
        "HiResCAM": ("pytorch-grad-cam", ours("hirescam"), peers.grad_cam("HiResCAM")),
        "LRP, epsilon": ("zennit", ours("lrp_epsilon", rules=LrpRules(epsilon=EPSILON)), peers.zennit_lrp(EPSILON)),
        "LRP, z-plus": ("zennit", ours("lrp_z_plus"), peers.zennit_lrp(None)),
    }
    rows = []
    for label, (peer, our_call, their_call) in pairs.items():
        print(f"{label} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        our_map = our_call()
        compile_s = time.perf_counter() - start
        difference = require_agreement(label, our_map, their_call())
        seconds = timing.time_in_turn({"ours": our_call, "theirs": their_call}, repeats, warmups=2)
        row = result_row(preset, clip, batch, label, seconds["ours"], compile_s, maps=batch)
        row |= {"peer": peer, "ratio": round(timing.ratio(seconds["theirs"], seconds["ours"]), 2)}
        rows.append(row | {"difference": float(f"{difference:.2g}")})
    return rows


def twelve_maps(preset: str, clip: tuple[int, ...], batch: int, repeats: int) -> list[dict]:
    """Time six CAMs at two stages in one call, relative to one Grad-CAM at the earlier stage."""
    print(f"twelve maps of {preset} ...", file=sys.stderr, flush=True)
    model, video, classes = random_inputs(preset, clip, batch)
    stages = TWELVE_MAP_STAGES[preset]
    requests = [(name, stage) for stage in stages for name in CAMS]
    calls: dict[str, Call] = {
        "Grad-CAM": lambda: attribution.attribute(model, video, classes, "gradcam", stages[0]),
        "twelve": lambda: attribution.attribute_many(model, video, classes, requests),
    }
    start = time.perf_counter()
    calls["twelve"]()
    compile_s = time.perf_counter() - start
    seconds = timing.time_in_turn(calls, repeats, warmups=2)
    label = f"twelve CAMs at {' and '.join(stages)}"
    row = result_row(preset, clip, batch, label, seconds["twelve"], compile_s, maps=12 * batch)
    return [row | {"times_one": round(timing.ratio(seconds["twelve"], seconds["Grad-CAM"]), 2)}]


def random_inputs(preset: str, clip: tuple[int, ...], batch: int):
    model = models.make(preset)
    random = np.random.default_rng(0)
    video = random.normal(size=(batch, *clip, 3)).astype(np.float32)
    return model, jnp.asarray(video), random.integers(4, size=batch)


def require_agreement(label: str, actual: object, expected: object) -> float:
    difference = timing.largest_difference(actual, expected)
    if not difference <= MAX_DIFFERENCE:
        raise SystemExit(
            f"{label}: the largest difference is {difference:.2g} of the largest value, more than {MAX_DIFFERENCE}"
        )
    return difference


def result_row(
    preset: str, clip: tuple[int, ...], batch: int, label: str, seconds: list[float], compile_s: float, maps: int
) -> dict:
    result = {"preset": preset, "clip": list(clip), "batch": batch, "what": label}
    result |= timing.as_row(timing.Timing.from_seconds(seconds, compile_s))
    return result | {"maps_per_s": float(f"{maps / result['median_s']:.3g}")}


def main(argv: list[str]) -> None:
    del argv
    repeats = _REPEATS.value
    results = compare_with_peers(repeats) + twelve_maps(*CNN, repeats) + twelve_maps(*SWIN, repeats)
    print(tables.attribution_table(results))
    print(
        f"wrote {timing.write_results('attribution', results)} and its table in {write_tables.update_pages()}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    app.run(main)
