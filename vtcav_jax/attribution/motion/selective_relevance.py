"""Selective relevance: the motion part of any attribution map.

Relevance that changes over time is taken as motion: the map is differentiated along time by a Sobel kernel. Voxels that
exceed n standard deviations are the motion part, the others the static part. Such a threshold always selects some
voxels, so compare the share with that of the same clip frozen (`motion_share`).

References: Hiley et al., "Discriminating Spatial and Temporal Relevance in Deep Taylor Decompositions for Explainable
Activity Recognition", 2019, arXiv:1908.01536; Hiley et al., "Explaining Motion Relevance for Activity Recognition in
Video Deep Learning Models", 2020, arXiv:2003.14285.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import ArrayLike, Bool, Float

from vtcav_jax.attribution import BASELINES, Attribution, attribute, prepare_explanation
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

Maps = Float[np.ndarray, "b t h w"]
SplitVariant = Literal["absolute", "paper2020"]
SplitPadding = Literal["edge", "zero"]
ROUNDING_EPS = 1e-6  # of the derivative's largest possible value; smaller values are rounding errors


@dataclass(frozen=True, eq=False)
class MotionSplit:
    """A map in two parts, `motion + static`; `mask` marks the voxels of the motion part."""

    motion: Maps
    static: Maps
    mask: Bool[np.ndarray, "b t h w"]
    threshold_sd: float
    variant: SplitVariant
    padding: SplitPadding

    @property
    def motion_share(self) -> Float[np.ndarray, " b"]:
        """Share of the absolute relevance in the motion part; NaN if the map is 0."""
        changing, total = (np.abs(x).sum((1, 2, 3)) for x in (self.motion, self.motion + self.static))
        with np.errstate(invalid="ignore"):
            return changing / total

    @property
    def area(self) -> Float[np.ndarray, " b"]:
        """Share of the voxels in the motion part."""
        return self.mask.mean((1, 2, 3))

    @property
    def lift(self) -> Float[np.ndarray, " b"]:
        """`motion_share / area`, the relative density of relevance in the motion part; NaN if it is empty."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.area > 0, self.motion_share / self.area, np.nan)


def split_by_motion(
    attribution: Attribution | Maps,
    threshold_sd: float = 1.0,
    *,
    variant: SplitVariant = "absolute",
    padding: SplitPadding | None = None,
) -> MotionSplit:
    """Split a map into the parts with and without change over time, at the map's own resolution.

    Variant "absolute": |derivative| > threshold_sd * sigma, edges repeated. Variant "paper2020", as the published code:
    signed derivative > threshold_sd * sigma, zeros beyond the ends, maps scaled to at most 1 and, if negative, to 0..1;
    zeros mark the first and last frame as motion, and the sign selects only relevance that fades.
    """
    maps = attribution.map if isinstance(attribution, Attribution) else np.asarray(attribution)
    if threshold_sd < 0 or variant not in ("absolute", "paper2020") or padding not in (None, "edge", "zero"):
        raise ValueError(
            "expected threshold_sd of at least 0, variant absolute or paper2020, padding edge or zero; "
            f"got {threshold_sd}, {variant!r}, {padding!r}"
        )
    if maps.shape[1] < 2:
        raise ValueError(f"a map of {maps.shape[1]} time step has no change over time; use a stage or clip with more")
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
    """Return the previous frame's map minus the next one's, smoothed over 3 x 3 places: a 3D Sobel kernel.

    The absolute weights of the kernel sum to 32.
    """
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
    """Split maps at several thresholds, to check that a motion share does not depend on one threshold."""
    return [split_by_motion(attribution, threshold_sd, variant=variant) for threshold_sd in thresholds]


@dataclass(frozen=True, eq=False)
class MotionShare:
    """Splits of the maps of clips and of the same clips frozen, which contain no motion."""

    clip_split: MotionSplit
    frozen_split: MotionSplit

    @property
    def excess(self) -> Float[np.ndarray, " b"]:
        """Motion share minus that of the frozen clip; NaN where a map is 0 everywhere."""
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
    """Split the maps of the clips, and of each clip frozen at its middle frame, by the clip's threshold.

        share = motion_share(model, clips, 3, "gradient_x_input")
        share.excess  # motion share of each clip minus that of its frozen version

    A threshold of its own would select a motion part in a frozen clip too, however small its changes.
    """
    context = prepare_explanation(model, clips, target)
    clip_map = attribute(model, context.video, target, method, stage, **options).map
    frozen_map = attribute(model, BASELINES["frozen"](context.video), target, method, stage, **options).map
    # The threshold is relative to the mean absolute map, which may differ between the two
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
    """Scale each clip to an absolute maximum of 1 and, if it has negative values, to 0..1."""
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
