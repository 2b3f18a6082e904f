"""A graph whose marks lead to parts of the page, of which the one gone to is shown: by style alone, without a script.

Before anything is chosen the first part is there. On paper too: what every part says stands in a table besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from vtcav_jax.report.figures.svg import Figure

STYLE = """
.chosen { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 22px; align-items: start;
 margin: 14px 0; }
.graph { overflow-x: auto; } .graph .fig { max-width: none; } .graph a { cursor: pointer; }
.graph a:hover text, .graph a:focus-visible text { text-decoration: underline; }
.part { display: none; scroll-margin-top: 12px; border-left: 4px solid var(--two); padding-left: 14px; }
.part:target, .chosen:not(:has(.part:target)) .part.first { display: block; }
.part h4 { margin: 0 0 .5em; font-size: 1rem; } .part dl { font-size: .9rem; } .part ul { padding-left: 1.1em; }
.part p, .part ul { font-size: .9rem; margin: .4em 0; } .part img { background: #fff; width: 100%; max-width: 290px; }
.back { display: none; }
@media (max-width: 820px) { .chosen { grid-template-columns: minmax(0, 1fr); } .back { display: inline; } }
"""
MARKED = "stroke: var(--two);"


@dataclass(frozen=True)
class Part:
    """What is shown when a mark is chosen; `html` is put together by helpers that escape."""

    number: int
    title: str
    html: str


@dataclass(frozen=True)
class Item:
    """A number with its name, which leads to another part if that has a number."""

    name: str
    told: str
    to: int | None = None


def chosen(graph: Figure, prefix: str, parts: Sequence[Part]) -> str:
    """`prefix` and a part's number are its place in the page, as the graph's links have it; the graph's elements of
    class `n` and number are that part's mark, those of class `e` and number its edges."""
    first = parts[0].number
    rules = [_marked(f"#{prefix}:has(#{prefix}{part.number}:target)", part.number) for part in parts]
    rules.append(_marked(f"#{prefix}:not(:has(.part:target))", first))
    shown = "".join(
        f'<article class="part{" first" if part.number == first else ""}" id="{prefix}{part.number}">'
        f'<h4>{escape(part.title)} <a class="back" href="#{prefix}">back to the graph</a></h4>{part.html}</article>'
        for part in parts
    )
    wide = f'<div style="min-width: {graph.width * 4 // 5}px; max-width: {graph.width * 5 // 4}px">{graph.svg}</div>'
    return (
        f'<style>{STYLE}{"".join(rules)}</style><div class="chosen" id="{prefix}">'
        f'<div class="graph">{wide}</div><div>{shown}</div></div>'
    )


def _marked(when: str, number: int) -> str:
    return f"{when} .n{number} circle {{ {MARKED} stroke-width: 3; }}\n{when} .e{number} {{ {MARKED} }}\n"


def items(lead: str, some: Sequence[Item], prefix: str) -> str:
    lines = []
    for item in some:
        name = escape(item.name)
        named = name if item.to is None else f'<a href="#{prefix}{item.to}">{name}</a>'
        lines.append(f"<li>{named} {escape(item.told)}</li>")
    return f"<p>{escape(lead)}</p><ul>{''.join(lines)}</ul>"


def beside(path: Path, text: str) -> str:
    """A link to a film that the page has no room for, seen from where the page lies."""
    return f'<p><a href="../films/{escape(path.name)}">{escape(text)}</a></p>'
