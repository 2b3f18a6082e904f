"""A whole experiment: clips through the network, products, tests, and a run folder with all that came out.

Each clip is encoded once and each gradient computed once, whatever is asked of them: they go to a cache under names
made of their content, and the same call goes on where it was interrupted. Behind the cache everything is products of
examples, a stage at a time.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import jax
import numpy as np
from jax.sharding import Mesh

from vtcav_jax import atomic, tap
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.concept_sets import ConceptSets
from vtcav_jax.data.failure_report import write_failures
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.open import Source
from vtcav_jax.models import Network
from vtcav_jax.runs import directory
from vtcav_jax.stats.intervals import wilson_ci
from vtcav_jax.tcav.experiment.clock import Clock
from vtcav_jax.tcav.experiment.config import Experiment
from vtcav_jax.tcav.experiment.fill_cache import fill_activations, fill_gradients
from vtcav_jax.tcav.experiment.plan import Plan, plan, without_missing
from vtcav_jax.tcav.experiment.report_data import write_shown
from vtcav_jax.tcav.experiment.stage_grams import Products
from vtcav_jax.tcav.experiment.stage_results import Measured
from vtcav_jax.tcav.experiment.verdicts import Clip, Row, VectorRow, judged, write_rows
from vtcav_jax.tcav.features import distributed
from vtcav_jax.tcav.features.cache import Cache, code_version
from vtcav_jax.tcav.features.microbatches import Work
from vtcav_jax.tcav.steering.steering_check import Steered, steered_rows
from vtcav_jax.tcav.vector_file import export

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
    steering: tuple[Steered, ...]
    family: int
    self_check: tuple[Checked, ...]
    work: Work
    seconds: dict[str, float]
    failures: tuple[ReadResult, ...]
    notes: tuple[str, ...]


def run(
    model: Network,
    targets: Sequence[str],
    target_videos: Source,
    concepts: ConceptSets,
    settings: Experiment = USUAL,
    folder: str | Path = "runs/tcav",
    *,
    cache: str | Path | None = None,
    geometry: ClipSpec | None = None,
    workers: int = 0,
    mesh: Mesh | None = None,
    name: str | None = None,
    flags: str = "",
) -> Results:
    """Tests each concept against each class at each stage, and writes `folder`.

    `target_videos` are clips of the classes: those labelled with a class are used for it, or all if none is labelled.
    The cache is a folder beside the run's, if not said, for all runs there. What cannot work, or cannot find anything,
    is refused before a clip is encoded; `name` is what the network is called in run.json. Several processes
    (`hosts.connect`) share the work if all of them call this alike and see the cache; the first one writes the folder.
    """
    mesh = mesh or Mesh(np.array(jax.local_devices()), ("b",))
    clock = Clock()
    folder = Path(folder)
    store = Cache(Path(cache) if cache else folder.parent / "cache")
    with clock("plan"):
        _shared(store)
        todo = plan(model, targets, target_videos, concepts, settings, store, geometry)
        todo.require()
        asked = {
            "task": "tcav",
            "model": name or model.preset,
            "targets": list(targets),
            "target_videos": target_videos.spec,
            "concepts": str(concepts.folder),
            **asdict(settings),
        }
        distributed.once(lambda: directory.open_run(folder, asked, flags))
    total = len(set(todo.looked.concepts.keys)), len(todo.looked.targets)
    work = Work()
    with clock("concept clips"):
        failed = fill_activations(todo, mesh, work, workers)
    with clock("targets"):
        failed += fill_gradients(todo, mesh, work, workers)
    todo = without_missing(todo)
    settings = todo.settings
    products = Products(todo, mesh, work, workers, clock)
    measured = products.measured(todo.stages)
    rows = judged([row for one in measured.values() for row in one.rows], settings.alpha, settings.correction)
    order = {target.name: i for i, target in enumerate(todo.looked.classes)}
    rows.sort(key=lambda row: order[row.target])
    with clock("steering"):
        steered = steered_rows(products, rows) if settings.steering else []
    found = Results(
        folder,
        tuple(rows),
        tuple(row for one in measured.values() for row in one.vectors),
        tuple(clip for one in measured.values() for clip in one.clips),
        tuple(steered),
        sum(row.p == row.p for row in rows),
        _checked(measured, settings.alpha),
        _all(work),
        clock.seconds,
        tuple(failed),
        (*todo.looked.preflight.notes, *todo.asked.notes),
    )
    distributed.once(lambda: _write(found, products, total))
    return found


def _shared(store: Cache) -> None:
    """Refuses processes that do not see each other's cache: each would wait for clips that only others have."""
    if jax.process_count() == 1:
        return
    token = distributed.agreed(uuid4().hex)
    distributed.once(lambda: store.put_json(token, "all processes of a run must see this"))
    seen = distributed.gathered(store.has(token, ".json"))
    distributed.once(lambda: store.path(token, ".json").unlink(missing_ok=True))
    if not all(seen):
        blind = ", ".join(str(i) for i, there in enumerate(seen) if not there)
        raise ValueError(f"{store.folder} of process 0 is not what process {blind} sees; name a --cache that all share")


def _all(work: Work) -> Work:
    """Of all processes."""
    parts = [Work(**each) for each in distributed.gathered(asdict(work))]
    smallest = min((part.micro_batch for part in parts if part.micro_batch), default=0)
    return Work(sum(part.forwards for part in parts), sum(part.backwards for part in parts), smallest)


def _write(found: Results, products: Products, total: tuple[int, int]) -> None:
    """The run folder; scores.csv comes last: where it is, everything else is there."""
    folder, todo, clock = found.folder, products.plan, products.clock
    write_failures(folder / "failures.csv", found.failures)
    with clock("tables"):
        write_rows(folder / "derivatives.csv", Clip, found.clips)
        write_rows(folder / "quality.csv", VectorRow, found.vectors)
        if todo.settings.steering:
            write_rows(folder / "steering.csv", Steered, found.steering)
    if todo.settings.protocol == "paper":
        from vtcav_jax.tcav.saha2024 import write_paper

        with clock("paper"):
            write_paper(folder, todo, products.there)
    with clock("shown"):
        write_shown(folder, todo, products.examples, products.there)
    if todo.settings.export:
        with clock("export"):
            export(folder, todo, products.examples, products.there)
    _finish(folder, todo, found, total)
    write_rows(folder / "scores.csv", Row, found.rows)


def _checked(measured: dict[str, Measured], alpha: float) -> tuple[Checked, ...]:
    found: dict[tuple[str, str], list[float]] = {}
    for one in measured.values():
        for kind, by in one.checked.items():
            for how, ps in by.items():
                found[kind, how] = [*found.get((kind, how), []), *(p for p in ps if p == p)]
    return tuple(
        Checked(kind, how, sum(p <= alpha for p in ps), len(ps), *wilson_ci(sum(p <= alpha for p in ps), len(ps)))
        for (kind, how), ps in found.items()
        if ps
    )


def _finish(folder: Path, todo: Plan, found: Results, total: tuple[int, int]) -> None:
    """Adds to run.json what was done."""
    path, _ = directory.record_paths(folder, "tcav")
    about = json.loads(path.read_text(encoding="utf-8"))
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
        "network_stages": list(tap.stages_of(todo.loaded.model)),
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
    atomic.write_text(path, json.dumps(about, indent=1) + "\n")
