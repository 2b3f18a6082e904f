"""A complete experiment: encoding of clips, products, tests, and a run folder with the results.

Each clip is encoded once and each gradient computed once; both are cached by content, so that the same call continues
an interrupted run. Everything else is computed from the cache, one stage (layer) at a time.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax

from vtcav_jax import atomic, distributed, tap
from vtcav_jax.concepts.concept_sets import ConceptSets, read_concepts, read_discovered
from vtcav_jax.data.failure_report import write_failures
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.open import open_source
from vtcav_jax.data.source import Source
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.models import Network
from vtcav_jax.names import count_noun
from vtcav_jax.runs import directory
from vtcav_jax.runs.discovery_rows import (
    CLIP_SCORES_NPZ,
    COMPLETENESS_CSV,
    DISCOVERED_CSV,
    CompletenessRow,
    DiscoveredRow,
)
from vtcav_jax.runs.tables import read_rows, write_rows
from vtcav_jax.runs.tcav_rows import (
    CONFOUNDERS_CSV,
    CalibrationRow,
    ConfounderRow,
    DerivativeRow,
    ScoreRow,
    SteeringRow,
    VectorRow,
)
from vtcav_jax.runtime import PassCounter, Runtime
from vtcav_jax.stats.intervals import wilson_ci
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.confounders import check_confounders
from vtcav_jax.tcav.experiment.fill_cache import fill_activations, fill_gradients
from vtcav_jax.tcav.experiment.plan import Plan, drop_unreadable, plan_experiment
from vtcav_jax.tcav.experiment.report_data import write_report_data
from vtcav_jax.tcav.experiment.stage_grams import StageGrams
from vtcav_jax.tcav.experiment.stage_results import StageResults
from vtcav_jax.tcav.experiment.verdicts import is_finding, with_verdicts
from vtcav_jax.tcav.features.cache import Cache, damaged_note, source_hash
from vtcav_jax.tcav.steering.steering_check import check_steering, with_steering_verdicts
from vtcav_jax.tcav.vector_file import export_vectors

DEFAULT_EXPERIMENT = ExperimentConfig()


@dataclass(frozen=True)
class ExperimentResults(DisplayedResult):
    """Contents of the run folder; `family_size` is the number of tests that p-values are corrected for."""

    folder: Path
    rows: tuple[ScoreRow, ...]
    vectors: tuple[VectorRow, ...]
    derivatives: tuple[DerivativeRow, ...]
    steering: tuple[SteeringRow, ...]
    confounders: tuple[ConfounderRow, ...]
    family_size: int
    calibration: tuple[CalibrationRow, ...]
    passes: PassCounter
    seconds: dict[str, float]
    failures: tuple[ReadResult, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        tests = count_noun(self.family_size, "test")
        return f"ExperimentResults({self.folder}, {len(self.findings)} of {tests} are findings)"

    @property
    def findings(self) -> list[ScoreRow]:
        """The significant and conclusive tests, the largest effects first."""
        return sorted(filter(is_finding, self.rows), key=lambda row: -abs(row.relative_derivative))


def run_tcav(
    network: Network,
    targets: Sequence[str],
    target_videos: Source | str | Path,
    concepts: ConceptSets | str | Path,
    config: ExperimentConfig = DEFAULT_EXPERIMENT,
    folder: str | Path = "runs/tcav",
    *,
    cache_dir: str | Path | None = None,
    runtime: Runtime | None = None,
    flags: str = "",
) -> ExperimentResults:
    """Test each concept for each target class at each stage (Video-TCAV), and write the run folder.

        config = ExperimentConfig(stages=("layers.*",), comparisons=("absolute", "motion"))
        results = run_tcav(network, ["playing tennis"], "videos/tennis", "concepts", config, "runs/tennis")
        for row in results.findings:
            print(row.name, row.stage, row.step_effect, row.p_adjusted, row.verdict)

    With the gradient g of the class score at a stage, the concept vector v (unit length), and the means of the concept
    clips and of the clips they are compared with, a test reports

        derivative = mean over target clips of g · v
        step_effect = derivative × (mean of concept clips - mean of negatives) · v

    with bootstrap intervals, a permutation p-value, and a p-value corrected for all tests; docs/statistics.md has the
    details. Settings that cannot work or cannot reach significance raise ValueError before any clip is encoded. Each
    clip is encoded once and cached; the same call continues an interrupted run.

    Args:
        targets: classes: CLASS, HEAD:CLASS, HEAD (all its classes) or a glob such as `direction:*`.
        target_videos: clips of the classes, a source or what `open_source` takes; those labelled with a class are used
            for it, or all if there are no labels.
        concepts: concept sets, or the folder that `read_concepts` reads.
        folder: the run folder, which `write_report` turns into a page.
        cache_dir: folder of encoded clips; by default `cache` in the parent of `folder`, shared by all runs there.
        runtime: devices and decoding processes. Several processes (`distributed.connect`) share the work if all make
            the same call and share the cache; process 0 writes the folder.
        flags: the command as a flagfile, stored in the run folder.
    """
    if not isinstance(target_videos, Source):
        target_videos = open_source(target_videos)
    if not isinstance(concepts, ConceptSets):
        concepts = read_concepts(concepts)
    runtime = runtime or Runtime.local()
    timer = runtime.timer
    folder = Path(folder)
    store = Cache(Path(cache_dir) if cache_dir else folder.parent / "cache")
    with timer("plan"):
        distributed.require_shared_folder(store.folder)
        plan = plan_experiment(network, targets, target_videos, concepts, config, store)
        plan.require()
        request = {
            "task": "tcav",
            "model": network.name,
            "targets": list(targets),
            "target_videos": target_videos.spec,
            "concepts": str(concepts.folder),
            **asdict(config),
        }
        identity = network.identity()
        directory.open_run(folder, request, flags, network=identity)
    totals = len(set(plan.clips.concepts.keys)), len(plan.clips.targets)
    with timer("concept clips"):
        failures = [*plan.clips.preflight.failures, *fill_activations(plan, runtime)]
    with timer("targets"):
        failures += fill_gradients(plan, runtime)
    plan = drop_unreadable(plan)
    config = plan.config
    stage_grams = StageGrams(plan, runtime)
    results_by_stage = stage_grams.evaluate_stages(plan.stages)
    rows = with_verdicts(
        [row for stage_results in results_by_stage.values() for row in stage_results.rows],
        config,
    )
    target_order = {target.name: i for i, target in enumerate(plan.clips.classes)}
    rows.sort(key=lambda row: target_order[row.target])
    derivative_rows = tuple(row for stage_results in results_by_stage.values() for row in stage_results.derivatives)
    with timer("steering"):
        steering_rows = check_steering(stage_grams, rows, derivative_rows) if config.steering_clips else []
        rows = with_steering_verdicts(rows, steering_rows)
    with timer("confounders"):
        confounders = tuple(check_confounders(stage_grams, rows))
    results = ExperimentResults(
        folder,
        tuple(rows),
        tuple(row for stage_results in results_by_stage.values() for row in stage_results.vectors),
        derivative_rows,
        tuple(steering_rows),
        confounders,
        sum(row.p == row.p for row in rows),
        _calibration_rows(results_by_stage, config.alpha),
        _total_passes(runtime.passes),
        timer.seconds,
        tuple(failures),
        (*plan.clips.preflight.notes, *plan.comparisons.notes, *damaged_note(store.damaged)),
    )
    distributed.main_process_first(lambda: _write_run(results, stage_grams, totals, concepts.folder))
    return results


def _total_passes(passes: PassCounter) -> PassCounter:
    """Return the passes of all processes."""
    parts = [PassCounter(**counts) for counts in distributed.all_gather(asdict(passes))]
    smallest = min((part.batch_size for part in parts if part.batch_size), default=0)
    return PassCounter(sum(part.forwards for part in parts), sum(part.backwards for part in parts), smallest)


def _write_run(
    results: ExperimentResults, stage_grams: StageGrams, totals: tuple[int, int], concept_folder: Path
) -> None:
    """Write the run folder; scores.csv is written last, so that it marks a complete run."""
    folder, plan, timer = results.folder, stage_grams.plan, stage_grams.runtime.timer
    write_failures(folder / "failures.csv", results.failures)
    with timer("tables"):
        write_rows(folder / "derivatives.csv", DerivativeRow, results.derivatives)
        write_rows(folder / "quality.csv", VectorRow, results.vectors)
        write_rows(folder / CONFOUNDERS_CSV, ConfounderRow, results.confounders)
        if discovered := read_discovered(concept_folder):
            write_rows(folder / DISCOVERED_CSV, DiscoveredRow, discovered)
            completeness = read_rows(concept_folder / COMPLETENESS_CSV, CompletenessRow)
            write_rows(folder / COMPLETENESS_CSV, CompletenessRow, completeness)
            atomic.write_bytes(folder / CLIP_SCORES_NPZ, (concept_folder / CLIP_SCORES_NPZ).read_bytes())
        if plan.config.steering_clips:
            write_rows(folder / "steering.csv", SteeringRow, results.steering)
    if plan.config.protocol == "saha2024":
        from vtcav_jax.tcav.saha2024 import write_saha2024

        with timer("saha2024"):
            write_saha2024(folder, plan, stage_grams.cached_gram)
    with timer("report data"):
        write_report_data(folder, plan, stage_grams.examples, stage_grams.cached_gram)
    if plan.config.export_vectors:
        with timer("export"):
            export_vectors(folder, plan, stage_grams.examples, stage_grams.cached_gram)
    _complete_run_json(folder, plan, results, totals)
    write_rows(folder / "scores.csv", ScoreRow, results.rows)


def _calibration_rows(results_by_stage: dict[str, StageResults], alpha: float) -> tuple[CalibrationRow, ...]:
    p_values: dict[tuple[str, str], list[float]] = {}
    for results in results_by_stage.values():
        for clip_type, p_by_origin in results.calibration_p.items():
            for origin, ps in p_by_origin.items():
                p_values[clip_type, origin] = [*p_values.get((clip_type, origin), []), *(p for p in ps if p == p)]
    return tuple(
        CalibrationRow(
            clip_type, origin, sum(p <= alpha for p in ps), len(ps), *wilson_ci(sum(p <= alpha for p in ps), len(ps))
        )
        for (clip_type, origin), ps in p_values.items()
        if ps
    )


def _complete_run_json(folder: Path, plan: Plan, results: ExperimentResults, totals: tuple[int, int]) -> None:
    """Add the results' provenance, cost and notes to run.json."""
    path, _ = directory.record_paths(folder, "tcav")
    run_info = json.loads(path.read_text(encoding="utf-8"))
    concepts, targets = plan.clips.concepts, plan.clips.targets
    run_info |= {
        "devices": [str(device) for device in jax.devices()],
        "hashes": {
            "weights": plan.weights_hash,
            "code": source_hash(),
            "concepts": dict(zip(concepts.names, (clip.sha256 for clip in plan.clips.concept_clips))),
            "targets": dict(zip(targets.names, targets.keys)),
        },
        "stages": list(plan.stages),
        "network_stages": list(tap.stages_of(plan.network.model)),
        "clips": {"concepts": len(concepts), "different": totals[0], "targets": totals[1]},
        "work": asdict(results.passes),
        "failed": {read.item.name: read.failure for read in results.failures},
        "unreadable": plan.clips.preflight.unreadable,
        "unlabelled_targets": [target.name for target in plan.clips.classes if not target.is_labelled],
        "seconds": run_info.get("seconds", results.seconds),  # of the first run: later ones read the cache
        "family": {
            "tests": results.family_size,
            "correction": plan.config.correction,
            "alpha": plan.config.alpha,
            "permutations": plan.config.permutations,
            "smallest_p": plan.attainable.p_min,
            "smallest_p_corrected": plan.attainable.p_corrected,
        },
        "calibration": [asdict(row) | {"rate": row.rate} for row in results.calibration],
        "notes": list(results.notes),
    }
    atomic.write_text(path, json.dumps(run_info, indent=1) + "\n")
