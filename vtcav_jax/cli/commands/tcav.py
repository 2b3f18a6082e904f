"""The task `tcav`: which concepts a class uses."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax import distributed
from vtcav_jax.cli.arguments import (
    LabelTreeArguments,
    ModelArguments,
    ProcessArguments,
    RandomWeightsArguments,
    RunArguments,
)
from vtcav_jax.cli.commands import format_table, load_network, open_nonempty
from vtcav_jax.cli.commands.report import write_page
from vtcav_jax.cli.process_agreement import require_same_concepts
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.concepts import read_concepts
from vtcav_jax.console import emit, info
from vtcav_jax.data import failure_table
from vtcav_jax.models import PRESETS
from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import effect_size, effect_unit, format_effect, format_p, format_percent
from vtcav_jax.report.random_weights_notice import RANDOM_WEIGHTS_NOTICE, RANDOM_WEIGHTS_PREFIX
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.report.text.tcav import class_answers
from vtcav_jax.report.text.tcav_limits import calibration_ci
from vtcav_jax.runs.tcav_rows import SCORES_CSV, CalibrationRow, ScoreRow, SteeringRow
from vtcav_jax.runtime import Runtime
from vtcav_jax.settings import MAX_WORKERS, concerning, nested, required, setting
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.plan import plan_experiment
from vtcav_jax.tcav.experiment.run import ExperimentResults, run_tcav
from vtcav_jax.tcav.experiment.verdicts import is_finding
from vtcav_jax.tcav.features.cache import Cache
from vtcav_jax.tcav.previews import render_previews


@dataclass(frozen=True, kw_only=True)
class TestArguments(LabelTreeArguments, RunArguments, RandomWeightsArguments):
    """Arguments of the tests, without network, videos and concepts; the task `experiment` takes them too."""

    __test__ = False  # not a test class of pytest

    targets: tuple[str, ...] = required(
        "CLASS,...",
        "classes, separated by commas: CLASS, HEAD:CLASS, HEAD (all its classes), a glob ('direction:*'), or with"
        " --label_tree GROUP (all its classes)",
    )
    num_workers: int = setting(
        2, "processes that decode videos; 0 decodes in this process", minimum=0, maximum=MAX_WORKERS
    )
    cache_dir: Path | None = setting(
        None, "folder of encoded clips, shared between runs [default: the folder cache beside the run]"
    )
    test_config: ExperimentConfig = nested(ExperimentConfig)


@dataclass(frozen=True, kw_only=True)
class TcavArguments(ModelArguments, TestArguments, ProcessArguments):
    target_videos: str = required(
        "WHERE", "clips of the classes (a source); they must not be among the sources of the concepts"
    )
    concept_dir: str = required("DIR", "folder of concept sets")
    dry_run: bool = setting(False, "print the plan and its estimated cost, check its statistical power, and stop")


def tcav(args: TcavArguments, context: CommandContext) -> None:
    """Run an experiment, print its findings and write its page; `dry_run` prints the plan with a cost estimate."""
    config, source = args.test_config, open_nonempty(args.target_videos, "target_videos")
    with concerning("concept_dir"):
        sets = read_concepts(args.concept_dir)
        require_same_concepts(sets)
    network = load_network(args, config.seed)
    runtime = Runtime.local(num_workers=args.num_workers)
    if args.dry_run:
        store = Cache(args.cache_dir or args.run.parent / "cache")
        plan = plan_experiment(network, args.targets, source, sets, config, store)
        if distributed.is_main_process():
            emit(plan.text)
        return plan.require()
    results = run_tcav(
        *(network, args.targets, source, sets, config, args.run),
        cache_dir=args.cache_dir,
        runtime=runtime,
        flags=context.flags_text,
    )
    if distributed.is_main_process():
        render_previews(results.folder, network, source, sets, results.rows, results.derivatives)
        info(tcav_summary(results, config, random_weights=args.model in PRESETS))
        write_page([results.folder])


def tcav_summary(results: ExperimentResults, config: ExperimentConfig, *, random_weights: bool = False) -> str:
    """Return the findings as a table and as sentences, with the calibration of the tests and the work done."""
    n_findings, run = sum(map(is_finding, results.rows)), open_run_folder(results.folder)
    unlabelled = run.content.get("unlabelled_targets", ())
    lines = [
        f"{n_findings} of {count_noun(results.family_size, 'test')} are significant (family-wise error rate"
        f" {config.alpha:g}, correction {config.correction})"
        + (f", among clips of equal {config.within}" if config.within else ""),
        *(finding_lines(results.rows, config.statistic, unlabelled) if n_findings else ()),
        "",
        *_other_verdict_lines(results.rows),
        *_calibration_lines(results.calibration, results.rows, config.alpha),
        *steering_lines(results.steering),
        f"encoded: {count_noun(results.passes.forwards, 'clip')} forward, {results.passes.backwards} backward;"
        f" {sum(results.seconds.values()):.0f} s in all",
        *([failure_table(results.failures)] if results.failures else ()),
        *(f"note: {note}" for note in results.notes),
        "",
        *([f"{RANDOM_WEIGHTS_NOTICE} {RANDOM_WEIGHTS_PREFIX}"] if random_weights else ()),
    ]
    for answer in class_answers(run):
        lines += [f"{answer.target}: {answer.limits}"] if answer.limits else []
        lines += [headline for headline, _ in answer.findings]
        lines += [f"{answer.target}: {answer.no_effect_text}"] if answer.no_effect_text else []
    return "\n".join([*lines, "", f"all tests: {results.folder / SCORES_CSV}"])


def finding_lines(rows: Sequence[ScoreRow], statistic: str, unlabelled: Sequence[str] = ()) -> list[str]:
    """Return a table of the significant tests, class by class, the largest effects first.

    The clips of `unlabelled` classes have no labels.
    """
    findings = [row for row in rows if is_finding(row)]
    if not findings:
        return []
    rows_of_target = {
        target: sorted(
            (row for row in findings if row.target == target), key=lambda row: -abs(effect_size(row, statistic).value)
        )
        for target in dict.fromkeys(row.target for row in findings)
    }
    columns = ("concept", "clips", "compared with", "layer", "effect (95 % CI)", "same sign", "adjusted p", "verdict")
    cells = [_finding_cells(row, statistic) for target_rows in rows_of_target.values() for row in target_rows]
    heading, *table_lines = format_table(columns, cells, left=len(columns)).splitlines()
    lines, next_line = [], iter(table_lines)
    for target, target_rows in rows_of_target.items():
        unit, clips = effect_unit(statistic, target_rows[0].score_fn), count_noun(target_rows[0].n_clips, "clip")
        of_class = "without labels" if target in unlabelled else "of the class"
        lines += ["", f"{target}: {unit} (95 % CI over source videos), {clips} {of_class}", f"  {heading}"]
        lines += [f"  {next(next_line)}" for _ in target_rows]
    return lines


def _finding_cells(row: ScoreRow, statistic: str) -> tuple[str, ...]:
    return (
        *(row.concept, row.clip_type, row.negatives, row.stage, format_effect(effect_size(row, statistic))),
        *(f"{max(row.tcav_score, 1 - row.tcav_score):.0%}", format_p(row.p_adjusted), row.verdict),
    )


def _other_verdict_lines(rows: Sequence[ScoreRow]) -> list[str]:
    counts = Counter(row.verdict for row in rows if not is_finding(row))
    verdicts = ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
    return [f"other tests: {verdicts}; the report page explains each verdict"] if counts else []


def _calibration_lines(rows: Sequence[CalibrationRow], scores: Sequence[ScoreRow], alpha: float) -> list[str]:
    lines = [f"calibration: random sets tested like concepts, share of tests with p at or below {alpha:g}"]
    for row in rows:
        n_sets, low, high = calibration_ci(row.rate, row.n_trials, scores)
        pseudo_concepts = f"{'random sets' if row.set_origin == 'sets' else 'sets drawn from random clips'}"
        share = f"{row.n_rejected} of {row.n_trials}"
        interval = f"95 % CI {format_percent(low)} to {format_percent(high)} over {count_noun(n_sets, 'set')}"
        rate = f"{format_percent(row.rate)} ({interval})"
        lines.append(f"  {f'{pseudo_concepts}, {row.clip_type}':40}{share:12}{rate}")
    return lines if rows else []


def steering_lines(rows: Sequence[SteeringRow]) -> list[str]:
    """Return how often moved activations change the score as predicted, and a line for each check with random moves."""
    if not rows:
        return []
    n_same = sum(row.score_change * row.predicted_change > 0 for row in rows)
    lines = [
        f"steering: when activations of target clips are moved, the score changes as predicted in {n_same} of"
        f" {len(rows)} moves along findings (one step towards and one away from the concept)"
    ]
    return lines + [
        f"  {row.target} at {row.stage} by {row.step_units:+g} steps of {row.concept} ({row.clip_type}) against"
        f" {row.negatives}: score change {row.score_change:+.3g}, predicted {row.predicted_change:+.3g}; random"
        f" directions {row.random_low:+.3g} to {row.random_high:+.3g}, p {row.p_random_directions:.2g}"
        for row in rows
        if row.p_random_directions == row.p_random_directions
    ]
