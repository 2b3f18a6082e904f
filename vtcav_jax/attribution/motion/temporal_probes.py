"""What becomes of a score when a clip's time is changed: forward passes only, and the plainest measure of motion."""

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
    """The score of each clip as it is, with its time changed, and of each of its frames standing still."""

    score: ProbeScores
    score_baseline: ProbeScores  # of nothing: what all scores are held against
    scores_frozen: Float[np.ndarray, "b t"]  # of each frame, as long as the clip lasts
    scores_shuffled: Float[np.ndarray, "b orders"]  # the same frames in another order
    score_reversed: ProbeScores
    score_half_rate: ProbeScores  # every second frame, shown twice

    @property
    def drop_frozen(self) -> ProbeScores:
        """Of what raises the score above the baseline's, how much is gone when the clip stands still.

        The mean over the frames at which it may. What goes is motion, what is seen in other frames, and what a network
        that never saw a still clip makes of one.
        """
        return relative_drop(self.score, self.scores_frozen.mean(1), self.score_baseline)

    @property
    def drop_shuffled(self) -> ProbeScores:
        """As `still_share`, when the same frames come in another order: nothing seen is gone, but motion is."""
        return relative_drop(self.score, self.scores_shuffled.mean(1), self.score_baseline)


def relative_drop(score: ProbeScores, edited_score: ProbeScores, baseline: ProbeScores) -> ProbeScores:
    """What is lost of the score's rise; NaN where it does not rise: of nothing there is no share.

    Below 0 where the changed clip scores higher, above 1 where it scores less than nothing.
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
    """Scores of the clips, of `baseline`, and of the clips frozen, shuffled, reversed and at half their rate.

    None as `baseline` is a score of 0: for a margin, that nothing is preferred.
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
    """Each frame standing still, shuffled ones, backwards, every second frame twice, and as it was."""
    if shuffles < 1:
        raise ValueError(f"expected at least one shuffled order, got {shuffles}")
    if frames < 2:
        raise ValueError("a clip of one frame has no time that could be changed; expected at least two frames")
    random, t = np.random.default_rng(seed), np.arange(frames)
    shuffled_orders = [random.permutation(frames) for _ in range(shuffles)]
    return np.stack([*(np.full(frames, i) for i in t), *shuffled_orders, t[::-1], t // 2 * 2, t]).astype(np.int32)


def probe_from_scores(
    ordered_scores: Float[np.ndarray, "n b"], frames: int, score_baseline: ProbeScores | None
) -> TemporalProbe:
    """Of the scores of clips in all `orders`."""
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
    """For all questions about classes at once."""
    return np.stack([np.asarray(_reordered_logits(model, video, jnp.asarray(order)), np.float32) for order in orders])


@jax.jit
def _reordered_logits(model: Model, video: Array, order: Array) -> Float[Array, "b k"]:
    return model(video[:, order])


@jax.jit
def _reordered_scores(score_model: ScoreModel, video: Array, order: Array) -> Float[Array, " b"]:
    return score_model.score(video[:, order])
