"""Building blocks of a stand-alone HTML page: no scripts, no network access, light and dark theme, printable.

All helpers escape their text; sections are assembled from them only.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import escape

from vtcav_jax.assets import read_asset
from vtcav_jax.report.figures.svg import FIGURE_CSS, THEME_CSS, Figure

MAX_PAGE_BYTES = 20_000_000
MAX_NARROW_WIDTH, MAX_DOUBLE_WIDTH = 430, 800  # pixels of figures that take one and two places of a grid
PAGE_CSS = read_asset("vtcav_jax.report", "page.css")


@dataclass(frozen=True)
class Section:
    """Section of a page; `html` must be escaped, as by the helpers of this module."""

    id: str
    title: str
    html: str
    figures: tuple[Figure, ...] = ()


def document(title: str, intro: str, sections: Sequence[Section]) -> str:
    links = "".join(f'<a href="#{escape(s.id)}">{escape(s.title)}</a>' for s in sections)
    body = "".join(f'<section id="{escape(s.id)}"><h2>{escape(s.title)}</h2>{s.html}</section>' for s in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; media-src data:;'
        " style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
        f'<title>{escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>{THEME_CSS}{FIGURE_CSS}{PAGE_CSS}</style></head>"
        f"<body><header><h1>{escape(title)}</h1>{intro}</header><nav>{links}</nav><main>{body}</main></body></html>\n"
    )


def paragraph(text: str, css_class: str = "") -> str:
    return f'<p class="{css_class}">{escape(text)}</p>' if css_class else f"<p>{escape(text)}</p>"


def bullet_list(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def lead_list(texts: Iterable[tuple[str, str]], links: str = "") -> str:
    """Return a list whose items start with a bold headline; `links` (HTML) end those with headline and text."""
    items = (
        f"<li><strong>{escape(lead)}</strong> {escape(rest)}{f' {links}' if lead and rest and links else ''}</li>"
        for lead, rest in texts
    )
    return f"<ul>{''.join(items)}</ul>"


def section_links(intro: str, links: Iterable[tuple[str, str]]) -> str:
    """Return links (text, id) to sections of the page, after an introduction; empty without any."""
    anchors = ", ".join(f'<a href="#{escape(section)}">{escape(text)}</a>' for text, section in links)
    return f'<span class="soft">{escape(intro)} {anchors}</span>' if anchors else ""


def callout(inside: str, css_class: str) -> str:
    return f'<div class="{css_class}">{inside}</div>'


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def definition_list(pairs: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(a)}</dt><dd>{escape(b)}</dd>' for a, b in pairs)}</dl>"


def code_block(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def details_block(summary: str, inside: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def html_table(columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return a table of (CSS class, cells) rows; a cell `up\\t...`, `down\\t...` or `faint\\t...` gets that class."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = []
    for css_class, cells in rows:
        cell_elements = []
        for cell in cells:
            cell_class, tab, text = cell.partition("\t")
            cell_elements.append(f'<td class="{cell_class}">{escape(text)}</td>' if tab else f"<td>{escape(cell)}</td>")
        lines.append(
            f'<tr class="{css_class}">{"".join(cell_elements)}</tr>'
            if css_class
            else f"<tr>{''.join(cell_elements)}</tr>"
        )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def figure_grid(figures: Iterable[Figure]) -> str:
    """Return figures side by side, as many as the window has room for; wide ones take two places or a whole row."""
    return f'<div class="grid">{"".join(map(_grid_figure, figures))}</div>'


def _grid_figure(figure: Figure) -> str:
    if figure.width <= MAX_NARROW_WIDTH:
        return f"<figure>{figure.svg}</figure>"
    css_class = "double" if figure.width <= MAX_DOUBLE_WIDTH else "row"
    return f'<figure class="{css_class}">{scrolling_figure(figure)}</figure>'


def scrolling_figure(figure: Figure) -> str:
    """Return a figure that shrinks by a fifth at most, so that its letters are legible, and then scrolls."""
    widths = f"min-width: {figure.width * 4 // 5}px; max-width: {figure.width * 5 // 4}px"
    return f'<div class="graph"><div style="{widths}">{figure.svg}</div></div>'


def embed_media(path: Path, caption: str, css_class: str = "") -> str:
    """Return an embedded looping animation or an image with a caption; a video of the class `film` has controls."""
    mime = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".webp": "image/webp", ".png": "image/png"}[path.suffix]
    data = f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"
    alt_text = escape(caption)
    controls = " controls" if css_class == "film" else ""
    media = (
        f'<video src="{data}"{_poster_attribute(path)}{controls} autoplay loop muted playsinline'
        f' aria-label="{alt_text}"></video>'
        if mime.startswith("video")
        else f'<img src="{data}" alt="{alt_text}">'
    )
    opening_tag = f'<figure class="{css_class}">' if css_class else "<figure>"
    return f"{opening_tag}{media}<figcaption>{alt_text}</figcaption></figure>"


def _poster_attribute(path: Path) -> str:
    """Return the poster attribute, for browsers that do not start videos and for print."""
    poster_path = path.with_suffix(".jpg")
    return (
        f' poster="data:image/jpeg;base64,{base64.b64encode(poster_path.read_bytes()).decode()}"'
        if poster_path.exists()
        else ""
    )


def table_link(path: Path, embed: bool = True) -> str:
    """Return a download link with the embedded table, or a link relative to the page."""
    name = escape(path.name)
    if not embed:
        return f'<a href="../{name}">{name}</a> (separate file, {path.stat().st_size / 1e6:.0f} MB)'
    return embedded_table(path.name, path.read_bytes())


def embedded_table(name: str, content: bytes) -> str:
    """Return a download link with the content embedded in the page."""
    data = base64.b64encode(content).decode()
    return f'<a download="{escape(name)}" href="data:text/csv;base64,{data}">{escape(name)}</a>'
