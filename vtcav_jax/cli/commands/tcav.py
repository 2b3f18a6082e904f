"""--task=tcav: which concepts a class uses."""

from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.cli.arguments import ModelArguments, RandomWeightsArguments, RunArguments
from vtcav_jax.cli.commands import load_network, open_nonempty
from vtcav_jax.cli.commands.report import write_page
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.concepts import read_sets
from vtcav_jax.console import emit, info
from vtcav_jax.data import failure_table
from vtcav_jax.models import PRESETS
from vtcav_jax.report.random_weights_notice import RANDOM_WEIGHTS_NOTICE, RANDOM_WEIGHTS_PREFIX
from vtcav_jax.runtime import Runtime
from vtcav_jax.settings import concerning, nested, required, setting
from vtcav_jax.tcav.experiment import run as experiment_run
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.plan import plan_experiment
from vtcav_jax.tcav.experiment.timed_batch import time_batch
from vtcav_jax.tcav.experiment.verdicts import format_score_table, summarise_findings
from vtcav_jax.tcav.features import distributed
from vtcav_jax.tcav.features.cache import Cache
from vtcav_jax.tcav.previews import render_previews


@dataclass(frozen=True, kw_only=True)
class TestArguments(RunArguments, RandomWeightsArguments):
    """What a test takes beside its network, videos and concepts; --task=experiment takes it too."""

    __test__ = False  # no test of pytest's

    targets: tuple[str, ...] = required("CLASS,...", "classes: CLASS or HEAD:CLASS, separated by commas")
    num_workers: int = setting(2, "processes that decode videos; 0: decode in this process", minimum=0)
    cache_dir: Path | None = setting(None, "folder of encoded clips [default: cache, beside the run]")
    test_config: ExperimentConfig = nested(ExperimentConfig)


@dataclass(frozen=True, kw_only=True)
class TcavArguments(ModelArguments, TestArguments):
    target_videos: str = required(
        "WHERE", "clips of the classes (a source, as for --videos); no concept may come from them"
    )
    concept_dir: str = required("DIR", "folder of concept sets")
    dry_run: bool = setting(False, "print the plan, its cost and what is missing, and stop")
    coordinator: str | None = setting(
        None, "with several processes: HOST:PORT of the first one, or auto for what a cluster provides"
    )
    num_processes: int | None = setting(None, "with --coordinator: number of processes", minimum=1)
    process_id: int | None = setting(None, "with --coordinator: number of this process", minimum=0)


def tcav(args: TcavArguments, context: CommandContext) -> None:
    """Run an experiment, print its table and write its page; `dry_run` prints the plan, with timed batches."""
    with concerning("coordinator"):
        distributed.connect(args.coordinator, args.num_processes, args.process_id)
    config, source = args.test_config, open_nonempty(args.target_videos, "target_videos")
    with concerning("concept_dir"):
        sets = read_sets(args.concept_dir)
    network = load_network(args.model, random_weights=args.random_weights, seed=config.seed)
    runtime = Runtime.local(num_workers=args.num_workers)
    if args.dry_run:
        store = Cache(args.cache_dir or args.run.parent / "cache")
        plan = plan_experiment(network, args.targets, source, sets, config, store)
        if distributed.is_main_process():
            can_find = plan.comparisons.entries and plan.attainable.possible
            is_missing = plan.forward_missing or plan.backward_missing
            timing = time_batch(plan, runtime).encoding_seconds(plan) if can_find and is_missing else None
            emit(plan.describe(timing))
        return plan.require()
    results = experiment_run.run(
        *(network, args.targets, source, sets, config, args.run),
        cache_dir=args.cache_dir,
        runtime=runtime,
        flags=context.flags_text,
    )
    if distributed.is_main_process():
        render_previews(results.folder, network, source, sets, results.rows, results.derivatives)
        info(tcav_summary(results, config, random_weights=args.model in PRESETS))
        write_page([results.folder])


def tcav_summary(
    results: experiment_run.ExperimentResults, config: ExperimentConfig, *, random_weights: bool = False
) -> str:
    """The table, what was found in words, and what speaks against it."""
    lines = [format_score_table(results.rows), ""]
    lines.append(f"family: {results.family_size} tests, {config.correction}, alpha {config.alpha:g}")
    for row in results.calibration:
        description = "random sets" if row.set_origin == "sets" else "sets drawn out of the random clips"
        lines.append(
            f"self-check: of {row.n_trials} tests of {description} ({row.clip_type}) {row.n_rejected} had p at"
            f" most {config.alpha:g}:"
            f" {row.rate:.3f} ({row.low:.3f} to {row.high:.3f})"
        )
    work = results.passes
    for row in results.steering:
        lines.append(
            f"steered: {row.target} at {row.stage} by {row.step_units:+g} {row.concept} ({row.clip_type}) against"
            f" {row.negatives}:"
            f" {row.score_change:+.3g}, expected {row.predicted_change:+.3g}, random {row.random_low:+.3g} to"
            f" {row.random_high:+.3g},"
            f" p {row.p_random_directions:.2g}"
        )
    lines.append(f"clips through the network: {work.forwards} forward, {work.backwards} backward")
    lines.append("seconds: " + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in results.seconds.items()))
    if results.failures:
        lines.append(failure_table(results.failures))
    lines += [f"note: {note}" for note in results.notes]
    lines += ["", *([f"{RANDOM_WEIGHTS_NOTICE} {RANDOM_WEIGHTS_PREFIX}"] if random_weights else ())]
    return "\n".join([*lines, *summarise_findings(results.rows), "", f"all of it: {results.folder / 'scores.csv'}"])
