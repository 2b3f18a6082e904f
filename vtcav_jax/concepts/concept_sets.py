"""Concept sets on disk: a folder of short videos, `CONCEPT/CLIP_TYPE/*.mp4`, and their origins in `concepts.csv`.

A folder made by hand (`CONCEPT/CLIP_TYPE/*.mp4` or `CONCEPT/*.mp4`, without a table) is read too. Sets whose names
begin with `random` are negatives. Reading raises an error that lists all clips that changed since they were mined, are
in two sets, or come from a target's video.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.boxes import Pixels
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.concepts.crops import CLIP_TYPES, CONTROLS, letterbox
from vtcav_jax.data.decode import MissingFramesError, decode_frames, probe
from vtcav_jax.data.folder import NON_VIDEO_SUFFIXES
from vtcav_jax.data.frame_sampling import select_frames
from vtcav_jax.names import escape_control_chars, unknown_name_message
from vtcav_jax.runs.tables import write_table

CONCEPTS_CSV, REVIEW_CSV, MINING_JSON = "concepts.csv", "review.csv", "mining.json"
CONCEPT_COLUMNS = (
    *("concept", "clip_type", "file", "sha256", "source", "source_sha256", "frames", "boxes", "label"),
    *("confidence", "detector", "detector_sha256", "control_of", "review"),
)
REVIEW_COLUMNS = ("file", "sha256", "verdict")
REVIEW_VERDICTS = ("keep", "reject")
MAX_SET_FAULTS = 10


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
    boxes: tuple[Pixels, ...] = ()
    label: str = ""
    confidence: float | None = None
    detector: str = ""
    detector_sha256: str = ""
    control_of: str = ""  # for a control, the file of its dynamic clip
    review: str = ""  # keep, reject, or empty if not reviewed

    @property
    def family(self) -> str:
        """Key shared by a dynamic clip and its controls."""
        return self.control_of or self.file

    @property
    def is_negative(self) -> bool:
        return self.concept.lower().startswith(NEGATIVE_PREFIX)


@dataclass(frozen=True)
class ConceptSets:
    """Clips of a folder that were not rejected, ordered by concept, clip type and file; negatives come last."""

    folder: Path
    clips: tuple[ConceptClip, ...]
    rejected: tuple[ConceptClip, ...] = ()
    notes: tuple[str, ...] = ()

    def clips_of(self, concept: str, clip_type: str | None = None) -> tuple[ConceptClip, ...]:
        if concept not in self.concepts:
            raise ValueError(unknown_name_message("concept", [concept], self.concepts))
        return tuple(clip for clip in self.clips if clip.concept == concept and clip_type in (None, clip.clip_type))

    @property
    def concepts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(clip.concept for clip in self.clips))

    @property
    def negatives(self) -> tuple[str, ...]:
        return tuple(name for name in self.concepts if name.lower().startswith(NEGATIVE_PREFIX))

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of clips by concept and clip type."""
        count_of: dict[tuple[str, str], int] = defaultdict(int)
        for clip in self.clips:
            count_of[clip.concept, clip.clip_type] += 1
        return dict(count_of)


def load_frames(clip: ConceptClip, clip_spec: ClipSpec | None = None) -> UInt8[np.ndarray, "t h w 3"]:
    """Decode the clip: all stored frames, or with `clip_spec` the frames that the network reads.

    Mined clips of the network's length are read whole; those of another length are sampled with interval 1. Other files
    are sampled like any video.
    """

    def read(by_decoding: bool) -> np.ndarray:
        index = probe(clip.path, by_decoding=by_decoding)
        total = len(index.times)
        if clip_spec is None or (clip.frames and total == clip_spec.frames):
            numbers = np.arange(total)
        else:
            read_spec = replace(clip_spec, interval=1) if clip.frames else clip_spec
            numbers = select_frames(index.times, index.duration, read_spec).frames[0]
        frames_by_number = dict(decode_frames(index, numbers.tolist()))
        return np.stack([frames_by_number[int(i)] for i in numbers])

    try:
        return read(by_decoding=False)
    except MissingFramesError:
        return read(by_decoding=True)


