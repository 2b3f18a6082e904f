"""A run's folder as a page needs it: its tables with types, what was asked, and the small films beside them."""

import csv
import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vtcav_jax.attribution.motion.reliance import Motion
from vtcav_jax.attribution.motion.summary import ClassMotion
from vtcav_jax.attribution.sanity_checks import LimitRow
from vtcav_jax.attribution.videos import map_store
from vtcav_jax.attribution.videos.temporal_profile import FILE, Course
from vtcav_jax.evaluation.faithfulness import own_clips
from vtcav_jax.evaluation.faithfulness.own_clips import OwnRow
from vtcav_jax.evaluation.world_benchmark import tables as truth
from vtcav_jax.models import PRESETS
from vtcav_jax.pyramid import tables as pyramid
from vtcav_jax.runs.directory import RECORD
from vtcav_jax.tcav.experiment.report_data import COSINES, OVER_TIME, Cosine
from vtcav_jax.tcav.experiment.verdicts import Clip, Row, VectorRow
from vtcav_jax.tcav.previews import FILMS, PREDICTIONS, Film, Prediction
from vtcav_jax.tcav.steering.steering_check import Steered

T = TypeVar("T")
MOST_FILMS = 9_000_000  # bytes; in a page they take a third more


@dataclass(frozen=True)
class Record:
    """What a task was asked and what is known of its run, and the file of its flags."""

    about: dict[str, Any]
    flags: Path

    @property
    def asked(self) -> dict[str, Any]:
        return self.about.get("asked", {})

    @property
    def task(self) -> str:
        return self.asked.get("task", "tcav")

    @property
    def told(self) -> str:
        return self.flags.read_text(encoding="utf-8") if self.flags.is_file() else ""


