"""Source made of a CSV manifest that lists videos, or parts of them, with labels."""

import csv
import math
from pathlib import Path

from vtcav_jax.data.source import FileSource, SourceItem, disambiguate, one_line
from vtcav_jax.names import unknown_name_message

MANIFEST_COLUMNS = ("path", "label", "label:HEAD", "start", "end", "boxes", "source")
MAX_MANIFEST_FAULTS = 20  # faulty rows listed in an error message


def open_manifest(path: Path, spec: str) -> FileSource:
    """Open a manifest; paths are relative to it, and one error lists all faulty rows.

    Rows of one file come from one source video; `source` names the video of files that were cut from it.
    """
    columns, rows = _read_manifest(path)
    heads = {name: name.removeprefix("label:") for name in columns if name == "label" or name.startswith("label:")}
    faults = [f"line {line}: {fault}" for line, row in rows if (fault := _row_fault(row))]
    if faults:
        more = f"\n  and {len(faults) - MAX_MANIFEST_FAULTS} more" if len(faults) > MAX_MANIFEST_FAULTS else ""
        lines = "\n  ".join(faults[:MAX_MANIFEST_FAULTS])
        raise ValueError(f"{path.name} has {len(faults)} faulty rows of {len(rows)}; fix them:\n  {lines}{more}")
    classes = {head: sorted({row[column] for _, row in rows} - {""}) for column, head in heads.items()}
    indices = {head: {name: i for i, name in enumerate(names)} for head, names in classes.items()}
    items = []
    for name, (_, row) in zip(disambiguate(_item_name(row) for _, row in rows), rows):
        labels = {head: indices[head][row[column]] for column, head in heads.items() if row[column]}
        boxes = path.parent / row["boxes"] if row.get("boxes") else None
        items.append(
            SourceItem(
                name,
                labels,
                path.parent / row["path"],
                _parse_seconds(row, "start"),
                _parse_seconds(row, "end"),
                boxes,
                one_line(row.get("source") or row["path"]),
            )
        )
    if not any(item.path.exists() for item in items):
        raise ValueError(
            f"none of the {len(items)} videos in {path.name} exists, such as {items[0].path}; paths are relative to the"
            " manifest's folder"
        )
    return FileSource(spec, {head: tuple(map(one_line, names)) for head, names in classes.items()}, tuple(items))


def _read_manifest(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns, and each row with its line number."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = [cell.strip() for cell in next(reader, [])]
            _check_columns(path, columns)
            rows = []
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    row = dict(zip(columns, (cell.strip() for cell in cells)))
                    if len(cells) != len(columns):
                        row["\0"] = f"{len(cells)} cells for {len(columns)} columns; quote cells that contain commas"
                    rows.append((reader.line_num, row))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path.name} is not a CSV file ({error}); check that quotes are closed") from error
    if not rows:
        raise ValueError(f"{path.name} has no rows; expected one row per clip")
    return columns, rows


def _check_columns(path: Path, columns: list[str]) -> None:
    heads = [name for name in columns if name.startswith("label:") and name != "label:"]
    if unexpected := [name for name in columns if name not in MANIFEST_COLUMNS and name not in heads]:
        raise ValueError(f"{path.name}: {unknown_name_message('column', map(one_line, unexpected), MANIFEST_COLUMNS)}")
    duplicates = sorted({name for name in columns if columns.count(name) > 1})
    if duplicates or ("label" in columns and "label:label" in columns):
        raise ValueError(f"{path.name} has the column {one_line((duplicates or ['label'])[0])} twice; remove one")
    if "path" not in columns:
        raise ValueError(f"{path.name} has no column path; expected a header such as path,label")


def _row_fault(row: dict[str, str]) -> str | None:
    if "\0" in row:
        return row["\0"]
    if not row["path"]:
        return "the path is empty"
    numbers = {}
    for name in ("start", "end"):
        try:
            numbers[name] = _parse_seconds(row, name)
        except ValueError:
            return f"{name} {one_line(row[name])!r} is not a number of seconds"
        if numbers[name] is not None and not 0 <= numbers[name] < math.inf:
            return f"{name} {row[name]} must be 0 s or later"
    if numbers["end"] is not None and numbers["end"] <= (numbers["start"] or 0):
        return f"end {row['end']} must be after start {row.get('start') or 0}"
    return None


def _parse_seconds(row: dict[str, str], name: str) -> float | None:
    return float(row[name]) if row.get(name) else None


def _item_name(row: dict[str, str]) -> str:
    start, end = row.get("start", ""), row.get("end", "")
    return one_line(row["path"] + (f" [{start or 0}-{end} s]" if start or end else ""))
