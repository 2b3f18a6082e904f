"""Displays of maps in two parts: motion and static part of a map, and static and dynamic leg of a path."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vtcav_jax import atomic
from vtcav_jax.attribution.integrated import StaticDynamicAttribution
from vtcav_jax.attribution.motion.selective_relevance import SelectiveRelevance
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.data.encode import write_animation
from vtcav_jax.report.animation.motion_parts import part_panels, render_motion_parts
from vtcav_jax.report.animation.overlay import Panel, overlay_maps, share_scale
from vtcav_jax.report.animation.save import MIN_SECONDS
from vtcav_jax.report.displays.attribution import PlottedMap, displayed_frames, film_pictures, plot_rows
from vtcav_jax.report.displays.result_view import ResultTable, ResultView
from vtcav_jax.report.figures.estimates import Estimate, estimate_figure
from vtcav_jax.report.figures.svg import Figure

MAX_PLOTTED_PAIRS = 2  # clips of a figure, with several rows each
NO_FRAMES_NOTE = "The maps are on grey because their frames are unknown."


@dataclass(frozen=True)
class ClipPartsRow:
    """Motion part of the map of one clip, compared with that of the clip frozen; NaN where a share is undefined.

    `excess` is `motion_share` minus `frozen_share`, `area` the share of the voxels in the motion part and `lift` the
    density of relevance there, relative to the whole map.
    """

    clip_index: int
    target: str
    method: str
    stage: str
    variant: str
    threshold_sd: float
    motion_share: float
    frozen_share: float
    excess: float
    area: float
    lift: float


@dataclass(frozen=True)
class PartsProfileRow:
    """Absolute relevance of the motion part and of the static part in one time step, as shares of the clip's map."""

    clip_index: int
    time_step: int
    n_time_steps: int
    motion_mass: float
    static_mass: float


@dataclass(frozen=True)
class LegsRow:
    """Scores along the path of one clip, sums of the maps of both legs, and what these miss of the score's rise."""

    clip_index: int
    baseline_score: float
    static_score: float
    score: float
    static_sum: float
    dynamic_sum: float
    static_gap: float
    dynamic_gap: float
    dynamic_share: float


def view_selective_relevance(result: SelectiveRelevance) -> ResultView:
    attribution = result.attribution
    text = f"clips with the map by {attribution.method} at {attribution.stage}, its motion part and its static part"
    return ResultView(
        heading=repr(result),
        notes=() if attribution.frames is not None else (NO_FRAMES_NOTE,),
        tables={"motion_parts": lambda: parts_table(result), "profile": lambda: parts_profile_table(result)},
        columns=("clip_index", "target", "method", "stage", "motion_share", "frozen_share", "excess", "area", "lift"),
        figures=lambda: [excess_figure(result)],
        plots={"maps": lambda: plot_parts(result)},
        pictures=lambda: film_pictures(len(attribution.map), lambda path, n: write_parts_film(path, result, n), text),
        writers={
            ".npz": lambda path: write_parts(path, result),
            ".webp": lambda path: write_parts_film(path, result, len(attribution.map)),
            ".mp4": lambda path: write_parts_film(path, result, len(attribution.map)),
        },
    )


def parts_table(result: SelectiveRelevance) -> ResultTable:
    split, attribution = result.clip_split, result.attribution
    names = attribution.target, attribution.method, attribution.stage, split.variant, split.threshold_sd
    columns = (split.motion_share, result.frozen_split.motion_share, result.excess, split.area, split.lift)
    rows = (ClipPartsRow(i, *names, *map(float, values)) for i, values in enumerate(zip(*columns)))
    return ResultTable.of_rows(ClipPartsRow, rows)


def parts_profile_table(result: SelectiveRelevance) -> ResultTable:
    split, rows = result.clip_split, []
    motion, static = (np.abs(part).sum((2, 3), dtype=np.float64) for part in (split.motion, split.static))
    total = (motion + static).sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        motion, static = motion / total, static / total
    for i, (motion_masses, static_masses) in enumerate(zip(motion.tolist(), static.tolist())):
        n_steps = len(motion_masses)
        masses = enumerate(zip(motion_masses, static_masses))
        rows += [PartsProfileRow(i, step, n_steps, *values) for step, values in masses]
    return ResultTable.of_rows(PartsProfileRow, rows)


def excess_figure(result: SelectiveRelevance) -> Figure:
    """Draw the excess of each clip's motion share over that of the clip frozen."""
    nan = float("nan")
    estimates = [Estimate(f"clip {i}", value, nan, nan, 1) for i, value in enumerate(result.excess.tolist())]
    title = f"{result.attribution.method} at {result.attribution.stage}: motion share"
    return estimate_figure("excess", title, "motion share minus that of the frozen clip", estimates)


def plot_parts(result: SelectiveRelevance) -> Any:
    """Return a figure with the map, motion part and static part of the first clips, with one scale for each clip."""
    attribution, rows = result.attribution, []
    for i, frames in enumerate(displayed_frames(attribution, MAX_PLOTTED_PAIRS)):
        panels = part_panels(result, i, attribution.map.shape[1])  # a frame per time step
        rows += [PlottedMap(f"clip {i}\n{panel.title.partition(':')[0]}", frames, panel) for panel in panels]
    target = f", {attribution.target}" if attribution.target else ""
    return plot_rows(f"{attribution.method} at {attribution.stage}{target}", rows)


