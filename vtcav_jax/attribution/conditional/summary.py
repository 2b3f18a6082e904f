"""Shares of the relevance that pass along channels and concepts, and the clips and moments in which it is largest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.conditional.directions import Direction, Directions
from vtcav_jax.attribution.conditional.videos import StoredRelevance
from vtcav_jax.runs.conditional_rows import ShareRow
from vtcav_jax.stats import intervals

MIN_NET_SHARE = 0.01  # of the absolute relevances of all channels, below which their sum is no whole
MAX_RANKED = 20  # channels, and concepts of a kind, in the table of a class, besides the chosen ones
CLIPS_PER_CONCEPT = 4  # each from another source video
SMOOTHING = 1 / 8  # of the frame's side, around each place of a map, to find the place of a moment


def clips_by_answer(clips: Sequence[StoredRelevance], target: str) -> dict[str, list[StoredRelevance]]:
    """Return the clips that are examples of each class that the target explains."""
    out: dict[str, list[StoredRelevance]] = {}
    for clip in clips:
        if answer := str(clip.arrays[f"answer|{target}"]):
            out.setdefault(answer, []).append(clip)
    return out


def share_rows(
    clips: Sequence[StoredRelevance], target: str, answer: str, method: str, directions: Directions
) -> list[ShareRow]:
    """Return the largest shares of channels and concepts of each stage in clips of a class, and the chosen ones."""
    videos, rows = [clip.source_video for clip in clips], []
    chosen = {direction.name for direction in directions.chosen}
    for stage, concepts in directions.concepts.items():
        channels, random, along = (
            np.stack([clip.arrays[f"{key}|{target}|{stage}"] for clip in clips]).astype(np.float64)
            for key in ("channels", "random", "concepts")
        )
        total = channels.sum(1)
        mean, low, high = intervals.mean_ci(total, units=videos)
        # Before a norm, gradients are orthogonal to activations: relevances cancel but for rounding
        cancels = abs(mean) < MIN_NET_SHARE * np.abs(channels).sum(1).mean()
        is_defined = (low > 0 or high < 0) and not cancels
        random_low, random_high = (
            np.quantile(random.sum(0) / total.sum(), (0.025, 0.975)) if is_defined else (np.nan,) * 2
        )
        names = [(f"{stage}#{c}", f"channel {c} of {stage}", "channel") for c in range(channels.shape[1])]
        names += [(concept.name, concept.title, concept.kind) for concept in concepts]
        values = np.concatenate([channels, along], 1)
        kinds = np.array([kind for _, _, kind in names])
        for kind in dict.fromkeys(kinds.tolist()):
            members = np.flatnonzero(kinds == kind)
            ranked = members[np.argsort(-values[:, members].sum(0) * np.sign(mean), kind="stable")]
            for rank, j in enumerate(ranked, start=1):
                if rank > MAX_RANKED and names[j][0] not in chosen:
                    continue
                name, title, _ = names[j]
                share = (
                    intervals.ratio_ci(values[:, j], total, units=videos) if is_defined else (np.nan, np.nan, np.nan)
                )
                random_range = 1 / channels.shape[1], float(random_low), float(random_high)
                rows.append(
                    ShareRow(
                        *(target, answer, method, stage, name, title, kind, name in chosen),
                        *(*share, rank, len(members), *random_range, mean, len(clips), len(set(videos))),
                    )
                )
    return rows


def strongest_clips(clips: Sequence[StoredRelevance], target: str, direction: Direction) -> list[StoredRelevance]:
    """Return the clips with the most positive relevance along the direction, at most one of each source video."""
    totals = np.array([float(clip.arrays[f"total|{target}|{direction.name}"]) for clip in clips])
    by_video: dict[str, StoredRelevance] = {}
    for i in np.argsort(-totals, kind="stable"):
        if totals[i] > 0:
            by_video.setdefault(clips[i].source_video, clips[i])
    return list(by_video.values())[:CLIPS_PER_CONCEPT]


@dataclass(frozen=True)
class Moment:
    """Frame of a clip, and place in it as shares of height and width."""

    frame: int
    y: float
    x: float


def find_moment(values: Float[np.ndarray, "t h w"]) -> Moment:
    """Return the frame with the largest sum of positive relevance, and the place in it with the most around it."""
    from scipy.ndimage import uniform_filter1d

    positive = np.maximum(values, 0)
    frame = int(positive.sum((1, 2)).argmax())
    smooth = positive[frame]
    for axis, n in enumerate(smooth.shape):
        smooth = np.asarray(uniform_filter1d(smooth, max(1, round(SMOOTHING * n)), axis, mode="constant"))
    y, x = np.unravel_index(int(smooth.argmax()), smooth.shape)
    return Moment(frame, (float(y) + 0.5) / values.shape[1], (float(x) + 0.5) / values.shape[2])
