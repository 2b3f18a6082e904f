"""Compile forward passes, gradients, TCAV products and explanations for accelerators that are not here.

  python -m benchmarks.preflight
  python -m benchmarks.preflight --programs=forward --networks=video_swin_t_k400 --targets=v5e --version=before

Needs the extra preflight. A program takes between half a minute and ten minutes to compile. Writes
benchmarks/results/preflight_compiled.jsonl, where `version` separates versions of the code, and its table.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.tree_util import Partial

from benchmarks import timing, write_tables
from benchmarks.programs import forward
from vtcav_jax import models, tap
from vtcav_jax.ahead_of_time.preflight import preflight
from vtcav_jax.attribution.integrated import _add_node_gradient
from vtcav_jax.attribution.lrp.methods import LRP_PRESETS, _relevance
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.score_model import MultiScoreModel, ScoreModel
from vtcav_jax.attribution.targets import Class
from vtcav_jax.tcav.features.gram import _products, _tiles

_PROGRAMS = flags.DEFINE_list("programs", None, "only these programs")
_NETWORKS = flags.DEFINE_list("networks", None, "only these networks")
_TARGETS = flags.DEFINE_list("targets", ["v5e", "v6e", "h100"], "accelerators")
_VERSION = flags.DEFINE_string("version", "after", "version of the code, a column of the table")

KEYS = ("program", "network", "target", "version")
STAGES = {
    "video_swin_t_k400": tuple(f"layers.{i}" for i in range(4)),
    "videomae_b_k400": tuple(f"encoder.layer.{i}" for i in (2, 5, 8, 11)),
    "timesformer_b_k400": (*(f"encoder.layer.{i}" for i in (2, 5, 8)), "encoder.layer.11.class_token"),
    "vivit_b_k400": (*(f"encoder.layer.{i}" for i in (2, 5, 8)), "encoder.layer.11.class_token"),
    "vjepa2_l_ssv2": tuple(f"encoder.layer.{i}" for i in (5, 11, 17, 23)),
    "r3d_18": tuple(f"layer{i}.1" for i in range(1, 5)),
}
EXAMPLES, GRADIENTS, FEATURES = 400, 60, 1 << 16  # of one block of features


def gradient_program(preset: str) -> Callable[..., Any]:
    def gradient(model: Any, video: jax.Array) -> tap.TapResult:
        return tap.activations_and_gradients(model, video, jnp.zeros(len(video), jnp.int32), STAGES[preset])

    return gradient


def integrated_gradients_node(model: Any, video: jax.Array) -> jax.Array:
    scorer = MultiScoreModel(model, (Class(jnp.zeros(len(video), jnp.int32)),))
    half, total = jnp.asarray(0.5, video.dtype), jnp.zeros((1, *video.shape), video.dtype)
    return _add_node_gradient(scorer, total, jnp.zeros_like(video), video, half, half)


def attn_lrp(model: Any, video: jax.Array) -> Any:
    scorer = ScoreModel(model, Class(jnp.zeros(len(video), jnp.int32)))
    return _relevance(scorer, video, (VIDEO,), LRP_PRESETS["attn_lrp"], None)


def tcav_products(model: Any, video: jax.Array) -> Any:
    del model
    examples = video.reshape(EXAMPLES + GRADIENTS, FEATURES)
    return _products(examples[:EXAMPLES], examples[EXAMPLES:], 1, _tiles(EXAMPLES))


def list_programs() -> list[tuple[str, str, Callable[..., Any]]]:
    """Return name, network and function of each program."""
    programs: list[tuple[str, str, Callable[..., Any]]] = []
    for preset in STAGES:
        programs += [("forward", preset, forward), ("gradient", preset, gradient_program(preset))]
    swin = next(iter(STAGES))
    programs += [("integrated gradients (1 of 64 nodes)", swin, integrated_gradients_node), ("AttnLRP", swin, attn_lrp)]
    return [*programs, ("TCAV products", "", tcav_products)]


def compile_program(program: str, preset: str, function: Callable[..., Any], target: str) -> dict[str, Any]:
    print(f"{program} {preset} {target} ...", file=sys.stderr, flush=True)
    if preset:
        shape = (1, *models.PRESETS[preset].clip_spec.shape)
        model, dtype = models.abstract_model(preset, dtype=jnp.bfloat16)[0], jnp.bfloat16
    else:
        shape, model, dtype = (EXAMPLES + GRADIENTS, 1, 1, FEATURES, 1), Partial(forward), jnp.float32
    result = preflight(function, model, shape, target, dtype=dtype)
    row = {"program": program, "network": preset, "target": target, "version": _VERSION.value, "shape": list(shape)}
    row |= {key: getattr(result, key) for key in ("error", "operations", "memory_bytes", "traffic_bytes")}
    row |= {key: getattr(result, key) for key in ("accessed_bytes", "fits", "bound_seconds", "utilisation_bound")}
    print(result, file=sys.stderr, flush=True)
    return row


def main(argv: list[str]) -> None:
    del argv
    for program, preset, function in list_programs():
        if (_PROGRAMS.value and program not in _PROGRAMS.value) or (_NETWORKS.value and preset not in _NETWORKS.value):
            continue
        for target in _TARGETS.value:
            row = compile_program(program, preset, function, target)
            timing.replace_results("preflight", [row], KEYS, "compiled")
    print(f"wrote the results and their table in {write_tables.update_pages()}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
