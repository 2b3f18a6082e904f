"""Publish results of `vtcav evaluate_methods`: tables and figures of the docs, and the scores in the package.

  vtcav --flagfile=flagfiles/evaluate_methods.flags
  vtcav --flagfile=flagfiles/evaluate_methods_budgets.flags
  vtcav --flagfile=flagfiles/evaluate_methods_seeds.flags
  vtcav --flagfile=flagfiles/evaluate_methods_seeds_cnn.flags
  python -m benchmarks.publish_evaluation --run=runs/evaluation --budgets=runs/evaluation_budgets \\
      --seeds=runs/evaluation_seeds,runs/evaluation_seeds_cnn
  python -m benchmarks.publish_evaluation --run=runs/further_network --budgets= --add

Reads the tables of the runs. Writes benchmarks/results/evaluation_BACKEND.jsonl, the tables of the docs, the README's
figures, and vtcav_jax/evaluation/published_scores.csv, which report pages with maps cite.
"""

import csv
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import timing, write_tables
from vtcav_jax.evaluation import published_scores
from vtcav_jax.evaluation.tcav_benchmark import table as tcav_benchmark_table
from vtcav_jax.evaluation.world_benchmark.entries import EXPENSIVE
from vtcav_jax.report.figures import evaluation as evaluation_figures
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.runs.evaluation_rows import ALL_QUESTIONS, MEAN_SCORE, MethodScoreRow
from vtcav_jax.runs.tables import read_rows

_BUDGETS = flags.DEFINE_string(
    "budgets",
    "runs/evaluation_budgets",
    "run folder of flagfiles/evaluate_methods_budgets.flags; empty: no large budgets",
)
_SEEDS = flags.DEFINE_list(
    "seeds", [], "run folders of flagfiles/evaluate_methods_seeds*.flags, one table each; empty: no table of seeds"
)
_ADD = flags.DEFINE_boolean(
    "add", False, "keep the published rows of networks and metrics that the run does not measure"
)
_RUN = flags.DEFINE_string("run", "runs/evaluation", "run folder of flagfiles/evaluate_methods.flags")


def main(argv: list[str]) -> None:
    del argv
    run = open_run_folder(Path(_RUN.value))
    rows = [*run.method_score_rows, *(row for row in _read_scores(_BUDGETS.value) if row.method in EXPENSIVE)]
    tests_file = run.folder / tcav_benchmark_table.TCAV_BENCHMARK_CSV
    tests = read_rows(tests_file, tcav_benchmark_table.TcavBenchmarkRow) if tests_file.is_file() else []
    seeds = {
        f"seeds:{i}": [r for r in _read_scores(run_path) if r.metric == MEAN_SCORE]
        for i, run_path in enumerate(_SEEDS.value)
    }
    parts = {"maps": rows, "metrics": run.metric_agreement_rows, "concepts": tests} | seeds
    result_rows = [
        {"part": part} | {name: round_value(value) for name, value in vars(row).items()}
        for part, part_rows in parts.items()
        for row in part_rows
    ]
    networks = {row.network_name for row in rows}
    for network in networks & published_scores.PUBLISHED_NETWORKS.keys():
        figure = evaluation_figures.score_cost_figure(rows, network)
        figure.write_svg(write_tables.ROOT / "docs").rename(write_tables.ROOT / "docs" / f"scores_{network}.svg")
    _write_published_scores(rows, networks)
    gates = (run.folder / "world_gates.txt").read_text(encoding="utf-8")
    gates_page = write_tables.ROOT / "docs" / "world_gates.txt"
    if _ADD.value:
        blocks = {text.splitlines()[0]: text for text in _gate_blocks(gates_page.read_text(encoding="utf-8"))}
        blocks |= {text.splitlines()[0]: text for text in _gate_blocks(gates)}
        gates = "\n\n".join(blocks.values()) + "\n"
    gates_page.write_text(gates, encoding="utf-8")
    earlier = timing.read_results("evaluation") if _ADD.value else []
    new_keys = {_row_key(row) for row in result_rows}
    earlier = [row for row in earlier if _row_key(row) not in new_keys]
    path = timing.write_results("evaluation", result_rows, earlier)
    print(f"wrote {path} and its tables in {write_tables.update_pages()}", file=sys.stderr)


def _row_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["part"], row["network_name"], row.get("metric", "")


def _gate_blocks(text: str) -> list[str]:
    """Return the text of each network and world, which begins with a line `NETWORK, world NAME`."""
    return [block.strip() for block in re.split(r"\n(?=\S+, world )", text) if block.strip()]


def _write_published_scores(rows: Sequence[MethodScoreRow], networks: set[str]) -> None:
    """Write the scores that report pages cite; with --add, those of other networks stay."""
    published = [row for row in published_scores.published_scores() if _ADD.value and row.network_name not in networks]
    published += [
        row
        for row in rows
        if row.metric == MEAN_SCORE
        and row.question == ALL_QUESTIONS
        and row.network_name in published_scores.PUBLISHED_NETWORKS
    ]
    path = write_tables.ROOT / "vtcav_jax" / "evaluation" / published_scores.PUBLISHED_SCORES_CSV
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(published_scores.PUBLISHED_COLUMNS)
        writer.writerows(
            [round_value(getattr(row, name)) for name in published_scores.PUBLISHED_COLUMNS] for row in published
        )


def _read_scores(run: str) -> Sequence[MethodScoreRow]:
    return open_run_folder(Path(run)).method_score_rows if run else ()


def round_value(value: object) -> object:
    """Round floats to four significant digits; NaN and infinity become None."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else None


if __name__ == "__main__":
    app.run(main)
