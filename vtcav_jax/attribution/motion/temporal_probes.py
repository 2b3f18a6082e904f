"""Scores of clips whose frames are frozen, shuffled, reversed or at half the rate: motion by forward passes only."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from vtcav_jax.attribution.baselines import Baseline, resolve_baseline
from vtcav_jax.attribution.score_model import ScoreModel, clip_scores, prepare_explanation, to_numpy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

ProbeScores = Float[np.ndarray, " b"]


@dataclass(frozen=True, eq=False)
class TemporalProbe:
    """Scores of each clip: unedited, with edited time, and frozen at each of its frames."""

    score: ProbeScores
    score_baseline: ProbeScores  # of the baseline, the reference of all scores
    scores_frozen: Float[np.ndarray, "b t"]  # each frame, repeated over the clip
    scores_shuffled: Float[np.ndarray, "b orders"]  # the same frames in another order
    score_reversed: ProbeScores
    score_half_rate: ProbeScores  # every second frame, twice

    @property
    def drop_frozen(self) -> ProbeScores:
        """`(score - mean(scores_frozen)) / (score - score_baseline)`: share of the score lost when the clip is frozen.

        The loss includes motion, the content of other frames, and the effect of static clips on a network that was not
        trained on any.
        """
        return relative_drop(self.score, self.scores_frozen.mean(1), self.score_baseline)

    @property
    def drop_shuffled(self) -> ProbeScores:
        """Share of the score lost when the frames are shuffled, as in `drop_frozen`: motion is lost, but no content."""
        return relative_drop(self.score, self.scores_shuffled.mean(1), self.score_baseline)


def relative_drop(score: ProbeScores, edited_score: ProbeScores, baseline: ProbeScores) -> ProbeScores:
    """Return `(score - edited_score) / (score - baseline)`; NaN unless the score exceeds the baseline's.

    Negative where the edited clip scores higher, above 1 where it scores below the baseline.
    """
    rise = score - baseline
    return np.where(rise > 0, (score - edited_score) / np.where(rise > 0, rise, 1), np.nan)


def temporal_probe(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    baseline: Baseline | None = "zero",
    shuffles: int = 8,
    seed: int = 0,
) -> TemporalProbe:
    """Score the clips, the baseline, and the clips frozen, shuffled, reversed and at half their rate.

        probe = temporal_probe(model, clips, 3)
        probe.drop_shuffled  # (score - mean(scores_shuffled)) / (score - score_baseline) of each clip

    `baseline` None stands for a score of 0: for a margin, no class is preferred.
    """
    context = prepare_explanation(model, clips, target)
    orders = frame_orders(context.video.shape[1], shuffles, seed)
    ordered_scores = np.stack(
        [to_numpy(_reordered_scores(context.score_model, context.video, jnp.asarray(order))) for order in orders]
    )
    score_baseline = (
        None if baseline is None else clip_scores(context.score_model, resolve_baseline(context.video, baseline))
    )
    return probe_from_scores(ordered_scores, context.video.shape[1], score_baseline)


def frame_orders(frames: int, shuffles: int, seed: int) -> Int[np.ndarray, "n frames"]:
    """Return frame orders: each frame frozen, `shuffles` shuffled, reversed, half rate, and the original order."""
    if shuffles < 1:
        raise ValueError(f"expected at least one shuffled order, got {shuffles}")
    if frames < 2:
        raise ValueError("expected clips of at least two frames, got one frame, whose time cannot be edited")
    random, t = np.random.default_rng(seed), np.arange(frames)
    shuffled_orders = [random.permutation(frames) for _ in range(shuffles)]
    return np.stack([*(np.full(frames, i) for i in t), *shuffled_orders, t[::-1], t // 2 * 2, t]).astype(np.int32)


def probe_from_scores(
    ordered_scores: Float[np.ndarray, "n b"], frames: int, score_baseline: ProbeScores | None
) -> TemporalProbe:
    """Return the probe of clips from their scores in all `frame_orders`."""
    scores_frozen, scores_shuffled, (score_reversed, score_half_rate, score) = (
        ordered_scores[:frames],
        ordered_scores[frames:-3],
        ordered_scores[-3:],
    )
    return TemporalProbe(
        score,
        np.zeros_like(score) if score_baseline is None else score_baseline,
        scores_frozen.T,
        scores_shuffled.T,
        score_reversed,
        score_half_rate,
    )


def logits_in_orders(model: Model, video: Array, orders: Int[np.ndarray, "n frames"]) -> Float[np.ndarray, "n b k"]:
    """Return the logits of clips in each order, which serve all targets of classes."""
    return np.stack([np.asarray(_reordered_logits(model, video, jnp.asarray(order)), np.float32) for order in orders])


@jax.jit
def _reordered_logits(model: Model, video: Array, order: Array) -> Float[Array, "b k"]:
    return model(video[:, order])


@jax.jit
def _reordered_scores(score_model: ScoreModel, video: Array, order: Array) -> Float[Array, " b"]:
    return score_model.score(video[:, order])
