"""`ResultView`: the headline, tables, figures and pictures of a result, from which every kind of output is made."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vtcav_jax.report.figures.svg import Figure


@dataclass(frozen=True)
class ResultTable:
    """Columns and lines of a table; both are those of the CSV file of the command."""

    columns: tuple[str, ...]
    lines: tuple[tuple[object, ...], ...]

    @classmethod
    def of_rows(cls, row_type: type, rows: Iterable[object]) -> "ResultTable":
        """Return the table of dataclass rows."""
        columns = tuple(column.name for column in fields(row_type))
        return cls(columns, tuple(tuple(getattr(row, name) for name in columns) for row in rows))


TableMaker = Callable[[], ResultTable]
FileWriter = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class ResultView:
    """Parts of a result; tables, figures and pictures are made when they are needed.

    `figures` are SVG figures of the pages, `plots` further ones that matplotlib draws. `columns` are those of the first
    table that a notebook displays (default: the first ones). `pictures` returns HTML. `writers` are further formats by
    suffix.
    """

    heading: str
    notes: tuple[str, ...] = ()
    tables: Mapping[str, TableMaker]
    figures: Callable[[], Sequence[Figure]] = tuple
    columns: tuple[str, ...] = ()
    plots: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    pictures: Callable[[], list[str]] = list
    writers: Mapping[str, FileWriter] = field(default_factory=dict)
