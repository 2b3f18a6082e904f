"""PNG versions of figures, rendered by resvg from the same elements and stylesheet."""

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
    """Return whether resvg and Pillow are installed."""
    return all(find_spec(name) is not None for name in ("resvg_py", "PIL"))


def write_png(figure: Figure, folder: Path) -> Path:
    """Write the figure in the light theme, `SCALE` pixels per unit; return its path."""
    if not possible():
        raise ValueError("drawing a figure as PNG needs resvg and Pillow; pip install resvg-py pillow")
    import resvg_py
    from PIL import Image

    rendered = resvg_py.svg_to_bytes(
        svg_string=figure.svg,
        style_sheet=_light_stylesheet(),
        background=light_colours()["paper"],
        zoom=SCALE,
        skip_system_fonts=True,  # identical on every machine
        font_files=[font_file(name) for name in FONTS],
        font_family="DejaVu Sans",
        sans_serif_family="DejaVu Sans",
    )
    path = folder / f"{figure.name}.png"
    dpi = CSS_DPI * SCALE  # prints at the size of the SVG
    with atomic.replacing(path) as temporary, Image.open(io.BytesIO(rendered)) as picture:
        picture.convert("RGB").save(temporary, format="png", dpi=(dpi, dpi), optimize=True)
    return path


@cache
def light_colours() -> dict[str, str]:
    """Return the variables of the light theme, which precede any media query in the stylesheet."""
    return dict(re.findall(r"--(\w+): (#\w+)", THEME_CSS.partition("@media")[0]))


@cache
def _light_stylesheet() -> str:
    """Return the stylesheet of figures with its variables replaced by values, because resvg does not resolve them."""
    return re.sub(r"var\(--(\w+)\)", lambda match: light_colours()[match[1]], FIGURE_CSS)
