"""Test on synthetic clips whether motion parts of maps are more on moving pixels than the maps (docs/guides/motion.md).

  python -m benchmarks.motion_selectivity --networks=worlds_swin,worlds_cnn,worlds_vit

Writes benchmarks/results/motion_selectivity_BACKEND.jsonl and its table in docs/guides/motion.md.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags

from benchmarks import evaluation_tables, timing, write_tables
from benchmarks.publish_evaluation import round_value
from vtcav_jax.adapters.factory import load
from vtcav_jax.attribution.motion.map_split import SplitVariant
from vtcav_jax.evaluation.motion_selectivity import motion_selectivity
from vtcav_jax.evaluation.world_benchmark.eval_set import build_eval_set, questions_by_world
from vtcav_jax.evaluation.world_benchmark.questions import SMALL_WORLD
from vtcav_jax.evaluation.world_benchmark.scoring import EVAL_SEED

_NETWORKS = flags.DEFINE_list("networks", ["worlds_swin", "worlds_cnn", "worlds_vit"], "networks of the world small")
_CLIPS = flags.DEFINE_integer("clips", 100, "clips per network", lower_bound=5)

# The base methods of the papers, and two cheap methods with good ground-truth scores
METHODS = ("deep_taylor", "gradcam", "guided_backprop", "gradient_x_input", "attn_lrp")
RELU_NETWORKS = ("worlds_cnn",)  # guided backpropagation needs ReLUs; AttnLRP is gradient x input for ReLUs
VARIANTS: Mapping[SplitVariant, Sequence[str]] = {
    "absolute": METHODS,
    "paper2020": ("deep_taylor", "gradient_x_input"),
    "d_dtd": ("deep_taylor",),
    "paper2019": ("deep_taylor",),
}


def main(argv: list[str]) -> None:
    del argv
    results: list[dict[str, Any]] = []
    for name in _NETWORKS.value:
        network = load(name)
        questions = questions_by_world(network)[SMALL_WORLD]
        eval_set = build_eval_set(network, SMALL_WORLD, questions, _CLIPS.value, EVAL_SEED)
        for variant, methods in VARIANTS.items():
            left_out = "attn_lrp" if name in RELU_NETWORKS else "guided_backprop"
            usable = [method for method in methods if method != left_out]
            rows = motion_selectivity(eval_set, name, usable, variant)
            results += [
                {key: round_value(value) for key, value in row.to_record().items()}
                for row in rows
                if (row.row.measure, row.frames) in evaluation_tables.SELECTIVITY_COLUMNS
            ]
    path = timing.write_results("motion_selectivity", results)
    print(f"wrote {path} and the tables of {write_tables.update_pages()}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
