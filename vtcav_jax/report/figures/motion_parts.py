"""Figure of selective relevance: shares of maps and their agreement with moving pixels, by threshold."""

import math
from collections.abc import Sequence

from vtcav_jax.names import count_noun
from vtcav_jax.report.figures.motion import format_share
from vtcav_jax.report.figures.svg import Canvas, Figure, Scale, format_tick
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, slug
from vtcav_jax.runs.attribution_rows import MotionMapMeanRow

SHARE_CURVES = {
    "motion_share": ("two", "motion part: share of the map"),
    "frozen_share": ("one", "the same in the map of the frozen clip"),
    "area": ("faint", "motion part: share of the voxels"),
}
FLOW_CURVES = {
    "flow_precision": ("two", "motion part: share of its cells on moving pixels"),
    "flow_precision_map": ("one", "as many of the map's strongest cells"),
    "flow_precision_smoothed": ("four", "as many of the smoothed map's strongest cells"),
    "flow_precision_difference": ("three", "as many cells where frames differ most"),
    "flow_area": ("faint", "share of moving pixels in the clips"),
}
OFFSET = 0.03  # of the threshold axis, between the marks of two curves


def threshold_figures(rows: Sequence[MotionMapMeanRow]) -> list[Figure]:
    """Draw the curves of one target, method and stage: shares of the map and, if available, shares on moving pixels."""
    first = rows[0]
    name = f"{first.target}: {first.method} at {first.stage}"
    figures = []
    for kind, curves in (("share", SHARE_CURVES), ("motion", FLOW_CURVES)):
        available = {measure: style for measure, style in curves.items() if any(row.measure == measure for row in rows)}
        if available:
            figures.append(_curves_figure(rows, name, kind, available))
    return figures


def _curves_figure(
    rows: Sequence[MotionMapMeanRow], name: str, kind: str, curves: dict[str, tuple[str, str]]
) -> Figure:
    top = 30 + 16 * len(curves)
    bottom, thresholds = top + 130, sorted({row.threshold_sd for row in rows})
    canvas = Canvas(FIGURE_WIDTH, bottom + 44)
    canvas.heading(f"{name}: {kind}")
    x = Scale(thresholds[0] - 0.2, thresholds[-1] + 0.2, 52, FIGURE_WIDTH - 8)
    y = Scale(0, 1, bottom, top)
    for share in (0, 0.25, 0.5, 0.75, 1):
        canvas.line(52, y(share), FIGURE_WIDTH - 8, y(share), "axis")
        canvas.text(46, y(share) + 4, f"{100 * share:.0f} %", "soft", "end")
    for threshold in thresholds:
        canvas.text(x(threshold), bottom + 16, format_tick(threshold), "soft", "middle")
    canvas.text(FIGURE_WIDTH - 8, bottom + 34, "threshold (standard deviations of the change)", "soft", "end")
    width = thresholds[-1] - thresholds[0]
    for i, (measure, (css_class, text)) in enumerate(curves.items()):
        canvas.dot(14, 28 + 16 * i, css_class, text)
        canvas.text(24, 32 + 16 * i, text, "soft")
        shift = OFFSET * width * (i - (len(curves) - 1) / 2) / len(curves)
        points = [row for row in rows if row.measure == measure and not math.isnan(row.mean)]
        if len(points) > 1:
            canvas.path([(x(row.threshold_sd + shift), y(row.mean)) for row in points], f"bar {css_class}")
        for row in points:
            at = x(row.threshold_sd + shift)
            if not math.isnan(row.low):
                canvas.line(at, y(row.low), at, y(row.high), f"thin {css_class}")
            estimate = format_share(row.mean, row.low, row.high)
            counts = f"{count_noun(row.n_clips, 'clip')} of {count_noun(row.n_videos, 'video')}"
            title = f"{text}: {estimate}, {counts}, {row.threshold_sd:g} SD"
            canvas.dot(at, y(row.mean), css_class, title, 3)
    return canvas.figure(slug("motion_parts", kind, name), f"{name}: motion part by threshold, {kind}")
