"""Bounding boxes of objects in videos, and the CSV format that stores them.

Coordinates are pixels, with the lower right corner excluded, so that `x2 - x1` is the width; frames are counted from 0
in display order. The columns are `frame, label, x1, y1, x2, y2` and optionally `file` (for a table of several videos),
`track` (one number per tracked object; boxes without a track give no dynamic clips), `confidence`, `outline` (of the
object: `x y x y ...`, in pixels) and `keypoints` (of a person: `x y confidence` of each, in pixels).
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vtcav_jax.names import count_noun, escape_control_chars, unknown_name_message
from vtcav_jax.runs.tables import unescape_formula, write_table

OPTIONAL_BOX_COLUMNS = ("outline", "keypoints")  # written only if any box has one
BOX_TABLE_COLUMNS = (
    *("file", "frame", "track", "label", "x1", "y1", "x2", "y2", "confidence"),
    *OPTIONAL_BOX_COLUMNS,
)
REQUIRED_BOX_COLUMNS = ("frame", "label", "x1", "y1", "x2", "y2")
MIN_OUTLINE_VALUES = 6  # of three corners
KEYPOINT_COUNT = 17  # of a person, in the order of COCO
MAX_BOX_FAULTS = 20  # faulty rows listed in an error message

BoxValue = int | float
Corners = tuple[BoxValue, BoxValue, BoxValue, BoxValue]  # x1, y1, x2, y2
Pixels = tuple[int, int, int, int]  # x1, y1, x2, y2
Outline = tuple[BoxValue, ...]  # corners of a polygon: x, y, x, y, ...
Keypoints = tuple[BoxValue, ...]  # x, y, confidence, x, y, confidence, ...


class Box(NamedTuple):
    """Bounding box of one object in one frame."""

    frame: int
    track: int | None
    label: str
    x1: BoxValue
    y1: BoxValue
    x2: BoxValue
    y2: BoxValue
    confidence: BoxValue = 1.0
    outline: Outline = ()  # of the object, from a segmentation network; empty if unknown
    keypoints: Keypoints = ()  # of a person, from a pose network; empty if unknown

    @property
    def corners(self) -> Corners:
        return self[3:7]


def box_outline(corners: Sequence[BoxValue]) -> Outline:
    """Return the outline of a whole box."""
    x1, y1, x2, y2 = corners
    return (x1, y1, x2, y1, x2, y2, x1, y2)


def move_outline(outline: Outline, origin: Sequence[BoxValue], target: Sequence[BoxValue]) -> Outline:
    """Return the outline moved and scaled as the box `origin` is to become the box `target`."""
    scales = [(target[i + 2] - target[i]) / max(origin[i + 2] - origin[i], 1e-9) for i in (0, 1)]
    return tuple(target[i % 2] + (value - origin[i % 2]) * scales[i % 2] for i, value in enumerate(outline))


def to_pixels(corners: Sequence[BoxValue], height: int, width: int) -> Pixels | None:
    """Return the box in whole pixels, rounded outwards and clipped to the frame; None if it lies outside."""
    x1, y1 = (max(math.floor(value), 0) for value in corners[:2])
    x2, y2 = min(math.ceil(corners[2]), width), min(math.ceil(corners[3]), height)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def intersection(a: Sequence[BoxValue], b: Sequence[BoxValue]) -> BoxValue:
    """Return the area of the intersection of two boxes."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def box_area(box: Sequence[BoxValue]) -> BoxValue:
    return (box[2] - box[0]) * (box[3] - box[1])


def iou(a: Sequence[BoxValue], b: Sequence[BoxValue]) -> BoxValue:
    """Return the intersection over union of two boxes."""
    shared_area = intersection(a, b)
    return shared_area / (box_area(a) + box_area(b) - shared_area) if shared_area else 0.0


