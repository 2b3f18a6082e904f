"""Measure how much ground-truth scores of attribution methods vary between networks that differ only in their seed.

  vtcav --flagfile=flagfiles/evaluate_methods_seed_variation.flags
  python -m benchmarks.seed_variation --runs=runs/seed_variation

Reads method_scores.csv of the runs. Writes benchmarks/results/seed_variation_BACKEND.jsonl and its table in
docs/evaluation.md. Each method is scored at the stage (layer) that is best on the first network.
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from benchmarks import timing, write_tables
from benchmarks.publish_evaluation import round_value
from vtcav_jax.report.figures.evaluation import best_stage_per_method, overall_scores
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.runs.evaluation_rows import MethodScoreRow

_RUNS = flags.DEFINE_list("runs", ["runs/seed_variation"], "run folders of evaluate_methods on networks of one recipe")


def main(argv: list[str]) -> None:
    del argv
    rows = [row for path in _RUNS.value for row in open_run_folder(Path(path)).method_score_rows]
    results = [
        {name: round_value(value) for name, value in result.items()} for result in variation_between_networks(rows)
    ]
    path = timing.write_results("seed_variation", results)
    print(f"wrote {path} and the tables of {write_tables.update_pages()}", file=sys.stderr)


def variation_between_networks(rows: Sequence[MethodScoreRow]) -> list[dict[str, object]]:
    """Return mean, standard deviation and clip intervals of the score of each method over networks.

    `outside` counts, over ordered pairs of networks, how often the score of one is outside the clip interval of the
    other.
    """
    networks = list(dict.fromkeys(row.network_name for row in rows))
    if len(networks) < 2:
        raise ValueError(f"expected scores of at least 2 networks, got {', '.join(networks) or 'none'}; add --runs")
    scores = {(row.method, row.stage, name): row for name in networks for row in overall_scores(rows, name)}
    results = []
    for first in best_stage_per_method(overall_scores(rows, networks[0])):
        same = [row for name in networks if (row := scores.get((first.method, first.stage, name)))]
        if len(same) < len(networks):
            continue  # does not apply to all networks
        values = [row.value for row in same]
        outside = [not a.low <= b.value <= a.high for a in same for b in same if a is not b]
        results.append(
            {
                "method": first.method,
                "stage": first.stage,
                "networks": networks,
                "mean": statistics.mean(values),
                "sd": statistics.stdev(values),
                "half_width": statistics.mean((row.high - row.low) / 2 for row in same),
                "outside": sum(outside),
                "pairs": len(outside),
                "clips": first.n_clips,
            }
        )
    return results


if __name__ == "__main__":
    app.run(main)
