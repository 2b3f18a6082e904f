"""--task=tcav and --task=explain_concepts: which concepts a class uses, and which are in a clip."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from vtcav_jax import models
from vtcav_jax.cli.commands import open_nonempty
from vtcav_jax.cli.commands.predict import load_model
from vtcav_jax.cli.commands.report import report
from vtcav_jax.concepts import read_sets
from vtcav_jax.console import emit, info
from vtcav_jax.data import failure_table
from vtcav_jax.report.random_weights_notice import RANDOM_WEIGHTS_NOTICE, RANDOM_WEIGHTS_PREFIX
from vtcav_jax.tcav.experiment import run as experiment_run
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.plan import plan_experiment
from vtcav_jax.tcav.experiment.timed_batch import time_batch
from vtcav_jax.tcav.experiment.verdicts import format_score_table, summarise_findings, write_rows
from vtcav_jax.tcav.features import distributed
from vtcav_jax.tcav.features.cache import Cache
from vtcav_jax.tcav.previews import render_previews
from vtcav_jax.tcav.score_clips import ConceptScoreRow, ProjectionRow, score_clips
from vtcav_jax.tcav.vector_file import load_vectors

VECTORS_PER_PAIR, MAX_SCORED_PAIRS = 3, 40  # vectors of a clip and class, and such pairs, on the terminal


def tcav(
    model: str,
    targets: Sequence[str],
    target_videos: str | None,
    concept_dir: str | None,
    config: ExperimentConfig,
    run: Path | None,
    *,
    cache_dir: Path | None = None,
    dry_run: bool = False,
    num_workers: int = 2,
    random_weights_seed: int | None = None,
    flags: str = "",
) -> None:
    """Runs an experiment into the folder `run`, prints its table and makes its page; `dry_run` only prints the plan,
    after one batch of each kind that tells how long it takes."""
    missing = {"--targets=CLASS,...": targets, "--target_videos=WHERE": target_videos, "--concepts=DIR": concept_dir}
    missing |= {"--run=NAME": run or dry_run}
    if missing_flags := [name for name, value in missing.items() if not value]:
        raise ValueError(f"--task=tcav needs {', '.join(missing_flags)} as well; see --help")
    assert target_videos is not None and concept_dir is not None
    source, sets = open_nonempty(target_videos), read_sets(concept_dir)
    network = load_model(model, random_weights_seed)
    if dry_run:
        store = Cache(cache_dir or (run or Path("runs") / "tcav").parent / "cache")
        todo = plan_experiment(network, targets, source, sets, config, store)
        if distributed.is_main_process():
            mesh = Mesh(np.array(jax.local_devices()), ("b",))
            worth_it = todo.comparisons.entries and todo.attainable.possible
            absent = todo.forward_missing or todo.backward_missing
            emit(todo.describe(time_batch(todo, mesh).encoding_seconds(todo) if worth_it and absent else None))
        return todo.require()
    assert run is not None
    results = experiment_run.run(
        network,
        targets,
        source,
        sets,
        config,
        run,
        cache_dir=cache_dir,
        num_workers=num_workers,
        flags=flags,
    )
    if distributed.is_main_process():
        render_previews(results.folder, network, source, sets, results.rows, results.derivatives)
        info(tcav_summary(results, config, random_weights=model in models.PRESETS))
        report([results.folder])


def score_concepts(
    model: str,
    run: Path | None,
    videos: str | None,
    targets: Sequence[str],
    out: Path | None,
    *,
    score_fn: str = "logit",
    num_workers: int = 2,
) -> None:
    """Scores the clips of `spec` by the vectors of a run, into the folder `out`."""
    if run is None or videos is None or out is None:
        raise ValueError(
            "--task=explain_concepts needs --run=NAME (of a --task=tcav run), --videos=WHERE, --targets=CLASS,... and"
            " --out=DIR"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and is not empty; choose another --out")
    vectors, source = load_vectors(run), open_nonempty(videos)
    rows, moments, failed = score_clips(
        load_model(model), vectors, source, targets, score_fn=score_fn, num_workers=num_workers
    )
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "projections.csv", ProjectionRow, moments)
    write_rows(out / "explained.csv", ConceptScoreRow, rows)
    info(f"{'clip':28}{'target':18}{'stage':14}{'concept':32}{'derivative':>11}{'inside':>9}")
    ranked = sorted(rows, key=lambda row: (row.clip, row.target, -abs(row.derivative)))
    rows_per_pair: dict[tuple[str, str], int] = {}
    for row in ranked:
        rows_per_pair[row.clip, row.target] = rows_per_pair.get((row.clip, row.target), 0) + 1
        if rows_per_pair[row.clip, row.target] <= VECTORS_PER_PAIR and len(rows_per_pair) <= MAX_SCORED_PAIRS:
            info(
                f"{row.clip:28.28}{row.target:18.18}{row.stage:14.14}{row.concept_vector:32.32}{row.derivative:>11.3g}"
                f"{row.classifier_logit:>9.2f}"
            )
    emit(f"\n{len(source.items) - len(failed)} clips, all vectors: {out / 'explained.csv'}; over time: projections.csv")
    if failed:
        info(failure_table(failed))


def tcav_summary(
    results: experiment_run.ExperimentResults, config: ExperimentConfig, *, random_weights: bool = False
) -> str:
    """The table, what was found in words, and what speaks against it."""
    lines = [format_score_table(results.rows), ""]
    lines.append(f"family: {results.family_size} tests, {config.correction}, alpha {config.alpha:g}")
    for row in results.calibration:
        description = "random sets" if row.set_origin == "sets" else "sets drawn out of the random clips"
        lines.append(
            f"self-check: of {row.n_trials} tests of {description} ({row.clip_type}) {row.n_rejected} had p at most {config.alpha:g}:"
            f" {row.rate:.3f} ({row.low:.3f} to {row.high:.3f})"
        )
    work = results.passes
    for row in results.steering:
        lines.append(
            f"steered: {row.target} at {row.stage} by {row.step_units:+g} {row.concept} ({row.clip_type}) against {row.negatives}:"
            f" {row.score_change:+.3g}, expected {row.predicted_change:+.3g}, random {row.random_low:+.3g} to {row.random_high:+.3g},"
            f" p {row.p_random_directions:.2g}"
        )
    lines.append(f"clips through the network: {work.forwards} forward, {work.backwards} backward")
    lines.append("seconds: " + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in results.seconds.items()))
    if results.failures:
        lines.append(failure_table(results.failures))
    lines += [f"note: {note}" for note in results.notes]
    lines += ["", *([f"{RANDOM_WEIGHTS_NOTICE} {RANDOM_WEIGHTS_PREFIX}"] if random_weights else ())]
    return "\n".join([*lines, *summarise_findings(results.rows), "", f"all of it: {results.folder / 'scores.csv'}"])
