"""The fault suite: kills, bad folders, fuzzed input and concurrent commands, and the counts of what went wrong.

    python -m tests.faults.run --scale=1 --seed=0 --write

`test_faults.py` runs a short part with the other tests.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.timing import replace_results
from tests.faults.bad_folder import write_bad_folder
from tests.faults.concurrent import run_pairs
from tests.faults.fuzz import fuzz
from tests.faults.kill import kill_and_continue
from tests.faults.material import INTERNAL_ERROR, TASKS, FaultTask, Material, make_material, run_command
from tests.support.cli_runner import stop_cli_server

Log = Callable[[str], object]
KILLS_PER_TASK, PAIRS_PER_TASK, FUZZ_CASES = 50, 2, 500  # at scale 1
N_PROCESSES = 2  # tasks whose kills run at the same time


@dataclass(frozen=True)
class FaultCount:
    """Counts of faults in `n_cases` cases of one test and one task or kind of input."""

    test: str  # kill, bad folder, fuzz, concurrent
    subject: str
    n_cases: int
    crashes: int = 0  # exit 70, or an exception that is no ValueError or OSError
    hangs: int = 0
    refusals: int = 0  # a task that should have finished ended with an error message
    differing_files: int = 0
    repeated_share: float = 0.0  # time of work that was done twice, relative to an undisturbed run


def run_suite(
    folder: Path, seed: int, scale: float, tests: Sequence[str], tasks: Sequence[FaultTask], log: Log
) -> Iterator[FaultCount]:
    """Run the tests of these tasks and yield their counts; `log` gets the details of each fault."""
    material = make_material(folder / "material")
    if "fuzz" in tests:
        for result in fuzz(material, folder / "fuzz", seed, max(1, round(scale * FUZZ_CASES))):
            for crash in result.crashes:
                log(crash)
            yield FaultCount("fuzz", result.kind, result.n_cases, crashes=len(result.crashes))
    if "bad folder" in tests:
        write_bad_folder(folder / "bad", seed)
        for task in tasks:
            if task.reads_videos:
                yield run_on_bad_folder(task.name, material, folder / "bad", folder / "of_bad", log)
    if "concurrent" in tests:
        for task in tasks:
            if task.name != "predict":  # it replaces one file, whole
                n_pairs = max(1, round(scale * PAIRS_PER_TASK))
                result = run_pairs(task, material, folder / "pairs" / task.name, n_pairs)
                for fault in result.faults:
                    log(f"concurrent {task.name}: {fault}")
                yield FaultCount(
                    "concurrent", task.name, n_pairs, result.crashes, differing_files=result.differing_files
                )
    if "kill" in tests:
        n_kills = max(1, round(scale * KILLS_PER_TASK))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(N_PROCESSES, context, end_with_parent, (os.getpid(),)) as pool:
            # Slow tasks, which come last, start first.
            runs = {
                pool.submit(
                    kill_and_continue, task.name, material, folder / "kill" / task.name, seed, n_kills
                ): task.name
                for task in reversed(tasks)
            }
            for run in as_completed(runs):
                result = run.result()
                for fault in result.faults:
                    log(f"kill {runs[run]}: {fault}")
                yield FaultCount(
                    *("kill", runs[run], n_kills),
                    crashes=result.crashes,
                    hangs=result.hangs,
                    refusals=result.refusals,
                    differing_files=result.differing_files,
                    repeated_share=round(result.repeated_share, 3),
                )


def end_with_parent(parent: int) -> None:
    """End this process when its parent has gone, so that an interrupted suite leaves no kills running."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_on_bad_folder(name: str, material: Material, videos: Path, out: Path, log: Log) -> FaultCount:
    """Run a task on the bad folder; it must end with its results."""
    out.mkdir(exist_ok=True)
    code, output = run_command(TASKS[name].command(material, out / name, str(videos)))
    if code:
        log(f"bad folder {name}: exit {code}\n{output[-3000:]}")
    return FaultCount(
        "bad folder", name, 1, crashes=int(code == INTERNAL_ERROR), hangs=int(code < 0), refusals=int(0 < code < 70)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", default="fuzz,bad folder,kill,concurrent")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--write", action="store_true", help="write the counts for docs/reliability.md")
    options = parser.parse_args()
    start, counts = time.monotonic(), []
    tests, tasks = options.tests.split(","), [TASKS[name] for name in options.tasks.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for count in run_suite(Path(folder), options.seed, options.scale, tests, tasks, print):
            counts.append(count)
            print(count, flush=True)
            if options.write:  # each time, so that an interrupted run leaves its counts
                replace_results("faults", [asdict(count) for count in counts], ("test", "subject"))
    stop_cli_server()
    faults = sum(c.crashes + c.hangs + c.refusals + c.differing_files for c in counts)
    print(f"{sum(c.n_cases for c in counts)} cases, {faults} faults, {time.monotonic() - start:.0f} s")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
