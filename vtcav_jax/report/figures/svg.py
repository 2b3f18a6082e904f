"""SVG figures whose colours are CSS classes, so that the style of a page selects the light or dark theme.

Figures are accessible: screen readers read `label`, and marks have their numbers as titles.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import escape

from vtcav_jax.assets import read_asset
from vtcav_jax.atomic import write_text
from vtcav_jax.report.text_width import LINE_HEIGHT, wrap_text

# Distinguishable with colour vision deficiency, on light and dark backgrounds
THEME_CSS = read_asset("vtcav_jax.report", "theme.css")
FIGURE_CSS = read_asset("vtcav_jax.report", "figure.css")


Number = int | float
MARGIN = 8  # pixels, on both sides of a figure


@dataclass(frozen=True)
class Figure:
    """SVG elements with the size, the file name and a one-sentence description."""

    name: str
    label: str
    width: int
    height: int
    elements: tuple[str, ...]

    @property
    def role(self) -> str:
        """ARIA role: an image, or a group if the figure has links."""
        return "group" if any(element.startswith("<a ") for element in self.elements) else "img"

    @property
    def svg(self) -> str:
        """SVG without a style, for a page."""
        return self._render("")

    @property
    def styled_svg(self) -> str:
        """SVG with its style, for a file of its own."""
        return self._render(
            f"<style>{THEME_CSS}{FIGURE_CSS}</style>" + '<rect width="100%" height="100%" class="paper"/>'
        )

    def write_svg(self, folder: Path) -> Path:
        """Write the figure with its style as a stand-alone file; return its path."""
        path = folder / f"{self.name}.svg"
        write_text(path, self.styled_svg + "\n")
        return path

    def _render(self, prefix: str) -> str:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="fig" viewBox="0 0 {self.width} {self.height}"'
            f' width="{self.width}" height="{self.height}" role="{self.role}" aria-label="{escape(self.label)}">'
            f"{prefix}{''.join(self.elements)}</svg>"
        )


@dataclass
class Canvas:
    """SVG elements in drawing order, in pixels."""

    width: int
    height: int
    elements: list[str] = field(default_factory=list)
    title_lines: list[str] = field(default_factory=list)
    subtitle_lines: list[str] = field(default_factory=list)

    def heading(self, title: str, subtitle: str = "") -> None:
        """Write the title in the first 22 pixels, and the subtitle in the next 16.

        Further lines of both move down everything else.
        """
        most = self.width - 2 * MARGIN
        self.title_lines = wrap_text(title, most, bold=True)
        self.subtitle_lines = wrap_text(subtitle, most) if subtitle else []

    def line(
        self, x1: Number, y1: Number, x2: Number, y2: Number, css_class: str, title: str = "", width: Number = 0
    ) -> None:
        """Draw a line; a width of 0 is that of the CSS class."""
        self.path([(x1, y1), (x2, y2)], css_class, title, width)

    @contextmanager
    def link(self, anchor: str, css_class: str) -> Iterator[None]:
        """Link everything drawn in the context to an anchor of the page."""
        self.elements.append(f'<a href="#{escape(anchor)}" class="{css_class}">')
        yield
        self.elements.append("</a>")

    def path(
        self,
        points: Sequence[tuple[Number, Number]],
        css_class: str,
        title: str = "",
        width: Number = 0,
        *,
        closed: bool = False,
    ) -> None:
        """Draw straight lines from point to point; a width of 0 is that of the CSS class."""
        coordinates = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        title_element = f"<title>{escape(title)}</title>" if title else ""
        width_attribute = f' stroke-width="{width:.1f}"' if width else ""
        self.elements.append(
            f'<path d="M{coordinates}{"Z" if closed else ""}" class="{css_class}"{width_attribute}>'
            f"{title_element}</path>"
        )

    def rect(
        self, x: Number, y: Number, w: Number, h: Number, css_class: str, title: str = "", opacity: Number = 1
    ) -> None:
        title_element = f"<title>{escape(title)}</title>" if title else ""
        opacity_attribute = "" if opacity == 1 else f' fill-opacity="{opacity:.2f}"'
        self.elements.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 0):.1f}" height="{max(h, 0):.1f}" class="{css_class}"'
            f"{opacity_attribute}>"
            f"{title_element}</rect>"
        )

    def dot(self, x: Number, y: Number, css_class: str, title: str, r: Number = 4.5) -> None:
        self.elements.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" class="dot thin {css_class}">'
            f"<title>{escape(title)}</title></circle>"
        )

    def cross(self, x: Number, y: Number, css_class: str, title: str, r: Number = 4) -> None:
        left, right, top, bottom = (f"{edge:.1f}" for edge in (x - r, x + r, y - r, y + r))
        self.elements.append(
            f'<path d="M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}" class="cross {css_class}">'
            f"<title>{escape(title)}</title></path>"
        )

    def text(self, x: Number, y: Number, text: str, css_class: str = "", anchor: str = "start") -> None:
        """Draw one line; `wrap_text` returns those of a longer text."""
        self.elements.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{css_class}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def figure(self, name: str, label: str) -> Figure:
        """Return the figure, with the headings above everything that was drawn."""
        header = Canvas(self.width, 0)
        for i, line in enumerate(self.title_lines):
            header.text(MARGIN, 16 + LINE_HEIGHT * i, line, "title")
        further = max(len(self.title_lines) - 1, 0) * LINE_HEIGHT
        for i, line in enumerate(self.subtitle_lines):
            header.text(MARGIN, 32 + further + LINE_HEIGHT * i, line, "soft")
        further += max(len(self.subtitle_lines) - 1, 0) * LINE_HEIGHT
        drawn = [f'<g transform="translate(0.0 {further:.1f}) rotate(0)">', *self.elements, "</g>"] if further else []
        elements = (*header.elements, *(drawn or self.elements))
        return Figure(name, label, math.ceil(self.width), math.ceil(self.height) + further, elements)


@dataclass(frozen=True)
class Scale:
    """Linear map from numbers to pixels."""

    low: Number
    high: Number
    start: Number
    end: Number

    def __call__(self, value: Number) -> Number:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        return round_ticks(self.low, self.high)


def fit_scale(values: Sequence[Number], start: Number, end: Number, *, include: Number | None = 0.0) -> Scale:
    """Return a scale that covers all finite values and `include`, with a margin."""
    finite = [value for value in values if math.isfinite(value)] + ([] if include is None else [include])
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.5
    return Scale(low - room, high + room, start, end)


def round_ticks(low: Number, high: Number, count: int = 4) -> list[float]:
    """Return about `count` round numbers between `low` and `high`."""
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= count + 1)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def format_tick(value: Number) -> str:
    return f"{value:.10g}".replace("-", "−")
