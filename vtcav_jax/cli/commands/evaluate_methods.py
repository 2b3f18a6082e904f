"""--task=truth: every method scored where the cause is known."""

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

from vtcav_jax import models
from vtcav_jax.cli.commands import answer, say
from vtcav_jax.cli.commands.report import report
from vtcav_jax.evaluation.faithfulness.metric_agreement import cheap, meta
from vtcav_jax.evaluation.motion_benchmark import kinds
from vtcav_jax.evaluation.pyramid_benchmark import kernels
from vtcav_jax.evaluation.tcav_benchmark import run as tcav_benchmark
from vtcav_jax.evaluation.tcav_benchmark import table as tcav_benchmark_table
from vtcav_jax.evaluation.world_benchmark import analytic_benchmark, result_store
from vtcav_jax.evaluation.world_benchmark.entries import Entry, lineup
from vtcav_jax.evaluation.world_benchmark.eval_set import Material, material, questions_of
from vtcav_jax.evaluation.world_benchmark.scoring import CLIPS, SEED, Measured, answered, asked, groups, measure, rows
from vtcav_jax.evaluation.world_benchmark.tables import (
    ALL,
    EXACT,
    FILE,
    GATES,
    METRICS,
    REFUSED,
    TRUTH,
    MetaRow,
    Refused,
    Row,
)
from vtcav_jax.models import Network
from vtcav_jax.progress import heard, progress
from vtcav_jax.report.run_reader import read_rows
from vtcav_jax.runs import directory
from vtcav_jax.tcav.experiment.verdicts import write_rows
from vtcav_jax.tcav.features.cache import code_version, fingerprint
from vtcav_jax.telling import Style, style

FIRST = "small"  # the world of which everything is told
# What a row means hangs on this code: what an older version kept is not taken for it
CODE = (
    *("evaluation/**/*.py", "worlds/*.py", "models/**/*.py", "attribution/**/*.py", "pyramid/*.py"),
    *("tcav/**/*.py", "concepts/**/*.py", "data/*.py", "stats/*.py"),
    *("clip_spec.py", "tap.py"),
)


def truth(
    networks: Sequence[str],
    run: Path | None,
    *,
    methods: Sequence[str] = (),
    own: Sequence[str] = (),
    worlds: Sequence[str] = (),
    clips: int = CLIPS,
    seed: int = SEED,
    flags: str = "",
) -> None:
    """Scores `methods` (by default all of the package) and functions of one's `own` on `networks` (by default all that
    ship and answer a question of the worlds), into the folder `run`."""
    if run is None:
        raise ValueError("--task=truth needs --run=NAME, the folder of the run; see --help")
    loaded = {name: models.load(name) for name in dict.fromkeys(networks or models.shipped_networks())}
    if not networks:
        loaded = {name: one for name, one in loaded.items() if questions_of(one)}
    wanted = [w for w in worlds if w != analytic_benchmark.WORLD]
    if wanted and not networks:
        loaded = {name: one for name, one in loaded.items() if answered(one, wanted)} or loaded
    some = {name: wanted if networks else answered(one, wanted) for name, one in loaded.items()}
    questions = {name: asked(one, some[name], name) for name, one in loaded.items()}
    if worlds and set(worlds) <= {analytic_benchmark.WORLD}:
        questions = {}
    lines = {name: lineup(one, methods, own) for name, one in loaded.items()}
    about = {"task": "truth", "clips": clips, "seed": seed, "methods": methods, "own": own, "worlds": worlds}
    folder = directory.open_run(run, about, flags)  # networks may be added
    exact_too = not worlds or analytic_benchmark.WORLD in worlds
    exactly, not_for = wired(next(iter(lines.values())), clips, seed) if exact_too else ([], [])
    jobs: dict[tuple[str, str], Job] = {}
    for name, by_world in questions.items():
        for world, ids in by_world.items():
            say(f"{name}: {', '.join(ids)}, {len(lines[name])} rows on {clips} clips")
            one = Asked(folder, name, loaded[name], world, ids, lines[name], clips, seed, not methods)
            jobs[name, world] = partial(network, one)
    # The longest first, so that none is left alone at the end
    order = sorted(jobs, key=lambda job: job[1] != FIRST)
    steps = sum(len(lines[name]) + FURTHER * (not methods) for name, _ in jobs)
    done = dict(zip(order, side_by_side([jobs[job] for job in order], steps)))
    scored = {job: done[job] for job in jobs}
    further = [row for one in scored.values() for row in one.further]
    measured = [row for (name, _), one in scored.items() for row in rows(one.found, name)]
    table = [*exactly, *measured, *further]
    refused = [*not_for, *(row for one in scored.values() for row in one.refused)]
    write_rows(folder / FILE, Row, table)
    write_rows(folder / REFUSED, Refused, list(dict.fromkeys(refused)))
    if metrics := [row for one in scored.values() for row in one.metrics]:
        write_rows(folder / METRICS, MetaRow, metrics)
    if tested := [row for one in scored.values() for row in one.concepts]:
        write_rows(folder / tcav_benchmark_table.FILE, tcav_benchmark_table.Row, tested)
    gated = [f"{name}, world {world}\n\n{one.gates}\n" for (name, world), one in scored.items()]
    directory.write_text(folder / GATES, "\n".join(gated))
    answer(told(table, refused))
    answer(f"\nall of it: {folder / FILE}")
    report([folder])


