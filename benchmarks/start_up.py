"""Measure the first start of each task, without compiled programs, and the next starts.

    python -m benchmarks.start_up [--tasks=tcav,attribute] [--repeats=3]

Each start is a new process on a small folder of synthetic videos, with results in a new folder. Rows are written as
they come.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import timing, write_tables
from tests.faults.material import TASKS, make_material

INSPECT = {f"inspect {name}": ["inspect", f"--model={name}"] for name in ("worlds_cnn", "video_swin_t_k400")}


def time_command(arguments: list[str]) -> tuple[float, float]:
    """Return the seconds and the processor seconds of a command, its child processes included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    finished = subprocess.run([sys.executable, "-m", "vtcav_jax", *arguments], capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if finished.returncode:
        raise SystemExit(f"{arguments[0]} ended with {finished.returncode}: {finished.stderr[-2000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_start(name: str, arguments: list[str], repeats: int, folder: Path) -> dict:
    """Return the row of one command, whose arguments name `{out}`, a new folder for each start."""
    starts = []
    for i in range(1 + repeats):
        out = folder / f"out{i}"
        command = [argument.replace("{out}", str(out)) for argument in arguments]
        starts.append(time_command([*command, f"--compile_cache={folder / 'compiled'}"]))
    (first, first_cpu), following = starts[0], starts[1:]
    seconds = [start[0] for start in following]
    return {
        "command": name,
        "first_s": first,
        "first_cpu_s": first_cpu,
        "next_s": median(seconds),
        "next_fastest_s": min(seconds),
        "next_slowest_s": max(seconds),
        "next_cpu_s": median(start[1] for start in following),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join([*TASKS, *INSPECT]), help="tasks to measure")
    parser.add_argument("--repeats", type=int, default=3, help="starts after the first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        material = make_material(Path(folder) / "material")
        for name in options.tasks.split(","):
            arguments = INSPECT[name] if name in INSPECT else TASKS[name].command(material, Path("{out}"))
            with tempfile.TemporaryDirectory() as own:
                row = measure_start(name, arguments, options.repeats, Path(own))
            print({key: value if isinstance(value, str) else round(value, 1) for key, value in row.items()}, flush=True)
            timing.replace_results("start_up", [row], ("command",))
    print("wrote", write_tables.update_pages(), file=sys.stderr)


if __name__ == "__main__":
    main()