def letterboxed(clip: ConceptClip, clip_spec: ClipSpec) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the network's input before normalisation: the clip padded to a black square and resized."""
    return letterbox(load_frames(clip, clip_spec), clip_spec.size)


def write_sets(folder: Path, clips: Iterable[ConceptClip]) -> None:
    """Write `concepts.csv`; the clips' files must exist."""
    lines = []
    for c in sorted(clips, key=_sort_key):
        boxes = ";".join(" ".join(map(str, box)) for box in c.boxes)
        confidence = "" if c.confidence is None else f"{c.confidence:.4f}"
        origin = (c.source, c.source_sha256, " ".join(map(str, c.frames)), boxes, c.label, confidence)
        lines.append(
            (c.concept, c.clip_type, c.file, c.sha256, *origin, c.detector, c.detector_sha256, c.control_of, c.review)
        )
    write_table(folder / CONCEPTS_CSV, CONCEPT_COLUMNS, lines)


def _sort_key(clip: ConceptClip) -> tuple:
    positions = {clip_type: i for i, clip_type in enumerate(CLIP_TYPES)}
    return (clip.is_negative, clip.concept, positions.get(clip.clip_type, len(positions)), clip.clip_type, clip.file)


def read_concepts(folder: str | Path, targets: Mapping[str, str] | None = None) -> ConceptSets:
    """Read the concept sets in a folder, without the clips rejected in the review.

    `targets` maps the names of the target videos to their SHA-256 hashes; a concept clip from one of them is an error.

    ```python
    sets = read_concepts("concepts")
    clips = sets.clips_of("ball", "dynamic")
    ```
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; expected a folder of concept sets, mined or made by hand")
    if (folder / CONCEPTS_CSV).exists():
        clips, notes = _read_table(folder), ()
    elif (folder / MINING_JSON).exists():
        raise ValueError(f"mining into {folder} is not finished; repeat the command to continue it")
    else:
        clips, notes = _read_folder(folder)
    verdicts, stale = read_verdicts(folder, {clip.file: clip.sha256 for clip in clips})
    clips = apply_review(clips, verdicts)
    accepted = sorted((clip for clip in clips if clip.review != "reject"), key=_sort_key)
    if not accepted:
        raise ValueError(f"no clip left in {folder}; expected CONCEPT/CLIP_TYPE/*.mp4, not all rejected in the review")
    forbid_leaks(accepted, targets or {})
    if stale:
        notes = (*notes, f"{stale} verdicts in {REVIEW_CSV} refer to clips that are missing or have changed")
    return ConceptSets(folder, tuple(accepted), tuple(clip for clip in clips if clip.review == "reject"), notes)


def apply_review(clips: Iterable[ConceptClip], verdicts: Mapping[str, str]) -> list[ConceptClip]:
    """Return the clips with their verdicts; rejecting a dynamic clip rejects its controls."""
    clips = [replace(clip, review=verdicts.get(clip.file, clip.review)) for clip in clips]
    rejected = {clip.file for clip in clips if clip.review == "reject"}
    return [replace(clip, review="reject") if clip.control_of in rejected else clip for clip in clips]


def _read_table(folder: Path) -> list[ConceptClip]:
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
        elif row.get("sha256") not in (None, "", file_sha256 := _sha256(path)):
            faults.append(f"line {line}: {row['file']} has changed since it was mined")
        else:
            try:
                clips.append(_parse_clip(row, path, file_sha256))
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
            return [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a UTF-8 CSV file ({error}); save it again as one") from error


def _parse_clip(row: dict[str, str], path: Path, file_sha256: str) -> ConceptClip:
    boxes = []
    for text in filter(None, row.get("boxes", "").split(";")):
        x1, y1, x2, y2 = map(int, text.split())
        boxes.append((x1, y1, x2, y2))
    origin = {name: row.get(name, "") for name in ("source", "source_sha256", "label", "detector", "detector_sha256")}
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
        boxes=tuple(boxes),
        confidence=float(row["confidence"]) if row.get("confidence") else None,
        control_of=row.get("control_of", ""),
        review=review,
        **origin,
    )


def _read_folder(folder: Path) -> tuple[list[ConceptClip], tuple[str, ...]]:
    """Read a folder without a table; `CONCEPT/*` are dynamic clips, controls are matched to them by file name."""
    clips, unexpected = [], []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if (
            not path.is_file()
            or path.suffix.lower() in NON_VIDEO_SUFFIXES
            or any(part.startswith(".") for part in parts)
        ):
            continue
        if len(parts) in (2, 3):
            clip_type = parts[1] if len(parts) == 3 else "dynamic"
            clips.append(ConceptClip(parts[0], clip_type, path, _sha256(path), "/".join(parts)))
        else:
            unexpected.append("/".join(parts))
    if unexpected:
        raise ValueError(
            f"{folder} has {len(unexpected)} videos that belong to no concept ({escape_control_chars(unexpected[0])});"
            " expected CONCEPT/CLIP_TYPE/*.mp4 or CONCEPT/*.mp4"
        )
    dynamic_files = {(clip.concept, clip.path.name): clip.file for clip in clips if clip.clip_type == "dynamic"}
    clips = [
        replace(clip, control_of=dynamic_files.get((clip.concept, clip.path.name), ""))
        if clip.clip_type in CONTROLS
        else clip
        for clip in clips
    ]
    unknown_types = sorted({clip.clip_type for clip in clips} - set(CLIP_TYPES))
    return clips, tuple(
        f"the clip type {escape_control_chars(clip_type)} is not one that mining writes ({', '.join(CLIP_TYPES)})"
        for clip_type in unknown_types
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_verdicts(folder: Path, clips: Mapping[str, str] | None = None) -> tuple[dict[str, str], int]:
    """Read the review: the verdict of each file, and the number of stale verdicts.

    An empty verdict revokes the one in `concepts.csv`. A verdict is stale if `clips` (files and their hashes) does not
    contain its clip.
    """
    path = folder / REVIEW_CSV
    if not path.exists():
        return {}, 0
    verdicts, stale = {}, 0
    for line, row in read_csv_rows(path, ("file", "verdict")):
        if row["verdict"] not in ("", *REVIEW_VERDICTS):
            raise ValueError(
                f"{path}, line {line}: {escape_control_chars(row['verdict'])!r} is not a verdict; expected keep, reject"
                " or nothing"
            )
        if clips is None or (row["file"] in clips and row.get("sha256", "") in ("", clips[row["file"]])):
            verdicts[row["file"]] = row["verdict"]
        else:
            stale += 1
    return verdicts, stale


def forbid_leaks(clips: Iterable[ConceptClip], targets: Mapping[str, str]) -> None:
    """Raise ValueError if a clip is in two sets, or if a clip or its source video is a target; compares hashes.

    A control may equal its dynamic clip: the frozen control of an object at rest is identical to it.
    """
    faults = []
    by_hash: dict[str, list[ConceptClip]] = defaultdict(list)
    target_of = {sha256: name for name, sha256 in targets.items()}
    for clip in clips:
        by_hash[clip.sha256].append(clip)
        for sha256, relation in ((clip.sha256, "is"), (clip.source_sha256, "was cut from")):
            if sha256 and sha256 in target_of:
                faults.append(f"{clip.file} {relation} the target {target_of[sha256]}")
    for identical in by_hash.values():
        if len({clip.family for clip in identical}) > 1:
            faults.append(" = ".join(f"{clip.file} ({clip.concept}, {clip.clip_type})" for clip in identical))
    if faults:
        more = f"\n  and {len(faults) - MAX_SET_FAULTS} more" if len(faults) > MAX_SET_FAULTS else ""
        fault_lines = "\n  ".join(map(escape_control_chars, faults[:MAX_SET_FAULTS]))
        raise ValueError(
            f"a clip must be in one set only and not from a target video; remove these:\n  {fault_lines}{more}"
        )


def drop_duplicates(clips: Iterable[ConceptClip]) -> tuple[list[ConceptClip], list[ConceptClip]]:
    """Split the clips into unique ones and pixel-identical repeats of an earlier one, each with its controls."""
    first_family: dict[str, str] = {}
    duplicates = set()
    ordered = sorted(clips, key=_sort_key)
    for clip in ordered:
        if first_family.setdefault(clip.sha256, clip.family) != clip.family:
            duplicates.add(clip.family)
    return [c for c in ordered if c.family not in duplicates], [c for c in ordered if c.family in duplicates]
