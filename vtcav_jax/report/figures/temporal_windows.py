"""Figure of temporal windows: the loss of score of every window of a clip, by its first and last frame."""

import math

from vtcav_jax.attribution.motion.temporal_masks import TemporalWindows
from vtcav_jax.report.effect_sizes import format_percent
from vtcav_jax.report.figures.svg import Canvas, Figure
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, slug

LEFT, TOP = 46, 56
MAX_OPACITY = 0.9
SHORTEST_SHARE = 0.9


def temporal_windows_figure(result: TemporalWindows, clip: int, title: str) -> Figure:
    """Draw a square for each window of one clip, the first frame downwards and the last to the right.

    The darker, the more of the loss of the whole clip the window causes; a frame marks the shortest window that causes
    at least 90 % of it.
    """
    starts, ends = (sorted(set(column.tolist())) for column in result.windows.T)
    size = (FIGURE_WIDTH - 8 - LEFT) / len(starts)
    canvas = Canvas(FIGURE_WIDTH, int(TOP + size * len(starts) + 42))
    canvas.heading(title, f"loss of score, window {result.edit} (whole clip: 100 %)")
    shortest = result.shortest(SHORTEST_SHARE)[clip]
    for (start, end), loss in zip(result.windows.tolist(), result.losses[clip].tolist()):
        x, y = LEFT + size * ends.index(end), TOP + size * starts.index(start)
        text = f"frames {start + 1} to {end}: {'undefined' if math.isnan(loss) else format_percent(loss)}"
        canvas.rect(x, y, size, size, "null", text)
        if not math.isnan(loss):
            opacity = MAX_OPACITY * min(abs(loss), 1)
            canvas.rect(x + 1, y + 1, size - 2, size - 2, "plus" if loss > 0 else "minus", text, opacity)
        if (start, end) == shortest:
            corners = [(x, y), (x + size, y), (x + size, y + size), (x, y + size)]
            canvas.path(corners, "bar one", closed=True)
    for position in sorted({0, len(starts) // 2, len(starts) - 1}):
        canvas.text(LEFT - 6, TOP + size * (position + 0.5) + 4, f"{starts[position] + 1}", "soft", "end")
        canvas.text(
            LEFT + size * (position + 0.5), TOP + size * len(starts) + 16, f"{ends[position]}", "soft", "middle"
        )
    canvas.text(LEFT, TOP - 8, "first frame of the window (down), last frame (right)", "soft")
    summary = (
        "the whole clip loses nothing" if shortest is None else f"shortest: frames {shortest[0] + 1} to {shortest[1]}"
    )
    canvas.text(LEFT, TOP + size * len(starts) + 34, summary, "soft")
    return canvas.figure(slug("temporal_windows", title, result.edit), f"{title}: loss of score by window of frames")
