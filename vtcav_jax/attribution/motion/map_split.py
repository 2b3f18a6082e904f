"""Split of a map into a motion part and a static part, by how its values change over time.

Selective relevance (2020) differentiates a map along time by a Sobel kernel; voxels whose derivative exceeds n standard
deviations are the motion part. D-DTD (2019) subtracts the map of clips in which one frame is repeated.

References: Hiley et al., "Discriminating Spatial and Temporal Relevance in Deep Taylor Decompositions for Explainable
Activity Recognition", 2019, arXiv:1908.01536; Hiley et al., "Explaining Motion Relevance for Activity Recognition in
Video Deep Learning Models", 2020, arXiv:2003.14285.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax.attribution.result import Attribution

Maps = Float[np.ndarray, "b t h w"]
SplitVariant = Literal["absolute", "paper2020", "d_dtd", "paper2019"]
DERIVATIVE_VARIANTS = ("absolute", "paper2020")  # of one map; the others also need maps of repeated frames
SplitPadding = Literal["edge", "zero"]
ROUNDING_EPS = 1e-6  # of the largest possible change; smaller changes are rounding errors
SOBEL_WEIGHT = 32  # sum of the kernel's absolute weights
DEFAULT_THRESHOLDS = (0.0, 1.0, 2.0, 3.0, 4.0)  # standard deviations


@dataclass(frozen=True, eq=False)
class MotionSplit:
    """A map in two parts, `motion + static`; `mask` marks the voxels of the motion part."""

    motion: Maps
    static: Maps
    mask: Bool[np.ndarray, "b t h w"]
    threshold_sd: float
    variant: SplitVariant
    padding: SplitPadding | None = None

    @property
    def motion_share(self) -> Float[np.ndarray, " b"]:
        """Share of the absolute relevance in the motion part; NaN if the map is 0."""
        motion, static = (np.abs(x).sum((1, 2, 3)) for x in (self.motion, self.static))
        with np.errstate(invalid="ignore"):
            return motion / (motion + static)

    @property
    def area(self) -> Float[np.ndarray, " b"]:
        """Share of the voxels in the motion part."""
        return self.mask.mean((1, 2, 3))

    @property
    def lift(self) -> Float[np.ndarray, " b"]:
        """`motion_share / area`, the relative density of relevance in the motion part; NaN if it is empty."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.area > 0, self.motion_share / self.area, np.nan)


@dataclass(frozen=True, eq=False)
class MapChange:
    """Maps and the change of each voxel, which a threshold splits into a motion part and a static part.

    Voxels whose `change` exceeds the threshold, in units of `sd` and at least `floor` (rounding errors), have the value
    `moving` in the motion part: the map itself, or for D-DTD its difference from the map of a repeated frame.
    """

    maps: Maps
    moving: Maps
    change: Maps
    sd: Float[np.ndarray, "b 1 1 1"]
    floor: Float[np.ndarray, "b 1 1 1"]
    variant: SplitVariant
    padding: SplitPadding | None = None

    def split(self, threshold_sd: float) -> MotionSplit:
        mask = self.change > np.maximum(threshold_sd * self.sd, self.floor)
        motion = np.where(mask, self.moving, np.zeros_like(self.maps))
        return MotionSplit(motion, self.maps - motion, mask, float(threshold_sd), self.variant, self.padding)


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
    return sweep(attribution, (threshold_sd,), variant=variant, padding=padding)[0]


def sweep(
    attribution: Attribution | Maps,
    thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
    *,
    variant: SplitVariant = "absolute",
    padding: SplitPadding | None = None,
) -> list[MotionSplit]:
    """Split maps at several thresholds, to check that a motion share does not depend on one threshold."""
    maps = attribution.map if isinstance(attribution, Attribution) else np.asarray(attribution)
    if min(thresholds) < 0 or variant not in DERIVATIVE_VARIANTS or padding not in (None, "edge", "zero"):
        raise ValueError(
            "expected threshold_sd of at least 0, variant absolute or paper2020, padding edge or zero; "
            f"got {', '.join(map(str, thresholds))}, {variant!r}, {padding!r}"
        )
    change = change_over_time(maps, variant, padding)
    return [change.split(threshold_sd) for threshold_sd in thresholds]


