"""Localisation metrics: overlap of maps with masks, boxes or events, with the chance level of each metric."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.stats.roc import area_under_roc

POINTING_TOLERANCE = 1 / 15  # of a frame's height, around a mask: 7 pixels of 112, 15 of 224

FlatMaps = Float[np.ndarray, "b n"]
InsideMask = Bool[np.ndarray, "..."]  # same shape as the values, which `score_localisation` checks
LocalisationPerClip = Float[np.ndarray, " b"]
Masks = Bool[np.ndarray, "b frames height width"]


@dataclass(frozen=True, eq=False)
class LocalisationScores:
    """Scores `(b,)` and their chance levels by name; NaN for clips where the mask is empty or covers everything.

    `mass` is the share of positive relevance in the mask; `rank` the share of the top cells in it, taking as many as
    the mask has; `iou` their intersection over union. `auroc` and `precision` (average precision) need no threshold.
    Chance is the score of a constant map; the average precision of a random map is slightly higher on small grids.
    """

    scores: dict[str, LocalisationPerClip]
    chance: dict[str, LocalisationPerClip]

    @property
    def skill(self) -> dict[str, LocalisationPerClip]:
        """Scores scaled to 0 at chance and 1 at best; negative if worse than chance."""
        return {name: localisation_skill(values, self.chance[name]) for name, values in self.scores.items()}


def localisation_skill(score: LocalisationPerClip, chance: LocalisationPerClip) -> LocalisationPerClip:
    return (score - chance) / np.where(chance < 1, 1 - chance, np.nan).astype(np.float32)


def score_localisation(values: FlatMaps, inside: InsideMask, include: InsideMask | None = None) -> LocalisationScores:
    """Score maps against masks on the same cells or voxels; those not in `include`, such as a halo, are left out."""
    if values.shape != inside.shape or (include is not None and include.shape != values.shape):
        raise ValueError(f"maps and masks must have the same shape; got {values.shape} and {inside.shape}")
    included = np.ones_like(inside) if include is None else include
    rows = [_score_clip(v[c].astype(np.float64), i[c]) for v, i, c in zip(values, inside, included)]
    scores, chance = (
        {name: np.array([row[k][name] for row in rows], np.float32) for name in LOCALISATION_METRICS} for k in (0, 1)
    )
    return LocalisationScores(scores, chance)


LOCALISATION_METRICS: tuple[str, ...] = ("mass", "rank", "iou", "auroc", "precision")


def pointing_game(
    maps: Float[np.ndarray, "b t h w"], masks: Masks, *, tolerance: float = POINTING_TOLERANCE, by_frame: bool = False
) -> tuple[LocalisationPerClip, LocalisationPerClip]:
    """Play the pointing game (Zhang et al., 2018): return whether the maximum is in the mask, and the chance level.

    A place is in the mask if its centre is, after dilation by `tolerance` of a frame's height. For tied maxima the
    result is the share of them in the mask, not their centroid, which for a ring would be in its hole. With `by_frame`,
    the result is the mean over the frames that have a mask.
    """
    b, t, h, w = maps.shape
    frames = masks.shape[1]
    grown = dilate(masks, round(tolerance * masks.shape[2]))
    if by_frame:
        maps, t = area_resize(maps, (frames, h, w)), frames
    t_at, y_at, x_at = (_centres(n, size) for n, size in zip((t, h, w), masks.shape[1:]))
    inside = grown[:, t_at][:, :, y_at][:, :, :, x_at]
    games = t if by_frame else 1
    inside, values = inside.reshape(b, games, -1), maps.reshape(b, games, -1)
    top = values == values.max(-1, keepdims=True)
    hit, area = (top & inside).sum(-1) / top.sum(-1), inside.mean(-1)
    has_mask = masks.any(axis=(2, 3)) if by_frame else masks.any(axis=(1, 2, 3)).reshape(b, 1)
    count = has_mask.sum(1)

    def over_games(x: np.ndarray) -> LocalisationPerClip:
        return np.where(count > 0, (x * has_mask).sum(1) / np.maximum(count, 1), np.nan).astype(np.float32)

    return over_games(hit), over_games(area)


def score_temporal_localisation(
    maps: Float[np.ndarray, "b t h w"], event: Bool[np.ndarray, "b frames"]
) -> LocalisationScores:
    """Score the positive relevance of each frame against the frames of an event, as in `score_localisation`.

    `hit` is whether the frame with the maximum is one of them; for ties, the share that is.
    """
    total = area_resize(np.maximum(maps, 0), (event.shape[1], 1, 1))[..., 0, 0]
    frame_scores = score_localisation(total, event)
    top = total == total.max(1, keepdims=True)
    is_partial = event.any(1) & ~event.all(1)
    scores, chance = ((top & event).sum(1) / top.sum(1), event.mean(1))
    hit, hit_chance = (np.where(is_partial, x, np.nan).astype(np.float32) for x in (scores, chance))
    return LocalisationScores(frame_scores.scores | {"hit": hit}, frame_scores.chance | {"hit": hit_chance})


def class_balanced_mean(values: LocalisationPerClip, classes: Int[np.ndarray, " b"]) -> float:
    """Return the mean of class means, so that frequent classes do not dominate."""
    known = ~np.isnan(values)
    means = [values[known & (classes == c)].mean() for c in np.unique(classes[known])]
    return float(np.mean(means)) if means else float("nan")


def masks_of_boxes(boxes: Any, shape: tuple[int, int, int, int]) -> Masks:
    """Convert boxes, rows of clip, frame, x1, y1, x2, y2 in pixels (x2, y2 excluded), to masks of `shape`."""
    masks = np.zeros(shape, bool)
    for row in np.asarray(boxes, np.float64).reshape(-1, 6):
        clip, frame = row[:2].astype(int)
        if not (0 <= clip < shape[0] and 0 <= frame < shape[1]):
            raise ValueError(
                f"a box is in clip {clip}, frame {frame}, but there are {shape[0]} clips of {shape[1]} frames"
            )
        x1, y1 = np.maximum(np.floor(row[2:4]).astype(int), 0)
        x2, y2 = np.ceil(row[4:6]).astype(int)
        masks[clip, frame, y1 : max(y2, 0), x1 : max(x2, 0)] = True
    return masks


def dilate(masks: Masks, pixels: int) -> Masks:
    """Dilate masks by `pixels` along both axes of a frame."""
    for axis in (2, 3) if pixels else ():
        n = masks.shape[axis]
        sums = np.cumsum(masks, axis, dtype=np.int64)
        sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis)
        first, last = np.maximum(np.arange(n) - pixels, 0), np.minimum(np.arange(n) + pixels + 1, n)
        masks = np.take(sums, last, axis) > np.take(sums, first, axis)
    return masks


def _score_clip(
    values: Float[np.ndarray, " n"], inside: Bool[np.ndarray, " n"]
) -> tuple[dict[str, float], dict[str, float]]:
    k, n = int(inside.sum()), len(values)
    if k in (0, n):
        return dict.fromkeys(LOCALISATION_METRICS, float("nan")), dict.fromkeys(LOCALISATION_METRICS, float("nan"))
    share, positive = k / n, np.maximum(values, 0)
    total = positive.sum()
    top = _expected_top(values, inside, k)
    scores = {
        "mass": positive[inside].sum() / total if total > 0 else share,  # an empty map scores at chance
        "rank": top / k,
        "iou": top / (2 * k - top),
        "auroc": area_under_roc(values, inside),
        "precision": _average_precision(values, inside),
    }
    return scores, {"mass": share, "rank": share, "iou": k / (2 * n - k), "auroc": 0.5, "precision": share}


def _expected_top(values: Float[np.ndarray, " n"], inside: Bool[np.ndarray, " n"], k: int) -> float:
    """Return how many of the `k` largest values are in the mask; ties at the end count by expectation."""
    last = np.partition(values, -k)[-k]
    above, equal = values > last, values == last
    return float(inside[above].sum() + (k - above.sum()) * inside[equal].mean())


def _average_precision(values: Float[np.ndarray, " n"], inside: Bool[np.ndarray, " n"]) -> float:
    """Return the average precision: precision at each distinct value, weighted by the gain of recall."""
    order = np.argsort(-values, kind="stable")
    hit_counts = np.cumsum(inside[order])
    ends = np.flatnonzero(np.diff(values[order], append=-np.inf))
    return float(np.diff(hit_counts[ends], prepend=0) / hit_counts[-1] @ (hit_counts[ends] / (ends + 1)))


def _centres(places: int, pixels: int) -> Int[np.ndarray, " places"]:
    return ((np.arange(places) + 0.5) * pixels / places).astype(int)
