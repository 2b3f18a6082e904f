"""Measurement of time, memory and share of the hardware's peak for all benchmarks.

Compilation is timed separately. Calls are timed after warm-up until their result is ready, on inputs that are already
on the device. Compared implementations run in turn (A B A B ...), so that changes in machine speed affect both, and
their ratio is the median over pairs.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vtcav_jax.host_memory import keep_freed_memory
from vtcav_jax.platforms import compile_for, use_kernels

PACKAGES = (
    *("jax", "jaxlib", "flax", "torch", "torchvision", "transformers", "torchax"),
    *("libtpu", "jax-cuda13-plugin", "nvidia-cuda-nvcc"),
)
keep_freed_memory()  # as every command does; compared implementations run in the same process

RESULTS = Path(__file__).parent / "results"
MATMULS = ((2048, 2048, 2048), (6272, 192, 768), (1568, 384, 1536), (1568, 1536, 384), (392, 768, 3072))


@dataclass(frozen=True)
class Timing:
    """Seconds of compilation and of calls (median, 10th and 90th percentile), and temporary memory in MiB."""

    compile_s: float
    median_s: float
    p10_s: float
    p90_s: float
    repeats: int
    temp_mib: float

    @classmethod
    def from_seconds(cls, seconds: list[float], compile_s: float = 0.0, temp_mib: float = 0.0) -> "Timing":
        tenths = quantiles(seconds, n=10, method="inclusive")
        return cls(compile_s, median(seconds), tenths[0], tenths[-1], len(seconds), temp_mib)


@dataclass(frozen=True)
class Compiled:
    """A jax function compiled for its arguments, and bound to them."""

    call: Callable[[], Any]
    compile_s: float
    temp_mib: float


def compile_timed(fn: Callable[..., Any], *args: Any) -> Compiled:
    args = jax.block_until_ready(jax.device_put(args))
    start = time.perf_counter()
    executable = jax.jit(fn).lower(*args).compile()
    compile_s = time.perf_counter() - start
    memory = executable.memory_analysis()
    temp_mib = memory.temp_size_in_bytes / 2**20 if memory else float("nan")
    return Compiled(lambda: jax.block_until_ready(executable(*args)), compile_s, temp_mib)


def affordable_repeats(call: Callable[[], Any], repeats: int, seconds: float = 30.0) -> int:
    """Return `repeats`, or as many calls as take about `seconds` in total if these are fewer, but at least 5."""
    start = time.perf_counter()
    call()
    return min(repeats, max(5, int(seconds / (time.perf_counter() - start))))


def time_in_turn(
    calls: Mapping[str, Callable[[], Any]], repeats: int = 20, warmups: int | None = None
) -> dict[str, list[float]]:
    """Return the seconds of `repeats` calls of each function after some warm-up calls; the functions take turns."""
    warmups = min(3, -(-repeats // 5)) if warmups is None else warmups
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmups + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warmups:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def measure_alone(fn: Callable[..., Any], *args: Any, repeats: int = 20) -> Timing:
    """Compile and time a single jax function."""
    ready = compile_timed(fn, *args)
    return Timing.from_seconds(time_in_turn({"": ready.call}, repeats)[""], ready.compile_s, ready.temp_mib)


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Return the median ratio of times over pairs of consecutive calls."""
    return median(a / b for a, b in zip(numerator, denominator, strict=True))


def gflop(fn: Callable[..., Any], *args: Any) -> float:
    """Return the GFLOP of one call, as counted by XLA.

    XLA counts the body of a loop only once, so this uses the program for accelerators, which has the same arithmetic
    without loops over chunks, and without kernels, which compute scores again for the gradient.
    """
    with compile_for("gpu"), use_kernels(False):
        cost = jax.jit(fn).lower(*args).cost_analysis()
    if cost is None:
        raise ValueError(f"XLA has no cost analysis on {jax.default_backend()}")
    return cost["flops"] / 1e9


def matmul_peak_gflops(dtype: Any = jnp.float32, repeats: int = 10) -> float:
    """Measure the highest rate of matrix products of the sizes that occur here (on accelerators, of large ones)."""
    shapes = MATMULS if jax.default_backend() == "cpu" else ((8192, 8192, 8192), (16384, 4096, 4096))
    rates = []
    for m, k, n in shapes:
        a, b = (jax.random.normal(jax.random.key(0), shape, dtype) for shape in ((m, k), (k, n)))
        rates.append(2 * m * k * n / min(time_in_turn({"": compile_timed(jnp.matmul, a, b).call}, repeats)[""]) / 1e9)
    return max(rates)


def environment() -> dict[str, Any]:
    """Return device, versions, commit and date of a measurement."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent)
    return {
        "device": jax.devices()[0].device_kind if jax.default_backend() != "cpu" else processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": git.stdout.strip() or None,
        "date": datetime.now(UTC).date().isoformat(),
    }


def processor() -> str:
    """Return the processor's name and its widest vector instructions, on which ratios to other libraries depend."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    widest = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), None)
    name = names[0] if names else platform.machine()
    return f"{name} with {widest}" if widest else name


def results_file(benchmark: str, backend: str | None) -> Path:
    return RESULTS / f"{benchmark}_{backend or jax.default_backend()}.jsonl"


def read_results(benchmark: str, backend: str | None = None) -> list[dict[str, Any]]:
    """Return the stored rows of this benchmark and backend, with the environment that measured them."""
    path = results_file(benchmark, backend)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def write_results(
    benchmark: str, rows: list[dict[str, Any]], earlier: Sequence[dict[str, Any]] = (), backend: str | None = None
) -> Path:
    """Write one JSON line per row to the file of this benchmark and backend, after the `earlier` rows to keep."""
    measured_on, path = environment(), results_file(benchmark, backend)
    RESULTS.mkdir(exist_ok=True)
    lines = [*earlier, *({"benchmark": benchmark, **row, **measured_on} for row in rows)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def replace_results(
    benchmark: str, rows: list[dict[str, Any]], keys: Sequence[str], backend: str | None = None
) -> Path:
    """Write the rows after the stored ones that differ from all of them in one of the `keys`."""
    written = {tuple(row[key] for key in keys) for row in rows}
    earlier = [row for row in read_results(benchmark, backend) if tuple(row[key] for key in keys) not in written]
    return write_results(benchmark, rows, earlier, backend)


def as_row(timing: Timing) -> dict[str, Any]:
    """Return the timing as a dictionary, rounded to four significant digits."""
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in asdict(timing).items()}


def largest_difference(ours: Any, theirs: Any) -> float:
    """Return the maximum absolute difference, relative to the maximum absolute value of `theirs`."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
