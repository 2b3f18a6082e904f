"""Ground truth on real videos without boxes: splices of two clips of different classes.

A map for the class of one clip should lie on the frames of this clip (Bargal et al., 2018; Li et al., 2021).
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.targets import Class, Margin
from vtcav_jax.evaluation.faithfulness.robustness import Explainer
from vtcav_jax.stats.intervals import mean_ci
from vtcav_jax.tap import Model

SPLICE_CHANCE = 0.5


@dataclass(frozen=True, eq=False)
class SpliceResult:
    """Share of positive relevance on the frames of the explained class, for each pair; chance is 1/2.

    Columns: with the first clip first, the first and the second class; then the same with the second clip first.
    """

    share: Float[np.ndarray, "b 4"]

    @property
    def is_correct(self) -> Float[np.ndarray, "b 4"]:
        """1 if the share exceeds 1/2, 0 if it is less, 1/2 if equal, as for an empty map."""
        return (np.sign(self.share - 0.5) + 1) / 2

    @property
    def score(self) -> tuple[float, float, float]:
        """Mean of `is_correct` and its 95 % interval over pairs."""
        return mean_ci(self.is_correct.mean(1))


def splice_test(
    explainer: Explainer,
    model: Model,
    first: ArrayLike,
    second: ArrayLike,
    first_target: Any,
    second_target: Any,
) -> SpliceResult:
    """Run the test on pairs of clips of `first_target` and `second_target`: class numbers, `Class` or `Margin`.

    A splice consists of the middle halves of both clips, at their original speed.
    """
    targets = [
        prepare_explanation(model, clips, t).score_model.target
        for clips, t in ((first, first_target), (second, second_target))
    ]
    a, b = (jnp.asarray(clips) for clips in (first, second))
    if a.shape != b.shape or a.shape[1] < 2:
        raise ValueError(f"expected pairs of clips with at least two frames, got {a.shape} and {b.shape}")
    if not all(isinstance(target, Class | Margin) for target in targets):
        raise ValueError("the targets of a splice must be classes; give class numbers, Class or Margin")
    same = np.flatnonzero(np.asarray(targets[0].classes) == np.asarray(targets[1].classes)).tolist()
    if same:
        raise ValueError(
            f"the clips of a pair must be of different classes; pairs {', '.join(map(str, same[:10]))} are not"
        )
    t = a.shape[1]
    frames = (t // 2, t - t // 2)
    columns = []
    for order in ((0, 1), (1, 0)):
        parts = [_middle((a, b)[which], n) for which, n in zip(order, frames)]
        video = jnp.concatenate(parts, 1)
        for target_index in (0, 1):
            target_map = explainer(model, video, targets[target_index]).map
            relevance = area_resize(np.maximum(target_map, 0), (t, 1, 1))[..., 0, 0].astype(np.float64)
            half_shares = relevance[:, : frames[0]].mean(1), relevance[:, frames[0] :].mean(1)
            target_share = half_shares[order.index(target_index)]
            columns.append(
                np.where(sum(half_shares) > 0, target_share / np.where(sum(half_shares) > 0, sum(half_shares), 1), 0.5)
            )
    return SpliceResult(np.stack(columns, 1).astype(np.float32))


def _middle(video: Float[Array, "b t h w c"], frames: int) -> Float[Array, "b f h w c"]:
    start = (video.shape[1] - frames) // 2
    return video[:, start : start + frames]
