"""HTML of a result in a notebook: bounded in size, without scripts, readable in light and dark notebooks.

The table always has its place; pictures and figures follow as far as they fit, and what is left out is named.
"""

import re
from functools import cache

from markupsafe import escape

from vtcav_jax.assets import read_asset
from vtcav_jax.names import abridged_list, count_noun
from vtcav_jax.report.displays.result_view import ResultTable, ResultView
from vtcav_jax.report.displays.table_files import format_cell
from vtcav_jax.report.figures.svg import FIGURE_CSS, THEME_CSS
from vtcav_jax.report.html import html_table

MAX_HTML_BYTES = 200_000
MAX_ROWS, MAX_COLUMNS, MAX_CELL_CHARS = 20, 9, 48
MAX_NOTES, MAX_NOTE_CHARS = 6, 300
MAX_FIGURES = 4
DARK_NOTEBOOKS = ('[data-jp-theme-light="false"] .vtcav', ".vscode-dark .vtcav", "html[theme=dark] .vtcav")
LIGHT_NOTEBOOKS = ('[data-jp-theme-light="true"] .vtcav', ".vscode-light .vtcav", "html[theme=light] .vtcav")


def render_view(view: ResultView) -> str:
    """Return the HTML of a view, of at most `MAX_HTML_BYTES` bytes."""
    head = f"<style>{notebook_css()}</style><b>{escape(shorten(view.heading, MAX_NOTE_CHARS))}</b>"
    head += "".join(f"<p>{escape(shorten(note, MAX_NOTE_CHARS))}</p>" for note in view.notes[:MAX_NOTES])
    if len(view.notes) > MAX_NOTES:
        head += f'<p class="soft">... {len(view.notes) - MAX_NOTES} more sentences</p>'
    table = _first_table(view)
    foot = "".join(f'<p class="soft">{escape(text)}</p>' for text in _other_parts(view))
    bytes_left = MAX_HTML_BYTES - sum(len(part.encode()) for part in (head, table, foot)) - 1000
    displayed: list[str] = []
    omitted = 0
    for part in view.pictures():
        size = len(part.encode())
        omitted += size > bytes_left
        if size <= bytes_left:
            displayed.append(part)
            bytes_left -= size
    grid: list[str] = []
    names: list[str] = []
    for figure in view.figures():
        svg = f"<figure>{_without_links(figure.svg)}</figure>"
        if len(grid) < MAX_FIGURES and len(svg.encode()) <= bytes_left:
            grid.append(svg)
            bytes_left -= len(svg.encode())
        else:
            names.append(figure.name)
    media = "".join(displayed) + (f'<div class="grid">{"".join(grid)}</div>' if grid else "")
    notes = [f"{count_noun(omitted, 'picture')} too large for a notebook: save(...) writes all."] if omitted else []
    notes += [f"{count_noun(len(names), 'more figure')}: plot({names[0]!r}), ..."] if names else []
    omissions = "".join(f'<p class="soft">{escape(shorten(note, MAX_NOTE_CHARS))}</p>' for note in notes)
    return f'<div class="vtcav">{head}{media}{omissions}{table}{foot}</div>'


def stand_alone_html(view: ResultView) -> str:
    """Return the display as a document of its own."""
    title = escape(shorten(view.heading, MAX_NOTE_CHARS))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body>{render_view(view)}</body></html>\n"
    )


def shorten(text: str, max_chars: int) -> str:
    """Return the text with an ellipsis in its middle if it is longer: names of one kind differ at their ends."""
    if len(text) <= max_chars:
        return text
    tail = max_chars // 2
    return f"{text[: max_chars - 1 - tail]}…{text[len(text) - tail :]}"


def _first_table(view: ResultView) -> str:
    if not view.tables:
        return ""
    name = next(iter(view.tables))
    table = view.tables[name]()
    columns = [column for column in view.columns if column in table.columns] or list(table.columns)
    return render_table(table, columns[:MAX_COLUMNS])


def render_table(table: ResultTable, columns: list[str]) -> str:
    """Return the first rows of some columns, and a line with the number of the others."""
    places = [table.columns.index(column) for column in columns]
    lines = [[shorten(format_cell(line[i]), MAX_CELL_CHARS) for i in places] for line in table.lines[:MAX_ROWS]]
    # A tab would be read as the CSS class of a cell
    rendered = html_table(columns, [("", [cell.replace("\t", " ") for cell in cells]) for cells in lines])
    more = []
    if len(table.lines) > MAX_ROWS:
        more.append(f"{len(table.lines) - MAX_ROWS} more rows")
    if len(table.columns) > len(columns):
        more.append(f"{len(table.columns) - len(columns)} more columns")
    return rendered + (f'<p class="soft">... {" and ".join(more)} in to_dataframe()</p>' if more else "")


def _other_parts(view: ResultView) -> list[str]:
    others = list(view.tables)[1:]
    return [f"Further tables: {abridged_list(others)}."] if others else []


def _without_links(svg: str) -> str:
    """Return a figure without links, whose anchors only a page has."""
    return re.sub(r"<a [^>]*>|</a>", "", svg)


@cache
def notebook_css() -> str:
    """Return the style of displays: every rule applies to them only, and not to the rest of the notebook."""
    light, _, dark = THEME_CSS.partition("@media")
    light_variables = _variables(light)
    dark_variables = _variables(dark)
    rules = [
        f".vtcav {{{light_variables}}}",
        f"@media (prefers-color-scheme: dark) {{ .vtcav {{{dark_variables}}} }}",
        f"{', '.join(LIGHT_NOTEBOOKS)} {{{light_variables}}}",
        f"{', '.join(DARK_NOTEBOOKS)} {{{dark_variables}}}",
        FIGURE_CSS.replace(".fig", ".vtcav .fig"),
        read_asset("vtcav_jax.report", "notebook.css"),
    ]
    return "".join(rule.replace("\n", "") for rule in rules)


def _variables(css: str) -> str:
    return "".join(re.findall(r"--\w+: [^;]+;", css))
