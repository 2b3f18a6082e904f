"""Sentences about the motion parts of maps: shares, and whether they are more selective for motion than the maps."""

import math
from collections.abc import Mapping

from vtcav_jax.attribution.motion.summary import MIN_VERDICT_VIDEOS
from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import format_percent
from vtcav_jax.report.figures.motion import format_share
from vtcav_jax.runs.attribution_rows import ClipMotionRow, MotionMapMeanRow

VARIANT_TEXTS = {
    "absolute": "The motion part consists of the voxels whose value differs between the previous and the next time step"
    " (Sobel kernel) by more than {sd} of these differences in the clip.",
    "paper2020": "As published in 2020, the motion part consists of the voxels whose value falls from the previous to"
    " the next time step by more than {sd} of these differences; beyond the ends of the clip the map counts as 0.",
    "d_dtd": "The motion part is the difference between the map and, at each time step, the map of a clip that repeats"
    " this frame, wherever it exceeds {sd} of the difference in the clip; the static part is the rest."
    " Maps are in units of the score; shares of the map are of the absolute values of both parts, which may cancel.",
    "paper2019": "As published in 2019, the motion part is the difference between the map and, at each time step, the"
    " first step of the map of a clip that repeats this frame, each scaled to a maximum of 1, wherever it exceeds {sd}"
    " of the difference in the clip; the static part is the rest. Shares of the map are of the absolute values of both"
    " parts, which may cancel.",
}


def prediction_text(row: ClipMotionRow) -> str:
    """Return the predicted class of a clip with its probability; the explained class in runs that lack it."""
    if not row.prediction:
        return "" if row.answer == row.target else row.answer
    return row.prediction if math.isnan(row.probability) else f"{row.prediction} ({format_percent(row.probability)})"


def share_text(row: MotionMapMeanRow) -> str:
    return "undefined" if math.isnan(row.mean) else format_share(row.mean, row.low, row.high)


def points_text(row: MotionMapMeanRow) -> str:
    """Format a difference of two shares in percentage points, with its interval."""
    if math.isnan(row.mean):
        return "undefined"
    value, low, high = (
        "" if math.isnan(x) else f"{round(100 * x) + 0:+d}".replace("-", "−").replace("+0", "0")
        for x in (row.mean, row.low, row.high)
    )
    return value if math.isnan(row.low) else f"{value} ({low} to {high})"


def describe_parts(by_measure: Mapping[str, MotionMapMeanRow]) -> str:
    """Describe the motion part of the maps of one target and method."""
    share, frozen, area = (by_measure[name] for name in ("motion_share", "frozen_share", "area"))
    if math.isnan(share.mean):
        return "the maps are 0 everywhere."
    return (
        f"over {_clips(share)}, the motion part has {_with_ci(share)} of the absolute map, in"
        f" {format_percent(area.mean)} of the voxels; in the map of the frozen clip, the same threshold selects"
        f" {_plain(frozen)}."
    )


def describe_selectivity(by_measure: Mapping[str, MotionMapMeanRow]) -> str:
    """Say whether the motion part is more on moving pixels than the map; empty without moving pixels."""
    part, gain = by_measure.get("flow_precision"), by_measure.get("flow_precision_gain")
    if part is None or gain is None or math.isnan(part.mean):
        return ""
    strongest = _plain(by_measure["flow_precision_map"])
    numbers = (
        f"Of the cells of the motion part, {_with_ci(part)} are on moving pixels; of as many of the map's strongest"
        f" cells, {strongest}: a difference of {points_text(gain)} percentage points"
        f"{'' if gain.n_clips == part.n_clips else f' over {_clips(gain)}'}."
    )
    baselines = [
        f"{_plain(by_measure[name])} {text}"
        for name, text in (
            ("flow_precision_smoothed", "of as many of the strongest cells of the map smoothed over 3 x 3 places"),
            ("flow_precision_difference", "of as many cells where the frames differ most, without any network"),
            ("flow_area", "of all pixels"),
        )
        if name in by_measure
    ]
    verdict = _verdict(gain, by_measure["flow_precision_smoothed_gain"])
    return f"{numbers} {verdict} Also on moving pixels: {'; '.join(baselines)}."


def _verdict(gain: MotionMapMeanRow, smoothed_gain: MotionMapMeanRow) -> str:
    if gain.n_videos < MIN_VERDICT_VIDEOS or math.isnan(gain.low):
        return "Too few source videos for a conclusion about others."
    if gain.high < 0:
        return "At equal area, the motion part is less selective for motion than the map."
    if gain.low <= 0:
        return "At equal area, no difference in selectivity for motion is shown."
    if smoothed_gain.low > 0:
        return "At equal area, the motion part is more selective for motion than the map, smoothed or not."
    return (
        "At equal area, the motion part is more selective for motion than the map; that it is more selective than the"
        f" smoothed map is not shown ({points_text(smoothed_gain)} percentage points)."
    )


def _with_ci(row: MotionMapMeanRow) -> str:
    return share_text(row).replace("(", "(95 % CI ", 1)


def _plain(row: MotionMapMeanRow) -> str:
    return format_percent(row.mean)


def _clips(row: MotionMapMeanRow) -> str:
    return f"{count_noun(row.n_clips, 'clip')} of {count_noun(row.n_videos, 'source video')}"
