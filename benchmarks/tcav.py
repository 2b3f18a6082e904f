"""Benchmark Video-TCAV against captum, scikit-learn and its own bare passes, in time and memory.

  python -m benchmarks.tcav

There are four parts, each in its own process: one concept vector per pair of sets, on the same arrays; a whole
experiment on the same network and clips; the whole command relative to its forward and backward passes alone; peak
memory with four times as many clips. Implementations must agree before they are timed. Writes
benchmarks/results/tcav_BACKEND.jsonl and its table.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import combinations, count, pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave GPU memory for torch
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import numpy as np
from absl import app, flags
from jax.sharding import Mesh

from benchmarks import tables, timing, write_tables
from benchmarks.tcav_peers import Captum, captum_vector, sklearn_vector
from benchmarks.torch_peer import make_pair
from vtcav_jax import models
from vtcav_jax.concepts import read_concepts
from vtcav_jax.data import open_source
from vtcav_jax.data.encode import encode_lossless_mp4
from vtcav_jax.runtime import Runtime
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.run import ExperimentResults, run_tcav
from vtcav_jax.tcav.features import encode as feature_encoding
from vtcav_jax.tcav.features.encode import EncodeConfig, EncodeResult, encode
from vtcav_jax.tcav.features.feature_store import features_from_array
from vtcav_jax.tcav.features.gram import compute_gram
from vtcav_jax.tcav.features.microbatches import in_memory
from vtcav_jax.tcav.stats.scores import TcavScores, tcav_scores
from vtcav_jax.tcav.stats.vectors import ConceptVectors, FitConfig, fit, label_vector
from vtcav_jax.worlds import make_clips

_PARTS = ("vectors", "experiment", "overhead", "memory")
_ONLY = flags.DEFINE_multi_enum("only", [], _PARTS, "parts to measure; rows of the other parts are kept")
_SETS = flags.DEFINE_integer(
    "most_sets", 20, "random sets of the larger experiment; captum takes minutes", lower_bound=2
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "timed runs of this package", lower_bound=1)

FEATURES, SETS, PER_SET, TARGETS = 100_000, 31, 50, 50
PEERS_TIMED = 3  # vectors; the time of all is extrapolated
L2 = 0.01

PRESET, CLIP, CLASS = "video_swin_t_k400", (16, 112, 112), 7
STAGES = ("layers.1", "layers.2", "layers.3")
FULL_SIZE_CLIP = (16, 224, 224)  # for the comparison of the whole command with its passes
PER_CONCEPT = 16

ALL_LAYERS = ("layers.0", "layers.1", "layers.2", "layers.3")
PERMUTATIONS = 500


def main(argv: list[str]) -> None:
    del argv
    parts = {"vectors": vectors_rows, "experiment": experiment_rows, "overhead": overhead_rows, "memory": memory_rows}
    results = []
    for name, measure in parts.items():
        if name not in (_ONLY.value or _PARTS):
            continue
        part_rows = _run_in_process(measure, _REPEATS.value, *([_SETS.value] if name == "experiment" else []))
        results += [{"part": name, **row} for row in part_rows]
        print(tables.tcav_table(results), file=sys.stderr, flush=True)
    results = sorted(
        [*_rows_of_other_parts({row["part"] for row in results}), *results], key=lambda row: _PARTS.index(row["part"])
    )
    print(
        f"wrote {timing.write_results('tcav', results)} and its table in {write_tables.update_pages()}", file=sys.stderr
    )


def _rows_of_other_parts(measured_parts: set[str]) -> list[dict[str, Any]]:
    """Return earlier rows of the other parts on this kind of device, without the environment."""
    path = timing.RESULTS / f"tcav_{jax.default_backend()}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [{k: v for k, v in json.loads(line).items() if k not in timing.environment()} for line in lines]
    return [row for row in rows if row["part"] not in measured_parts]


def _run_in_process(function: Callable[..., Any], *args: Any) -> Any:
    """Run a function in a separate process, which can have workers."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _time_calls(label: str, function: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """Return the result, the seconds of the first call, which compiles, and the median of the other calls."""
    result, seconds = None, []
    for i in range(repeats + 1):
        _say(f"{label}, {i or 'compiling'}")
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return result, seconds[0], median(seconds[1:])


def _say(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


# Part 1: one vector per pair of sets, all on the same activations.


def vectors_rows(repeats: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    x = random.normal(size=(SETS * PER_SET, FEATURES)).astype(np.float32)
    x[:PER_SET] += 0.05 * random.normal(size=FEATURES).astype(np.float32)  # the first set is a concept
    g = random.normal(size=(TARGETS, FEATURES)).astype(np.float32)
    sets = np.arange(SETS * PER_SET).reshape(SETS, PER_SET)
    pairs = list(combinations(range(SETS), 2))
    signed = np.stack([label_vector(sets[i], sets[j], len(x)) for i, j in pairs])

    def all_vectors() -> tuple[ConceptVectors, TcavScores]:
        vectors = fit(products.kernel, signed, FitConfig("logistic", L2))
        return vectors, tcav_scores(products, vectors)

    products, _, gram_s = _time_calls(
        "products", lambda: compute_gram(features_from_array(x), features_from_array(g)), repeats
    )
    (ours, our_scores), _, fit_s = _time_calls("vectors and scores", all_vectors, repeats)
    assert ours.converged.all()
    rows = [
        _vector_row("ours, products", [gram_s], len(pairs), len(pairs)),
        _vector_row("ours, vectors and scores", [fit_s], len(pairs), len(pairs)),
    ]
    total = gram_s + fit_s
    for name, peer_vector in (("scikit-learn, lbfgs", sklearn_vector), ("captum's default classifier", captum_vector)):
        seconds, differences = [], []
        for k in range(PEERS_TIMED):
            _say(f"{name}, {k + 1} of {PEERS_TIMED}")
            rows_of = np.flatnonzero(signed[k])
            pair_x, label = x[rows_of], (signed[k, rows_of] > 0).astype(int)
            start = time.perf_counter()
            w = peer_vector(pair_x, label, float(ours.lam[k]))
            derivatives = g @ (w / np.linalg.norm(w))
            seconds.append(time.perf_counter() - start)
            differences.append(abs(float((derivatives > 0).mean()) - our_scores.sign_count[0, k]))
            if name.startswith("scikit"):
                our_vector = ours.a[k] @ (x - x.mean(0))
                difference = np.linalg.norm(w - our_vector) / np.linalg.norm(our_vector)
                assert difference < 1e-4, f"different optimum: relative difference {difference:.2g}"
                differences[-1] = float(difference)
        row = _vector_row(name, seconds, 1, len(pairs))
        row |= {"times_ours": round(row["total_s"] / total, 1)}
        row |= {"times_ours_without_products": round(row["total_s"] / fit_s, 1)}
        if name.startswith("scikit"):
            row["difference"] = float(f"{max(differences):.2g}")
        rows.append(row)
    return rows


def _vector_row(name: str, seconds: Sequence[float], n_timed: int, n_vectors: int) -> dict[str, Any]:
    total = median(seconds) / n_timed * n_vectors
    return {"what": name, "vectors": n_vectors, "total_s": float(f"{total:.4g}"), "extrapolated": n_timed < n_vectors}


# Part 2: a whole experiment with one network, one concept, R random sets and three stages.


def experiment_rows(repeats: int, max_sets: int) -> list[dict[str, Any]]:
    return [row for sets in sorted({min(4, max_sets), max_sets}) for row in _compare_experiments(sets, repeats)]


def _compare_experiments(sets: int, repeats: int) -> list[dict[str, Any]]:
    import torch

    network, model = make_pair(PRESET, CLIP)
    random = np.random.default_rng(0)
    clips = random.normal(size=((1 + sets) * PER_CONCEPT, *CLIP, 3)).astype(np.float32)
    clips[:PER_CONCEPT] += 0.5
    targets = random.normal(size=(PER_CONCEPT, *CLIP, 3)).astype(np.float32)
    clip_indices = np.arange(len(clips)).reshape(1 + sets, PER_CONCEPT)

    def run_ours() -> tuple[EncodeResult, dict[str, tuple[ConceptVectors, TcavScores]]]:
        seen = encode(model, in_memory(clips), in_memory(targets), [CLASS], STAGES, EncodeConfig(pool="none"))
        signed = np.stack([label_vector(clip_indices[0], row, len(clips)) for row in clip_indices[1:]])
        stage_results = {}
        for stage in STAGES:
            products = compute_gram(seen.examples[stage], seen.gradients[stage])
            vectors = fit(products.kernel, signed, FitConfig("logistic", L2))
            stage_results[stage] = vectors, tcav_scores(products, vectors)
        return seen, stage_results

    (seen, our_results), first_s, ours_s = _time_calls(f"ours with {sets} random sets", run_ours, repeats)
    theirs = Captum(network, torch.from_numpy(clips), torch.from_numpy(targets), clip_indices, STAGES)
    _say("captum with our vectors: do the scores agree?")
    fixed = {stage: seen.examples[stage].linear_combination(our_results[stage][0].unit) for stage in STAGES}
    captum_scores = theirs.run(CLASS, {theirs.layers[stage]: w.reshape(sets, -1) for stage, w in fixed.items()})
    differences = []
    for stage in STAGES:
        our_values = our_results[stage][1].derivative[0]
        their_values = [captum_scores[f"0-{i}"][theirs.layers[stage]]["magnitude"][0] for i in range(1, sets + 1)]
        differences.append(timing.largest_difference(our_values, their_values))
    _say(f"captum as it is, {sets} random sets")
    theirs.n_forwards = 0
    start = time.perf_counter()
    theirs.run(CLASS)
    captum_s = time.perf_counter() - start
    distinct = len(clips) + len(targets)
    row = {"what": f"1 concept, {sets} random sets, 3 stages", "clips": distinct}
    return [
        row
        | {"who": "ours", "total_s": float(f"{ours_s:.4g}"), "first_s": float(f"{first_s:.4g}")}
        | {"forwards_per_clip": round(seen.passes.forwards / distinct, 2)}
        | {"backwards_per_target": seen.passes.backwards / len(targets)},
        row
        | {"who": "captum 0.9.0", "total_s": float(f"{captum_s:.4g}")}
        | {"forwards_per_clip": round(theirs.n_forwards / distinct, 2), "backwards_per_target": float(len(STAGES))}
        | {"times_ours": round(captum_s / ours_s, 1), "times_ours_first": round(captum_s / first_s, 1)}
        | {"difference": float(f"{max(differences):.2g}")},
    ]


# Parts 3 and 4: the whole command, from files to a run folder.


def _write_corpus(folder: Path, per_set: int, targets: int) -> None:
    """Write a folder of two concepts and three random sets, and a folder of targets."""
    names = ("one", "two", "random_0", "random_1", "random_2")
    clips = make_clips("large", len(names) * per_set + targets, 0).video
    for i, frames in enumerate(np.rint(255 * clips).astype(np.uint8)):
        set_index, number = divmod(i, per_set)
        subfolder = f"concepts/{names[set_index]}/dynamic" if set_index < len(names) else "targets"
        path = folder / subfolder / f"{number:03d}_{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_lossless_mp4(frames))


def _run_experiment(folder: Path, run: str, clip: tuple[int, int, int], **overrides: Any) -> ExperimentResults:
    network = models.random_network(PRESET)
    clip_spec = replace(network.clip_spec, frames=clip[0], size=clip[1], resize=clip[1], interval=1)
    config = ExperimentConfig(stages=ALL_LAYERS, permutations=PERMUTATIONS, max_target_clips=None, **overrides)
    source, sets = open_source(folder / "targets"), read_concepts(folder / "concepts")
    target, run_folder = network.labels[CLASS], folder / run
    return run_tcav(
        replace(network, clip_spec=clip_spec),
        [target],
        source,
        sets,
        config,
        run_folder,
        cache_dir=run_folder / "cache",
        runtime=Runtime.local(num_workers=1),
    )


def overhead_rows(repeats: int) -> list[dict[str, Any]]:
    """Measure the whole command relative to its passes alone, timed before and after each run as the load varies."""
    per_set, targets, batch = 8, 12, 4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_corpus(folder, per_set, targets)
        names = (f"run_{i}" for i in count())  # each has its own cache
        _say("whole run, compiling")
        start = time.perf_counter()
        results = _run_experiment(folder, next(names), FULL_SIZE_CLIP, batch_size=batch)
        first_s = time.perf_counter() - start
        pass_seconds, run_seconds = [_time_passes(FULL_SIZE_CLIP, batch)], []
        for i in range(repeats):
            _say(f"whole run, {i + 1} of {repeats}")
            start = time.perf_counter()
            results = _run_experiment(folder, next(names), FULL_SIZE_CLIP, batch_size=batch)
            run_seconds.append(time.perf_counter() - start)
            pass_seconds.append(_time_passes(FULL_SIZE_CLIP, batch))
    batches = (results.passes.forwards - targets) / batch, targets / batch
    passes = [batches[0] * forward + batches[1] * both for forward, both in pass_seconds]
    pass_seconds_around = [(a + b) / 2 for a, b in pairwise(passes)]
    times = median(w / b for w, b in zip(run_seconds, pass_seconds_around))
    row = {
        "clips": results.passes.forwards,
        "stages": len(ALL_LAYERS),
        "permutations": PERMUTATIONS,
        "clip": list(FULL_SIZE_CLIP),
    }
    row |= {"tests": len(results.rows), "bare_s": float(f"{median(pass_seconds_around):.4g}")}
    phases = {phase: float(f"{seconds:.3g}") for phase, seconds in results.seconds.items()}
    return [
        row
        | {"what": "whole run", "total_s": float(f"{median(run_seconds):.4g}"), "times_bare": round(times, 2)}
        | {"phases_s": phases, "each": [round(w / b, 2) for w, b in zip(run_seconds, pass_seconds_around)]},
        row
        | {"what": "whole run, compilation included", "total_s": float(f"{first_s:.4g}")}
        | {"times_bare": round(first_s / median(pass_seconds_around), 2)},
    ]


def _time_passes(clip: tuple[int, int, int], batch: int) -> tuple[float, float]:
    """Return the seconds of a micro-batch forward to the last stage, and of one forward and backward."""
    model = models.make(PRESET)
    video = np.random.default_rng(0).normal(size=(batch, *clip, 3)).astype(np.float32)
    mesh = Mesh(np.array(jax.local_devices()[:1]), ("b",))
    table = feature_encoding.class_table([CLASS], batch)
    encode_config = EncodeConfig(pool="space")
    options = {"stages": ALL_LAYERS, "config": replace(encode_config, batch_size=1, budget=1), "mesh": mesh}
    calls: dict[str, Callable[[], Any]] = {
        "forward": lambda: jax.block_until_ready(feature_encoding._activations(model, video, **options)),
        "both": lambda: jax.block_until_ready(feature_encoding._gradients(model, video, table, **options)),
    }
    seconds = timing.time_in_turn(calls, 3, 1)
    return median(seconds["forward"]), median(seconds["both"])


def memory_rows(repeats: int) -> list[dict[str, Any]]:
    del repeats
    rows = []
    for per_set, targets in ((8, 10), (32, 40)):
        _say(f"memory with {5 * per_set + targets} clips")
        rows.append(_run_in_process(_measure_memory, per_set, targets))
    rows[1]["times_fewer_clips"] = round(rows[1]["peak_mib"] / rows[0]["peak_mib"], 2)
    return rows


def _measure_memory(per_set: int, targets: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        _write_corpus(Path(name), per_set, targets)
        results = _run_experiment(
            Path(name),
            "run",
            CLIP,
            pool="none",
            budget=64 * 2**20,
            bootstrap_draws=100,
            calibration_trials=0,
            export_vectors=False,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    device = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    row = {"what": "whole run, budget of 64 MiB", "clips": 5 * per_set + targets, "peak_mib": round(peak)}
    row["total_s"] = float(f"{sum(results.seconds.values()):.4g}")
    return row | ({"device_mib": round(device["peak_bytes_in_use"] / 2**20)} if device else {})


if __name__ == "__main__":
    app.run(main)
