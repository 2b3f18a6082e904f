"""A run folder as the page sees it: tasks, tests and tables of clips, read again when another command changes them."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vtcav_jax.concepts.concept_table import CONCEPTS_CSV
from vtcav_jax.report.effect_sizes import effect_size, effect_unit, format_effect, format_p
from vtcav_jax.report.run_reader import TaskRecord, open_run_folder
from vtcav_jax.runs.attribution_rows import MAPS_CSV, MOTION_CSV
from vtcav_jax.runs.directory import RUN_RECORD_FILE
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.runs.tcav_rows import DERIVATIVES_CSV, PREDICTIONS_CSV, SCORES_CSV, ScoreRow, SteeringRow
from vtcav_jax.serve.clip_tables import ClipTable, EffectTable, MapTable, MotionTable
from vtcav_jax.serve.columns import explain_damage
from vtcav_jax.serve.films import ClipSampling
from vtcav_jax.serve.maps.requested_maps import RequestedMaps
from vtcav_jax.serve.run_network import NetworkReference, network_reference
from vtcav_jax.tcav.experiment.report_data import DERIVATIVE_PROFILES_NPZ
from vtcav_jax.tcav.experiment.verdicts import is_finding

T = TypeVar("T")
TASK_TABLES: dict[str, tuple[tuple[str, ...], Callable[[Path], ClipTable]]] = {
    "tcav": ((DERIVATIVES_CSV, PREDICTIONS_CSV), EffectTable),
    "attribute": ((MAPS_CSV,), MapTable),
    "motion": ((MOTION_CSV,), MotionTable),
}
VIDEO_SETTINGS = {"tcav": "target_videos", "attribute": "videos", "motion": "videos"}


@dataclass
class FileReader:
    """Results computed from files, computed again when a file has changed."""

    _results: dict[str, tuple[tuple, Any]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    def read(self, name: str, paths: tuple[Path, ...], compute: Callable[[], T]) -> T:
        stamp = tuple((s.st_mtime_ns, s.st_size) if (s := _stat(path)) else None for path in paths)
        with self._lock:
            stored = self._results.get(name)
            if stored is None or stored[0] != stamp:
                stored = self._results[name] = (stamp, compute())
            return stored[1]


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:
        return None


@dataclass(frozen=True)
class ServedRun:
    """A run folder: its tasks with clips, and the concept folder that it was made with."""

    name: str  # unique among the runs of the server
    folder: Path
    records: tuple[TaskRecord, ...]
    _files: FileReader = field(default_factory=FileReader)

    @cached_property
    def requested_maps(self) -> RequestedMaps:
        """Maps that pages of this run asked for."""
        return RequestedMaps(self.folder)

    def network_identity(self, task: str) -> dict[str, str]:
        """Return the hashes of the network in the record of a task; empty if the record lacks them."""
        made_by = self._record(task).content.get("made_by") or {}
        return {name: str(value) for name, value in made_by.items() if name != "code"}

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that have results for single clips."""
        return tuple(
            task for task, (files, _) in TASK_TABLES.items() if self.record(task) and (self.folder / files[0]).is_file()
        )

    def record(self, task: str) -> TaskRecord | None:
        return next((record for record in self.records if record.task == task), None)

    def record_path(self, task: str) -> Path:
        own = self.folder / f"run_{task}.json"
        return own if own.is_file() else self.folder / RUN_RECORD_FILE

    def check_record(self, task: str) -> None:
        """Read all that is used of the record; raises an error of any type if it is not what a run writes."""
        self.network(task)
        self.sampling(task)
        _ = self.concept_folder

    def network(self, task: str) -> NetworkReference:
        return network_reference(self._record(task))

    def source(self, task: str) -> str:
        """Return the specification of the videos of a task."""
        return str(self._record(task).config.get(VIDEO_SETTINGS[task], ""))

    def sampling(self, task: str) -> ClipSampling:
        """Return how the task sampled clips; those that slide still lack their first frame."""
        config, text = self._record(task).config, self._record(task).flags_text
        return ClipSampling(
            int(config.get("clips_per_video") or 1),
            None if (seconds := config.get("interval_seconds")) is None else float(seconds),
            bool(config.get("slide_over_video")) or "--slide_over_video" in text.split(),
        )

    def _record(self, task: str) -> TaskRecord:
        record = self.record(task)
        if record is None or task not in TASK_TABLES:
            raise ValueError(f"{self.name} has no results of {task}; it has {', '.join(self.tasks) or 'none'}")
        return record

    def table(self, task: str) -> ClipTable:
        """Return the clips of a task."""
        self._record(task)
        files, make = TASK_TABLES[task]
        return self._files.read(task, tuple(self.folder / file for file in files), lambda: make(self.folder))

    @property
    def effects(self) -> EffectTable | None:
        table = self.table("tcav") if "tcav" in self.tasks else None
        return table if isinstance(table, EffectTable) else None

    @property
    def maps(self) -> MapTable | None:
        table = self.table("attribute") if "attribute" in self.tasks else None
        return table if isinstance(table, MapTable) else None

    @property
    def score_rows(self) -> tuple[ScoreRow, ...]:
        path = self.folder / SCORES_CSV
        return self._files.read(SCORES_CSV, (path,), lambda: read_rows(path, ScoreRow))

    @property
    def _step_norms(self) -> dict[tuple[str, str], float]:
        path = self.folder / "steering.csv"

        def read() -> dict[tuple[str, str], float]:
            rows = read_rows(path, SteeringRow)
            return {
                (row.stage, f"{row.concept}/{row.clip_type}/{row.negatives}"): abs(row.step_norm / row.step_units)
                for row in rows
                if row.step_units
            }

        return self._files.read("steering.csv", (path,), read)

    def step_length(self, stage: str, vector: str) -> float:
        """Return the distance from the mean of the negatives to that of the concept along a vector; NaN if unknown.

        It is that of the steering check or, without one, follows from a test's effect of one step.
        """
        if (stage, vector) in self._step_norms:
            return self._step_norms[stage, vector]
        for row in self.score_rows:
            if row.stage == stage and tested_vector_name(row) == vector and row.derivative:
                return abs(row.step_effect_in_sample / row.derivative)
        return math.nan

    @property
    def statistic(self) -> str:
        return str(self._record("tcav").config.get("statistic", "step_effect"))

    def tests(self, target: str, stage: str = "", vector: str = "") -> list[dict[str, Any]]:
        """Return the tests of a class, possibly at one stage or of one vector, the strongest findings first."""
        rows = [
            row
            for row in self.score_rows
            if row.target == target and stage in ("", row.stage) and vector in ("", tested_vector_name(row))
        ]
        return [self._test(row) for row in sorted(rows, key=self._strength)]

    def _strength(self, row: ScoreRow) -> tuple:
        p = row.p_adjusted if row.p_adjusted == row.p_adjusted else 2.0
        return (not is_finding(row), p, row.degenerate, -abs(row.relative_derivative))

    def _test(self, row: ScoreRow) -> dict[str, Any]:
        effect = effect_size(row, self.statistic)
        return {
            "stage": row.stage,
            "vector": tested_vector_name(row),
            "title": row.name,
            "effect": effect.value,
            "low": effect.low,
            "high": effect.high,
            "text": format_effect(effect),
            "unit": effect_unit(self.statistic, row.score_fn),
            "p": format_p(row.p_adjusted),
            "verdict": row.verdict,
            "finding": is_finding(row),
        }

    def strongest_test(self) -> ScoreRow | None:
        """Return the most significant finding, or the test with the smallest p."""
        return min(self.score_rows, key=self._strength, default=None)

    def derivative_curve(self, target: str, stage: str, vector: str, clip: str) -> np.ndarray | None:
        """Return the parts of a clip's derivative from each time step of the stage, or None if the run has none."""
        path = self.folder / DERIVATIVE_PROFILES_NPZ
        keys = (f"{stage}|vectors", f"{stage}|{target}", f"{target}|clips")

        def read() -> tuple[dict[str, int], dict[str, int], np.ndarray] | None:
            if not path.is_file():
                return None
            with explain_damage(path), path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                if any(key not in stored.files for key in keys):
                    return None
                vectors, profiles, clips = (stored[key] for key in keys)
            rows, columns = ({str(name): i for i, name in enumerate(names)} for names in (vectors, clips))
            return rows, columns, profiles

        profile = self._files.read(f"profile|{stage}|{target}", (path,), read)
        if profile is None or vector not in profile[0] or clip not in profile[1]:
            return None
        return profile[2][profile[0][vector], profile[1][clip]]

    @property
    def concept_folder(self) -> Path | None:
        """Folder of the concepts that the run tested, if it is still there."""
        record = self.record("tcav")
        folder = Path(str(record.config.get("concepts", ""))) if record else None
        return folder if folder and folder.is_dir() else None


def tested_vector_name(row: ScoreRow) -> str:
    return f"{row.concept}/{row.clip_type}/{row.negatives}"


def open_served_run(folder: Path, name: str) -> ServedRun:
    run = ServedRun(name, folder, open_run_folder(folder).records)
    for task in run.tasks:  # a record may come from elsewhere
        with explain_damage(run.record_path(task)):
            run.check_record(task)
    return run


def is_concept_folder(folder: Path) -> bool:
    """Return whether a folder holds concepts (mined, discovered or made by hand) and no run."""
    if (folder / RUN_RECORD_FILE).is_file():
        return False
    return (folder / CONCEPTS_CSV).is_file() or any(next(folder.glob(p), None) for p in ("*/*.mp4", "*/*/*.mp4"))


def distinct_names(folders: list[Path]) -> list[str]:
    """Return a short name of each folder, with a number if it is not unique."""
    names: list[str] = []
    for folder in folders:
        name, i = folder.resolve().name, 2
        while (candidate := name if i == 2 and name not in names else f"{name} ({i})") in names:
            i += 1
        names.append(candidate)
    return names
