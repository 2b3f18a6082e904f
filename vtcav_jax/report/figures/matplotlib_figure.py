"""Figures of the pages as matplotlib Figures, drawn from the same elements in the colours of the light theme.

Only what `Canvas` draws is known: paths of straight lines, rectangles, circles, text, and groups that move and turn.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.etree import ElementTree

from vtcav_jax.report.figures.png import CSS_DPI, light_colours
from vtcav_jax.report.figures.svg import Figure

SERIES = ("one", "two", "three", "four", "faint")
LINE_WIDTHS = {"bar": 2.5, "cross": 2.0, "thin": 1.2, "halo": 3.0}
DASHES = {"zero": (3, 3), "unsure": (4, 3)}
UNFILLED = {"axis", "bar", "thin", "cross", "route"}
POINTS_PER_PIXEL = 72 / CSS_DPI
TEXT_POINTS = 12 * POINTS_PER_PIXEL
SCREEN_DPI = 120  # of the picture in a notebook
COMMAND = re.compile(r"([MLZ])([^MLZ]*)")
MOVE = re.compile(r"translate\(([-\d.]+) ([-\d.]+)\) rotate\(([-\d.]+)\)")


@dataclass(frozen=True)
class MarkStyle:
    """Colours and lines of an element, as the stylesheet has them for its classes; "none" is not drawn."""

    fill: str
    fill_opacity: float
    stroke: str
    line_width: float  # pixels
    dashes: tuple[int, int] | None


def mark_style(classes: set[str]) -> MarkStyle:
    """Return the style of the classes of a mark."""
    colours = light_colours()
    series = next((name for name in SERIES if name in classes), "")
    fill, opacity = "none" if classes & UNFILLED or (series and not classes & {"dot", "fill"}) else colours["ink"], 1.0
    if series and classes & {"dot", "fill"}:
        fill = colours[series]
    if {"faint", "dot"} <= classes:
        fill = colours["paper"]
    if {"faint", "fill"} <= classes:
        opacity = 0.55
    for name, variable in (("null", "null"), ("paper", "paper"), ("plus", "up"), ("minus", "down")):
        fill = colours[variable] if name in classes else fill
    stroke = colours[series] if series else "none"
    for name, variable in (("axis", "line"), ("zero", "soft"), ("ink", "ink")):
        stroke = colours[variable] if name in classes else stroke
    if "band" in classes:
        stroke, opacity = "none", 0.18
    width = next((value for name, value in LINE_WIDTHS.items() if name in classes), 1.0)
    return MarkStyle(fill, opacity, stroke, width, next((DASHES[name] for name in DASHES if name in classes), None))


def require_matplotlib() -> None:
    """Raise ValueError if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError("figures need matplotlib; pip install 'vtcav-jax[notebook]'") from error


@cache
def figure_class() -> Any:
    """Return a class of matplotlib Figures that notebooks display, also where pyplot was not imported."""
    require_matplotlib()
    import io

    from matplotlib.figure import Figure as MatplotlibFigure

    class PageFigure(MatplotlibFigure):
        """Figure in the style of the pages."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=SCREEN_DPI)
            return file.getvalue()

    return PageFigure


def draw_with_matplotlib(figure: Figure) -> Any:
    """Return the figure as a matplotlib Figure; its coordinates are the pixels of the SVG."""
    drawn = figure_class()(
        figsize=(figure.width / CSS_DPI, figure.height / CSS_DPI), facecolor=light_colours()["paper"]
    )
    axes = drawn.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, figure.width), ylim=(figure.height, 0))
    root = ElementTree.fromstring(f"<g>{''.join(figure.elements)}</g>")
    _draw_group(axes, root, _identity(), 0.0)
    return drawn


def _identity() -> Any:
    from matplotlib.transforms import Affine2D

    return Affine2D()


def _draw_group(axes: Any, group: ElementTree.Element, move: Any, angle: float) -> None:
    for order, element in enumerate(group):
        classes = set(element.get("class", "").split())
        if element.tag in ("g", "a"):
            inner, inner_angle = move, angle
            if match := MOVE.fullmatch(element.get("transform", "")):
                x, y, degrees = map(float, match.groups())
                inner, inner_angle = _identity().rotate_deg(degrees).translate(x, y) + move, angle + degrees
            _draw_group(axes, element, inner, inner_angle)
        elif element.tag == "text":
            _draw_text(axes, element, classes, move, angle)
        elif element.tag in ("path", "rect", "circle"):
            _draw_mark(axes, element, classes, move, order)
        else:
            raise ValueError(f"expected path, rect, circle, text or g in a figure, got {element.tag}")


def _draw_text(axes: Any, element: ElementTree.Element, classes: set[str], move: Any, angle: float) -> None:
    from matplotlib.patheffects import withStroke

    colours = light_colours()
    x, y = move.transform((_number(element, "x"), _number(element, "y")))
    text = axes.text(
        x,
        y,
        (element.text or "").replace("$", r"\$"),
        fontsize=TEXT_POINTS,
        color=colours["soft"] if "soft" in classes else colours["ink"],
        fontweight=700 if "title" in classes else 400,
        ha={"middle": "center", "end": "right"}.get(element.get("text-anchor", ""), "left"),
        va="baseline",
        rotation=-angle,
        rotation_mode="anchor",
        zorder=3,
    )
    if "halo" in classes:
        width = LINE_WIDTHS["halo"] * POINTS_PER_PIXEL
        text.set_path_effects([withStroke(linewidth=width, foreground=colours["paper"])])


def _draw_mark(axes: Any, element: ElementTree.Element, classes: set[str], move: Any, order: int) -> None:
    from matplotlib.patches import Circle, PathPatch, Rectangle

    style = mark_style(classes)
    if element.tag == "rect":
        corner = (_number(element, "x"), _number(element, "y"))
        patch = Rectangle(corner, _number(element, "width"), _number(element, "height"))
    elif element.tag == "circle":
        patch = Circle((_number(element, "cx"), _number(element, "cy")), _number(element, "r"))
    else:
        patch = PathPatch(_path(element.get("d", "")))
    is_line = element.tag == "path" and not classes & {"fill", "band"}
    opacity = float(element.get("fill-opacity", style.fill_opacity))
    width = float(element.get("stroke-width", style.line_width))
    patch.set(
        facecolor="none" if is_line or style.fill == "none" else (style.fill, opacity),
        edgecolor=style.stroke,
        linewidth=width * POINTS_PER_PIXEL,
        capstyle="butt",
        transform=move + axes.transData,
        zorder=1 + order * 1e-4,  # in the order of the elements, below text
    )
    if style.dashes:
        patch.set_linestyle((0, tuple(length / width for length in style.dashes)))
    axes.add_patch(patch)


def _path(text: str) -> Any:
    from matplotlib.path import Path

    points, codes = [], []
    for letter, numbers in COMMAND.findall(text):
        points.append(tuple(map(float, numbers.split())) if letter != "Z" else points[0])
        codes.append({"M": Path.MOVETO, "L": Path.LINETO, "Z": Path.CLOSEPOLY}[letter])
    return Path(points, codes)


def _number(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name, 0))