def read_boxes(path: str | Path) -> dict[str, tuple[Box, ...]]:
    """Read the boxes of each file (key `""` if the table has no `file` column); one error lists all faulty rows."""
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = [cell.strip() for cell in next(reader, [])]
            _check_columns(path, columns)
            texts = ((reader.line_num, [unescape_formula(cell.strip()) for cell in cells]) for cells in reader)
            rows = [(line, dict(zip(columns, cells))) for line, cells in texts if any(cells)]
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}; expected a CSV of boxes") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path.name} is not a UTF-8 CSV file ({error}); save it again as one") from error
    boxes_by_file: dict[str, list[Box]] = {}
    faults = []
    for line, row in rows:
        try:
            boxes_by_file.setdefault(row.get("file", ""), []).append(_parse_box(row))
        except (ValueError, KeyError) as error:
            faults.append(f"line {line}: {error}")
    if faults:
        more = f"\n  and {len(faults) - MAX_BOX_FAULTS} more" if len(faults) > MAX_BOX_FAULTS else ""
        fault_lines = "\n  ".join(map(escape_control_chars, faults[:MAX_BOX_FAULTS]))
        n_faulty = count_noun(len(faults), "faulty row")
        raise ValueError(f"{path.name} has {n_faulty} of {len(rows)}; fix:\n  {fault_lines}{more}")
    return {name: tuple(boxes) for name, boxes in boxes_by_file.items()}


def _check_columns(path: Path, columns: list[str]) -> None:
    if unexpected := [name for name in columns if name not in BOX_TABLE_COLUMNS]:
        raise ValueError(
            f"{path.name}: {unknown_name_message('column', map(escape_control_chars, unexpected), BOX_TABLE_COLUMNS)}"
        )
    if duplicates := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"{path.name} has the column {duplicates[0]} twice; keep one")
    if missing := [name for name in REQUIRED_BOX_COLUMNS if name not in columns]:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}; expected {','.join(BOX_TABLE_COLUMNS)}")


def _parse_box(row: dict[str, str]) -> Box:
    if not row["label"]:
        raise ValueError("the label is empty")
    try:
        frame, track = int(row["frame"]), int(row["track"]) if row.get("track") else None
        x1, y1, x2, y2 = corners = tuple(float(row[name]) for name in ("x1", "y1", "x2", "y2"))
        confidence = float(row["confidence"]) if row.get("confidence") else 1.0
        outline, keypoints = (tuple(map(float, row.get(name, "").split())) for name in OPTIONAL_BOX_COLUMNS)
    except ValueError as error:
        raise ValueError(f"{error}; expected integers for frame and track, and numbers for the box") from error
    except KeyError as error:
        raise ValueError("the row has too few cells") from error
    if frame < 0 or not all(map(math.isfinite, corners)) or not 0 <= confidence <= 1:
        raise ValueError("expected a frame of at least 0, finite corners and a confidence from 0 to 1")
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"the box {corners} is empty; expected x1 < x2 and y1 < y2")
    if outline and (len(outline) < MIN_OUTLINE_VALUES or len(outline) % 2 or not all(map(math.isfinite, outline))):
        raise ValueError("expected an outline of at least three corners, x y x y x y, or none")
    if len(keypoints) % 3 or not all(map(math.isfinite, keypoints)) or not all(0 <= c <= 1 for c in keypoints[2::3]):
        raise ValueError("expected keypoints x y confidence x y confidence with confidences from 0 to 1, or none")
    return Box(frame, track, row["label"], x1, y1, x2, y2, confidence, outline, keypoints)


def write_boxes(path: Path, boxes: Mapping[str, Iterable[Box]]) -> None:
    """Write a table that `read_boxes` reads, so that mining with other thresholds needs no detector.

    It has columns of outlines and keypoints only if there are any.
    """
    details = [
        name
        for name in OPTIONAL_BOX_COLUMNS
        if any(getattr(b, name) for video_boxes in boxes.values() for b in video_boxes)
    ]
    columns = (*(name for name in BOX_TABLE_COLUMNS if name not in OPTIONAL_BOX_COLUMNS), *details)
    rows = (
        (
            name,
            b.frame,
            "" if b.track is None else b.track,
            b.label,
            *map(_format_value, b.corners),
            _format_value(b.confidence),
            *(" ".join(map(_format_value, getattr(b, name))) for name in details),
        )
        for name, video_boxes in boxes.items()
        for b in video_boxes
    )
    write_table(path, columns, rows)


def _format_value(value: BoxValue) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")
