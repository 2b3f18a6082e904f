"""Display of a run folder: its tasks, its tables, and the figures of its page."""

import csv
from functools import partial
from importlib import import_module
from pathlib import Path

from vtcav_jax.report.displays.result_view import ResultTable, ResultView
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.runs.tables import unescape_formula

MAIN_TABLES = ("scores", "motion_classes", "maps", "pyramid_nodes", "method_scores")  # the first one is displayed


def view_run_folder(run: RunFolder) -> ResultView:
    paths = sorted(
        run.table_paths,
        key=lambda path: (MAIN_TABLES.index(path.stem) if path.stem in MAIN_TABLES else len(MAIN_TABLES), path.stem),
    )
    page = run.folder / "report" / "index.html"
    page_note = f"Page: {page}" if page.is_file() else f"No page yet: write_report({str(run.folder)!r}) writes one."
    return ResultView(
        heading=repr(run),
        notes=(page_note,),
        tables={path.stem: partial(read_run_table, path) for path in paths},
        figures=lambda: page_figures(run),
    )


def page_figures(run: RunFolder) -> list[Figure]:
    """Return the figures of the page, in its order."""
    builders = import_module("vtcav_jax.report.build").SECTION_BUILDERS
    return [figure for build in builders for section in build(run) for figure in section.figures]


def read_run_table(path: Path) -> ResultTable:
    """Return a table of the run with numbers, truth values and texts as in the command."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if not lines:
        raise ValueError(f"{path} is empty; repeat the run in another folder")
    columns = [_column_values(cells) for cells in zip(*lines[1:], strict=True)]
    return ResultTable(tuple(lines[0]), tuple(zip(*columns)))


def _column_values(cells: tuple[str, ...]) -> list[object]:
    """Return the cells as numbers or truth values if all of them are, else as texts."""
    for convert in (int, float, {"True": True, "False": False}.__getitem__):
        try:
            return [convert(cell) for cell in cells]
        except (ValueError, KeyError):
            continue
    return [unescape_formula(cell) for cell in cells]
