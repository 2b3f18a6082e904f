"""A figure as pixels, for programs that do not read SVG: rendered by resvg from the same elements and stylesheet."""

import io
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from vtcav_jax import atomic
from vtcav_jax.report.figures.svg import FIGURE_CSS, THEME_CSS, Figure
from vtcav_jax.report.fonts import font_file

SCALE = 3  # pixels per unit of a figure
CSS_DPI = 96  # units per inch, by the definition of CSS
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")


def possible() -> bool:
    """Whether resvg and Pillow are installed."""
    return all(find_spec(name) is not None for name in ("resvg_py", "PIL"))


def write_png(figure: Figure, folder: Path) -> Path:
    """The figure by itself in its light colours, `SCALE` pixels per unit."""
    if not possible():
        raise ValueError("drawing a figure as PNG needs resvg and Pillow; pip install resvg-py pillow")
    import resvg_py
    from PIL import Image

    rendered = resvg_py.svg_to_bytes(
        svg_string=figure.svg,
        style_sheet=_light_stylesheet(),
        background=_light_colours()["paper"],
        zoom=SCALE,
        skip_system_fonts=True,  # the same picture on every machine
        font_files=[font_file(name) for name in FONTS],
        font_family="DejaVu Sans",
        sans_serif_family="DejaVu Sans",
    )
    path = folder / f"{figure.name}.png"
    dpi = CSS_DPI * SCALE  # so that it prints as large as the SVG
    with atomic.replacing(path) as temporary, Image.open(io.BytesIO(rendered)) as picture:
        picture.convert("RGB").save(temporary, format="png", dpi=(dpi, dpi), optimize=True)
    return path


@cache
def _light_colours() -> dict[str, str]:
    """The variables of the light theme, which the stylesheet sets before any media query."""
    return dict(re.findall(r"--(\w+): (#\w+)", THEME_CSS.partition("@media")[0]))


@cache
def _light_stylesheet() -> str:
    """The figures' rules with the values of their variables, which resvg does not resolve."""
    return re.sub(r"var\(--(\w+)\)", lambda match: _light_colours()[match[1]], FIGURE_CSS)
