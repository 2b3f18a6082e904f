"""Where things are in a video: boxes, whoever drew them, and the CSV in which they are kept.

A box is in pixels with its lower right end excluded, so that `x2 - x1` is its width; frames are counted from 0 in the
order of display. The columns are `frame, label, x1, y1, x2, y2` and, where they are known, `file` (a table of several
videos), `track` (one number per thing that is followed; boxes without one make no dynamic clips) and `confidence`.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vtcav_jax.names import printable, unknown
from vtcav_jax.runs.directory import write_table

COLUMNS = ("file", "frame", "track", "label", "x1", "y1", "x2", "y2", "confidence")
NEEDED = ("frame", "label", "x1", "y1", "x2", "y2")
SHOWN = 20  # faulty rows

Number = int | float
Corners = tuple[Number, Number, Number, Number]  # x1, y1, x2, y2
Pixels = tuple[int, int, int, int]  # x1, y1, x2, y2


class Box(NamedTuple):
    """One thing in one frame."""

    frame: int
    track: int | None
    label: str
    x1: Number
    y1: Number
    x2: Number
    y2: Number
    confidence: Number = 1.0

    @property
    def corners(self) -> Corners:
        return self[3:7]


def pixels(corners: Sequence[Number], height: int, width: int) -> Pixels | None:
    """The whole pixels that a box touches within the frame; None of a box that lies outside."""
    x1, y1 = (max(math.floor(value), 0) for value in corners[:2])
    x2, y2 = min(math.ceil(corners[2]), width), min(math.ceil(corners[3]), height)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def shared(a: Sequence[Number], b: Sequence[Number]) -> Number:
    """The area that both boxes cover."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def area(box: Sequence[Number]) -> Number:
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(a: Sequence[Number], b: Sequence[Number]) -> Number:
    """What both boxes cover, as a part of what either covers."""
    both = shared(a, b)
    return both / (area(a) + area(b) - both) if both else 0.0


def read_boxes(path: str | Path) -> dict[str, tuple[Box, ...]]:
    """The boxes of each file, under `""` where the table has no such column; all faulty rows are told at once."""
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = [cell.strip() for cell in next(reader, [])]
            _check_columns(path, columns)
            rows = [(reader.line_num, dict(zip(columns, map(str.strip, cells)))) for cells in reader if any(cells)]
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}; expected a CSV of boxes") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path.name} is no CSV file in UTF-8 ({error}); write it anew") from error
    found: dict[str, list[Box]] = {}
    faults = []
    for line, row in rows:
        try:
            found.setdefault(row.get("file", ""), []).append(_box(row))
        except (ValueError, KeyError) as error:
            faults.append(f"line {line}: {error}")
    if faults:
        more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        told = "\n  ".join(map(printable, faults[:SHOWN]))
        raise ValueError(f"{path.name} has {len(faults)} faulty rows of {len(rows)}; mend them:\n  {told}{more}")
    return {name: tuple(boxes) for name, boxes in found.items()}


def _check_columns(path: Path, columns: list[str]) -> None:
    if strange := [name for name in columns if name not in COLUMNS]:
        raise ValueError(f"{path.name}: {unknown('column', map(printable, strange), COLUMNS)}")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"{path.name} has the column {twice[0]} twice; keep one")
    if missing := [name for name in NEEDED if name not in columns]:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}; expected {','.join(COLUMNS)}")


def _box(row: dict[str, str]) -> Box:
    if not row["label"]:
        raise ValueError("the label is empty")
    try:
        frame, track = int(row["frame"]), int(row["track"]) if row.get("track") else None
        x1, y1, x2, y2 = corners = tuple(float(row[name]) for name in ("x1", "y1", "x2", "y2"))
        confidence = float(row["confidence"]) if row.get("confidence") else 1.0
    except ValueError as error:
        raise ValueError(f"{error}; expected whole numbers for frame and track, and numbers for the box") from error
    except KeyError as error:
        raise ValueError("it has too few cells") from error
    if frame < 0 or not all(map(math.isfinite, corners)) or not 0 <= confidence <= 1:
        raise ValueError("expected a frame from 0, finite corners and a confidence from 0 to 1")
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"the box {corners} is empty; expected x1 < x2 and y1 < y2")
    return Box(frame, track, row["label"], x1, y1, x2, y2, confidence)


def write_boxes(path: Path, boxes: Mapping[str, Iterable[Box]]) -> None:
    """A table that `read_boxes` reads: mining again with other thresholds needs no detector."""
    rows = (
        (name, b.frame, "" if b.track is None else b.track, b.label, *map(_short, b.corners), _short(b.confidence))
        for name, some in boxes.items()
        for b in some
    )
    write_table(path, COLUMNS, rows)


def _short(value: Number) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")
