"""CSV tables of dataclass rows, written atomically and read back with their types.

Spreadsheets run cells that begin with one of `FORMULA_STARTS` as formulas. Texts from outside, such as file names, are
therefore written with an apostrophe before such a start, which reading removes again.
"""

import csv
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from vtcav_jax import atomic

T = TypeVar("T")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
TEXT_MARK = "'"


def write_table(
    path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]], *, errors: str = "strict"
) -> None:
    """Write a CSV file atomically."""
    with atomic.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors=errors) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([escape_formula(cell) for cell in row] for row in rows)


def escape_formula(cell: object) -> object:
    """Return a cell for a CSV file: a text that a spreadsheet would run gets an apostrophe; a number is unchanged."""
    return f"{TEXT_MARK}{cell}" if isinstance(cell, str) and _is_formula(cell) else cell


def unescape_formula(text: str) -> str:
    """Return the text that `escape_formula` got."""
    return text[1:] if text.startswith(TEXT_MARK) and _is_formula(text[1:]) else text


def _is_formula(text: str) -> bool:
    """Return whether a text begins like a formula, after any apostrophes, and is no number."""
    if not text.lstrip(TEXT_MARK).startswith(FORMULA_STARTS):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


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
        except (ValueError, TypeError, AttributeError, csv.Error) as error:  # the third for a missing cell
            raise ValueError(f"{path} is damaged: line {reader.line_num}: {error}") from error


def _convert(text: str, value_type: Any) -> Any:
    if value_type is bool:
        return {"True": True, "False": False}[text] if text in ("True", "False") else bool(int(text))
    return unescape_formula(text) if value_type is str else value_type(text)
