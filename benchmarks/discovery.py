"""Score concept discovery where the factors of the clips are known (docs/evaluation.md, W10).

  python -m benchmarks.discovery --networks=worlds_swin,worlds_cnn,worlds_vit

Writes benchmarks/results/discovery_BACKEND.jsonl and its table in docs/evaluation.md. `vtcav evaluate_methods` measures
the same for its networks, with all other benchmarks.
"""

import sys

from absl import app, flags

from benchmarks import timing, write_tables
from benchmarks.publish_evaluation import round_value
from vtcav_jax.adapters.factory import load
from vtcav_jax.evaluation.discovery_benchmark.run import DISCOVERY_WORLD, discovery_benchmark_rows
from vtcav_jax.evaluation.world_benchmark.eval_set import build_eval_set, questions_by_world
from vtcav_jax.evaluation.world_benchmark.scoring import DEFAULT_EVAL_CLIPS, EVAL_SEED

_NETWORKS = flags.DEFINE_list("networks", ["worlds_swin", "worlds_cnn", "worlds_vit"], "networks of the world small")


def main(argv: list[str]) -> None:
    del argv
    rows = []
    for name in _NETWORKS.value:
        network = load(name)
        questions = questions_by_world(network)[DISCOVERY_WORLD]
        eval_set = build_eval_set(network, DISCOVERY_WORLD, questions, DEFAULT_EVAL_CLIPS, EVAL_SEED)
        rows += discovery_benchmark_rows(eval_set, name)
    results = [{key: round_value(value) for key, value in vars(row).items()} for row in rows]
    path = timing.write_results("discovery", results)
    print(f"wrote {path} and the tables of {write_tables.update_pages()}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
