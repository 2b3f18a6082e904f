"""--task=evaluate_methods: explanation methods scored where the cause is known."""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from vtcav_jax import atomic, models
from vtcav_jax.cli.arguments import RunArguments
from vtcav_jax.cli.commands.report import write_page
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import Verbosity, emit, info, on_tick, progress, verbosity
from vtcav_jax.evaluation.faithfulness.metric_agreement import cheap_entries, metric_agreement
from vtcav_jax.evaluation.motion_benchmark import motion_benchmark
from vtcav_jax.evaluation.pyramid_benchmark import pyramid_benchmark
from vtcav_jax.evaluation.tcav_benchmark import run as tcav_benchmark
from vtcav_jax.evaluation.tcav_benchmark import table as tcav_benchmark_table
from vtcav_jax.evaluation.world_benchmark import analytic_benchmark, result_store
from vtcav_jax.evaluation.world_benchmark.entries import Entry, build_entries
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet, build_eval_set, questions_by_world
from vtcav_jax.evaluation.world_benchmark.scoring import (
    DEFAULT_EVAL_CLIPS,
    EVAL_SEED,
    MethodResult,
    answerable_questions,
    group_entries,
    measure_entries,
    resolve_questions,
    result_rows,
)
from vtcav_jax.models import Network
from vtcav_jax.runs import directory
from vtcav_jax.runs.evaluation_rows import (
    ALL_QUESTIONS,
    ANALYTIC_SCORE,
    MEAN_SCORE,
    METHOD_SCORES_CSV,
    METRIC_AGREEMENT_CSV,
    NOT_APPLICABLE_CSV,
    WORLD_GATES_FILE,
    MethodScoreRow,
    MetricAgreementRow,
    NotApplicable,
)
from vtcav_jax.runs.tables import read_rows, write_rows
from vtcav_jax.settings import MAX_SEED, SEED_HELP, setting
from vtcav_jax.tcav.features.cache import fingerprint, source_hash

MAIN_WORLD = "small"  # the world of which everything is told
# What a row means hangs on this code: what an older version kept is not taken for it
EVALUATION_CODE = (
    *("evaluation/**/*.py", "worlds/*.py", "models/**/*.py", "attribution/**/*.py", "pyramid/*.py"),
    *("tcav/**/*.py", "concepts/**/*.py", "data/*.py", "stats/*.py"),
    *("clip_spec.py", "tap.py"),
)


@dataclass(frozen=True, kw_only=True)
class EvaluateMethodsArguments(RunArguments):
    networks: tuple[str, ...] = setting(
        (), "networks whose cause is known [default: all that ship]; or your own with the heads of a world"
    )
    methods: tuple[str, ...] = setting((), "methods to score, with large budgets too [default: all, small budgets]")
    custom_method: tuple[str, ...] = setting(
        (), "also your own function, package.module:function (model, clips, target) -> maps", repeated=True
    )
    questions: tuple[str, ...] = setting((), "questions W0 to W8 [default: all that the networks answer]")
    max_clips: int = setting(DEFAULT_EVAL_CLIPS, "clips per network", minimum=2)
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)


