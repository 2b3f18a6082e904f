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

from vtcav_jax.attribution import BASELINES, Attribution, explain, explained
from vtcav_jax.attribution.baselines import still
from vtcav_jax.attribution.score_model import scores
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

Maps = Float[np.ndarray, "b t h w"]
Variant = Literal["absolute", "paper2020"]
Padding = Literal["edge", "zero"]
FLOOR = 1e-6  # of the derivative's largest possible value: less is rounding


@dataclass(frozen=True, eq=False)
class Selected:
    """A map in two parts: `motion + still` is the map, and `mask` says which voxels are in the first."""

    motion: Maps
    still: Maps
    mask: Bool[np.ndarray, "b t h w"]
    n: float
    variant: Variant
    padding: Padding

    @property
    def motion_share(self) -> Float[np.ndarray, " b"]:
        """Of the absolute relevance, how much is in the motion part; NaN where there is none."""
        moving, all_of_it = (np.abs(x).sum((1, 2, 3)) for x in (self.motion, self.motion + self.still))
        with np.errstate(invalid="ignore"):
            return moving / all_of_it

    @property
    def area(self) -> Float[np.ndarray, " b"]:
        """Of the voxels, how many are in the motion part."""
        return self.mask.mean((1, 2, 3))

    @property
    def lift(self) -> Float[np.ndarray, " b"]:
        """How much denser relevance is in the motion part than over all; NaN where there is no such part."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.area > 0, self.motion_share / self.area, np.nan)


def split(
    attribution: Attribution | Maps, n: float = 1.0, *, variant: Variant = "absolute", padding: Padding | None = None
) -> Selected:
    """The parts of a map with and without change over time, at the map's own resolution.

    "absolute": |derivative| > n sigma, the border repeated beyond the ends. "paper2020": as the code of the time,
    derivative > n sigma with its sign and zeros beyond the ends, of maps scaled to at most 1 and, with negative values,
    to 0..1; zeros make motion out of the first and last frame, and the sign keeps only what fades.
    """
    maps = attribution.map if isinstance(attribution, Attribution) else np.asarray(attribution)
    if n < 0 or variant not in ("absolute", "paper2020") or padding not in (None, "edge", "zero"):
        raise ValueError(
            "expected n of at least 0, variant absolute or paper2020, padding edge or zero; "
            f"got {n}, {variant!r}, {padding!r}"
        )
    if maps.shape[1] < 2:
        raise ValueError(f"a map of {maps.shape[1]} time step has no change over time; take a stage or clip with more")
    paper = variant == "paper2020"
    padding = padding or ("zero" if paper else "edge")
    slope = derivative(_scaled(maps) if paper else maps, padding)
    sigma = slope.std((1, 2, 3), keepdims=True)
    mask = slope > n * sigma if paper else np.abs(slope) > np.maximum(n * sigma, _floor(maps))
    return _selected(maps, mask, n, variant, padding)


def derivative(maps: Maps, padding: Padding = "edge") -> Maps:
    """The map a frame before less that a frame after, smoothed over 3 x 3 places: Sobel's kernel, 32 in absolutes."""
    x = np.pad(maps, ((0, 0), (1, 1), (1, 1), (1, 1)), mode="edge" if padding == "edge" else "constant")
    x = x[:, :-2] - x[:, 2:]
    x = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    return x[:, :, :, :-2] + 2 * x[:, :, :, 1:-1] + x[:, :, :, 2:]


def sweep(
    attribution: Attribution | Maps, ns: Sequence[float] = (0.0, 1.0, 2.0, 3.0, 4.0), *, variant: Variant = "absolute"
) -> list[Selected]:
    """The parts at several thresholds: a share of motion that hangs on one n is no finding."""
    return [split(attribution, n, variant=variant) for n in ns]


@dataclass(frozen=True, eq=False)
class Motion:
    """How much of a decision is motion, clip by clip, and what is found in the same clips frozen, without any."""

    selected: Selected
    frozen: Selected

    @property
    def excess(self) -> Float[np.ndarray, " b"]:
        """The share of motion less that of the frozen clip; NaN where a map is 0 everywhere."""
        return self.selected.motion_share - self.frozen.motion_share


def motion(
    model: Model,
    clips: ArrayLike,
    target: Target,
    method: str = "gradient_x_input",
    *,
    stage: str | None = None,
    n: float = 1.0,
    **options: Any,
) -> Motion:
    """Selective relevance of the clips and of each frozen at its middle frame, both by the threshold of the first.

    By a threshold of its own, something would be motion in a frozen clip too, however little changes.
    """
    what = explained(model, clips, target)
    real = explain(model, what.video, target, method, stage, **options).map
    null = explain(model, BASELINES["frozen"](what.video), target, method, stage, **options).map
    # A threshold is a share of what a map has in all, which may differ between the two
    size, null_size = (np.abs(x).mean((1, 2, 3), keepdims=True) for x in (real, null))
    with np.errstate(invalid="ignore", divide="ignore"):
        threshold = n * derivative(real).std((1, 2, 3), keepdims=True) * np.nan_to_num(null_size / size)
    mask = np.abs(derivative(null)) > np.maximum(threshold, _floor(null))
    return Motion(split(real, n), _selected(null, mask, n, "absolute", "edge"))


@dataclass(frozen=True, eq=False)
class TiledDifference:
    """A map less what each frame has of its own when it stands still (D-DTD, Hiley et al., 2019): `temporal + spatial`.

    Nothing is rescaled. Where `still_score`, of each frame standing still, is far from the clip's `score`, the network
    took it for something else, and the difference says little.
    """

    temporal: Maps
    spatial: Maps
    score: Float[np.ndarray, " b"]
    still_score: Float[np.ndarray, "b t"]


def tiled_difference(
    model: Model, clips: ArrayLike, target: Target, method: str = "gradient_x_input", **options: Any
) -> TiledDifference:
    """Explains the clip, and each of its frames for as long as the clip lasts; of that, the mean over the copies."""
    what = explained(model, clips, target)
    whole = explain(model, what.video, target, method, **options).map
    frames = what.video.shape[1]
    if whole.shape[1] != frames:
        raise ValueError(
            f"{method} gives {whole.shape[1]} time steps for {frames} frames, and each frame is to be compared with "
            "itself; take a method that explains the video"
        )
    stills = [still(what.video, i) for i in range(frames)]
    spatial = np.stack([explain(model, clip, target, method, **options).map.mean(1) for clip in stills], 1)
    still_scores = np.stack([scores(what.scored, clip) for clip in stills], 1)
    return TiledDifference(whole - spatial, spatial, scores(what.scored, what.video), still_scores)


def _floor(maps: Maps) -> np.ndarray:
    return FLOOR * 32 * np.abs(maps).max((1, 2, 3), keepdims=True)


def _scaled(maps: Maps) -> Maps:
    """To at most 1 in each clip; with negative values, then to 0..1."""
    top = np.abs(maps).max((1, 2, 3), keepdims=True)
    maps = maps / np.where(top == 0, 1, top)
    low, high = (f(maps, (1, 2, 3), keepdims=True) for f in (np.min, np.max))
    stretched = (maps - low) / np.where(high == low, 1, high - low)
    return np.where(low < 0, stretched, maps).astype(maps.dtype)


def _selected(maps: Maps, mask: np.ndarray, n: float, variant: Variant, padding: Padding) -> Selected:
    zero = np.zeros_like(maps)
    return Selected(np.where(mask, maps, zero), np.where(mask, zero, maps), mask, float(n), variant, padding)