@dataclass(frozen=True)
class RunFolder:
    """What lies in `folder`, of one task or of several. Everything but run.json may be missing: then the list is
    empty."""

    folder: Path
    records: tuple[Record, ...]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def record(self, task: str) -> Record | None:
        return next((one for one in self.records if one.task == task), None)

    @property
    def about(self) -> dict[str, Any]:
        """Of Video-TCAV, if it was done here."""
        return (self.record("tcav") or self.records[0]).about

    @property
    def asked(self) -> dict[str, Any]:
        return self.about.get("asked", {})

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        return read_rows(self.folder / "scores.csv", Row)

    @cached_property
    def vectors(self) -> tuple[VectorRow, ...]:
        return read_rows(self.folder / "quality.csv", VectorRow)

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        return read_rows(self.folder / "derivatives.csv", Clip)

    @cached_property
    def cosines(self) -> tuple[Cosine, ...]:
        return read_rows(self.folder / COSINES, Cosine)

    @cached_property
    def steering(self) -> tuple[Steered, ...]:
        return read_rows(self.folder / "steering.csv", Steered)

    @cached_property
    def maps(self) -> tuple[map_store.Row, ...]:
        return read_rows(self.folder / "explain.csv", map_store.Row)

    @cached_property
    def courses(self) -> tuple[Course, ...]:
        return read_rows(self.folder / FILE, Course)

    @cached_property
    def limits(self) -> tuple[LimitRow, ...]:
        return read_rows(self.folder / "limits.csv", LimitRow)

    @cached_property
    def map_metrics(self) -> tuple[OwnRow, ...]:
        return read_rows(self.folder / own_clips.FILE, OwnRow)

    @cached_property
    def motion_classes(self) -> tuple[ClassMotion, ...]:
        return read_rows(self.folder / "motion_classes.csv", ClassMotion)

    @cached_property
    def motions(self) -> tuple[Motion, ...]:
        return read_rows(self.folder / "motion.csv", Motion)

    @cached_property
    def kernels(self) -> tuple[pyramid.NodeRow, ...]:
        return read_rows(self.folder / "pyramid_nodes.csv", pyramid.NodeRow)

    @cached_property
    def edges(self) -> tuple[pyramid.EdgeRow, ...]:
        return read_rows(self.folder / "pyramid_edges.csv", pyramid.EdgeRow)

    @cached_property
    def ablations(self) -> tuple[pyramid.AblationRow, ...]:
        return read_rows(self.folder / "pyramid_ablation.csv", pyramid.AblationRow)

    @cached_property
    def aligned(self) -> tuple[pyramid.AlignedRow, ...]:
        return read_rows(self.folder / "pyramid_concepts.csv", pyramid.AlignedRow)

    @cached_property
    def pyramids(self) -> tuple[pyramid.Told, ...]:
        path = self.folder / pyramid.FILE
        if not path.is_file():
            return ()
        names = [field.name for field in fields(pyramid.Told)]
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            return tuple(pyramid.Told(**{name: _fixed(one[name]) for name in names}) for one in told)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not what --task=pyramid writes ({error!r}); make the run anew with this version"
            ) from error

    @cached_property
    def truths(self) -> tuple[truth.Row, ...]:
        return read_rows(self.folder / truth.FILE, truth.Row)

    @cached_property
    def metrics(self) -> tuple[truth.MetaRow, ...]:
        return read_rows(self.folder / truth.METRICS, truth.MetaRow)

    @cached_property
    def not_scored(self) -> tuple[truth.Refused, ...]:
        return read_rows(self.folder / truth.REFUSED, truth.Refused)

    @cached_property
    def films(self) -> tuple[Film, ...]:
        """Those that are there, as far as a page has room for them."""
        left, fit = MOST_FILMS, []
        for film in read_rows(self.folder / FILMS, Film):
            path = self.folder / film.file
            left -= sum(p.stat().st_size for p in {path, path.with_suffix(".jpg")} if p.is_file())
            if path.is_file() and left >= 0:
                fit.append(film)
        return tuple(fit)

    @cached_property
    def predictions(self) -> tuple[Prediction, ...]:
        return read_rows(self.folder / PREDICTIONS, Prediction)

    @cached_property
    def over_time(self) -> dict[str, np.ndarray]:
        path = self.folder / OVER_TIME
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as found:
            return dict(found)

    def random_weights(self, task: str) -> bool:
        """Whether the network of that task knew nothing."""
        one = self.record(task)
        return one is not None and one.asked.get("model") in PRESETS and "--random_weights" in one.told.split()

    @cached_property
    def tables(self) -> tuple[Path, ...]:
        return tuple(sorted(self.folder.glob("*.csv")))


def open_folder(folder: Path) -> RunFolder:
    """The run in `folder`, if it is one that has ended."""
    about = folder / RECORD
    if not about.is_file():
        raise ValueError(f"--run={folder}: there is no {about}; expected the folder of a run")
    records = []
    for path in (about, *sorted(folder.glob("run_*.json"))):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); give the run's command again in another folder") from error
        records.append(Record(told, folder / path.name.replace("run", "flags").replace(".json", ".txt")))
    return RunFolder(folder, tuple(records))


def read_rows(path: Path, kind: type[T]) -> tuple[T, ...]:
    """The rows of a table as `kind`; columns that it does not have are passed over, no file is no rows."""
    if not path.is_file():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        wanted = fields(kind)  # type: ignore[arg-type]
        needed = [field.name for field in wanted if field.default is MISSING]
        if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path} has no column {', '.join(missing)}; make the run anew with this version")
        there = [field for field in wanted if field.name in (reader.fieldnames or ())]
        try:
            return tuple(
                kind(**{field.name: _typed(line[field.name], field.type) for field in there}) for line in reader
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}; the table is damaged") from error


def _fixed(value: Any) -> Any:
    """Lists of JSON as tuples."""
    return tuple(map(_fixed, value)) if isinstance(value, list) else value


def _typed(text: str, kind: Any) -> Any:
    if kind is bool:
        return {"True": True, "False": False}[text] if text in ("True", "False") else bool(int(text))
    return kind(text)


def unique(names: Sequence[T]) -> list[T]:
    return list(dict.fromkeys(names))
