"""Selective relevance: the motion part of any attribution map, compared with that of the same clip frozen.

Relevance that changes over time is taken as motion (`map_split`). A threshold on change always selects some voxels, so
the share of the motion part is compared with that in the map of the clip frozen at its middle frame.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.baselines import freeze_frame
from vtcav_jax.attribution.inputs import resolve_inputs
from vtcav_jax.attribution.motion.map_split import (
    DERIVATIVE_VARIANTS,
    MapChange,
    MotionSplit,
    SplitVariant,
    change_from_static,
    change_over_time,
    change_when_frozen,
    scale_to_one,
)
from vtcav_jax.attribution.registry import attach_inputs, attribute_targets
from vtcav_jax.attribution.resample import frame_of_step
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.targets import Target
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.models.network import Network
from vtcav_jax.tap import Model

MapsByTarget = list[list[Attribution]]  # of each target, by each method


@dataclass(frozen=True, eq=False)
class SelectiveRelevance(DisplayedResult):
    """Maps of clips, what changes in them, and the same of the clips frozen, which contain no motion."""

    attribution: Attribution
    clip_change: MapChange
    frozen_change: MapChange
    threshold_sd: float

    def __repr__(self) -> str:
        attribution, shares = self.attribution, self.clip_split.motion_share
        share = f"{shares[~np.isnan(shares)].mean():.0%}" if not np.isnan(shares).all() else "undefined"
        parts = [f"{attribution.method} at {attribution.stage}", *([attribution.target] if attribution.target else [])]
        n_clips = f"{len(shares)} clip{'' if len(shares) == 1 else 's'}"
        return f"SelectiveRelevance({', '.join(parts)}, {n_clips}; mean motion share {share})"

    @cached_property
    def clip_split(self) -> MotionSplit:
        return self.clip_change.split(self.threshold_sd)

    @cached_property
    def frozen_split(self) -> MotionSplit:
        return self.frozen_change.split(self.threshold_sd)

    @property
    def excess(self) -> Float[np.ndarray, " b"]:
        """Motion share minus that of the frozen clip; NaN where a map is 0 everywhere."""
        return self.clip_split.motion_share - self.frozen_split.motion_share


def selective_relevance(
    network: Network | Model,
    clips: ArrayLike,
    target: Target | str,
    method: str = "gradient_x_input",
    stage: str | None = None,
    *,
    threshold_sd: float = 1.0,
    variant: SplitVariant = "absolute",
    **options: Any,
) -> SelectiveRelevance:
    """Split the map of each clip into a motion part and a static part, which sum to the map.

        parts = selective_relevance(network, frames, "direction", "attn_lrp")
        parts.clip_split.motion, parts.clip_split.static    # maps (b, t, h, w)
        parts.clip_split.motion_share                       # share of the absolute map, of each clip
        parts.excess                                        # that share minus the share of the frozen clip

    Variants: "absolute" (change over time of more than `threshold_sd` standard deviations), "paper2020" (the same as
    published: only relevance that fades, zeros beyond the ends), "d_dtd" (what the map has beyond the map of each frame
    repeated, in units of the score) and "paper2019" (the same as published: each map scaled to a maximum of 1, first
    copy of the repeated frame; without a threshold, so `threshold_sd=0.0`). The last two need a map for each frame.
    `network`, `clips`, `target`, `stage` and `options` are those of `attribute`.
    """
    model, video, resolved = resolve_inputs(network, clips, target)
    method_options = {method: options} if options else None
    results = selective_relevance_of_targets(
        model, video, [resolved], [(method, stage)], method_options, threshold_sd=threshold_sd, variant=variant
    )
    parts = next(results)[0]
    return replace(parts, attribution=attach_inputs(parts.attribution, clips, target))


def selective_relevance_of_targets(
    model: Model,
    video: ArrayLike,
    targets: Sequence[Target],
    method_stages: Sequence[tuple[str, str | None]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    threshold_sd: float = 1.0,
    variant: SplitVariant = "absolute",
) -> Iterator[list[SelectiveRelevance]]:
    """Yield the `selective_relevance` of each target by each method, with shared passes as in `attribute_targets`."""
    if threshold_sd < 0:
        raise ValueError(f"expected threshold_sd of at least 0, got {threshold_sd}")
    video = jnp.asarray(video)

    def explain(clips: Array) -> MapsByTarget:
        return attribute_targets(model, clips, targets, method_stages, options)

    maps = explain(video)
    if variant in DERIVATIVE_VARIANTS:
        frozen = explain(freeze_frame(video, video.shape[1] // 2))

        def changes(target: int, method: int) -> tuple[MapChange, MapChange]:
            clip_change = change_over_time(maps[target][method].map, variant)
            return clip_change, change_when_frozen(frozen[target][method].map, clip_change)
    else:
        as_published = variant == "paper2019"
        static, frozen = _maps_of_repeated_frames(explain, video, maps, as_published)

        def changes(target: int, method: int) -> tuple[MapChange, MapChange]:
            map_pair = maps[target][method].map, frozen[target][method].map
            clip_map, frozen_map = map(scale_to_one, map_pair) if as_published else map_pair
            frozen_static = np.broadcast_to(frozen_map[:, :1], frozen_map.shape) if as_published else frozen_map
            clip_change = change_from_static(clip_map, static[target][method], variant)
            return clip_change, replace(change_from_static(frozen_map, frozen_static, variant), sd=clip_change.sd)

    for i, maps_of_target in enumerate(maps):  # one by one: derivatives take as much memory as maps
        yield [
            SelectiveRelevance(attribution, *changes(i, j), threshold_sd)
            for j, attribution in enumerate(maps_of_target)
        ]


def _maps_of_repeated_frames(
    explain: Callable[[Array], MapsByTarget], video: Array, maps: MapsByTarget, as_published: bool
) -> tuple[list[list[np.ndarray]], MapsByTarget]:
    """Return maps whose steps come from clips that repeat the step's (middle) frame, and the maps of the middle frame.

    Each step is that of the same time in the repeated clip, so that position in time, where padding differs, cancels
    and a static clip has no difference. The published form takes the first step, of maps scaled to a maximum of 1.
    """
    frames = video.shape[1]
    static = [[np.zeros_like(attribution.map) for attribution in row] for row in maps]
    step_counts = {values.shape[1] for row in static for values in row}
    middles = {n: [frame_of_step(step, n, frames) for step in range(n)] for n in step_counts}
    frozen = maps
    for frame in sorted({frames // 2, *(frame for row in middles.values() for frame in row)}):
        repeated = explain(freeze_frame(video, frame))
        frozen = repeated if frame == frames // 2 else frozen
        for static_row, repeated_row in zip(static, repeated):
            for static_map, attribution in zip(static_row, repeated_row):
                values = scale_to_one(attribution.map) if as_published else attribution.map
                for step, middle in enumerate(middles[static_map.shape[1]]):
                    if middle == frame:
                        static_map[:, step] = values[:, 0 if as_published else step]
    return static, frozen
