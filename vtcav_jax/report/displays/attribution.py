"""Display of attribution maps: an animation over the first clips, a picture of all time steps, and their numbers."""

import base64
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import escape

from vtcav_jax import atomic
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.videos.map_store import half_mass_fraction, spatial_half_mass
from vtcav_jax.names import count_noun
from vtcav_jax.report.animation.overlay import Panel, blend_map
from vtcav_jax.report.animation.save import save_animation
from vtcav_jax.report.colormaps import DIVERGING, SEQUENTIAL
from vtcav_jax.report.displays.result_view import ResultTable, ResultView
from vtcav_jax.report.figures.matplotlib_figure import figure_class
from vtcav_jax.report.figures.png import light_colours

MAX_ANIMATED_CLIPS, MAX_PLOTTED_CLIPS, MAX_PLOTTED_STEPS = 2, 4, 8
MAX_ANIMATION_BYTES = 120_000  # base64 in the HTML adds a third
MIN_SIDE = 64  # pixels of a frame in a plot; smaller ones are enlarged by an integer factor
GREY_LEVEL = 160  # of the frames of clips that are unknown
CELL_INCHES = 1.1
COLUMNS = ("clip_index", "target", "method", "stage", "map_sum", "completeness_gap", "peak_step", "peak_share")


@dataclass(frozen=True)
class ClipMapRow:
    """Numbers of one clip's map; those that `MapRow` has as well are defined there.

    `peak_step` is the time step, from 0, with the largest sum of the absolute map.
    """

    clip_index: int
    target: str
    method: str
    stage: str
    signed: bool
    forward_passes: int
    map_sum: float
    completeness_gap: float
    peak_step: int
    peak_share: float
    temporal_half_mass: float
    spatial_half_mass: float
    sampling_noise: float


@dataclass(frozen=True)
class ClipProfileRow:
    """Share of the absolute map of one clip in one time step."""

    clip_index: int
    time_step: int
    n_time_steps: int
    mass: float


def view_attribution(result: Attribution) -> ResultView:
    notes = []
    if result.frames is None:
        notes.append("The maps are on grey because their frames are unknown; attribute(...) keeps uint8 frames.")
    if not can_encode():
        notes.append("Animations need PyAV and matplotlib; here are the numbers.")
    return ResultView(
        heading=repr(result),
        notes=tuple(notes),
        tables={"maps": lambda: attribution_table(result), "profile": lambda: profile_table(result)},
        columns=COLUMNS,
        plots={"maps": lambda: plot_maps(result), "profile": lambda: plot_profile(result)},
        pictures=lambda: animation_pictures(result),
        writers={
            ".npz": lambda path: write_arrays(path, result),
            ".webp": lambda path: _write_animation(path, result),
            ".mp4": lambda path: _write_animation(path, result),
        },
    )


def attribution_table(result: Attribution) -> ResultTable:
    gaps = np.full(len(result.map), math.nan) if result.completeness_gap is None else result.completeness_gap
    rows = []
    for i, values in enumerate(result.map):
        profile = np.abs(values).sum((1, 2), dtype=np.float64)
        peak = int(profile.argmax())
        rows.append(
            ClipMapRow(
                *(i, result.target, result.method, result.stage, result.signed, result.forward_passes),
                *(float(values.sum()), float(gaps[i]), peak),
                float(profile[peak] / profile.sum()) if profile.any() else math.nan,
                *(half_mass_fraction(profile), spatial_half_mass(values), float(result.sampling_noise[i])),
            )
        )
    return ResultTable.of_rows(ClipMapRow, rows)


def clip_profiles(result: Attribution) -> Float[np.ndarray, "b t"]:
    """Return the share of each time step in a clip's absolute map; NaN for a map that is 0 everywhere."""
    profiles = np.abs(result.map).sum((2, 3), dtype=np.float64)
    total = profiles.sum(1, keepdims=True)
    return np.divide(profiles, total, out=np.full_like(profiles, math.nan), where=total > 0)


def profile_table(result: Attribution) -> ResultTable:
    profiles = clip_profiles(result)
    rows = (
        ClipProfileRow(i, step, len(profile), float(mass))
        for i, profile in enumerate(profiles)
        for step, mass in enumerate(profile)
    )
    return ResultTable.of_rows(ClipProfileRow, rows)


def displayed_frames(result: Attribution, n_clips: int) -> UInt8[np.ndarray, "b t h w 3"]:
    """Return the frames of the first clips, or grey ones of the map's size."""
    if result.frames is not None:
        return result.frames[:n_clips]
    _, steps, h, w = result.map.shape
    scale = max(1, math.ceil(MIN_SIDE / min(h, w)))
    return np.full((min(n_clips, len(result.map)), steps, h * scale, w * scale, 3), GREY_LEVEL, np.uint8)


def animation_pictures(result: Attribution) -> list[str]:
    """Return an animation of the first clips as an HTML image, of fewer clips if it is large; none if impossible."""
    return film_pictures(
        len(result.map),
        lambda path, n: save_animation(path, displayed_frames(result, n), result[:n]),
        f"clips and maps by {result.method} at {result.stage}",
    )