def write_parts_film(path: Path, result: SelectiveRelevance, n_clips: int) -> None:
    """Write the first clips with their map and its parts, one below the other."""
    frames = displayed_frames(result.attribution, n_clips)
    _write_film(path, [render_motion_parts(clip, [result], i, "") for i, clip in enumerate(frames)])


def write_parts(path: Path, result: SelectiveRelevance) -> None:
    """Write the map, its parts, and the same of the frozen clip as NumPy arrays."""
    split, frozen, attribution = result.clip_split, result.frozen_split, result.attribution
    arrays = {"map": result.clip_change.maps, "motion": split.motion, "static": split.static}
    arrays |= {"frozen_map": result.frozen_change.maps, "frozen_motion": frozen.motion, "frozen_static": frozen.static}
    texts = dict(method=attribution.method, stage=attribution.stage, target=attribution.target, variant=split.variant)
    arrays |= {name: np.array(value) for name, value in texts.items()} | {"threshold_sd": np.array(split.threshold_sd)}
    _write_arrays(path, arrays, attribution)


def view_static_dynamic(result: StaticDynamicAttribution) -> ResultView:
    share, low, high = result.temporal_share
    n_clips = len(result.score)
    return ResultView(
        heading=repr(result),
        notes=(
            "The static leg leads from the baseline to the frozen clip, the dynamic leg on to the clip.",
            *([] if result.static.frames is not None else [NO_FRAMES_NOTE]),
        ),
        tables={"legs": lambda: legs_table(result)},
        figures=lambda: [
            estimate_figure(
                "dynamic_share",
                "share of the dynamic leg",
                "share of the rise over the baseline",
                [Estimate("all clips", share, low, high, n_clips)],
            )
        ],
        plots={"maps": lambda: plot_legs(result)},
        pictures=lambda: film_pictures(
            n_clips, lambda path, n: write_legs_film(path, result, n), "clips with the maps of the two legs"
        ),
        writers={
            ".npz": lambda path: write_legs(path, result),
            ".webp": lambda path: write_legs_film(path, result, n_clips),
            ".mp4": lambda path: write_legs_film(path, result, n_clips),
        },
    )


def legs_table(result: StaticDynamicAttribution) -> ResultTable:
    static_rise, rise = result.static_score - result.baseline_score, result.score - result.baseline_score
    sums = [leg.map.sum((1, 2, 3), dtype=np.float64) for leg in (result.static, result.dynamic)]
    gaps = (static_rise - sums[0], result.score - result.static_score - sums[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (result.score - result.static_score) / rise
    columns = (result.baseline_score, result.static_score, result.score, *sums, *gaps, share)
    rows = (LegsRow(i, *map(float, values)) for i, values in enumerate(zip(*columns)))
    return ResultTable.of_rows(LegsRow, rows)


def leg_panels(result: StaticDynamicAttribution, clip: int, n_frames: int) -> list[Panel]:
    """Return the maps of both legs of a clip, with a common scale."""
    panels = []
    for name, leg in (("static leg", result.static), ("dynamic leg", result.dynamic)):
        values = leg.map[clip]
        positions = (np.arange(len(values)) + 0.5) * n_frames / len(values) - 0.5
        panels.append(Panel(name, values, positions, leg.signed))
    return share_scale(panels)


def plot_legs(result: StaticDynamicAttribution) -> Any:
    """Return a figure with the maps of both legs of the first clips, with one scale for each clip."""
    rows = []
    for i, frames in enumerate(displayed_frames(result.static, MAX_PLOTTED_PAIRS)):
        panels = leg_panels(result, i, result.static.map.shape[1])
        rows += [PlottedMap(f"clip {i}\n{panel.title}", frames, panel) for panel in panels]
    return plot_rows("integrated gradients, static and dynamic leg", rows)


def write_legs_film(path: Path, result: StaticDynamicAttribution, n_clips: int) -> None:
    """Write the first clips with the maps of both legs, one below the other."""
    frames = displayed_frames(result.static, n_clips)
    _write_film(path, [overlay_maps(clip, leg_panels(result, i, len(clip)), "") for i, clip in enumerate(frames)])


def write_legs(path: Path, result: StaticDynamicAttribution) -> None:
    """Write the maps of both legs and the scores as NumPy arrays."""
    arrays = {"static": result.static.map, "dynamic": result.dynamic.map}
    arrays |= {name: getattr(result, name) for name in ("baseline_score", "static_score", "score")}
    _write_arrays(path, arrays, result.static)


def _write_film(path: Path, films: list[UInt8[np.ndarray, "t h w 3"]]) -> None:
    write_animation(path, np.concatenate(films, axis=1), max(len(films[0]) / MIN_SECONDS, 1.0))


def _write_arrays(path: Path, arrays: dict[str, np.ndarray], attribution: Attribution) -> None:
    if attribution.frames is not None:
        arrays |= {"frames": attribution.frames}
    with atomic.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
