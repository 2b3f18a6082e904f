"""Measure by simulation whether the p-values, intervals and verdicts of Video-TCAV hold.

  python -m benchmarks.statistics            all simulations (20 minutes on 2 CPU cores)
  python -m benchmarks.statistics --small    fewer draws (a minute), without writing results

Exits with 1 if a row misses its requirement. Writes benchmarks/results/statistics_BACKEND.jsonl after each simulation,
and its table. Simulations whose code and library code did not change are not repeated.
"""

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

# One thread for each of the worker processes: products of 150 clips are faster so than divided among threads
os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import jax
from absl import app, flags

from benchmarks import timing, write_tables
from benchmarks.statistics import table
from benchmarks.statistics.clips import load_encoded
from benchmarks.statistics.simulations import FULL, SIMULATIONS, SMALL, code_key, run

_SMALL = flags.DEFINE_bool("small", False, "few draws, for CI; requirements apply to intervals")
_ONLY = flags.DEFINE_multi_enum("only", [], list(SIMULATIONS), "simulations to run; rows of the others are kept")
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count() or 1, "processes", lower_bound=1)


def read_results() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the last run by simulation."""
    path = timing.RESULTS / f"statistics_{jax.default_backend()}.jsonl"
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        row = json.loads(line)
        rows.setdefault(row["simulation"], []).append(row)
    return rows


def main(argv: list[str]) -> int:
    del argv
    size = SMALL if _SMALL.value else FULL
    names = [name for name in SIMULATIONS if name in (_ONLY.value or SIMULATIONS)]
    results = {} if _SMALL.value else read_results()
    keys = {name: code_key(name, size) for name in names}
    missing = [name for name in names if name not in results or results[name][0]["key"] != keys[name]]
    if missing:
        for network in size.networks:
            load_encoded(network, size.clips, size.targets)
    with ProcessPoolExecutor(_WORKERS.value, get_context("spawn")) as pool:
        tasks = {pool.submit(run, name, size, keys[name]): name for name in missing}
        for task in as_completed(tasks):
            name, results[tasks[task]] = tasks[task], task.result()
            print(f"{name}: {results[name][0]['seconds'] if results[name] else 0} s", file=sys.stderr, flush=True)
            if not _SMALL.value:
                timing.write_results("statistics", [row for n in SIMULATIONS for row in results.get(n, ())])
    rows = [row for name in SIMULATIONS for row in results.get(name, ())]
    print(table.statistics_table(rows))
    if not _SMALL.value:
        print(f"tables of {write_tables.update_pages()}", file=sys.stderr)
    failed = [row for row in rows if row["holds"] is False]
    for row in failed:
        print(f"requirement missed: {table.describe(row)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    app.run(main)
