"""Reading of annotation files: lines and CSV rows, with errors that name the file and the faulty lines."""

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vtcav_jax.data.source import one_line
from vtcav_jax.json_file import load_json
from vtcav_jax.names import count_noun

T = TypeVar("T")
MAX_FAULTS_IN_MESSAGE = 20


def read_lines(file: Path, expected: str) -> list[tuple[int, str]]:
    """Return the lines that are not empty, with their numbers; `expected` describes the file in errors."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}); expected {expected}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error.reason}); expected {expected}") from error
    numbered_lines = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered_lines:
        raise ValueError(f"{file} is empty; expected {expected}")
    return numbered_lines


def read_csv(file: Path, required_columns: Sequence[str], expected: str) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV file by column, with their line numbers."""
    lines = read_lines(file, expected)
    try:
        reader = csv.reader((line for _, line in lines), strict=True)
        columns = [cell.strip() for cell in next(reader)]
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"{file.name} is not a CSV file ({error}); expected {expected}") from error
    if absent := [name for name in required_columns if name not in columns]:
        raise ValueError(
            f"{file.name} has no column {', '.join(absent)}, only {', '.join(map(one_line, columns))}; expected"
            f" {expected}"
        )
    check_faults(
        file,
        [
            f"line {lines[number - 1][0]}: {len(cells)} cells for {len(columns)} columns"
            for number, cells in rows
            if len(cells) != len(columns)
        ],
        len(rows),
    )
    if not rows:
        raise ValueError(f"{file.name} has no rows; expected {expected}")
    return [(lines[number - 1][0], dict(zip(columns, cells))) for number, cells in rows]


def read_json_rows(file: Path, expected: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON list."""
    rows = _load_json(file, expected)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file.name} is not a JSON list of objects; expected {expected}")
    return rows


def read_json_object(file: Path, expected: str) -> dict[str, Any]:
    """Return a JSON object."""
    content = _load_json(file, expected)
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is not a JSON object; expected {expected}")
    return content


def _load_json(file: Path, expected: str) -> Any:
    try:
        return load_json(file)
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}); expected {expected}") from error
    except (json.JSONDecodeError, ValueError) as error:
        raise ValueError(f"{file} is not JSON ({error}); expected {expected}") from error


def parse_rows(file: Path, rows: Iterable[tuple[int, T]], parse: Callable[[T], Any]) -> list[Any]:
    """Return the parsed rows; one error lists all lines for which `parse` raises ValueError."""
    parsed, faults = [], []
    for line, row in rows:
        try:
            parsed.append(parse(row))
        except ValueError as error:
            faults.append(f"line {line}: {error}")
    check_faults(file, faults, len(parsed) + len(faults))
    return parsed


def check_faults(file: Path, faults: Sequence[str], n_rows: int) -> None:
    """Raise one ValueError that lists the faults, if there are any."""
    if faults:
        more = f"\n  and {len(faults) - MAX_FAULTS_IN_MESSAGE} more" if len(faults) > MAX_FAULTS_IN_MESSAGE else ""
        lines = "\n  ".join(map(one_line, faults[:MAX_FAULTS_IN_MESSAGE]))
        raise ValueError(f"{file.name} has {count_noun(len(faults), 'faulty row')} of {n_rows}; fix:\n  {lines}{more}")


def parse_seconds(text: str, name: str) -> float:
    """Return seconds from a number, or from a time such as 00:01:02.50."""
    match = re.fullmatch(r"(?:(\d+):)?(?:(\d+):)?(\d+(?:\.\d*)?)", text)
    if match is None or not math.isfinite(float(match[3])):
        raise ValueError(f"{name} {text!r} is not a time such as 12.5 or 00:00:12.50")
    hours, minutes = (match[1], match[2]) if match[2] else (None, match[1])
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(match[3])


def parse_index(text: str, names: Sequence[str], what: str, *, first: int = 0) -> str:
    """Return the class name of an index as text, counted from `first`."""
    if not (text.isascii() and text.isdigit() and first <= int(text) < first + len(names)):
        raise ValueError(f"{what} {text!r} is not a number from {first} to {first + len(names) - 1}")
    return names[int(text) - first]
