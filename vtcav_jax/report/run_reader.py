"""Typed access to the tables, settings and animations of a run folder."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vtcav_jax.attribution.videos import map_store
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.json_file import load_json
from vtcav_jax.models import PRESETS
from vtcav_jax.runs import accuracy_rows, evaluation_rows, pyramid_rows
from vtcav_jax.runs.attribution_rows import (
    FAITHFULNESS_CSV,
    MAPS_CSV,
    PROFILE_CSV,
    SANITY_CSV,
    ClassMotionRow,
    ClipMotionRow,
    MapRow,
    OwnMetricRow,
    ProfileRow,
    SanityRow,
)
from vtcav_jax.runs.directory import RUN_RECORD_FILE
from vtcav_jax.runs.discovery_rows import (
    CLIP_SCORES_NPZ,
    COMPLETENESS_CSV,
    DISCOVERED_CSV,
    CompletenessRow,
    DiscoveredRow,
)
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.runs.tcav_depth_rows import DEPTH_TRENDS_CSV, GROUP_EFFECTS_CSV, DepthTrendRow, GroupEffectRow
from vtcav_jax.runs.tcav_rows import (
    ANIMATIONS_CSV,
    CONFOUNDERS_CSV,
    COSINES_CSV,
    PREDICTIONS_CSV,
    SAHA2024_CSV,
    Animation,
    ConfounderRow,
    CosineRow,
    DerivativeRow,
    PredictionRow,
    Saha2024Row,
    ScoreRow,
    SteeringRow,
    VectorRow,
)
from vtcav_jax.runs.time_sensitivity_rows import TIME_SENSITIVITY_CSV, TimeSensitivityRow
from vtcav_jax.tcav.experiment.report_data import DERIVATIVE_PROFILES_NPZ
from vtcav_jax.tcav.experiment.verdicts import is_finding

T = TypeVar("T")
MAX_ANIMATION_BYTES = 9_000_000  # as files; base64 in a page adds a third


@dataclass(frozen=True)
class TaskRecord:
    """Record of one task in the folder (run.json or run_TASK.json) and the path of its flag file."""

    content: dict[str, Any]
    flags_path: Path

    @property
    def config(self) -> dict[str, Any]:
        return self.content.get("request", {})

    @property
    def task(self) -> str:
        return str(self.config.get("task", "tcav"))

    @property
    def flags_text(self) -> str:
        return self.flags_path.read_text(encoding="utf-8") if self.flags_path.is_file() else ""


@dataclass(frozen=True)
class RunFolder(DisplayedResult):
    """Results of one or several tasks in `folder`. Tables that do not exist are empty; only run.json is required."""

    folder: Path
    records: tuple[TaskRecord, ...]

    def __repr__(self) -> str:
        tasks = ", ".join(record.task for record in self.records)
        n_tables = len(self.table_paths)
        return f"RunFolder({self.folder}: {tasks}; {n_tables} table{'' if n_tables == 1 else 's'})"

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def task_record(self, task: str) -> TaskRecord | None:
        return next((record for record in self.records if record.task == task), None)

    @property
    def content(self) -> dict[str, Any]:
        """Record of Video-TCAV if the folder has one, else of the first task."""
        return (self.task_record("tcav") or self.records[0]).content

    @property
    def config(self) -> dict[str, Any]:
        return self.content.get("request", {})

    @cached_property
    def score_rows(self) -> tuple[ScoreRow, ...]:
        return read_rows(self.folder / "scores.csv", ScoreRow)

    @cached_property
    def findings_by_class(self) -> dict[str, int]:
        """Number of findings of each class, in the order of the table."""
        counts = dict.fromkeys((row.target for row in self.score_rows), 0)
        for row in self.score_rows:
            counts[row.target] += is_finding(row)
        return counts

    @cached_property
    def vector_rows(self) -> tuple[VectorRow, ...]:
        return read_rows(self.folder / "quality.csv", VectorRow)

    @cached_property
    def derivative_rows(self) -> tuple[DerivativeRow, ...]:
        return read_rows(self.folder / "derivatives.csv", DerivativeRow)

    @cached_property
    def cosine_rows(self) -> tuple[CosineRow, ...]:
        return read_rows(self.folder / COSINES_CSV, CosineRow)

    @cached_property
    def group_effect_rows(self) -> tuple[GroupEffectRow, ...]:
        return read_rows(self.folder / GROUP_EFFECTS_CSV, GroupEffectRow)

    @cached_property
    def depth_trend_rows(self) -> tuple[DepthTrendRow, ...]:
        return read_rows(self.folder / DEPTH_TRENDS_CSV, DepthTrendRow)

    @cached_property
    def saha2024_rows(self) -> tuple[Saha2024Row, ...]:
        return read_rows(self.folder / SAHA2024_CSV, Saha2024Row)

    @cached_property
    def discovered_rows(self) -> tuple[DiscoveredRow, ...]:
        return read_rows(self.folder / DISCOVERED_CSV, DiscoveredRow)

    @cached_property
    def discovered_scores(self) -> dict[str, np.ndarray]:
        """Scores of the discovered concepts by name, and the `video` of each; empty if there are none."""
        path = self.folder / CLIP_SCORES_NPZ
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as stored:
            return {key.replace("|", "/"): stored[key] for key in stored.files}

    @cached_property
    def completeness_rows(self) -> tuple[CompletenessRow, ...]:
        return read_rows(self.folder / COMPLETENESS_CSV, CompletenessRow)

    @cached_property
    def confounder_rows(self) -> tuple[ConfounderRow, ...]:
        return read_rows(self.folder / CONFOUNDERS_CSV, ConfounderRow)

    @cached_property
    def steering_rows(self) -> tuple[SteeringRow, ...]:
        return read_rows(self.folder / "steering.csv", SteeringRow)

    @cached_property
    def map_rows(self) -> tuple[map_store.MapRow, ...]:
        return read_rows(self.folder / MAPS_CSV, MapRow)

    @cached_property
    def profile_rows(self) -> tuple[ProfileRow, ...]:
        return read_rows(self.folder / PROFILE_CSV, ProfileRow)

    @cached_property
    def sanity_rows(self) -> tuple[SanityRow, ...]:
        return read_rows(self.folder / SANITY_CSV, SanityRow)

    @cached_property
    def faithfulness_rows(self) -> tuple[OwnMetricRow, ...]:
        return read_rows(self.folder / FAITHFULNESS_CSV, OwnMetricRow)

    @cached_property
    def class_motion_rows(self) -> tuple[ClassMotionRow, ...]:
        return read_rows(self.folder / "motion_classes.csv", ClassMotionRow)

    @cached_property
    def time_sensitivity_rows(self) -> tuple[TimeSensitivityRow, ...]:
        return read_rows(self.folder / TIME_SENSITIVITY_CSV, TimeSensitivityRow)

    @cached_property
    def clip_motion_rows(self) -> tuple[ClipMotionRow, ...]:
        return read_rows(self.folder / "motion.csv", ClipMotionRow)

    @cached_property
    def node_rows(self) -> tuple[pyramid_rows.NodeRow, ...]:
        return read_rows(self.folder / "pyramid_nodes.csv", pyramid_rows.NodeRow)

    @cached_property
    def edge_rows(self) -> tuple[pyramid_rows.EdgeRow, ...]:
        return read_rows(self.folder / "pyramid_edges.csv", pyramid_rows.EdgeRow)

    @cached_property
    def ablation_rows(self) -> tuple[pyramid_rows.AblationRow, ...]:
        return read_rows(self.folder / "pyramid_ablation.csv", pyramid_rows.AblationRow)

    @cached_property
    def concept_alignment_rows(self) -> tuple[pyramid_rows.AlignedRow, ...]:
        return read_rows(self.folder / "pyramid_concepts.csv", pyramid_rows.AlignedRow)

    @cached_property
    def pyramid_facts(self) -> tuple[pyramid_rows.PyramidFacts, ...]:
        path = self.folder / pyramid_rows.PYRAMID_JSON
        if not path.is_file():
            return ()
        names = [field.name for field in fields(pyramid_rows.PyramidFacts)]
        try:
            entries = load_json(path)
            return tuple(
                pyramid_rows.PyramidFacts(**{name: _lists_to_tuples(entry[name]) for name in names})
                for entry in entries
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not what `vtcav pyramid` writes ({error!r}); repeat the run with this version"
            ) from error

    @cached_property
    def accuracies(self) -> tuple[accuracy_rows.AccuracyRow, ...]:
        """Accuracies of `vtcav evaluate`; `vtcav train` writes a table of the same name with other columns."""
        if self.task_record("evaluate") is None:
            return ()
        return read_rows(self.folder / accuracy_rows.ACCURACY_CSV, accuracy_rows.AccuracyRow)

    @cached_property
    def class_accuracies(self) -> tuple[accuracy_rows.ClassAccuracyRow, ...]:
        return read_rows(self.folder / accuracy_rows.CLASS_ACCURACY_CSV, accuracy_rows.ClassAccuracyRow)

    @cached_property
    def confusions(self) -> tuple[accuracy_rows.ConfusionRow, ...]:
        return read_rows(self.folder / accuracy_rows.CONFUSIONS_CSV, accuracy_rows.ConfusionRow)

    @cached_property
    def unmatched_classes(self) -> tuple[accuracy_rows.UnmatchedClassRow, ...]:
        return read_rows(self.folder / accuracy_rows.UNMATCHED_CLASSES_CSV, accuracy_rows.UnmatchedClassRow)

    @cached_property
    def n_unread_videos(self) -> int:
        """Number of labelled videos that `vtcav evaluate` could not read."""
        path = self.folder / accuracy_rows.EVALUATE_FAILURES_CSV
        if not path.is_file():
            return 0
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return max(sum(1 for _ in csv.reader(file)) - 1, 0)

    @cached_property
    def method_score_rows(self) -> tuple[evaluation_rows.MethodScoreRow, ...]:
        return read_rows(self.folder / evaluation_rows.METHOD_SCORES_CSV, evaluation_rows.MethodScoreRow)

    @cached_property
    def metric_agreement_rows(self) -> tuple[evaluation_rows.MetricAgreementRow, ...]:
        return read_rows(self.folder / evaluation_rows.METRIC_AGREEMENT_CSV, evaluation_rows.MetricAgreementRow)

    @cached_property
    def not_applicable_rows(self) -> tuple[evaluation_rows.NotApplicable, ...]:
        return read_rows(self.folder / evaluation_rows.NOT_APPLICABLE_CSV, evaluation_rows.NotApplicable)

    @cached_property
    def animation_rows(self) -> tuple[Animation, ...]:
        """Existing animations, as many as fit into a page."""
        bytes_left, rows_that_fit = MAX_ANIMATION_BYTES, []
        for row in read_rows(self.folder / ANIMATIONS_CSV, Animation):
            path = self.folder / row.file
            bytes_left -= sum(p.stat().st_size for p in {path, path.with_suffix(".jpg")} if p.is_file())
            if path.is_file() and bytes_left >= 0:
                rows_that_fit.append(row)
        return tuple(rows_that_fit)

    @cached_property
    def prediction_rows(self) -> tuple[PredictionRow, ...]:
        return read_rows(self.folder / PREDICTIONS_CSV, PredictionRow)

    @cached_property
    def derivatives_over_time(self) -> dict[str, np.ndarray]:
        path = self.folder / DERIVATIVE_PROFILES_NPZ
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)

    def has_random_weights(self, task: str) -> bool:
        """Return whether the network of that task had random weights."""
        record = self.task_record(task)
        return (
            record is not None
            and record.config.get("model") in PRESETS
            and "--random_weights" in record.flags_text.split()
        )

    @cached_property
    def table_paths(self) -> tuple[Path, ...]:
        return tuple(sorted(self.folder.glob("*.csv")))


def open_run_folder(folder: str | Path) -> RunFolder:
    """Open the results of the run in `folder`; raise ValueError if it has no valid record.

    run = vtcav.open_run_folder("runs/left")
    run.to_dataframe("scores")       # any table of the folder, by name
    run.plot()                       # the first figure of the page
    """
    folder = Path(folder)
    record_path = folder / RUN_RECORD_FILE
    if not record_path.is_file():
        raise ValueError(f"there is no {record_path}; expected a run folder")
    records = []
    for path in (record_path, *sorted(folder.glob("run_*.json"))):
        try:
            content = load_json(path)
            if not isinstance(content, dict) or not isinstance(content.get("request"), dict):
                raise ValueError("it has no request")
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); repeat the run in another folder") from error
        records.append(TaskRecord(content, folder / path.name.replace("run", "flags").replace(".json", ".txt")))
    return RunFolder(folder, tuple(records))


def _lists_to_tuples(value: Any) -> Any:
    """Return nested lists as nested tuples."""
    return tuple(map(_lists_to_tuples, value)) if isinstance(value, list) else value


def unique_in_order(values: Sequence[T]) -> list[T]:
    return list(dict.fromkeys(values))