def evaluate_methods(args: EvaluateMethodsArguments, context: CommandContext) -> None:
    """Score the methods on every network, write tables and a page; the same command continues."""
    networks, methods, custom_method, questions = args.networks, args.methods, args.custom_method, args.questions
    max_clips, seed = args.max_clips, EVAL_SEED + args.seed
    network_by_name = {name: models.load(name) for name in dict.fromkeys(networks or models.shipped_networks())}
    if not networks:
        network_by_name = {name: one for name, one in network_by_name.items() if questions_by_world(one)}
    world_questions = [w for w in questions if w != analytic_benchmark.ANALYTIC_QUESTION]
    if world_questions and not networks:
        network_by_name = {
            name: one for name, one in network_by_name.items() if answerable_questions(one, world_questions)
        } or network_by_name
    questions_by_network = {
        name: world_questions if networks else answerable_questions(one, world_questions)
        for name, one in network_by_name.items()
    }
    ids_by_network = {
        name: resolve_questions(one, questions_by_network[name], name) for name, one in network_by_name.items()
    }
    if questions and set(questions) <= {analytic_benchmark.ANALYTIC_QUESTION}:
        ids_by_network = {}
    entries_by_network = {name: build_entries(one, methods, custom_method) for name, one in network_by_name.items()}
    request = {
        "task": "evaluate_methods",
        "max_clips": max_clips,
        "seed": seed,
        "methods": methods,
        "custom_method": custom_method,
        "questions": questions,
    }
    folder = directory.open_run(args.run, request, context.flags_text)  # networks may be added
    with_analytic = not questions or analytic_benchmark.ANALYTIC_QUESTION in questions
    analytic, analytic_refusals = (
        analytic_rows(next(iter(entries_by_network.values())), max_clips, seed) if with_analytic else ([], [])
    )
    jobs: dict[tuple[str, str], JobRunner] = {}
    for name, by_world in ids_by_network.items():
        for world, ids in by_world.items():
            info(f"{name}: {', '.join(ids)}, {len(entries_by_network[name])} rows on {max_clips} clips")
            one = EvaluationJob(
                folder, name, network_by_name[name], world, ids, entries_by_network[name], max_clips, seed, not methods
            )
            jobs[name, world] = partial(evaluate_network, one)
    # The longest first, so that none is left alone at the end
    order = sorted(jobs, key=lambda job: job[1] != MAIN_WORLD)
    steps = sum(len(entries_by_network[name]) + N_EXTRA_STEPS * (not methods) for name, _ in jobs)
    results_by_job = dict(zip(order, run_jobs([jobs[job] for job in order], steps)))
    job_results = {job: results_by_job[job] for job in jobs}
    extra_rows = [row for one in job_results.values() for row in one.extra_rows]
    method_rows = [row for (name, _), one in job_results.items() for row in result_rows(one.results, name)]
    score_rows = [*analytic, *method_rows, *extra_rows]
    not_applicable = [*analytic_refusals, *(row for one in job_results.values() for row in one.not_applicable)]
    write_rows(folder / METHOD_SCORES_CSV, MethodScoreRow, score_rows)
    write_rows(folder / NOT_APPLICABLE_CSV, NotApplicable, list(dict.fromkeys(not_applicable)))
    if agreement_rows := [row for one in job_results.values() for row in one.agreement_rows]:
        write_rows(folder / METRIC_AGREEMENT_CSV, MetricAgreementRow, agreement_rows)
    if concept_rows := [row for one in job_results.values() for row in one.concept_rows]:
        write_rows(
            folder / tcav_benchmark_table.TCAV_BENCHMARK_CSV, tcav_benchmark_table.TcavBenchmarkRow, concept_rows
        )
    gate_texts = [f"{name}, world {world}\n\n{one.gates}\n" for (name, world), one in job_results.items()]
    atomic.write_text(folder / WORLD_GATES_FILE, "\n".join(gate_texts))
    emit(evaluation_summary(score_rows, not_applicable))
    emit(f"\nall of it: {folder / METHOD_SCORES_CSV}")
    write_page([folder])


@dataclass(frozen=True, eq=False)
class EvaluationJob:
    """What is to be told of one network and world."""

    folder: Path
    network_name: str
    network: Network
    world: str
    question_ids: tuple[str, ...]
    entries: Sequence[Entry]
    n_clips: int
    seed: int
    with_extras: bool  # not maps alone


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """Of one network and world."""

    results: list[MethodResult]
    not_applicable: list[NotApplicable]
    gates: str
    extra_rows: list[MethodScoreRow]  # of shares of motion, and of pyramids
    agreement_rows: list[MetricAgreementRow]
    concept_rows: list[tcav_benchmark_table.TcavBenchmarkRow]


ReportProgress = Callable[[int], None]  # how many steps are done
JobRunner = Callable[[ReportProgress], EvaluationResult]
N_EXTRA_STEPS = 4  # steps of a network beside the rows of maps


def run_jobs(jobs: Sequence[JobRunner], steps: int) -> list[EvaluationResult]:
    """Every job's result; on a CPU two at a time, as much of what a network does keeps no more than one core busy."""
    events: queue.SimpleQueue[int | Future[EvaluationResult]] = queue.SimpleQueue()
    stopped = threading.Event()

    def report_progress(count: int) -> None:
        if stopped.is_set():
            raise CancelledError
        events.put(count)

    def steps_done() -> Iterator[int]:
        left = len(jobs)
        while left:
            event = events.get()
            if isinstance(event, int):
                yield event
                continue
            left -= 1
            event.result()  # raises what the job has raised

    n_threads = 2 if jax.default_backend() == "cpu" else 1
    console_verbosity: Verbosity = "json" if verbosity.get() == "json" else "quiet"  # a person sees one line for all

    def start() -> None:
        verbosity.set(console_verbosity)
        on_tick.set(
            partial(report_progress, 0)
        )  # the line moves, and what is stopped ends, with every unit of the work

    with ThreadPoolExecutor(n_threads, "network", initializer=start) as pool:
        futures = [pool.submit(job, report_progress) for job in jobs]
        for future in futures:
            future.add_done_callback(events.put)
        try:
            for _ in progress(steps_done(), steps, "rows", size=int):
                pass
        except BaseException:
            info("what is at work ends with its batch")
            raise
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
    return [future.result() for future in futures]


