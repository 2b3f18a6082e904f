"""A graph whose marks lead to parts of the page, of which the one gone to is shown: by style alone, without a script.

Before anything is chosen the first part is there. On paper too: what every part says stands in a table besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import escape

from vtcav_jax.assets import read_asset
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.runs.directory import ANIMATION_FOLDER

LINKED_GRAPH_CSS = read_asset("vtcav_jax.report", "linked_graph.css")
ACTIVE_MARK_CSS = "stroke: var(--two);"


@dataclass(frozen=True)
class LinkedPanel:
    """What is shown when a mark is chosen; `html` is put together by helpers that escape."""

    node: int
    title: str
    html: str


@dataclass(frozen=True)
class LinkItem:
    """A number with its name, which leads to another part if that has a number."""

    name: str
    detail: str
    link_to: int | None = None


def linked_panels(graph: Figure, prefix: str, panels: Sequence[LinkedPanel]) -> str:
    """`prefix` and a part's number are its place in the page, as the graph's links have it; the graph's elements of
    class `n` and number are that part's mark, those of class `e` and number its edges."""
    first = panels[0].node
    rules = [_active_mark_rules(f"#{prefix}:has(#{prefix}{panel.node}:target)", panel.node) for panel in panels]
    rules.append(_active_mark_rules(f"#{prefix}:not(:has(.part:target))", first))
    articles = "".join(
        f'<article class="part{" first" if panel.node == first else ""}" id="{prefix}{panel.node}">'
        f'<h4>{escape(panel.title)} <a class="back" href="#{prefix}">back to the graph</a></h4>{panel.html}</article>'
        for panel in panels
    )
    graph_html = (
        f'<div style="min-width: {graph.width * 4 // 5}px; max-width: {graph.width * 5 // 4}px">{graph.svg}</div>'
    )
    return (
        f'<style>{LINKED_GRAPH_CSS}{"".join(rules)}</style><div class="chosen" id="{prefix}">'
        f'<div class="graph">{graph_html}</div><div>{articles}</div></div>'
    )


def _active_mark_rules(selector: str, node: int) -> str:
    marks = f"{selector} .n{node} circle {{ {ACTIVE_MARK_CSS} stroke-width: 3; }}\n"
    return f"{marks}{selector} .e{node} {{ {ACTIVE_MARK_CSS} }}\n"


def link_list(lead: str, link_items: Sequence[LinkItem], prefix: str) -> str:
    lines = []
    for item in link_items:
        name = escape(item.name)
        label = name if item.link_to is None else f'<a href="#{prefix}{item.link_to}">{name}</a>'
        lines.append(f"<li>{label} {escape(item.detail)}</li>")
    return f"<p>{escape(lead)}</p><ul>{''.join(lines)}</ul>"


def external_link(path: Path, text: str) -> str:
    """A link to a film that the page has no room for, seen from where the page lies."""
    return f'<p><a href="../{ANIMATION_FOLDER}/{escape(path.name)}">{escape(text)}</a></p>'
