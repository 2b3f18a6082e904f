"""CSV tables of dataclass rows, written atomically and read back with their types."""

import csv
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from vtcav_jax import atomic

T = TypeVar("T")


def write_table(
    path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]], *, errors: str = "strict"
) -> None:
    """Write a CSV file atomically."""
    with atomic.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors=errors) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_rows(path: Path, row_type: type, rows: Iterable[object]) -> None:
    """Write dataclass rows with numbers in full precision and unknown values as nan."""
    names = [field.name for field in fields(row_type)]
    write_table(path, names, ([getattr(row, name) for name in names] for row in rows))


def read_rows(path: Path, row_type: type[T]) -> tuple[T, ...]:
    """Read a table as rows of `row_type`, ignoring other columns; return no rows if there is no file."""
    if not path.is_file():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = fields(row_type)  # type: ignore[arg-type] (rows are dataclasses)
        required = [field.name for field in columns if field.default is MISSING]
        if missing := [name for name in required if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path} has no column {', '.join(missing)}; repeat the run with this version")
        present = [field for field in columns if field.name in (reader.fieldnames or ())]
        try:
            return tuple(
                row_type(**{field.name: _convert(line[field.name], field.type) for field in present}) for line in reader
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged: line {reader.line_num}: {error}") from error


def _convert(text: str, value_type: Any) -> Any:
    if value_type is bool:
        return {"True": True, "False": False}[text] if text in ("True", "False") else bool(int(text))
    return value_type(text)
