"""Measure how time grows with the number of clips, features, concepts, tests and processes; each curve by itself.

    python -m benchmarks.scaling [--curves=clips,features,concepts,tests,processes] [--small]

Points of a curve are measured from the smallest on, with compiled programs, and written as they come.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import timing, write_tables
from vtcav_jax import models
from vtcav_jax.data import SamplingConfig, open_source
from vtcav_jax.tcav.features.feature_store import allocate
from vtcav_jax.tcav.features.gram import Gram, compute_gram
from vtcav_jax.tcav.stats.permutation_test import permutation_tests
from vtcav_jax.tcav.stats.vectors import FitConfig, fit, label_vector
from vtcav_jax.training.evaluate import predict_source

Point = tuple[int, float]  # size, seconds
EXAMPLES, CLIPS_PER_CLASS = 120, 24  # of the statistics: 60 clips of a concept and 60 others; clips of each class
PERMUTATIONS, QUESTIONS = 199, 10
FEATURE_ROWS = (48, 16)  # examples and gradients: few, since 10^7 features of each take 2.6 GB
SHARED_CLIPS, CORES_PER_PROCESS = 200, 1


def time_clips(sizes: list[int]) -> Iterator[Point]:
    """Predict more and more clips of a synthetic world, rendered on demand."""
    network = models.load("worlds_cnn")
    for size in (8, *sizes):
        source = open_source(f"worlds:small:{size}:5")
        start = time.perf_counter()
        n = sum(1 for _ in predict_source(network, source, 8, SamplingConfig(normalise=False), num_workers=0))
        if size != 8:  # the first run compiles
            yield n, time.perf_counter() - start


def time_features(sizes: list[int]) -> Iterator[Point]:
    """Compute the products of activations and gradients with more and more features."""
    rng = np.random.default_rng(0)
    for size in (1000, *sizes):
        with tempfile.TemporaryDirectory() as folder:
            parts = []
            for name, rows in zip("xg", FEATURE_ROWS, strict=True):
                features = allocate(rows, (size,), folder=Path(folder) / name)
                for row in range(rows):
                    features.write(row, rng.standard_normal((1, size), np.float32))
                parts.append(features)
            seconds = _median_seconds(partial(compute_gram, *parts))
        if size != 1000:
            yield size, seconds


def synthetic_gram(rng: np.random.Generator, n_classes: int) -> list[Gram]:
    """Return products as of activations with 300 features, of which one half of the examples has more of the first."""
    x = rng.standard_normal((EXAMPLES, 300))
    x[: EXAMPLES // 2, 0] += 2
    kernel, grams = x @ x.T, []
    for _ in range(n_classes):
        gradients = rng.standard_normal((CLIPS_PER_CLASS, 300))
        grams.append(Gram(kernel, (gradients @ x.T)[None], (gradients @ gradients.T)[None]))
    return grams


def concept_labels() -> np.ndarray:
    return label_vector(range(EXAMPLES // 2), range(EXAMPLES // 2, EXAMPLES), EXAMPLES)


def time_concepts(sizes: list[int]) -> Iterator[Point]:
    """Fit the vectors of more and more concepts, each against its own half of the examples."""
    rng = np.random.default_rng(0)
    kernel = synthetic_gram(rng, 1)[0].kernel
    for size in (2, *sizes):
        labels = np.stack([rng.permutation(concept_labels()) for _ in range(size)])
        fit(kernel, labels, FitConfig())  # compiles
        if size != 2:
            yield size, _median_seconds(partial(fit, kernel, labels, FitConfig()))


def time_tests(sizes: list[int]) -> Iterator[Point]:
    """Test ten concepts for more and more classes: each vector is fitted once for all of them."""
    rng = np.random.default_rng(0)
    for size in (QUESTIONS, *sizes):
        grams = synthetic_gram(rng, size // QUESTIONS)
        start = time.perf_counter()
        for question in range(QUESTIONS):
            permutation_tests(grams, concept_labels(), permutations=PERMUTATIONS, seed=question)
        if size != QUESTIONS:
            yield size, time.perf_counter() - start


def time_processes(sizes: list[int]) -> Iterator[Point]:
    """Compute maps in more and more processes with one core each; the seconds are those of 200 clips."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        for turn, size in enumerate((1, *sizes)):  # the first turn compiles
            if size * CORES_PER_PROCESS > len(cores):
                continue
            seconds = []
            for n_clips in (40, 40 + SHARED_CLIPS):
                command = [
                    *(sys.executable, "-m", "vtcav_jax", "attribute", "--model=worlds_cnn", "--num_workers=0"),
                    *(f"--videos=worlds:small:{n_clips}:5", "--methods=integrated_gradients", "--animations=none"),
                    *("--targets=direction", "--quiet", f"--run={folder}/{turn}_{n_clips}"),
                ]
                start = time.perf_counter()
                _run_together(command, size, cores)
                seconds.append(time.perf_counter() - start)
            if turn:
                yield size, seconds[1] - seconds[0]  # without the start of the processes


