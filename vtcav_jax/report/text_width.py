"""Widths of texts in figures, and their lines: names in figures are always complete.

Figures have no font of their own. Widths are those of DejaVu Sans, which is wider than the fonts of most systems.
"""

import unicodedata

from vtcav_jax.report.line_breaks import break_lines

FONT_SIZE, LINE_HEIGHT = 12, 14  # pixels
# Widths of the characters from space to ~, in thousandths of the size of the font
ASCII_WIDTHS = (
    *(318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636),
    *(636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656),
    *(557, 863, 748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613),
    *(635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818),
    *(592, 592, 525, 636, 337, 636, 838),
)
OTHER_WIDTH, WIDE_WIDTH = 700, 1000  # of other characters, and of those that East Asian typography calls wide
BOLD_FACTOR = 1.15


def text_width(text: str, *, bold: bool = False) -> float:
    """Return the width of one line in pixels; most fonts are narrower."""
    return sum(map(_WIDTHS.__getitem__, text)) * FONT_SIZE / 1000 * (BOLD_FACTOR if bold else 1)


class _CharacterWidths(dict[str, int]):
    """Widths of characters, in thousandths of the size of the font."""

    def __missing__(self, character: str) -> int:
        return WIDE_WIDTH if unicodedata.east_asian_width(character) in "WF" else OTHER_WIDTH


_WIDTHS = _CharacterWidths({chr(32 + i): width for i, width in enumerate(ASCII_WIDTHS)})


def wrap_text(text: str, most: int | float, *, bold: bool = False) -> list[str]:
    """Return the lines of a text, at most `most` pixels wide each."""
    return break_lines(text, most, lambda line: text_width(line, bold=bold))