@dataclass(frozen=True, eq=False)
class Asked:
    """What is to be told of one network and world."""

    folder: Path
    name: str
    loaded: Network
    world: str
    ids: tuple[str, ...]
    line: Sequence[Entry]
    clips: int
    seed: int
    everything: bool  # not maps alone


@dataclass(frozen=True, eq=False)
class Scored:
    """Of one network and world."""

    found: list[Measured]
    refused: list[Refused]
    gates: str
    further: list[Row]  # of shares of motion, and of pyramids
    metrics: list[MetaRow]
    concepts: list[tcav_benchmark_table.Row]


Tell = Callable[[int], None]  # how many steps are done
Job = Callable[[Tell], Scored]
FURTHER = 4  # steps of a network beside the rows of maps


def side_by_side(jobs: Sequence[Job], steps: int) -> list[Scored]:
    """Every job's result; on a CPU two at a time, as much of what a network does keeps no more than one core busy."""
    told: queue.SimpleQueue[int | Future[Scored]] = queue.SimpleQueue()
    stopped = threading.Event()

    def tell(count: int) -> None:
        if stopped.is_set():
            raise CancelledError
        told.put(count)

    def steps_done() -> Iterator[int]:
        left = len(jobs)
        while left:
            one = told.get()
            if isinstance(one, int):
                yield one
                continue
            left -= 1
            one.result()  # raises what the job has raised

    workers = 2 if jax.default_backend() == "cpu" else 1
    how: Style = "json" if style.get() == "json" else "quiet"  # a person sees one line for all

    def start() -> None:
        style.set(how)
        heard.set(partial(tell, 0))  # the line moves, and what is stopped ends, with every unit of the work

    with ThreadPoolExecutor(workers, "network", initializer=start) as pool:
        futures = [pool.submit(job, tell) for job in jobs]
        for future in futures:
            future.add_done_callback(told.put)
        try:
            for _ in progress(steps_done(), steps, "rows", size=int):
                pass
        except BaseException:
            say("what is at work ends with its batch")
            raise
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
    return [future.result() for future in futures]


