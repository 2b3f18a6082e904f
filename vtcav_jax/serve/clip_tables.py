"""Tables of a run's clips: numbers of each clip by which a list of clips is filtered and sorted.

`EffectTable` has the effects of concepts (`derivatives.csv`), `MapTable` the summaries of maps (`maps.csv`), and
`MotionTable` the reliance on motion (`motion.csv`). No clip is decoded for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int32

from vtcav_jax.runs.attribution_rows import MAPS_CSV, MOTION_CSV
from vtcav_jax.runs.tcav_rows import DERIVATIVES_CSV, PREDICTIONS_CSV
from vtcav_jax.serve.columns import ColumnTable, read_columns

EFFECT, CLASS_SCORE, LEAD = "effect", "class_score", "lead"
MEASURE_LABELS = {
    EFFECT: "effect of the concept per unit length",
    CLASS_SCORE: "class score",
    LEAD: "log odds of the class",
    "score": "class score",
    "peak_time": "time of the largest relevance (s)",
    "temporal_half_mass": "share of the time with half of the relevance",
    "spatial_half_mass": "share of the frame with half of the relevance",
    "drop_shuffled": "score lost when frames are shuffled",
    "drop_frozen": "score lost when a frame is frozen",
    "changing_mass": "share of the map that changes over time",
}
MAP_MEASURES = ("score", "peak_time", "temporal_half_mass", "spatial_half_mass")
MOTION_MEASURES = ("drop_shuffled", "drop_frozen", "changing_mass", "score")


@dataclass(frozen=True)
class ClipChoice:
    """What the numbers of clips are about; a table ignores what it does not have."""

    target: str = ""
    stage: str = ""
    vector: str = ""  # CONCEPT/CLIP_TYPE/NEGATIVES
    map: str = ""  # METHOD@STAGE
    measure: str = ""


@dataclass(frozen=True, eq=False)
class ClipValues:
    """A number for each clip, in the order of the table: `clips` are indices of `names`, `parts` clips of a video."""

    names: list[str]
    clips: Int32[np.ndarray, " n"]
    parts: Int32[np.ndarray, " n"]
    values: Float64[np.ndarray, " n"]
    label: str


@runtime_checkable
class ClipTable(Protocol):
    """Interface of the tables."""

    @property
    def names(self) -> list[str]:
        """Names of the clips, or of the videos that they are from."""
        ...

    @property
    def targets(self) -> list[str]: ...

    @property
    def measures(self) -> tuple[str, ...]: ...

    def values(self, choice: ClipChoice) -> ClipValues: ...

    def profiles(self, choice: ClipChoice) -> tuple[ClipValues, Float64[np.ndarray, "n m"], str]:
        """Return for each clip the numbers that similar clips have in common, and what they are."""
        ...

    def wrong_clips(self, target: str) -> set[str] | None:
        """Return the clips of the class that the network takes for another; None where the run does not know."""
        ...


class EffectTable:
    """Derivatives of class scores along concept vectors, per clip, and the predictions for the clips."""

    measures = (EFFECT, CLASS_SCORE, LEAD)

    def __init__(self, folder: Path):
        texts = ("target", "stage", "concept", "clip_type", "negatives", "clip")
        self._table = read_columns(folder / DERIVATIVES_CSV, texts, ("class_score", "derivative"))
        self._predictions = read_columns(
            folder / PREDICTIONS_CSV, ("target", "clip", "answer", "correct"), ("probability", "lead")
        )
        self._rows_by_choice: dict[tuple[str, str, str], np.ndarray] = {}

    @property
    def names(self) -> list[str]:
        return self._table.texts["clip"].values

    @property
    def targets(self) -> list[str]:
        return self._table.texts["target"].values

    def values(self, choice: ClipChoice) -> ClipValues:
        if choice.measure == LEAD:
            return self._leads(choice.target)
        rows = self._rows(choice.target, choice.stage, choice.vector)
        measure = choice.measure if choice.measure in self.measures else EFFECT
        numbers = self._table.numbers["derivative" if measure == EFFECT else "class_score"][rows]
        clips = self._table.texts["clip"].codes[rows]
        return ClipValues(self.names, clips, np.zeros_like(clips), numbers, MEASURE_LABELS[measure])

    def profiles(self, choice: ClipChoice) -> tuple[ClipValues, Float64[np.ndarray, "n m"], str]:
        rows = self._table.rows_where(target=choice.target, stage=choice.stage)
        clips, places = np.unique(self._table.texts["clip"].codes[rows], return_inverse=True)
        columns = [self._table.texts[name].codes[rows] for name in ("concept", "clip_type", "negatives")]
        vectors = np.unique(np.stack(columns, 1), axis=0, return_inverse=True)[1].reshape(-1)
        profile = np.full((len(clips), int(vectors.max(initial=-1)) + 1), np.nan)
        profile[places, vectors] = self._table.numbers["derivative"][rows]
        about = ClipValues(self.names, clips, np.zeros_like(clips), np.zeros(len(clips)), "")
        return about, profile, f"effects of all concepts at {choice.stage}"

    def wrong_clips(self, target: str) -> set[str]:
        rows = self._predictions.rows_where(target=target, correct="False")
        names = self._predictions.texts["clip"]
        return {names.values[code] for code in names.codes[rows]}

    def prediction(self, target: str, clip: str) -> tuple[str, float] | None:
        """Return the predicted class of a clip and the probability of the target."""
        rows = self._predictions.rows_where(target=target, clip=clip)
        if not len(rows):
            return None
        answers = self._predictions.texts["answer"]
        return answers.values[answers.codes[rows[0]]], float(self._predictions.numbers["probability"][rows[0]])

    def effects_of_clip(self, target: str, stage: str, clip: str) -> list[tuple[str, float]]:
        """Return the effect of each concept vector of a stage on a clip."""
        rows = self._table.rows_where(target=target, stage=stage, clip=clip)
        texts = self._table.texts
        return [
            (
                "/".join(texts[n].values[texts[n].codes[row]] for n in ("concept", "clip_type", "negatives")),
                float(self._table.numbers["derivative"][row]),
            )
            for row in rows
        ]

    def _rows(self, target: str, stage: str, vector: str) -> np.ndarray:
        key = (target, stage, vector)
        if key not in self._rows_by_choice:
            concept, clip_type, negatives = split_vector(vector)
            self._rows_by_choice[key] = self._table.rows_where(
                target=target, stage=stage, concept=concept, clip_type=clip_type, negatives=negatives
            )
        return self._rows_by_choice[key]

    def _leads(self, target: str) -> ClipValues:
        rows = self._predictions.rows_where(target=target)
        names = self._predictions.texts["clip"]
        clips = names.codes[rows]
        return ClipValues(
            names.values, clips, np.zeros_like(clips), self._predictions.numbers["lead"][rows], MEASURE_LABELS[LEAD]
        )


class _SummaryTable:
    """Rows with one clip and target (and possibly a map) each."""

    measures: tuple[str, ...] = ()

    def __init__(self, table: ColumnTable):
        self._table = table

    @property
    def names(self) -> list[str]:
        return self._table.texts["clip"].values

    @property
    def targets(self) -> list[str]:
        return self._table.texts["target"].values

    def rows(self, choice: ClipChoice) -> np.ndarray:
        return self._table.rows_where(target=choice.target)

    def values(self, choice: ClipChoice) -> ClipValues:
        measure = choice.measure if choice.measure in self.measures else self.measures[0]
        rows = self.rows(choice)
        return self._about(rows, self._table.numbers[measure][rows], MEASURE_LABELS[measure])

    def profiles(self, choice: ClipChoice) -> tuple[ClipValues, Float64[np.ndarray, "n m"], str]:
        rows = self.rows(choice)
        profile = np.stack([self._table.numbers[name][rows] for name in self.measures], 1)
        labels = [MEASURE_LABELS[name] for name in self.measures]
        return self._about(rows, np.zeros(len(rows)), ""), profile, ", ".join(labels)

    def wrong_clips(self, target: str) -> None:
        return None

    def _about(self, rows: np.ndarray, values: np.ndarray, label: str) -> ClipValues:
        parts = self._table.numbers["clip_index"][rows].astype(np.int32)
        return ClipValues(self.names, self._table.texts["clip"].codes[rows], parts, values, label)


class MapTable(_SummaryTable):
    """Summaries of stored maps, and the file of each."""

    measures = MAP_MEASURES

    def __init__(self, folder: Path):
        texts = ("clip", "target", "answer", "method", "stage", "map_file")
        super().__init__(read_columns(folder / MAPS_CSV, texts, ("clip_index", *MAP_MEASURES)))

    @cached_property
    def maps(self) -> list[str]:
        """Names of the maps that each clip has, METHOD@STAGE."""
        methods, stages = self._table.texts["method"], self._table.texts["stage"]
        pairs = dict.fromkeys(zip(methods.codes.tolist(), stages.codes.tolist()))
        return [f"{methods.values[m]}@{stages.values[s]}" for m, s in pairs]

    def rows(self, choice: ClipChoice) -> np.ndarray:
        name = choice.map if choice.map in self.maps else next(iter(self.maps), "@")
        method, _, stage = name.partition("@")
        return self._table.rows_where(target=choice.target, method=method, stage=stage)

    @cached_property
    def _files_by_clip(self) -> dict[str, str]:
        clips, files = self._table.texts["clip"], self._table.texts["map_file"]
        return {clips.values[c]: files.values[f] for c, f in zip(clips.codes.tolist(), files.codes.tolist())}

    def file_of(self, clip: str) -> str | None:
        """Return the name of the file with the maps of a video."""
        return self._files_by_clip.get(clip)


class MotionTable(_SummaryTable):
    """Reliance on motion of each clip."""

    measures = MOTION_MEASURES

    def __init__(self, folder: Path):
        super().__init__(
            read_columns(folder / MOTION_CSV, ("clip", "target", "answer"), ("clip_index", *MOTION_MEASURES))
        )


def split_vector(name: str) -> tuple[str, str, str]:
    """Return concept, clip type and negatives of the name of a vector; a concept's name may contain slashes."""
    parts = name.rsplit("/", 2)
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else (name, "", "")


def strip_values(values: ClipValues, mask: np.ndarray) -> ClipValues:
    """Return the clips where `mask` is True."""
    return ClipValues(values.names, values.clips[mask], values.parts[mask], values.values[mask], values.label)


def similar_rows(profile: Float64[np.ndarray, "n m"], row: int, count: int) -> tuple[Sequence[int], list[float]]:
    """Return the `count` rows with the smallest distance to `row`, and the distances.

    Columns are divided by their standard deviations; the distance is the root mean square of the differences over the
    columns that both rows have.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.nanstd(profile, axis=0) if len(profile) else np.ones(profile.shape[1])
    usable = np.isfinite(scale) & (scale > 0) & np.isfinite(profile[row])
    if not usable.any():
        return [], []
    differences = (profile[:, usable] - profile[row, usable]) / scale[usable]
    known = np.isfinite(differences)
    n_known = known.sum(1)
    total = np.where(known, differences, 0.0)
    distance = np.where(n_known > 0, np.sqrt((total**2).sum(1) / np.maximum(n_known, 1)), np.inf)
    distance[row] = np.inf
    order = [int(i) for i in np.argsort(distance, kind="stable")[:count] if np.isfinite(distance[i])]
    return order, [float(distance[i]) for i in order]
