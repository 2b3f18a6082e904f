"""A whole experiment: clips through the network, products, tests, and a run folder with all that came out.

Each clip is encoded once and each gradient computed once, whatever is asked of them: they go to a cache under names
made of their content, and the same call goes on where it was interrupted. Behind the cache everything is products of
examples, a stage at a time.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vtcav_jax import runs
from vtcav_jax.concepts.sets import ConceptSets
from vtcav_jax.geometry import ClipGeometry
from vtcav_jax.intervals import wilson
from vtcav_jax.models import Loaded
from vtcav_jax.tcav.batches import Work
from vtcav_jax.tcav.cache import Cache, code_version, kept, key_of
from vtcav_jax.tcav.export import export
from vtcav_jax.tcav.features import Features
from vtcav_jax.tcav.filling import fill_activations, fill_gradients
from vtcav_jax.tcav.gram import Gram, gram
from vtcav_jax.tcav.measures import Measured, measure
from vtcav_jax.tcav.plan import Plan, plan, without_missing
from vtcav_jax.tcav.settings import Experiment
from vtcav_jax.tcav.shown import write_shown
from vtcav_jax.tcav.table import Clip, Row, VectorRow, judged, write_rows
from vtcav_jax.video.failures import write_failures
from vtcav_jax.video.reading import Read
from vtcav_jax.video.sources import Source

USUAL = Experiment()


@dataclass(frozen=True)
class Checked:
    """How often what is no concept was found to be one; `rate` should be alpha and lie in low .. high.

    Classes, stages and overlapping sets are not independent trials, so the interval is a little narrow.
    """

    kind: str
    sets: str  # the random sets themselves, or sets drawn out of all their clips
    found: int
    trials: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        return self.found / self.trials


@dataclass(frozen=True)
class Results:
    """What is in the run folder. `family` is the number of tests that the p-values are corrected for."""

    folder: Path
    rows: tuple[Row, ...]
    vectors: tuple[VectorRow, ...]
    clips: tuple[Clip, ...]
    family: int
    self_check: tuple[Checked, ...]
    work: Work
    seconds: dict[str, float]
    failures: tuple[Read, ...]
    notes: tuple[str, ...]


def run(
    model: Loaded,
    targets: Sequence[str],
    target_videos: Source,
    concepts: ConceptSets,
    settings: Experiment = USUAL,
    folder: str | Path = "runs/tcav",
    *,
    cache: str | Path | None = None,
    geometry: ClipGeometry | None = None,
    workers: int = 0,
    mesh: Mesh | None = None,
    name: str | None = None,
    flags: str = "",
) -> Results:
    """Tests each concept against each class at each stage, and writes `folder`.

    `target_videos` are clips of the classes: those labelled with a class are used for it, or all if none is labelled.
    The cache is a folder beside the run's, if not said, for all runs there. What cannot work, or cannot find anything,
    is refused before a clip is encoded; `name` is what the network is called in run.json.
    """
    if settings.protocol == "paper":
        from vtcav_jax.tcav.paper import adapted

        settings = adapted(settings)
    mesh = mesh or Mesh(np.array(jax.local_devices()), ("b",))
    clock = _Clock()
    folder = Path(folder)
    store = Cache(Path(cache) if cache else folder.parent / "cache")
    with clock("plan"):
        todo = plan(model, targets, target_videos, concepts, settings, store, geometry)
        todo.require()
        asked = {
            "model": name or model.preset,
            "targets": list(targets),
            "target_videos": target_videos.spec,
            "concepts": str(concepts.folder),
            **asdict(settings),
        }
        folder = runs.open_run(folder, asked, flags)
    total = len(set(todo.looked.concepts.keys)), len(todo.looked.targets)
    work, failed = Work(), []
    with clock("concept clips"):
        fill_activations(todo, mesh, work, workers, failed)
    with clock("targets"):
        fill_gradients(todo, mesh, work, workers, failed)
    write_failures(folder / "failures.csv", failed)
    todo = without_missing(todo)
    settings = todo.settings
    measured = {stage: _measured(todo, stage, mesh, clock) for stage in todo.stages}
    with clock("tables"):
        rows = judged([row for one in measured.values() for row in one.rows], settings.alpha, settings.correction)
        vectors = [row for one in measured.values() for row in one.vectors]
        clips = [clip for one in measured.values() for clip in one.clips]
        order = {target.name: i for i, target in enumerate(todo.looked.classes)}
        rows.sort(key=lambda row: order[row.target])
        write_rows(folder / "derivatives.csv", Clip, clips)
        write_rows(folder / "quality.csv", VectorRow, vectors)
    if settings.protocol == "paper":
        from vtcav_jax.tcav.paper import write_paper

        with clock("paper"):
            write_paper(folder, todo, lambda stage: _products(todo, stage, mesh, _Clock()))
    with clock("shown"):
        write_shown(
            folder, todo, lambda stage: _examples(todo, stage), lambda stage: _products(todo, stage, mesh, _Clock())
        )
    if settings.export:
        with clock("export"):
            export(
                folder,
                todo,
                lambda stage: _examples(todo, stage),
                lambda stage: _products(todo, stage, mesh, _Clock()),
            )
    found = Results(
        folder,
        tuple(rows),
        tuple(vectors),
        tuple(clips),
        sum(row.p == row.p for row in rows),
        _checked(measured, settings.alpha),
        work,
        clock.seconds,
        tuple(failed),
        (*todo.looked.preflight.notes, *todo.asked.notes),
    )
    _finish(folder, todo, found, total)
    write_rows(folder / "scores.csv", Row, rows)  # last: where it is, everything else is there
    return found


class _Clock:
    """Seconds of each phase, added up."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start


