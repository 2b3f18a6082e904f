"""Columns of large tables as arrays: texts as codes, so that a million rows take megabytes."""

import csv
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int32

from vtcav_jax.runs.tables import unescape_formula


@dataclass(frozen=True, eq=False)
class TextColumn:
    """A column of texts: the distinct `values` in order of appearance, and the index of each row's value."""

    values: list[str]
    codes: Int32[np.ndarray, " n"]

    def equals(self, value: str) -> Bool[np.ndarray, " n"]:
        """Return which rows have the value."""
        code = self.values.index(value) if value in self.values else -1
        return self.codes == code


@dataclass(frozen=True, eq=False)
class ColumnTable:
    """Some columns of a CSV file, by name."""

    texts: dict[str, TextColumn]
    numbers: dict[str, Float64[np.ndarray, " n"]]
    n_rows: int

    def rows_where(self, **values: str) -> Int32[np.ndarray, " n"]:
        """Return the indices of the rows with these values in text columns."""
        mask = np.ones(self.n_rows, bool)
        for name, value in values.items():
            mask &= self.texts[name].equals(value)
        return np.flatnonzero(mask).astype(np.int32)


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Replace the errors of reading a damaged archive or record by a ValueError that names the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, AttributeError, EOFError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({error}); repeat the run") from error


def read_columns(path: Path, texts: Sequence[str], numbers: Sequence[str]) -> ColumnTable:
    """Read columns of a table; a table that does not exist has no rows."""
    codes: dict[str, list[int]] = {name: [] for name in texts}
    known: dict[str, dict[str, int]] = {name: {} for name in texts}
    values: dict[str, list[float]] = {name: [] for name in numbers}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            if missing := [name for name in (*texts, *numbers) if name not in header]:
                raise ValueError(f"{path} has no column {', '.join(missing)}; repeat the run with this version")
            places = {name: header.index(name) for name in (*texts, *numbers)}
            try:
                for line in lines:
                    for name in texts:
                        text = line[places[name]]
                        codes[name].append(known[name].setdefault(text, len(known[name])))
                    for name in numbers:
                        values[name].append(float(line[places[name]]))
            except (ValueError, IndexError, csv.Error) as error:
                raise ValueError(f"{path} is damaged: line {lines.line_num}: {error}") from error
    return ColumnTable(
        {
            name: TextColumn([sys.intern(unescape_formula(t)) for t in known[name]], np.array(codes[name], np.int32))
            for name in texts
        },
        {name: np.array(values[name], np.float64) for name in numbers},
        len(next(iter([*codes.values(), *values.values()]), [])),
    )
