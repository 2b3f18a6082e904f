"""Breaking of texts into lines of a given width, without leaving anything out: names can differ in any part."""

import re
from bisect import bisect_right
from collections.abc import Callable

BREAKS = re.compile(r"[^ :./_@|,#\-]*[ :./_@|,#\-]*")  # pieces of a text, each with the signs that end it


def break_lines(text: str, most: int | float, measure: Callable[[str], int | float]) -> list[str]:
    """Return the lines of a text that are at most `most` wide, where `measure` returns the width of a text.

    Lines end at spaces, after the signs that join parts of names, or, in a word wider than a line, anywhere. A newline
    ends a line; other runs of white space become one space.
    """
    return [line for part in text.split("\n") for line in _break_line(" ".join(part.split()), most, measure)]


def _break_line(text: str, most: int | float, measure: Callable[[str], int | float]) -> list[str]:
    lines, line = [], ""
    for piece in BREAKS.findall(text):
        if measure(line + piece.rstrip()) <= most:
            line += piece
            continue
        lines += [line.rstrip()] if line else []
        line = piece
        limit = int(most) + 1  # characters; no letter is narrower than a pixel
        while len(line) > 1 and (len(line) > limit or measure(line.rstrip()) > most):  # a word wider than a line
            fitting = bisect_right(range(1, min(len(line), limit + 1)), most, key=lambda n: measure(line[:n]))
            lines.append(line[: max(fitting, 1)])
            line = line[max(fitting, 1) :]
    return [*lines, line.rstrip()] if line or not lines else lines