def film_pictures(n_clips: int, write: Callable[[Path, int], object], caption: str) -> list[str]:
    """Return what `write` writes for the first clips as an HTML image, of fewer clips if it is large."""
    if not can_encode() or not n_clips:
        return []
    for n in range(min(MAX_ANIMATED_CLIPS, n_clips), 0, -1):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "maps.webp"
            write(path, n)
            data = path.read_bytes()
        if len(data) <= MAX_ANIMATION_BYTES or n == 1:
            more = f"; {count_noun(n_clips - n, 'more clip')} in the result" if n_clips > n else ""
            text = escape(f"{caption}{more}")
            source = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
            return [f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>']
    return []


def can_encode() -> bool:
    return all(find_spec(name) is not None for name in ("av", "matplotlib"))


def _write_animation(path: Path, result: Attribution) -> None:
    save_animation(path, displayed_frames(result, len(result.map)), result)


def write_arrays(path: Path, result: Attribution) -> None:
    """Write the map and what is known about it as NumPy arrays."""
    arrays = {
        "map": result.map,
        "method": np.array(result.method),
        "stage": np.array(result.stage),
        "target": np.array(result.target),
        "signed": np.array(result.signed),
        "forward_passes": np.array(result.forward_passes),
    }
    optional = ("completeness_gap", "standard_error", "frames")
    arrays |= {name: getattr(result, name) for name in optional if getattr(result, name) is not None}
    with atomic.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def plot_maps(result: Attribution) -> Any:
    """Return a figure with a row for each of the first clips and a column for time steps, with one scale per clip."""
    clips = displayed_frames(result, MAX_PLOTTED_CLIPS)
    rows = [
        PlottedMap(f"clip {i}", clip, Panel("", values, np.arange(len(values)).astype(float), result.signed))
        for i, (clip, values) in enumerate(zip(clips, result.map))
    ]
    target = f", {result.target}" if result.target else ""
    return plot_rows(f"{result.method} at {result.stage}{target}", rows)


@dataclass(frozen=True, eq=False)
class PlottedMap:
    """Row of a figure: a map, with a frame of `panel` for each time step, over the frames of its clip."""

    label: str
    frames: UInt8[np.ndarray, "frames h w 3"]
    panel: Panel


def plot_rows(title: str, rows: Sequence[PlottedMap]) -> Any:
    """Return a figure with a row for each map and a column for time steps."""
    steps, (_, height, width, _) = len(rows[0].panel.map), rows[0].frames.shape
    columns = np.unique(np.linspace(0, steps - 1, min(steps, MAX_PLOTTED_STEPS)).round().astype(int))
    ink, soft, paper = (light_colours()[name] for name in ("ink", "soft", "paper"))
    figure = figure_class()(
        figsize=(CELL_INCHES * len(columns) + 1.3, CELL_INCHES * len(rows) * height / width + 0.7),
        facecolor=paper,
        layout="constrained",
    )
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for i, row in enumerate(rows):
        pictures = blend_map(_step_frames(row.frames, steps), row.panel)
        for axes, step in zip(grid[i], columns):
            axes.imshow(pictures[step], interpolation="nearest")
            axes.set(xticks=(), yticks=())
            axes.spines[:].set_visible(False)
            if i == 0:
                axes.set_title(f"step {step + 1}", fontsize=8, color=soft)
        grid[i][0].set_ylabel(row.label, fontsize=9, color=ink, parse_math=False)
        limit = row.panel.scale_limit or 1.0
        low = -limit if row.panel.signed else 0.0
        _draw_color_bar(figure, list(grid[i]), low, limit, signed=row.panel.signed)
    figure.suptitle(title, fontsize=10, color=ink, parse_math=False)
    return figure


def _step_frames(clip: UInt8[np.ndarray, "frames h w 3"], steps: int) -> Float[np.ndarray, "steps h2 w2 1"]:
    """Return the grey frame in the middle of each time step."""
    middles = np.clip(((np.arange(steps) + 0.5) * len(clip) / steps).astype(int), 0, len(clip) - 1)
    grey = clip[middles].astype(np.float32).mean(-1, keepdims=True)
    scale = max(1, math.ceil(MIN_SIDE / min(grey.shape[1:3])))
    return grey.repeat(scale, 1).repeat(scale, 2)


def _draw_color_bar(figure: Any, axes: list[Any], low: float, high: float, *, signed: bool) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(low, high), DIVERGING if signed else SEQUENTIAL)
    bar = figure.colorbar(scale, ax=axes, fraction=0.03, pad=0.01, ticks=[low, 0.0, high] if signed else [low, high])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=0, labelcolor=light_colours()["soft"])
    bar.ax.set_yticklabels([f"{value:.2g}" for value in bar.get_ticks()])


def plot_profile(result: Attribution) -> Any:
    """Return a figure of the share of the absolute map in each time step: a line per clip, and a uniform map dashed."""
    colours = light_colours()
    profiles = clip_profiles(result)
    figure = figure_class()(figsize=(4.4, 2.6), facecolor=colours["paper"], layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, profiles.shape[1] + 1)
    for profile in profiles:
        axes.plot(steps, profile, color=colours["one"], linewidth=1.5, alpha=min(1.0, max(0.2, 4 / len(profiles))))
    axes.axhline(1 / len(steps), color=colours["soft"], linestyle="--", linewidth=0.8)
    axes.set_xlabel("time step", color=colours["soft"], fontsize=9)
    axes.set_ylabel("share of the map", color=colours["soft"], fontsize=9)
    axes.set_title(f"{result.method} at {result.stage}", fontsize=10, color=colours["ink"])
    axes.set_ylim(bottom=0)
    axes.tick_params(colors=colours["soft"], labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colours["line"])
    return figure
