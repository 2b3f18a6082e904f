"""Where the texts and lines of an SVG figure are, so that tests can find what overlaps, and what is outside of it."""

import re
from dataclasses import dataclass
from itertools import combinations
from xml.etree import ElementTree

import numpy as np

from vtcav_jax.report.figures.matplotlib_figure import MOVE
from vtcav_jax.report.text_width import text_width

ASCENT, DESCENT = 8.5, 2.5  # pixels above and below the baseline that letters take


@dataclass(frozen=True)
class DrawnText:
    """A line of text, its CSS classes and the corners of its box."""

    text: str
    classes: frozenset[str]
    corners: np.ndarray


@dataclass(frozen=True)
class DrawnLine:
    """Points of a line, its CSS classes and its width."""

    points: np.ndarray
    classes: frozenset[str]
    width: float


def drawn_parts(figure):
    """Return the texts and the lines of a figure."""
    texts, lines = [], []

    def visit(group, turn, shift):
        for element in group:
            classes = frozenset(element.get("class", "").split())
            if element.tag in ("g", "a"):
                inner_turn, inner_shift = turn, shift
                if match := MOVE.fullmatch(element.get("transform", "")):
                    x, y, degrees = map(float, match.groups())
                    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
                    inner_turn, inner_shift = turn @ np.array([[c, -s], [s, c]]), turn @ np.array([x, y]) + shift
                visit(element, inner_turn, inner_shift)
            elif element.tag == "text":
                text = element.text or ""
                width = text_width(text, bold="title" in classes)
                x, y = float(element.get("x", 0)), float(element.get("y", 0))
                x -= {"middle": width / 2, "end": width}.get(element.get("text-anchor", ""), 0.0)
                box = [
                    (x, y - ASCENT),
                    (x + width, y - ASCENT),
                    (x + width, y + DESCENT),
                    (x, y + DESCENT),
                ]
                texts.append(DrawnText(text, classes, np.array(box) @ turn.T + shift))
            elif element.tag == "path":
                points = [
                    tuple(map(float, pair)) for pair in re.findall(r"(-?[\d.]+) (-?[\d.]+)", element.get("d", ""))
                ]
                width = float(element.get("stroke-width", 1.5))
                lines.append(DrawnLine(np.array(points) @ turn.T + shift, classes, width))

    visit(ElementTree.fromstring(f"<g>{''.join(figure.elements)}</g>"), np.eye(2), np.zeros(2))
    return texts, lines


def overlapping(a, b):
    """Return whether two convex polygons overlap, by the separating axis theorem."""
    for corners in (a, b):
        for start, end in zip(corners, np.roll(corners, -1, 0)):
            normal = np.array([start[1] - end[1], end[0] - start[0]])
            if not np.any(normal):
                continue
            in_a, in_b = a @ normal, b @ normal
            if in_a.max() <= in_b.min() or in_b.max() <= in_a.min():
                return False
    return True


def overlapping_texts(figure):
    """Return the pairs of texts that are drawn over each other."""
    texts, _ = drawn_parts(figure)
    return [(a.text, b.text) for a, b in combinations(texts, 2) if overlapping(a.corners, b.corners)]


def texts_outside(figure):
    """Return the texts that are not completely inside the figure."""
    texts, _ = drawn_parts(figure)
    size = np.array([figure.width, figure.height])
    return [t.text for t in texts if (t.corners < 0).any() or (t.corners > size).any()]


def crossed_texts(figure, css_class):
    """Return the texts that a line of this class crosses, as often as it does."""
    texts, lines = drawn_parts(figure)
    crossed = []
    for line in lines:
        if css_class not in line.classes:
            continue
        for start, end in zip(line.points, line.points[1:]):
            along = end - start
            if not np.any(along):
                continue
            side = np.array([-along[1], along[0]]) / np.linalg.norm(along) * line.width / 2
            strip = np.array([start + side, end + side, end - side, start - side])
            crossed += [t.text for t in texts if overlapping(strip, t.corners)]
    return crossed


def written(figure):
    """Return all texts of a figure joined, without white space, in which names of several lines are complete."""
    return "".join("".join(text.text.split()) for text in drawn_parts(figure)[0])