def _measured(todo: Plan, stage: str, mesh: Mesh, clock: _Clock) -> Measured:
    """A stage's numbers: those that are there for the same clips and questions, or new ones."""
    s = todo.settings
    asked = {
        **{
            k: v
            for k, v in asdict(s).items()
            if k not in ("stages", "export", "batch", "budget", "correction", "alpha")
        },
        "questions": [asdict(question) for question in todo.asked.questions],
        "classes": [asdict(target) for target in todo.looked.classes],
        "names": todo.looked.targets.names,
        "random": todo.asked.random,
        "columns": [[field.name for field in fields(kind)] for kind in (Row, VectorRow, Clip)],
    }
    key = key_of("measured", _products_key(todo, stage), asked)
    if todo.store.has(key, ".json"):
        found = todo.store.get_json(key)
        kinds: dict[str, type] = {"rows": Row, "vectors": VectorRow, "clips": Clip}
        parts: dict[str, Any] = {part: [kind(**each) for each in found[part]] for part, kind in kinds.items()}
        return Measured(**parts, checked=found["checked"])
    products = _products(todo, stage, mesh, clock)
    with clock("statistics"):
        scores = [
            np.array([todo.store.get(todo.gradient_key(row, target.index, None)) for row in target.rows])
            for target in todo.looked.classes
        ]
        out = measure(todo, stage, products, scores)
        todo.store.put_json(key, asdict(out))
    return out


def _examples(todo: Plan, stage: str) -> Features:
    keys = [todo.example_key(row, stage) for row in range(len(todo.looked.concepts))]
    return kept(todo.store, keys, *todo.shapes[stage], todo.settings.budget, _rows(todo))


def _rows(todo: Plan) -> int:
    return len(todo.looked.concepts) + sum(len(target.rows) for target in todo.looked.classes)


def _gradient_keys(todo: Plan, stage: str) -> list[str]:
    return [todo.gradient_key(row, target.index, stage) for target in todo.looked.classes for row in target.rows]


def _products_key(todo: Plan, stage: str) -> str:
    keys = [todo.example_key(row, stage) for row in range(len(todo.looked.concepts))]
    return key_of("products", _source("gram.py", "features.py"), keys, _gradient_keys(todo, stage))


def _products(todo: Plan, stage: str, mesh: Mesh, clock: _Clock) -> Gram:
    """Of all classes' gradients, one class after the other."""
    key = _products_key(todo, stage)
    with clock("products"):
        if not todo.store.has(key, ".npz"):
            slopes = kept(
                todo.store, _gradient_keys(todo, stage), *todo.shapes[stage], todo.settings.budget, _rows(todo)
            )
            found = gram(_examples(todo, stage), slopes, 1, mesh if mesh.devices.size > 1 else None)
            todo.store.put_arrays(key, asdict(found))
        return Gram(**todo.store.get_arrays(key))


def _source(*names: str) -> list[str]:
    return [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in names]


def _checked(measured: dict[str, Measured], alpha: float) -> tuple[Checked, ...]:
    found: dict[tuple[str, str], list[float]] = {}
    for one in measured.values():
        for kind, by in one.checked.items():
            for how, ps in by.items():
                found[kind, how] = [*found.get((kind, how), []), *(p for p in ps if p == p)]
    return tuple(
        Checked(kind, how, sum(p <= alpha for p in ps), len(ps), *wilson(sum(p <= alpha for p in ps), len(ps)))
        for (kind, how), ps in found.items()
        if ps
    )


def _finish(folder: Path, todo: Plan, found: Results, total: tuple[int, int]) -> None:
    """Adds to run.json what was done."""
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    concepts, targets = todo.looked.concepts, todo.looked.targets
    about |= {
        "devices": [str(device) for device in jax.devices()],
        "hashes": {
            "weights": todo.weights,
            "code": code_version(),
            "concepts": dict(zip(concepts.names, (clip.sha256 for clip in todo.looked.clips))),
            "targets": dict(zip(targets.names, targets.keys)),
        },
        "stages": list(todo.stages),
        "clips": {"concepts": len(concepts), "different": total[0], "targets": total[1]},
        "work": asdict(found.work),
        "failed": {read.item.name: read.failure for read in found.failures},
        "unreadable": todo.looked.preflight.unreadable,
        "seconds": found.seconds,
        "family": {
            "tests": found.family,
            "correction": todo.settings.correction,
            "alpha": todo.settings.alpha,
            "smallest_p": todo.attainable.smallest,
            "smallest_p_corrected": todo.attainable.corrected,
        },
        "self_check": [asdict(one) | {"rate": one.rate} for one in found.self_check],
        "notes": list(found.notes),
    }
    runs.write_text(folder / "run.json", json.dumps(about, indent=1) + "\n")
