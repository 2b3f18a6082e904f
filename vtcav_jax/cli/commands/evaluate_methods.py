"""Command of the task evaluate_methods: score explanation methods on synthetic clips with a known cause."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vtcav_jax import atomic, distributed, models
from vtcav_jax.adapters.factory import load
from vtcav_jax.cli.arguments import ProcessArguments, RunArguments
from vtcav_jax.cli.commands import format_table
from vtcav_jax.cli.commands.report import write_page
from vtcav_jax.cli.process_agreement import require_same_network
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import Verbosity, emit, info, on_tick, progress, verbosity
from vtcav_jax.evaluation.network_parts import (
    EXTRA_BENCHMARKS,
    MAIN_WORLD,
    EvaluationJob,
    EvaluationResult,
    ReportProgress,
    evaluate_network,
    share_parts,
)
from vtcav_jax.evaluation.tcav_benchmark import table as tcav_benchmark_table
from vtcav_jax.evaluation.world_benchmark import analytic_benchmark
from vtcav_jax.evaluation.world_benchmark.entries import Entry, build_entries
from vtcav_jax.evaluation.world_benchmark.eval_set import questions_by_world
from vtcav_jax.evaluation.world_benchmark.score_rows import MethodResult, result_rows
from vtcav_jax.evaluation.world_benchmark.scoring import (
    DEFAULT_EVAL_CLIPS,
    EVAL_SEED,
    answerable_questions,
    resolve_questions,
)
from vtcav_jax.models import Network
from vtcav_jax.names import count_noun
from vtcav_jax.platforms import on_cpu
from vtcav_jax.runs import directory
from vtcav_jax.runs.evaluation_rows import (
    ALL_QUESTIONS,
    ANALYTIC_SCORE,
    DISCOVERY_BENCHMARK_CSV,
    MEAN_SCORE,
    METHOD_SCORES_CSV,
    METRIC_AGREEMENT_CSV,
    NOT_APPLICABLE_CSV,
    WORLD_GATES_FILE,
    DiscoveryBenchmarkRow,
    MethodScoreRow,
    MetricAgreementRow,
    NotApplicable,
)
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.settings import MAX_SEED, SEED_HELP, setting


@dataclass(frozen=True, kw_only=True)
class EvaluateMethodsArguments(RunArguments, ProcessArguments):
    networks: tuple[str, ...] = setting(
        (),
        "networks, separated by commas: shipped ones, or your own with all heads of a world [default: all shipped]",
    )
    methods: tuple[str, ...] = setting(
        (),
        "attribution methods, with all their budgets [default: all methods, without the most expensive budgets]",
    )
    benchmarks: tuple[str, ...] = setting(
        (),
        "benchmarks besides the scores of maps [default: all, or none if methods are named]",
        choices=EXTRA_BENCHMARKS,
    )
    custom_method: tuple[str, ...] = setting(
        (), "also score your own function: package.module:function (model, clips, target) -> maps", repeated=True
    )
    questions: tuple[str, ...] = setting(
        (), "benchmark questions, W0 to W8 [default: all for which the networks have heads]"
    )
    max_clips: int = setting(DEFAULT_EVAL_CLIPS, "clips per network and world", minimum=2, maximum=10**6)
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)


def evaluate_methods(args: EvaluateMethodsArguments, context: CommandContext) -> None:
    """Score the methods on every network, write tables and a report page; continue an interrupted run."""
    networks, ids_by_network = select_networks(args)
    for network in networks.values():
        require_same_network(network)
    entries_by_network = {
        name: build_entries(network, args.methods, args.custom_method) for name, network in networks.items()
    }
    seed = EVAL_SEED + args.seed
    request = {
        "task": "evaluate_methods",
        "max_clips": args.max_clips,
        "seed": seed,
        "methods": args.methods,
        "custom_method": args.custom_method,
        "questions": args.questions,
        "benchmarks": args.benchmarks,
    }
    # A later command can add networks; parts of other weights and code are measured again
    folder = directory.open_run(args.run, request, context.flags_text, keyed_by_code=True)
    with_analytic = not args.questions or analytic_benchmark.ANALYTIC_QUESTION in args.questions
    benchmarks = args.benchmarks or (() if args.methods else EXTRA_BENCHMARKS)
    jobs: dict[tuple[str, str], EvaluationJob] = {}
    for name, by_world in ids_by_network.items():
        entries = entries_by_network[name]
        for world, ids in by_world.items():
            info(f"{name}: {', '.join(ids)}; {len(entries)} methods and stages on {count_noun(args.max_clips, 'clip')}")
            jobs[name, world] = EvaluationJob(
                folder, name, networks[name], world, ids, entries, args.max_clips, seed, benchmarks
            )
    share_parts(tuple(jobs.values()))
    if not distributed.is_main_process():
        return
    analytic, analytic_refusals = (
        analytic_rows(next(iter(entries_by_network.values())), args.max_clips, seed) if with_analytic else ([], [])
    )
    # The longest jobs start first, so that none of them runs alone at the end
    order = sorted(jobs, key=lambda job: job[1] != MAIN_WORLD)
    steps = sum(len(job.entries) + len(job.benchmarks) for job in jobs.values())
    results_by_job = dict(zip(order, run_jobs([partial(evaluate_network, jobs[key]) for key in order], steps)))
    write_results(folder, {key: results_by_job[key] for key in jobs}, analytic, analytic_refusals)
    write_page([folder])


def select_networks(
    args: EvaluateMethodsArguments,
) -> tuple[dict[str, Network], dict[str, dict[str, tuple[str, ...]]]]:
    """Return the networks by name, and for each of them its questions by world.

    By default these are the shipped networks that answer at least one of the questions.
    """
    networks = {name: load(name) for name in dict.fromkeys(args.networks or models.shipped_networks())}
    questions = [w for w in args.questions if w != analytic_benchmark.ANALYTIC_QUESTION]
    if not args.networks:
        networks = {name: network for name, network in networks.items() if questions_by_world(network)}
        if questions:
            networks = {
                name: network for name, network in networks.items() if answerable_questions(network, questions)
            } or networks
    ids_by_network = {}
    for name, network in networks.items():
        network_questions = questions if args.networks else answerable_questions(network, questions)
        ids_by_network[name] = resolve_questions(network, network_questions, name)
    only_analytic = args.questions and not questions
    return networks, {} if only_analytic else ids_by_network


def write_results(
    folder: Path,
    job_results: Mapping[tuple[str, str], EvaluationResult],
    analytic: Sequence[MethodScoreRow],
    analytic_refusals: Sequence[NotApplicable],
) -> None:
    """Write the tables and gates of all networks and worlds, and print the summary."""
    results = job_results.values()
    method_rows = [row for (name, _), result in job_results.items() for row in result_rows(result.results, name)]
    score_rows = [*analytic, *method_rows, *(row for result in results for row in result.extra_rows)]
    not_applicable = [*analytic_refusals, *(row for result in results for row in result.not_applicable)]
    write_rows(folder / METHOD_SCORES_CSV, MethodScoreRow, score_rows)
    write_rows(folder / NOT_APPLICABLE_CSV, NotApplicable, list(dict.fromkeys(not_applicable)))
    if agreement_rows := [row for result in results for row in result.agreement_rows]:
        write_rows(folder / METRIC_AGREEMENT_CSV, MetricAgreementRow, agreement_rows)
    if concept_rows := [row for result in results for row in result.concept_rows]:
        write_rows(
            folder / tcav_benchmark_table.TCAV_BENCHMARK_CSV, tcav_benchmark_table.TcavBenchmarkRow, concept_rows
        )
    if discovery_rows := [row for result in results for row in result.discovery_rows]:
        write_rows(folder / DISCOVERY_BENCHMARK_CSV, DiscoveryBenchmarkRow, discovery_rows)
    gate_texts = [f"{name}, world {world}\n\n{result.gates}\n" for (name, world), result in job_results.items()]
    atomic.write_text(folder / WORLD_GATES_FILE, "\n".join(gate_texts))
    emit(evaluation_summary(score_rows, not_applicable))
    emit(f"\nAll results: {folder / METHOD_SCORES_CSV}")


JobRunner = Callable[[ReportProgress], EvaluationResult]


def run_jobs(jobs: Sequence[JobRunner], steps: int) -> list[EvaluationResult]:
    """Run all jobs and return their results in order; two at a time on a CPU, as one rarely keeps two cores busy."""
    events: queue.SimpleQueue[int | Future[EvaluationResult]] = queue.SimpleQueue()
    stopped = threading.Event()

    def report_progress(count: int) -> None:
        if stopped.is_set():
            raise CancelledError
        events.put(count)

    def steps_done() -> Iterator[int]:
        n_running = len(jobs)
        while n_running:
            event = events.get()
            if isinstance(event, int):
                yield event
                continue
            n_running -= 1
            event.result()  # raises the exception of a failed job

    n_threads = 2 if on_cpu() else 1
    console_verbosity: Verbosity = "json" if verbosity.get() == "json" else "quiet"  # one progress line for all jobs

    def initialise_thread() -> None:
        verbosity.set(console_verbosity)
        # Every unit of work redraws the progress line and raises CancelledError after a stop
        on_tick.set(partial(report_progress, 0))

    with ThreadPoolExecutor(n_threads, "network", initializer=initialise_thread) as pool:
        futures = [pool.submit(job, report_progress) for job in jobs]
        for future in futures:
            future.add_done_callback(events.put)
        try:
            for _ in progress(steps_done(), steps, "steps", size=int):
                pass
        except BaseException:
            info("stopping: the running jobs end after their current batch")
            raise
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
    return [future.result() for future in futures]


def analytic_rows(
    entries: Sequence[Entry], n_clips: int, seed: int
) -> tuple[list[MethodScoreRow], list[NotApplicable]]:
    """Score the entries on the hand-wired network, for which the Shapley value of each voxel is known."""
    runnable = [entry for entry in entries if analytic_benchmark.runs_on_analytic(entry)]
    results, not_applicable = [], []
    for entry in progress(runnable, len(runnable), "methods on the hand-wired network", size=lambda _: 1):
        try:
            agreement = analytic_benchmark.score_on_analytic(entry, n_clips, seed)
        except ValueError as error:  # a method for another architecture can fail on this network
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
    """Format the mean score of each method at its best stage, for each network, trivial maps included."""
    parts = []
    for name in dict.fromkeys(row.network_name for row in score_rows if row.metric == MEAN_SCORE):
        network_rows = [row for row in score_rows if row.network_name == name and row.metric == MEAN_SCORE]
        overall = [row for row in network_rows if row.question == ALL_QUESTIONS] or network_rows
        best: dict[str, MethodScoreRow] = {}
        for row in sorted(overall, key=lambda row: -row.value):
            best.setdefault(row.method, row)
        header = ("method", "best stage", "score (95 % CI over clips)", "forward passes", "s per clip")
        cells = [
            (
                row.method + ("*" if row.is_trivial else ""),
                row.stage,
                f"{row.value:+.3f} ({row.low:+.3f} to {row.high:+.3f})",
                row.forward_passes,
                f"{row.seconds:.2g}",
            )
            for row in best.values()
        ]
        lines = [
            f"{name}: ground-truth score, mean over metrics and questions (0: chance, 1: perfect)",
            format_table(header, cells, left=2),
            "Forward passes and seconds are for the map of one clip. *: trivial map, computed without the network."
            " oracle and exact_box are made from the known cause.",
            "The best stage is selected on the same clips, which biases its score upwards; CHOSEN rows in the table are"
            " cross-validated.",
        ]
        if inapplicable := [r for r in not_applicable if r.network_name == name]:
            lines.append(f"Not applicable to this network: {', '.join(dict.fromkeys(r.method for r in inapplicable))}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
