"""Maps of a clip for the page: a picture to lay over the film, and curves over time."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.motion.map_split import split_by_motion
from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.attribution.videos.map_store import load_maps
from vtcav_jax.report.animation.overlay import (
    MAX_MAP_OPACITY,
    Panel,
    common_scale,
    interpolate_frames,
)
from vtcav_jax.report.colormaps import apply_colormap
from vtcav_jax.serve.columns import explain_damage
from vtcav_jax.serve.films import FilmPicture, encode_webp, tile_frames

MAX_OVERLAY_SIDE = 112  # cells; finer maps are averaged


@dataclass(frozen=True, eq=False)
class ClipMap:
    """A map of one clip, with its score; `motion` is the part that changes over time, None with one time step."""

    target: str
    method: str
    stage: str
    signed: bool
    answer: str
    score: float
    map: Float[np.ndarray, "t h w"]
    forward_passes: int = 0

    @property
    def name(self) -> str:
        return f"{self.method}@{self.stage}"

    @property
    def n_bytes(self) -> int:
        return self.map.nbytes

    @property
    def motion(self) -> Float[np.ndarray, "t h w"] | None:
        return split_by_motion(self.map[None]).motion[0] if len(self.map) > 1 else None


def load_clip_map(path: Path, target: str, method: str, stage: str, part: int) -> ClipMap | None:
    """Return a stored map of one clip of a video, or None if the file has no such map."""
    for entry in load_maps(path):
        if (entry.target, entry.method, entry.stage) == (target, method, stage) and part < len(entry.maps):
            return ClipMap(
                target,
                method,
                stage,
                entry.signed,
                entry.answers[part],
                float(entry.scores[part]),
                entry.maps[part],
                forward_passes=entry.forward_passes,
            )
    return None


def first_frame(path: Path, part: int) -> int:
    """Return the number of the first frame of a clip in its video."""
    with explain_damage(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return int(arrays["frames"][part][0])


def step_positions(n_steps: int, n_frames: int) -> Float[np.ndarray, " n"]:
    """Return the (fractional) frame at the middle of each time step of a map."""
    return (np.arange(n_steps) + 0.5) * n_frames / n_steps - 0.5


def overlay_picture(clip_map: ClipMap, n_frames: int, *, motion_only: bool = False) -> FilmPicture:
    """Return the map as one translucent picture per frame, coloured and scaled as in animations."""
    values = clip_map.motion if motion_only else clip_map.map
    if values is None:
        raise ValueError(f"a map of {len(clip_map.map)} time step has no motion part; choose another layer or method")
    t, h, w = values.shape
    if max(h, w) > MAX_OVERLAY_SIDE:
        values = area_resize(values[None], (t, min(h, MAX_OVERLAY_SIDE), min(w, MAX_OVERLAY_SIDE)))[0]
    whole = Panel("", clip_map.map, step_positions(t, n_frames), clip_map.signed)
    limit = common_scale([whole]).limit
    frames = interpolate_frames(values.astype(np.float64), step_positions(t, n_frames), n_frames)
    opacity = np.sqrt(np.clip(np.abs(frames) / (limit or 1), 0, 1)) * MAX_MAP_OPACITY
    colours = apply_colormap(frames, limit, signed=clip_map.signed)
    rgba = np.concatenate([colours, np.rint(255 * opacity)[..., None].astype(np.uint8)], -1)
    columns = math.ceil(math.sqrt(n_frames))
    data = encode_webp(tile_frames(rgba, columns))
    return FilmPicture(data, "image/webp", n_frames, columns, rgba.shape[1:3], ())


def map_curves(clip_map: ClipMap, times: Float[np.ndarray, " t"]) -> list[dict[str, Any]]:
    """Return the sums of a map over each time step: positive and negative relevance, and their motion parts."""
    at = np.interp(step_positions(len(clip_map.map), len(times)), np.arange(len(times)), times)
    curves = []
    for values, suffix, kind in ((clip_map.map, "", "map"), (clip_map.motion, ", motion part", "motion")):
        if values is None:
            continue
        total = values.astype(np.float64)
        sums = {"relevance for the class" if clip_map.signed else "relevance": np.maximum(total, 0).sum((1, 2))}
        if clip_map.signed:
            sums["relevance against it"] = np.minimum(total, 0).sum((1, 2))
        curves += [
            {"label": f"{label}{suffix}", "kind": kind, "times": at.tolist(), "values": curve.tolist()}
            for label, curve in sums.items()
        ]
    return curves
