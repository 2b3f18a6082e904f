"""Tables as files: CSV in full precision, Markdown and LaTeX with the digits of the pages."""

from collections.abc import Callable
from pathlib import Path

from vtcav_jax import atomic
from vtcav_jax.report.displays.result_view import ResultTable
from vtcav_jax.report.effect_sizes import format_number
from vtcav_jax.runs.tables import write_table

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def format_cell(value: object) -> str:
    """Return a cell with three significant digits; an unknown number is empty."""
    if isinstance(value, float):
        return "" if value != value else format_number(value)
    return str(value)


def write_csv(path: Path, table: ResultTable) -> None:
    write_table(path, table.columns, table.lines)


def write_markdown(path: Path, table: ResultTable) -> None:
    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"

    lines = [line(list(table.columns)), line(["---"] * len(table.columns))]
    lines += [line([format_cell(value) for value in row]) for row in table.lines]
    atomic.write_text(path, "\n".join(lines) + "\n")


def write_latex(path: Path, table: ResultTable) -> None:
    """Write a `tabular` with the rules of the package booktabs."""

    def line(cells: list[str]) -> str:
        escaped = ("".join(LATEX_ESCAPES.get(c, "$-$" if c == "−" else c) for c in cell) for cell in cells)
        return f"{' & '.join(escaped)} \\\\"

    numeric = [all(isinstance(row[i], int | float) for row in table.lines) for i in range(len(table.columns))]
    lines = [
        f"\\begin{{tabular}}{{{''.join('r' if is_number else 'l' for is_number in numeric)}}}",
        "\\toprule",
        line(list(table.columns)),
        "\\midrule",
        *(line([format_cell(value) for value in row]) for row in table.lines),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    atomic.write_text(path, "\n".join(lines) + "\n")


TABLE_WRITERS: dict[str, Callable[[Path, ResultTable], None]] = {
    ".csv": write_csv,
    ".md": write_markdown,
    ".tex": write_latex,
}
