"""Which part of a map is there because something moves: selective relevance, on any attribution.

Relevance that changes over time is taken for motion (Hiley, Preece, Hicks, Marshall, Taylor, 2019 and 2020): the map is
differentiated along time by a Sobel kernel, and what exceeds n standard deviations is the motion part, the rest the
still part. A threshold in standard deviations always finds something, so a share of motion means nothing without that
of the same clip frozen: see `motion`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import ArrayLike, Bool, Float

from vtcav_jax.attribution import BASELINES, Attribution, explain, prepare_explanation
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

Maps = Float[np.ndarray, "b t h w"]
SplitVariant = Literal["absolute", "paper2020"]
SplitPadding = Literal["edge", "zero"]
ROUNDING_EPS = 1e-6  # of the derivative's largest possible value: less is rounding


@dataclass(frozen=True, eq=False)
class MotionSplit:
    """A map in two parts: `motion + still` is the map, and `mask` says which voxels are in the first."""

    motion: Maps
    static: Maps
    mask: Bool[np.ndarray, "b t h w"]
    threshold_sd: float
    variant: SplitVariant
    padding: SplitPadding

    @property
    def motion_share(self) -> Float[np.ndarray, " b"]:
        """Of the absolute relevance, how much is in the motion part; NaN where there is none."""
        changing, total = (np.abs(x).sum((1, 2, 3)) for x in (self.motion, self.motion + self.static))
        with np.errstate(invalid="ignore"):
            return changing / total

    @property
    def area(self) -> Float[np.ndarray, " b"]:
        """Of the voxels, how many are in the motion part."""
        return self.mask.mean((1, 2, 3))

    @property
    def lift(self) -> Float[np.ndarray, " b"]:
        """How much denser relevance is in the motion part than over all; NaN where there is no such part."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.area > 0, self.motion_share / self.area, np.nan)


def split_by_motion(
    attribution: Attribution | Maps,
    threshold_sd: float = 1.0,
    *,
    variant: SplitVariant = "absolute",
    padding: SplitPadding | None = None,
) -> MotionSplit:
    """The parts of a map with and without change over time, at the map's own resolution.

    "absolute": |derivative| > n sigma, the border repeated beyond the ends. "paper2020": as the code of the time,
    derivative > n sigma with its sign and zeros beyond the ends, of maps scaled to at most 1 and, with negative values,
    to 0..1; zeros make motion out of the first and last frame, and the sign keeps only what fades.
    """
    maps = attribution.map if isinstance(attribution, Attribution) else np.asarray(attribution)
    if threshold_sd < 0 or variant not in ("absolute", "paper2020") or padding not in (None, "edge", "zero"):
        raise ValueError(
            "expected n of at least 0, variant absolute or paper2020, padding edge or zero; "
            f"got {threshold_sd}, {variant!r}, {padding!r}"
        )
    if maps.shape[1] < 2:
        raise ValueError(f"a map of {maps.shape[1]} time step has no change over time; take a stage or clip with more")
    as_published = variant == "paper2020"
    padding = padding or ("zero" if as_published else "edge")
    slope = time_derivative(_rescale(maps) if as_published else maps, padding)
    sigma = slope.std((1, 2, 3), keepdims=True)
    mask = (
        slope > threshold_sd * sigma
        if as_published
        else np.abs(slope) > np.maximum(threshold_sd * sigma, _rounding_floor(maps))
    )
    return _make_split(maps, mask, threshold_sd, variant, padding)


def time_derivative(maps: Maps, padding: SplitPadding = "edge") -> Maps:
    """The map a frame before less that a frame after, smoothed over 3 x 3 places: Sobel's kernel, 32 in absolutes."""
    x = np.pad(maps, ((0, 0), (1, 1), (1, 1), (1, 1)), mode="edge" if padding == "edge" else "constant")
    x = x[:, :-2] - x[:, 2:]
    x = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    return x[:, :, :, :-2] + 2 * x[:, :, :, 1:-1] + x[:, :, :, 2:]


def sweep(
    attribution: Attribution | Maps,
    thresholds: Sequence[float] = (0.0, 1.0, 2.0, 3.0, 4.0),
    *,
    variant: SplitVariant = "absolute",
) -> list[MotionSplit]:
    """The parts at several thresholds: a share of motion that hangs on one n is no finding."""
    return [split_by_motion(attribution, threshold_sd, variant=variant) for threshold_sd in thresholds]


@dataclass(frozen=True, eq=False)
class MotionShare:
    """How much of a decision is motion, clip by clip, and what is found in the same clips frozen, without any."""

    clip_split: MotionSplit
    frozen_split: MotionSplit

    @property
    def excess(self) -> Float[np.ndarray, " b"]:
        """The share of motion less that of the frozen clip; NaN where a map is 0 everywhere."""
        return self.clip_split.motion_share - self.frozen_split.motion_share


def motion_share(
    model: Model,
    clips: ArrayLike,
    target: Target,
    method: str = "gradient_x_input",
    *,
    stage: str | None = None,
    threshold_sd: float = 1.0,
    **options: Any,
) -> MotionShare:
    """Selective relevance of the clips and of each frozen at its middle frame, both by the threshold of the first.

    By a threshold of its own, something would be motion in a frozen clip too, however little changes.
    """
    context = prepare_explanation(model, clips, target)
    clip_map = explain(model, context.video, target, method, stage, **options).map
    frozen_map = explain(model, BASELINES["frozen"](context.video), target, method, stage, **options).map
    # A threshold is a share of what a map has in all, which may differ between the two
    size, frozen_size = (np.abs(x).mean((1, 2, 3), keepdims=True) for x in (clip_map, frozen_map))
    with np.errstate(invalid="ignore", divide="ignore"):
        threshold = (
            threshold_sd * time_derivative(clip_map).std((1, 2, 3), keepdims=True) * np.nan_to_num(frozen_size / size)
        )
    mask = np.abs(time_derivative(frozen_map)) > np.maximum(threshold, _rounding_floor(frozen_map))
    return MotionShare(
        split_by_motion(clip_map, threshold_sd), _make_split(frozen_map, mask, threshold_sd, "absolute", "edge")
    )


def _rounding_floor(maps: Maps) -> np.ndarray:
    return ROUNDING_EPS * 32 * np.abs(maps).max((1, 2, 3), keepdims=True)


def _rescale(maps: Maps) -> Maps:
    """To at most 1 in each clip; with negative values, then to 0..1."""
    top = np.abs(maps).max((1, 2, 3), keepdims=True)
    maps = maps / np.where(top == 0, 1, top)
    low, high = (f(maps, (1, 2, 3), keepdims=True) for f in (np.min, np.max))
    stretched = (maps - low) / np.where(high == low, 1, high - low)
    return np.where(low < 0, stretched, maps).astype(maps.dtype)


def _make_split(
    maps: Maps, mask: np.ndarray, threshold_sd: float, variant: SplitVariant, padding: SplitPadding
) -> MotionSplit:
    zero = np.zeros_like(maps)
    return MotionSplit(
        np.where(mask, maps, zero), np.where(mask, zero, maps), mask, float(threshold_sd), variant, padding
    )