def change_over_time(maps: Maps, variant: SplitVariant = "absolute", padding: SplitPadding | None = None) -> MapChange:
    """Return the derivative of maps along time, with its sign for the variant paper2020."""
    if maps.shape[1] < 2:
        raise ValueError(f"a map of {maps.shape[1]} time step has no change over time; use a stage or clip with more")
    as_published = variant == "paper2020"
    padding = padding or ("zero" if as_published else "edge")
    slope = time_derivative(_rescale(maps) if as_published else maps, padding)
    sd = slope.std((1, 2, 3), keepdims=True)
    if as_published:
        return MapChange(maps, maps, slope, sd, np.zeros_like(sd), variant, padding)
    return MapChange(maps, maps, np.abs(slope), sd, _rounding_floor(maps, SOBEL_WEIGHT), variant, padding)


def change_when_frozen(frozen_maps: Maps, clip: MapChange) -> MapChange:
    """Return the derivative of the maps of frozen clips, in standard deviations of the clips.

    A standard deviation of its own would select a motion part in a frozen clip too, however small its changes. Maps of
    the two may differ in size, so it is relative to the mean absolute map (or, for paper2020, to the maximum).
    """
    change = change_over_time(frozen_maps, clip.variant, clip.padding)
    if clip.variant == "paper2020":
        return replace(change, sd=clip.sd)
    frozen_size, size = (np.abs(x).mean((1, 2, 3), keepdims=True) for x in (frozen_maps, clip.maps))
    with np.errstate(invalid="ignore", divide="ignore"):
        return replace(change, sd=clip.sd * np.nan_to_num(frozen_size / size))


def change_from_static(maps: Maps, static_maps: Maps, variant: SplitVariant) -> MapChange:
    """Return what maps have beyond those of repeated frames, as in D-DTD."""
    difference = maps - static_maps
    sd = difference.std((1, 2, 3), keepdims=True)
    return MapChange(maps, difference, np.abs(difference), sd, _rounding_floor(maps, 1), variant)


def time_derivative(maps: Maps, padding: SplitPadding = "edge") -> Maps:
    """Return the previous frame's map minus the next one's, smoothed over 3 x 3 places: a 3D Sobel kernel."""
    x = np.pad(maps, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="edge" if padding == "edge" else "constant")
    return smooth_in_space(x[:, :-2] - x[:, 2:], padding)


def smooth_in_space(maps: Maps, padding: SplitPadding = "edge") -> Maps:
    """Smooth over 3 x 3 places by the weights 1, 2, 1 along height and width, as the Sobel kernel does."""
    x = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge" if padding == "edge" else "constant")
    x = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    return x[:, :, :, :-2] + 2 * x[:, :, :, 1:-1] + x[:, :, :, 2:]


def scale_to_one(maps: Maps) -> Maps:
    """Divide each clip's map by its absolute maximum; a map of zeros stays."""
    top = np.abs(maps).max((1, 2, 3), keepdims=True)
    return maps / np.where(top == 0, 1, top)


def _rounding_floor(maps: Maps, weight: int) -> np.ndarray:
    return ROUNDING_EPS * weight * np.abs(maps).max((1, 2, 3), keepdims=True)


def _rescale(maps: Maps) -> Maps:
    """Scale each clip to an absolute maximum of 1 and, if it has negative values, to 0..1."""
    maps = scale_to_one(maps)
    low, high = (f(maps, (1, 2, 3), keepdims=True) for f in (np.min, np.max))
    stretched = (maps - low) / np.where(high == low, 1, high - low)
    return np.where(low < 0, stretched, maps).astype(maps.dtype)