def evaluate_network(job: EvaluationJob, report_progress: ReportProgress) -> EvaluationResult:
    """Of one network and world every row; what is there already is only read."""
    eval_set: EvalSet | None = None
    results: list[MethodResult] = []
    not_applicable: list[NotApplicable] = []
    network_name = job.network_name
    key = "-".join((job.world, *job.question_ids, fingerprint(job.network.model)[:8], cache_version(job.question_ids)))
    path = partial(result_store.result_path, job.folder, network_name, key)
    gate = path("gates").with_suffix(".txt")

    def get_eval_set() -> EvalSet:
        nonlocal eval_set
        if eval_set is None:
            eval_set = build_eval_set(job.network, job.world, job.question_ids, job.n_clips, job.seed)
            gate.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_text(gate, eval_set.gates.table())
        return eval_set

    report_progress(0)
    for group, members in group_entries(job.entries).items():
        if members[0].function is not None or not path(group).exists():  # one's own may have changed
            checked_set = get_eval_set()  # a network that fails its gates is no method that is not for it
            try:
                result_store.write_results(path(group), measure_entries(checked_set, members))
            except ValueError as error:
                if members[0].function is not None:
                    raise
                result_store.write_results(
                    path(group), [], [NotApplicable(members[0].method, network_name, str(error).splitlines()[0])]
                )
        group_results, group_refusals = result_store.read_results(path(group))
        results.extend(group_results)
        not_applicable.extend(group_refusals)
        report_progress(len(members))

    def extra_table(
        table_name: str, row_type: type[Any], make_rows: Callable[[], list[Any]], world: str = job.world
    ) -> list[Any]:
        """A table beside the maps, of `worlds`."""
        if not job.with_extras:
            return []
        file = path(table_name).with_suffix(".csv")
        if job.world == world and not file.exists():
            write_rows(file, row_type, make_rows())
        report_progress(1)
        return list(read_rows(file, row_type)) if job.world == world else []

    motion_rows = extra_table("motion", MethodScoreRow, lambda: motion_benchmark(get_eval_set(), network_name))
    pyramid_rows = extra_table(
        "pyramids", MethodScoreRow, lambda: pyramid_benchmark(get_eval_set(), network_name), MAIN_WORLD
    )
    agreement_rows = extra_table(
        "metrics",
        MetricAgreementRow,
        lambda: metric_agreement(get_eval_set(), network_name, cheap_entries(job.entries, results), results),
    )
    concept_rows = extra_table(
        "concepts",
        tcav_benchmark_table.TcavBenchmarkRow,
        lambda: tcav_benchmark.tcav_benchmark_rows(job.network, network_name=network_name),
        MAIN_WORLD,
    )
    return EvaluationResult(
        results,
        not_applicable,
        gate.read_text(encoding="utf-8"),
        [*motion_rows, *pyramid_rows],
        agreement_rows,
        concept_rows,
    )


def cache_version(question_ids: Sequence[str]) -> str:
    """Of what is kept about questions: rows of a version that asked otherwise are not taken for ours."""
    key = source_hash(*EVALUATION_CODE), *question_ids
    return hashlib.sha256(repr(key).encode()).hexdigest()[:6]


def analytic_rows(
    entries: Sequence[Entry], n_clips: int, seed: int
) -> tuple[list[MethodScoreRow], list[NotApplicable]]:
    """The hand-wired network, where each voxel's value is known."""
    runnable = [entry for entry in entries if analytic_benchmark.runs_on_analytic(entry)]
    results, not_applicable = [], []
    for entry in progress(runnable, len(runnable), "rows of the hand-wired network", size=lambda _: 1):
        try:
            agreement = analytic_benchmark.score_on_analytic(entry, n_clips, seed)
        except ValueError as error:  # what is made for another network may fail on this one
            not_applicable.append(
                NotApplicable(entry.method, analytic_benchmark.ANALYTIC_NETWORK, str(error).splitlines()[0])
            )
            continue
        result_fields = (
            entry.method,
            agreement.stage,
            analytic_benchmark.ANALYTIC_QUESTION,
            agreement.forward_passes,
            float("nan"),
        )
        results.append(MethodResult(*result_fields, {ANALYTIC_SCORE: agreement.parts}))
    return result_rows(results, analytic_benchmark.ANALYTIC_NETWORK), not_applicable


def evaluation_summary(score_rows: Sequence[MethodScoreRow], not_applicable: Sequence[NotApplicable]) -> str:
    """The best row of each method, network by network, and what the others must beat."""
    lines = []
    for name in dict.fromkeys(row.network_name for row in score_rows if row.metric == MEAN_SCORE):
        network_rows = [row for row in score_rows if row.network_name == name and row.metric == MEAN_SCORE]
        overall = [row for row in network_rows if row.question == ALL_QUESTIONS] or network_rows
        best: dict[str, MethodScoreRow] = {}
        for row in sorted(overall, key=lambda row: -row.value):
            best.setdefault(row.method, row)
        lines += [
            "",
            f"{name}: mean over axes and questions; 0 is chance, 1 all there is to get; each at its best stage",
        ]
        lines.append(f"  {'method':26}{'stage':20}{'truth':>22}{'forwards':>10}{'s a clip':>10}")
        for row in best.values():
            value = f"{row.value:+.3f} ({row.low:+.3f} {row.high:+.3f})"
            lines.append(
                f"  {row.method:26.26}{row.stage:20.20}{value:>22}{row.forward_passes:>10}{row.seconds:>10.2g}"
            )
        if inapplicable := [r for r in not_applicable if r.network_name == name]:
            lines.append(f"  not for this network: {', '.join(dict.fromkeys(r.method for r in inapplicable))}")
    return "\n".join(lines[1:])