def network(asked: Asked, tell: Tell) -> Scored:
    """Of one network and world every row; what is there already is only read."""
    about: Material | None = None
    found: list[Measured] = []
    refused: list[Refused] = []
    name = asked.name
    key = "-".join((asked.world, *asked.ids, fingerprint(asked.loaded.model)[:8], meaning(asked.ids)))
    path = partial(result_store.part, asked.folder, name, key)
    gate = path("gates").with_suffix(".txt")

    def ready() -> Material:
        nonlocal about
        if about is None:
            about = material(asked.loaded, asked.world, asked.ids, asked.clips, asked.seed)
            gate.parent.mkdir(parents=True, exist_ok=True)
            directory.write_text(gate, about.gates.table())
        return about

    tell(0)
    for group, some in groups(asked.line).items():
        if some[0].function is not None or not path(group).exists():  # one's own may have changed
            what = ready()  # a network that fails its gates is no method that is not for it
            try:
                result_store.write(path(group), measure(what, some))
            except ValueError as error:
                if some[0].function is not None:
                    raise
                result_store.write(path(group), [], [Refused(some[0].method, name, str(error).splitlines()[0])])
        got, not_for = result_store.read(path(group))
        found.extend(got)
        refused.extend(not_for)
        tell(len(some))

    def further(what: str, row: type[Any], made: Callable[[], list[Any]], worlds: str = asked.world) -> list[Any]:
        """A table beside the maps, of `worlds`."""
        if not asked.everything:
            return []
        file = path(what).with_suffix(".csv")
        if asked.world == worlds and not file.exists():
            write_rows(file, row, made())
        tell(1)
        return list(read_rows(file, row)) if asked.world == worlds else []

    shares = further("motion", Row, lambda: kinds(ready(), name))
    named = further("pyramids", Row, lambda: kernels(ready(), name), FIRST)
    order = further("metrics", MetaRow, lambda: meta(ready(), name, cheap(asked.line, found), found))
    tests = further(
        "concepts", tcav_benchmark_table.Row, lambda: tcav_benchmark.table(asked.loaded, network=name), FIRST
    )
    return Scored(found, refused, gate.read_text(encoding="utf-8"), [*shares, *named], order, tests)


def meaning(ids: Sequence[str]) -> str:
    """Of what is kept about questions: rows of a version that asked otherwise are not taken for ours."""
    how = code_version(*CODE), *ids
    return hashlib.sha256(repr(how).encode()).hexdigest()[:6]


def wired(line: Sequence[Entry], clips: int, seed: int) -> tuple[list[Row], list[Refused]]:
    """The hand-wired network, where each voxel's value is known."""
    wanted = [entry for entry in line if analytic_benchmark.applies(entry)]
    found, refused = [], []
    for entry in progress(wanted, len(wanted), "rows of the hand-wired network", size=lambda _: 1):
        try:
            got = analytic_benchmark.exact(entry, clips, seed)
        except ValueError as error:  # what is made for another network may fail on this one
            refused.append(Refused(entry.method, analytic_benchmark.NETWORK, str(error).splitlines()[0]))
            continue
        about = entry.method, got.stage, analytic_benchmark.WORLD, got.forwards, float("nan")
        found.append(Measured(*about, {EXACT: got.parts}))
    return rows(found, analytic_benchmark.NETWORK), refused


def told(table: Sequence[Row], refused: Sequence[Refused]) -> str:
    """The best row of each method, network by network, and what the others must beat."""
    lines = []
    for name in dict.fromkeys(row.network for row in table if row.axis == TRUTH):
        some = [row for row in table if row.network == name and row.axis == TRUTH]
        overall = [row for row in some if row.world == ALL] or some
        best: dict[str, Row] = {}
        for row in sorted(overall, key=lambda row: -row.value):
            best.setdefault(row.method, row)
        lines += [
            "",
            f"{name}: mean over axes and questions; 0 is chance, 1 all there is to get; each at its best stage",
        ]
        lines.append(f"  {'method':26}{'stage':20}{'truth':>22}{'forwards':>10}{'s a clip':>10}")
        for row in best.values():
            value = f"{row.value:+.3f} ({row.low:+.3f} {row.high:+.3f})"
            lines.append(f"  {row.method:26.26}{row.stage:20.20}{value:>22}{row.forwards:>10}{row.seconds:>10.2g}")
        if where := [r for r in refused if r.network == name]:
            lines.append(f"  not for this network: {', '.join(dict.fromkeys(r.method for r in where))}")
    return "\n".join(lines[1:])
