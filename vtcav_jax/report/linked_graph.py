"""Graph whose marks link to panels of the page; CSS alone displays the selected panel, initially the first.

In print only that panel is visible; a table of the page has the numbers of all panels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import escape

from vtcav_jax.assets import read_asset
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.html import scrolling_figure
from vtcav_jax.runs.directory import ANIMATION_FOLDER

LINKED_GRAPH_CSS = read_asset("vtcav_jax.report", "linked_graph.css")
ACTIVE_MARK_CSS = "stroke: var(--two);"


@dataclass(frozen=True)
class LinkedPanel:
    """Panel of one mark; `html` must be escaped."""

    node: int
    title: str
    html: str


@dataclass(frozen=True)
class LinkItem:
    """Entry of a list; links to another panel if `link_to` is set."""

    name: str
    detail: str
    link_to: int | None = None


def linked_panels(graph: Figure, prefix: str, panels: Sequence[LinkedPanel]) -> str:
    """Return the graph and its panels; anchors are `prefix` + node number.

    Graph elements of class `n<number>` are the mark of a node, those of class `e<number>` its edges.
    """
    first = panels[0].node
    rules = [_active_mark_rules(f"#{prefix}:has(#{prefix}{panel.node}:target)", panel.node) for panel in panels]
    rules.append(_active_mark_rules(f"#{prefix}:not(:has(.part:target))", first))
    articles = "".join(
        f'<article class="part{" first" if panel.node == first else ""}" id="{prefix}{panel.node}">'
        f'<h4>{escape(panel.title)} <a class="back" href="#{prefix}">back to the graph</a></h4>{panel.html}</article>'
        for panel in panels
    )
    return (
        f'<style>{LINKED_GRAPH_CSS}{"".join(rules)}</style><div class="chosen" id="{prefix}">'
        f"{scrolling_figure(graph)}<div>{articles}</div></div>"
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
    """Return a link to an animation that is not embedded, relative to the page."""
    return f'<p><a href="../{ANIMATION_FOLDER}/{escape(path.name)}">{escape(text)}</a></p>'
