"""`concepts.csv`: the clips of a concept set and their origins, one row per clip."""

import csv
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vtcav_jax.concepts.boxes import Pixels
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.concepts.crops import CLIP_TYPES
from vtcav_jax.names import escape_control_chars
from vtcav_jax.runs.tables import unescape_formula, write_table

CONCEPTS_CSV, SOURCES_CSV = "concepts.csv", "sources.csv"
CONCEPT_COLUMNS = (
    *("concept", "clip_type", "file", "sha256", "source", "source_sha256", "frames", "boxes", "label"),
    *("confidence", "detector", "detector_sha256", "control_of", "review", "window", "labels", "recording"),
)
REVIEW_VERDICTS = ("keep", "reject")
MAX_SET_FAULTS = 10
LABEL = re.compile(r"((?:[^\\;=]|\\.)*)=((?:[^\\;=]|\\.)*)(?:;|$)", re.DOTALL)


@dataclass(frozen=True)
class ConceptClip:
    """Clip of a concept set; in a set made by hand, its origin (source, frames, boxes, detector) is empty."""

    concept: str
    clip_type: str
    path: Path
    sha256: str  # hash of the file's bytes, usable as a cache key of activations
    file: str  # path relative to the set's folder, as in the tables
    source: str = ""  # source video
    source_sha256: str = ""
    frames: tuple[int, ...] = ()  # of the source video; empty if frames must still be sampled from the file
    boxes: tuple[Pixels, ...] = ()  # of the object; empty if the clip was placed regardless of objects
    label: str = ""
    confidence: float | None = None
    detector: str = ""
    detector_sha256: str = ""
    control_of: str = ""  # for a control, the file of its dynamic clip
    review: str = ""  # keep, reject, or empty if not reviewed
    window: Pixels | None = None  # part of the source's frames that the clip shows; None if it follows the boxes
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)  # known labels of the source video, by head
    recording: str = ""  # video that the source was cut from, if other sources can be from the same one

    @property
    def family(self) -> str:
        """Key shared by a dynamic clip and its controls."""
        return self.control_of or self.file

    @property
    def is_negative(self) -> bool:
        return self.concept.lower().startswith(NEGATIVE_PREFIX)


def sort_key(clip: ConceptClip) -> tuple:
    positions = {clip_type: i for i, clip_type in enumerate(CLIP_TYPES)}
    return (clip.is_negative, clip.concept, positions.get(clip.clip_type, len(positions)), clip.clip_type, clip.file)


def write_sets(folder: Path, clips: Iterable[ConceptClip]) -> None:
    """Write `concepts.csv`; the clips' files must exist."""
    lines = []
    for c in sorted(clips, key=sort_key):
        boxes = ";".join(" ".join(map(str, box)) for box in c.boxes)
        confidence = "" if c.confidence is None else f"{c.confidence:.4f}"
        origin = (c.source, c.source_sha256, " ".join(map(str, c.frames)), boxes, c.label, confidence)
        detector = (c.detector, c.detector_sha256, c.control_of, c.review)
        window = " ".join(map(str, c.window or ()))
        labels = format_labels(c.labels)
        lines.append((c.concept, c.clip_type, c.file, c.sha256, *origin, *detector, window, labels, c.recording))
    write_table(folder / CONCEPTS_CSV, CONCEPT_COLUMNS, lines)


def format_labels(labels: Mapping[str, str]) -> str:
    """Return `HEAD=CLASS;HEAD=CLASS`, with a backslash before each backslash, semicolon and equals sign of a name."""

    def escape(name: str) -> str:
        return re.sub(r"([\\;=])", r"\\\1", name)

    return ";".join(f"{escape(head)}={escape(value)}" for head, value in labels.items())


def parse_labels(text: str) -> dict[str, str]:
    """Parse the result of `format_labels`."""
    labels, end = {}, 0
    while end < len(text):
        match = LABEL.match(text, end)
        if match is None:
            raise ValueError(f"{text!r} are no labels; expected HEAD=CLASS;HEAD=CLASS")
        head, value = (re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in match.groups())
        labels[head] = value
        end = match.end()
    return labels


def read_table(folder: Path) -> list[ConceptClip]:
    """Read `concepts.csv`; one error lists all faults of the table and its files."""
    clips, faults = [], []
    for line, row in read_csv_rows(folder / CONCEPTS_CSV, CONCEPT_COLUMNS[:3]):
        path = folder / row["file"]
        if not row["file"] or ".." in Path(row["file"]).parts or Path(row["file"]).is_absolute():
            faults.append(f"line {line}: {row['file']!r} is not a path within the folder")
        elif not row["concept"] or not row["clip_type"]:
            faults.append(f"line {line}: the concept or the clip type is empty")
        elif not path.is_file():
            faults.append(f"line {line}: {row['file']} is missing")
        elif row.get("sha256") not in (None, "", file_sha256 := hash_file(path)):
            faults.append(f"line {line}: {row['file']} has changed since it was mined")
        else:
            try:
                clips.append(parse_clip(row, path, file_sha256))
            except ValueError as error:
                faults.append(f"line {line}: {error}")
    if faults:
        more = f"\n  and {len(faults) - MAX_SET_FAULTS} more" if len(faults) > MAX_SET_FAULTS else ""
        fault_lines = "\n  ".join(map(escape_control_chars, faults[:MAX_SET_FAULTS]))
        raise ValueError(
            f"{folder / CONCEPTS_CSV} does not match its clips; mine again, or fix it:\n  {fault_lines}{more}"
        )
    return clips


def read_csv_rows(path: Path, required_columns: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Read a table that has at least the required columns; return rows with their line numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            if missing := [name for name in required_columns if name not in (reader.fieldnames or ())]:
                raise ValueError(
                    f"{path} has no column {', '.join(missing)}; add it to the header, or mine the folder again if an"
                    " older version wrote it"
                )
            return [(reader.line_num, _texts(row)) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a UTF-8 CSV file ({error}); save it again as one") from error


def _texts(row: dict[str, str]) -> dict[str, str]:
    """Return the texts that were written; cells without a column are a list under the key None."""
    return {name: unescape_formula(cell) if isinstance(cell, str) else cell for name, cell in row.items()}


def parse_clip(row: dict[str, str], path: Path, file_sha256: str) -> ConceptClip:
    names = ("source", "source_sha256", "label", "detector", "detector_sha256", "recording")
    origin = {name: row.get(name, "") for name in names}
    review = row.get("review", "")
    if review not in ("", *REVIEW_VERDICTS):
        raise ValueError(f"review is {review!r}; expected keep, reject or nothing")
    return ConceptClip(
        row["concept"],
        row["clip_type"],
        path,
        file_sha256,
        row["file"],
        frames=tuple(map(int, row.get("frames", "").split())),
        boxes=tuple(map(_parse_box, filter(None, row.get("boxes", "").split(";")))),
        confidence=float(row["confidence"]) if row.get("confidence") else None,
        control_of=row.get("control_of", ""),
        review=review,
        window=_parse_box(window) if (window := row.get("window")) else None,
        labels=further_labels(row, CONCEPT_COLUMNS) | parse_labels(row.get("labels") or ""),
        **origin,
    )


def further_labels(row: Mapping[str, str], known_columns: Iterable[str]) -> dict[str, str]:
    """Return the values of all other columns, which count as labels of a clip."""
    return {name: value for name, value in row.items() if name and name not in known_columns and value}


def _parse_box(text: str) -> Pixels:
    x1, y1, x2, y2 = map(int, text.split())
    return (x1, y1, x2, y2)


def hash_file(path: Path) -> str:
    """Return the SHA-256 hash of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
