"""Measure how much ground-truth scores of attribution methods vary between networks that differ only in their seed.

  vtcav --flagfile=flagfiles/evaluate_methods_seed_variation.flags
  python -m benchmarks.seed_variation --runs=runs/seed_variation

Reads method_scores.csv of the runs, and the rows of the networks of flagfiles/evaluate_methods_seeds_cnn.flags from
benchmarks/results/evaluation_BACKEND.jsonl. Writes benchmarks/results/seed_variation_BACKEND.jsonl and its table in
docs/evaluation.md. Each method is scored at the stage (layer) that is best on the first network.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, flags

from benchmarks import evaluation_tables, timing, write_tables
from benchmarks.publish_evaluation import round_value
from vtcav_jax.report.figures.evaluation import best_stage_per_method, overall_scores
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.runs.evaluation_rows import MEAN_SCORE, MethodScoreRow

_RUNS = flags.DEFINE_list("runs", ["runs/seed_variation"], "run folders of evaluate_methods on networks of one recipe")


def main(argv: list[str]) -> None:
    del argv
    rows = [row for path in _RUNS.value for row in open_run_folder(Path(path)).method_score_rows]
    names = {row.network_name for row in rows}
    rows += [row for row in published_rows("seeds:1") if row.network_name not in names]
    results = [{name: round_value(v) for name, v in result.items()} for result in variation_between_networks(rows)]
    path = timing.write_results("seed_variation", results)
    print(f"wrote {path} and the tables of {write_tables.update_pages()}", file=sys.stderr)


def published_rows(part: str) -> list[MethodScoreRow]:
    """Return the scores that benchmarks.publish_evaluation stored for the networks of one recipe."""
    text = (timing.RESULTS / f"evaluation_{jax.default_backend()}.jsonl").read_text(encoding="utf-8")
    return [evaluation_tables.to_score_row(row) for row in map(json.loads, text.splitlines()) if row["part"] == part]


def variation_between_networks(rows: Sequence[MethodScoreRow]) -> list[dict[str, object]]:
    """Return mean, standard deviation and clip intervals of the score of each method over networks.

    `outside` counts, over ordered pairs of networks, how often the score of one is outside the clip interval of the
    other.
    """
    networks = list(dict.fromkeys(row.network_name for row in rows if row.metric == MEAN_SCORE))
    if len(networks) < 2:
        raise ValueError(f"expected scores of at least 2 networks, got {', '.join(networks) or 'none'}; add --runs")
    scores = {(row.method, row.stage, name): row for name in networks for row in overall_scores(rows, name)}
    results = []
    for first in best_stage_per_method(overall_scores(rows, networks[0])):
        same = [row for name in networks if (row := scores.get((first.method, first.stage, name)))]
        if len(same) < 2:
            continue
        values = [row.value for row in same]
        outside = [not a.low <= b.value <= a.high for a in same for b in same if a is not b]
        results.append(
            {
                "method": first.method,
                "stage": first.stage,
                "networks": [row.network_name for row in same],
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
