"""One HTML file that needs nothing else: no script, no network, light or dark as the reader has it, and it prints.

Whatever comes from outside is escaped by the helpers here; sections are put together from them.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from vtcav_jax.report.figures.svg import FIGURE_CSS, THEME_CSS, Figure

MAX_PAGE_BYTES = 20_000_000
PAGE_CSS = """
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 20px 18px 60px; max-width: 1160px; background: var(--paper); color: var(--ink);
 font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .3em 0; } h2 { font-size: 1.25rem; margin: 2.2em 0 .5em; }
h3 { font-size: 1rem; margin: 1.6em 0 .4em; } p { max-width: 75ch; margin: .5em 0; } a { color: var(--one); }
p.soft, figcaption { color: var(--soft); font-size: .88rem; }
nav { font-size: .9rem; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 10px 0; }
dl { display: grid; grid-template-columns: minmax(90px, max-content) 1fr; gap: 2px 16px; margin: .6em 0; }
dt { color: var(--soft); } dd { margin: 0; }
.answer { border-left: 4px solid var(--one); padding: 2px 0 2px 16px; } .answer li { margin: .5em 0; }
.answer ul { padding-left: 1.1em; max-width: 78ch; }
.trial { border-left: 4px solid var(--line); padding: 2px 0 2px 16px; color: var(--soft); }
.trial ul { padding-left: 1.1em; max-width: 78ch; }
.warn { border-left: 4px solid var(--two); padding: 2px 0 2px 16px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 18px; }
.films { display: flex; flex-wrap: wrap; gap: 10px; } .films figure { width: 104px; }
figure { margin: 0; min-width: 0; } figcaption { line-height: 1.35; margin-top: 3px; }
.fig { width: 100%; height: auto; max-width: 420px; display: block; } .whole .fig { max-width: none; }
video, img { max-width: 100%; height: auto; display: block; border-radius: 4px; background: var(--null); }
.films video, .films img { width: 96px; height: 96px; }
figure.film { margin: 0 0 18px; overflow-x: auto; } .film img, .film video { min-width: 520px; background: #fff; }
.wide { overflow-x: auto; margin: .6em 0; } table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: 4px 10px 4px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td { font-variant-numeric: tabular-nums; } td, th { overflow-wrap: normal; }
th { color: var(--soft); font-weight: 500; }
tr.faint td { color: var(--faint); } .up { color: var(--up); font-weight: 600; }
.down { color: var(--down); font-weight: 600; } td.faint { color: var(--faint); }
details { margin: .5em 0; } summary { cursor: pointer; color: var(--soft); }
pre { overflow-x: auto; background: var(--null); padding: 10px 12px; border-radius: 6px; font-size: .82rem;
 white-space: pre-wrap; }
@media (max-width: 520px) { body { padding: 12px 14px 40px; font-size: 15px; }
 dl { grid-template-columns: 1fr; gap: 0; } .wide table { font-size: .74rem; } .wide td, .wide th { padding-right: 7px;
 max-width: 15em; } dd { margin-bottom: 6px; } }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --null: #e4e4e4; --paper: #fff; --faint: #888;
 --one: #0067b1; --two: #c2500b; --three: #00795a; --four: #9a3d80; --up: #0067b1; --down: #c2500b; }
 body { max-width: none; padding: 0; font-size: 10.5pt; } nav { display: none; } figure, tr { break-inside: avoid; }
 h2, h3 { break-after: avoid; } .wide { overflow: visible; } }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page; `html` is put together by this module's helpers, which escape."""

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
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{THEME_CSS}{FIGURE_CSS}{PAGE_CSS}</style></head>'
        f"<body><header><h1>{escape(title)}</h1>{intro}</header><nav>{links}</nav><main>{body}</main></body></html>\n"
    )


def paragraph(text: str, css_class: str = "") -> str:
    return f'<p class="{css_class}">{escape(text)}</p>' if css_class else f"<p>{escape(text)}</p>"


def bullet_list(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def lead_list(texts: Iterable[tuple[str, str]]) -> str:
    """A list whose items begin with what matters most."""
    return f"<ul>{''.join(f'<li><strong>{escape(lead)}</strong> {escape(rest)}</li>' for lead, rest in texts)}</ul>"


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
    """Each row with its class; a cell that begins with `up `, `down ` or `faint ` and a tab has that one."""
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
    return f'<div class="grid">{"".join(f"<figure>{figure.svg}</figure>" for figure in figures)}</div>'


def embed_media(path: Path, caption: str, css_class: str = "") -> str:
    """A small film that loops, or a picture, inside the page."""
    mime = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".webp": "image/webp", ".png": "image/png"}[path.suffix]
    data = f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"
    alt_text = escape(caption)
    media = (
        f'<video src="{data}"{_poster_attribute(path)} autoplay loop muted playsinline aria-label="{alt_text}"></video>'
        if mime.startswith("video")
        else f'<img src="{data}" alt="{alt_text}">'
    )
    opening_tag = f'<figure class="{css_class}">' if css_class else "<figure>"
    return f"{opening_tag}{media}<figcaption>{alt_text}</figcaption></figure>"


def _poster_attribute(path: Path) -> str:
    """What is to be seen where films do not start by themselves, and on paper."""
    poster_path = path.with_suffix(".jpg")
    return (
        f' poster="data:image/jpeg;base64,{base64.b64encode(poster_path.read_bytes()).decode()}"'
        if poster_path.exists()
        else ""
    )


def table_link(path: Path, embed: bool = True) -> str:
    """A table inside the page, or a link to where it lies, seen from there."""
    name = escape(path.name)
    if not embed:
        return f'<a href="../{name}">{name}</a> (beside the page, {path.stat().st_size / 1e6:.0f} MB)'
    return embedded_table(path.name, path.read_bytes())


def embedded_table(name: str, content: bytes) -> str:
    """A table that is in the page and nowhere else."""
    data = base64.b64encode(content).decode()
    return f'<a download="{escape(name)}" href="data:text/csv;base64,{data}">{escape(name)}</a>'
