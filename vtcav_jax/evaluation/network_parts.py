"""The measurements of all methods for one network and world, stored in parts that a continued run uses again."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vtcav_jax import atomic, distributed
from vtcav_jax.console import progress
from vtcav_jax.evaluation.discovery_benchmark.run import discovery_benchmark_rows
from vtcav_jax.evaluation.faithfulness.metric_agreement import cheap_entries, metric_agreement
from vtcav_jax.evaluation.motion_benchmark import motion_benchmark
from vtcav_jax.evaluation.pyramid_benchmark import pyramid_benchmark
from vtcav_jax.evaluation.tcav_benchmark import run as tcav_benchmark
from vtcav_jax.evaluation.tcav_benchmark import table as tcav_benchmark_table
from vtcav_jax.evaluation.world_benchmark import result_store
from vtcav_jax.evaluation.world_benchmark.entries import Entry
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet, build_eval_set
from vtcav_jax.evaluation.world_benchmark.score_rows import MethodResult
from vtcav_jax.evaluation.world_benchmark.scoring import group_entries, measure_entries
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.models import Network
from vtcav_jax.runs.evaluation_rows import (
    DiscoveryBenchmarkRow,
    MethodScoreRow,
    MetricAgreementRow,
    NotApplicable,
)
from vtcav_jax.runs.tables import read_rows, write_rows
from vtcav_jax.tcav.features.cache import source_hash

EXTRA_BENCHMARKS = ("motion", "pyramids", "metrics", "concepts", "discovery")
MAIN_WORLD = "small"  # the only world with the benchmarks of pyramids, concept tests and concept discovery
# Cached results depend on this code, whose hash is part of their key
EVALUATION_CODE = (
    *("evaluation/**/*.py", "worlds/*.py", "models/**/*.py", "attribution/**/*.py", "pyramid/*.py"),
    *("tcav/**/*.py", "concepts/**/*.py", "discovery/*.py", "data/*.py", "stats/*.py"),
    *("clip_spec.py", "tap.py"),
)

ReportProgress = Callable[[int], None]  # called with the number of finished steps


@dataclass(frozen=True, eq=False)
class EvaluationJob:
    """The measurements for one network and world."""

    folder: Path
    network_name: str
    network: Network
    world: str
    question_ids: tuple[str, ...]
    entries: Sequence[Entry]
    n_clips: int
    seed: int
    benchmarks: Sequence[str]  # among EXTRA_BENCHMARKS


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """Results for one network and world."""

    results: list[MethodResult]
    not_applicable: list[NotApplicable]
    gates: str
    extra_rows: list[MethodScoreRow]  # of the benchmarks of motion and of pyramids
    agreement_rows: list[MetricAgreementRow]
    concept_rows: list[tcav_benchmark_table.TcavBenchmarkRow]
    discovery_rows: list[DiscoveryBenchmarkRow]


class NetworkParts:
    """The parts of one job: each is measured unless it is stored, and read."""

    def __init__(self, job: EvaluationJob):
        self.job = job
        key = (job.world, *job.question_ids, fingerprint(job.network.model)[:16], cache_version(job.question_ids))
        self.path = partial(result_store.result_path, job.folder, job.network_name, "-".join(key))

    @cached_property
    def eval_set(self) -> EvalSet:
        """The clips, whose gates are stored."""
        job = self.job
        eval_set = build_eval_set(job.network, job.world, job.question_ids, job.n_clips, job.seed)
        self._gate_file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self._gate_file, eval_set.gates.table())
        return eval_set

    @property
    def _gate_file(self) -> Path:
        return self.path("gates").with_suffix(".txt")

    def gates(self) -> str:
        """Return the table of gates."""
        file = self._gate_file
        if not file.exists() or not file.read_text(encoding="utf-8", errors="replace").strip():
            _ = self.eval_set
        return file.read_text(encoding="utf-8")

    @cached_property
    def groups(self) -> dict[str, list[Entry]]:
        """The methods and stages that are measured together."""
        return {group: list(members) for group, members in group_entries(self.job.entries).items()}

    def measure_group(self, group: str) -> tuple[list[MethodResult], list[NotApplicable]]:
        """Return the results of a group of methods."""
        members, path = self.groups[group], self.path(group)
        result_store.drop_damaged(path, result_store.read_results)
        if members[0].function is not None or not path.exists():  # a custom method may have changed
            checked_set = self.eval_set  # outside `try`: failed gates must not make the method inapplicable
            try:
                result_store.write_results(path, measure_entries(checked_set, members))
            except ValueError as error:
                if members[0].function is not None:
                    raise
                reason = NotApplicable(members[0].method, self.job.network_name, str(error).splitlines()[0])
                result_store.write_results(path, [], [reason])
        return result_store.read_results(path)

    def measure_benchmark(self, benchmark: str, results: Sequence[MethodResult] = ()) -> list[Any]:
        """Return the rows of an extra benchmark, none if this world has none; `metrics` needs those of all methods."""
        job = self.job
        row_type, make_rows, world = self._benchmarks(results)[benchmark]
        if benchmark not in job.benchmarks or world not in (None, job.world):
            return []
        file = self.path(benchmark).with_suffix(".csv")
        result_store.drop_damaged(file, lambda path: read_rows(path, row_type))
        if not file.exists():
            write_rows(file, row_type, make_rows())
        return list(read_rows(file, row_type))

    def _benchmarks(
        self, results: Sequence[MethodResult]
    ) -> dict[str, tuple[type[Any], Callable[[], Sequence[Any]], str | None]]:
        """Return the row type of each benchmark, its measurement, and the world that it is limited to."""
        job, name = self.job, self.job.network_name
        return {
            "motion": (MethodScoreRow, lambda: motion_benchmark(self.eval_set, name), None),
            "pyramids": (MethodScoreRow, lambda: pyramid_benchmark(self.eval_set, name), MAIN_WORLD),
            "metrics": (
                MetricAgreementRow,
                lambda: metric_agreement(self.eval_set, name, cheap_entries(job.entries, results), results),
                None,
            ),
            "concepts": (
                tcav_benchmark_table.TcavBenchmarkRow,
                lambda: tcav_benchmark.tcav_benchmark_rows(job.network, network_name=name),
                MAIN_WORLD,
            ),
            "discovery": (DiscoveryBenchmarkRow, lambda: discovery_benchmark_rows(self.eval_set, name), MAIN_WORLD),
        }

    def independent_parts(self) -> list[str]:
        """Return the names of the parts that do not need others: processes can share them."""
        groups = [group for group, members in self.groups.items() if members[0].function is None]
        return [*groups, *(name for name in self.job.benchmarks if name != "metrics")]

    def measure_part(self, name: str) -> None:
        """Measure a part unless it is stored."""
        if name in self.groups:
            self.measure_group(name)
        else:
            self.measure_benchmark(name)


def share_parts(jobs: Sequence[EvaluationJob]) -> None:
    """Measure this process's share of the parts of all jobs, which the first process then reads."""
    if distributed.process_count() == 1:
        return
    parts_of_job = [NetworkParts(job) for job in jobs]
    share = distributed.local_share([(parts, name) for parts in parts_of_job for name in parts.independent_parts()])
    for parts, name in progress(share, len(share), "parts", size=lambda _: 1):
        parts.measure_part(name)
    distributed.wait_for_all()


def evaluate_network(job: EvaluationJob, report_progress: ReportProgress) -> EvaluationResult:
    """Measure all rows of one network and world, except those that an earlier run has stored."""
    parts = NetworkParts(job)
    report_progress(0)
    gates = parts.gates()
    results: list[MethodResult] = []
    not_applicable: list[NotApplicable] = []
    for group, members in parts.groups.items():
        group_results, refusals = parts.measure_group(group)
        results.extend(group_results)
        not_applicable.extend(refusals)
        report_progress(len(members))
    rows: dict[str, list[Any]] = {}
    for benchmark in EXTRA_BENCHMARKS:
        rows[benchmark] = parts.measure_benchmark(benchmark, results)
        report_progress(int(benchmark in job.benchmarks))
    return EvaluationResult(
        results,
        not_applicable,
        gates,
        [*rows["motion"], *rows["pyramids"]],
        rows["metrics"],
        rows["concepts"],
        rows["discovery"],
    )


def cache_version(question_ids: Sequence[str]) -> str:
    """Return a key of stored results that changes with the code of the evaluation and with the questions."""
    key = source_hash(*EVALUATION_CODE), *question_ids
    return hashlib.sha256(repr(key).encode()).hexdigest()[:6]