def _run_together(command: list[str], count: int, cores: list[int]) -> None:
    shared = [] if count == 1 else ["--coordinator=localhost:29871", f"--num_processes={count}"]
    processes = []
    for i in range(count):
        own_cores = ",".join(map(str, cores[i * CORES_PER_PROCESS : (i + 1) * CORES_PER_PROCESS]))
        words = ["taskset", "-c", own_cores, *command, *shared, *([f"--process_id={i}"] if shared else [])]
        processes.append(subprocess.Popen(words, stdout=subprocess.DEVNULL))
    if codes := [code for process in processes if (code := process.wait())]:
        raise RuntimeError(f"{command} ended with {codes}")


def _median_seconds(call: Callable[[], object], repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


CURVES: dict[str, tuple[str, Callable[[list[int]], Iterator[Point]], list[int]]] = {
    "clips": ("predictions of clips (worlds_cnn)", time_clips, [100, 300, 1000, 3000, 10_000]),
    "features": ("products of activations and gradients, by feature", time_features, [10**4, 10**5, 10**6, 10**7]),
    "concepts": ("concept vectors, 120 examples each", time_concepts, [10, 30, 100, 300, 1000]),
    "tests": ("permutation tests, ten concepts and a tenth as many classes", time_tests, [100, 1000, 10_000, 100_000]),
    "processes": ("processes with one core each, maps of 200 clips", time_processes, [1, 2, 4, 8]),
}


def write_curves(rows: list[dict[str, Any]]) -> None:
    """Draw one panel per curve, on logarithmic scales, with a line of proportional growth."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams |= {"svg.hashsalt": "vtcav", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    curves = [curve for curve in CURVES if any(row["curve"] == curve for row in rows)]
    figure, panels = plt.subplots(1, len(curves), figsize=(3 * len(curves), 3), layout="constrained", squeeze=False)
    for curve, axes in zip(curves, panels[0], strict=True):
        sizes, seconds = zip(*((row["size"], row["seconds"]) for row in rows if row["curve"] == curve))
        falls = curve == "processes"
        proportional = [seconds[0] * (sizes[0] / size if falls else size / sizes[0]) for size in sizes]
        axes.loglog(sizes, proportional, color="0.7", linewidth=1)
        axes.loglog(sizes, seconds, "o-", color="#3b7dd8")
        axes.set_xlabel(curve)
        axes.set_title("seconds" if axes is panels[0][0] else "", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(write_tables.ROOT / "docs" / "images" / "scaling.svg", metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", default=",".join(CURVES))
    parser.add_argument("--small", action="store_true", help="only the two smallest points of each curve, not written")
    options = parser.parse_args()
    for curve in options.curves.split(","):
        title, measure, sizes = CURVES[curve]
        rows = []
        for size, seconds in measure(sizes[:2] if options.small else sizes):
            rows.append({"curve": curve, "title": title, "size": size, "seconds": float(f"{seconds:.4g}")})
            print(curve, size, f"{seconds:.4g} s", f"{seconds / size:.3g} s each", flush=True)
        if not options.small:
            timing.replace_results("scaling", rows, ("curve",))
    if not options.small:
        write_curves(timing.read_results("scaling"))
        print(f"wrote {write_tables.update_pages()}")


if __name__ == "__main__":
    main()
