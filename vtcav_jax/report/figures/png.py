"""A figure as pixels, for what does not read SVG: the same elements in the same style sheet, drawn by Pillow.

Only what `drawing` writes is understood: straight paths, rectangles, circles, texts, links, groups that are
moved and turned. Letters are the machine's own, as in a browser.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vtcav_jax import atomic
from vtcav_jax.report.figures.svg import FIGURE_CSS, THEME_CSS, Figure

SCALE = 3  # pixels of a figure's unit
FINER = 2  # drawn so much larger, then made smaller: edges are smooth
FONTS = {
    "400": ("LiberationSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc", "DejaVuSans.ttf"),
    "600": ("LiberationSans-Bold.ttf", "Arial Bold.ttf", "arialbd.ttf", "Helvetica.ttc", "DejaVuSans-Bold.ttf"),
}
SIZE = 12


def possible() -> bool:
    """Whether Pillow is there."""
    return find_spec("PIL") is not None


def write_png(figure: Figure, folder: Path) -> Path:
    """The figure by itself, light, `SCALE` pixels a unit."""
    if not possible():
        raise ValueError("drawing a figure as PNG needs Pillow; pip install 'vtcav-jax[png]'")
    path = folder / f"{figure.name}.png"
    dots = round(96 * SCALE)  # of an inch, as large as the SVG
    with atomic.replacing(path) as temporary:
        _picture(figure).save(temporary, format="png", dpi=(dots, dots), optimize=True)
    return path


@dataclass(frozen=True)
class Frame:
    """Where a group's origin is, and by how many degrees it is turned clockwise."""

    x: float = 0.0
    y: float = 0.0
    turned: float = 0.0


def _picture(figure: Figure) -> Any:
    from PIL import Image, ImageDraw

    k = SCALE * FINER
    picture = Image.new("RGB", (figure.width * k, figure.height * k), _colours()["paper"])
    pen = ImageDraw.Draw(picture, "RGBA")
    for element in ElementTree.fromstring(f"<svg>{''.join(figure.elements)}</svg>"):
        _draw(element, Frame(), pen, picture)
    return picture.resize((figure.width * SCALE, figure.height * SCALE), Image.Resampling.BOX)


def _draw(element: Any, frame: Frame, pen: Any, picture: Any) -> None:
    k, style = SCALE * FINER, _style(frozenset(element.get("class", "").split()))
    fill, stroke = (_colour(style.get(name, "none")) for name in ("fill", "stroke"))
    if fill is not None:
        opacity = float(element.get("fill-opacity", style.get("fill-opacity", 1)))
        fill = (*fill, round(255 * opacity))
    width = float(element.get("stroke-width", style.get("stroke-width", 1))) * k
    if element.tag == "g":
        x, y, turned = map(float, re.findall(r"-?[\d.]+", element.get("transform", "")))
        for inner in element:
            _draw(inner, Frame(x, y, turned), pen, picture)
    elif element.tag == "a":
        for inner in element:
            _draw(inner, frame, pen, picture)
    elif element.tag == "path":
        numbers = [k * float(n) for n in re.findall(r"-?[\d.]+", element.get("d", ""))]
        points = list(zip(numbers[::2], numbers[1::2]))
        if fill is not None and len(points) > 2:
            pen.polygon(points, fill=fill)
        if stroke is not None:
            _line(pen, points, stroke, width, [k * float(n) for n in style.get("stroke-dasharray", "").split()])
    elif element.tag == "rect":
        x, y, w, h = (k * float(element.get(name, 0)) for name in ("x", "y", "width", "height"))
        if w >= 1 and h >= 1:
            pen.rectangle((x, y, x + w - 1, y + h - 1), fill=fill)
    elif element.tag == "circle":
        x, y, r = (k * float(element.get(name, 0)) for name in ("cx", "cy", "r"))
        for radius, colour in ((r + width / 2, stroke), (r - width / 2, fill)):
            if colour is not None:
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif element.tag == "text":
        at = k * (frame.x + float(element.get("x", 0))), k * (frame.y + float(element.get("y", 0)))
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[element.get("text-anchor", "start")]
        halo = (stroke, round(width / 2)) if "paint-order" in style else None
        _text(picture, pen, at, element.text or "", anchor, fill, style.get("font-weight", "400"), frame.turned, halo)


def _line(pen: Any, points: list, colour: Any, width: float, dashes: list[float]) -> None:
    """Without round ends, joined round; dashes only along a single stroke."""
    if not dashes:
        pen.line(points, fill=colour, width=round(width), joint="curve")
        return
    (x1, y1), (x2, y2) = points
    length, at = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5, 0.0
    while at < length:
        end = min(at + dashes[0], length)
        along = [(x1 + (x2 - x1) * s / length, y1 + (y2 - y1) * s / length) for s in (at, end)]
        pen.line(along, fill=colour, width=round(width))
        at += sum(dashes)


def _text(
    picture: Any,
    pen: Any,
    at: tuple,
    text: str,
    anchor: str,
    colour: Any,
    weight: str,
    turned: float,
    halo: tuple[Any, int] | None,
) -> None:
    from PIL import Image, ImageDraw

    font = _font(weight)
    if not turned:
        around, width = halo or (None, 0)
        pen.text(at, text, fill=colour, font=font, anchor=anchor, stroke_width=width, stroke_fill=around)
        return
    reach = int(font.getlength(text)) + 2 * SIZE * SCALE * FINER
    ink = Image.new("L", (2 * reach, 2 * reach))
    ImageDraw.Draw(ink).text((reach, reach), text, fill=255, font=font, anchor=anchor)
    ink = ink.rotate(-turned, Image.Resampling.BICUBIC)
    picture.paste(colour[:3], (round(at[0]) - reach, round(at[1]) - reach), ink)


@cache
def _font(weight: str) -> Any:
    """The first that the machine has, or the one that comes with Pillow."""
    from PIL import ImageFont

    size = SIZE * SCALE * FINER
    for name in FONTS[weight]:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


@cache
def _colours() -> dict[str, tuple[int, int, int]]:
    """Of the light style, which comes first."""
    light = THEME_CSS.partition("@media")[0]
    found = re.findall(r"--(\w+): #(\w+)", light)
    full = {name: value if len(value) == 6 else "".join(2 * c for c in value) for name, value in found}
    return {name: (int(v[:2], 16), int(v[2:4], 16), int(v[4:], 16)) for name, v in full.items()}


def _colour(value: str) -> tuple[int, ...] | None:
    return None if value == "none" else _colours()[value.removeprefix("var(--").removesuffix(")")]


@cache
def _style(classes: frozenset[str]) -> dict[str, str]:
    """What the style sheet says of an element: of the rules that fit, those win that name more classes, then later
    ones."""
    rules = []
    for selectors, told in re.findall(r"([^{}]+)\{([^}]*)\}", FIGURE_CSS):
        for selector in selectors.split(","):
            named = set(selector.replace(".", " ").split()) - {"fig"}
            if named <= classes:
                rules.append((len(named), dict(re.findall(r"([\w-]+): ([^;]+?)\s*(?:;|$)", told))))
    out: dict[str, str] = {}
    for _, told in sorted(rules, key=lambda rule: rule[0]):
        out |= told
    return out
