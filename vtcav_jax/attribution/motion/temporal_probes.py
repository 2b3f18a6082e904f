"""What becomes of a score when a clip's time is changed: forward passes only, and the plainest measure of motion."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from vtcav_jax.attribution.baselines import Baseline, missing
from vtcav_jax.attribution.score_model import Scored, explained, on_host, scores
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

Scores = Float[np.ndarray, " b"]


@dataclass(frozen=True, eq=False)
class Probe:
    """The score of each clip as it is, with its time changed, and of each of its frames standing still."""

    score: Scores
    baseline: Scores  # of nothing: what all scores are held against
    frozen: Float[np.ndarray, "b t"]  # of each frame, as long as the clip lasts
    shuffled: Float[np.ndarray, "b orders"]  # the same frames in another order
    reversed: Scores
    half_rate: Scores  # every second frame, shown twice

    @property
    def still_share(self) -> Scores:
        """Of what raises the score above the baseline's, how much is gone when the clip stands still.

        The mean over the frames at which it may. What goes is motion, what is seen in other frames, and what a network
        that never saw a still clip makes of one.
        """
        return share(self.score, self.frozen.mean(1), self.baseline)

    @property
    def order_share(self) -> Scores:
        """As `still_share`, when the same frames come in another order: nothing seen is gone, but motion is."""
        return share(self.score, self.shuffled.mean(1), self.baseline)


def share(score: Scores, changed: Scores, baseline: Scores) -> Scores:
    """What is lost of the score's rise; NaN where it does not rise: of nothing there is no share.

    Below 0 where the changed clip scores higher, above 1 where it scores less than nothing.
    """
    rise = score - baseline
    return np.where(rise > 0, (score - changed) / np.where(rise > 0, rise, 1), np.nan)


def temporal_probe(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    baseline: Baseline | None = "zero",
    shuffles: int = 8,
    seed: int = 0,
) -> Probe:
    """Scores of the clips, of `baseline`, and of the clips frozen, shuffled, reversed and at half their rate.

    None as `baseline` is a score of 0: for a margin, that nothing is preferred.
    """
    what = explained(model, clips, target)
    some = orders(what.video.shape[1], shuffles, seed)
    found = np.stack([on_host(_ordered(what.scored, what.video, jnp.asarray(order))) for order in some])
    empty = None if baseline is None else scores(what.scored, missing(what.video, baseline))
    return as_probe(found, what.video.shape[1], empty)


def orders(frames: int, shuffles: int, seed: int) -> Int[np.ndarray, "n frames"]:
    """Each frame standing still, shuffled ones, backwards, every second frame twice, and as it was."""
    if shuffles < 1:
        raise ValueError(f"expected at least one shuffled order, got {shuffles}")
    if frames < 2:
        raise ValueError("a clip of one frame has no time that could be changed; expected at least two frames")
    random, t = np.random.default_rng(seed), np.arange(frames)
    shuffled = [random.permutation(frames) for _ in range(shuffles)]
    return np.stack([*(np.full(frames, i) for i in t), *shuffled, t[::-1], t // 2 * 2, t]).astype(np.int32)


def as_probe(found: Float[np.ndarray, "n b"], frames: int, baseline: Scores | None) -> Probe:
    """Of the scores of clips in all `orders`."""
    frozen, shuffled, (backwards, half, whole) = found[:frames], found[frames:-3], found[-3:]
    return Probe(whole, np.zeros_like(whole) if baseline is None else baseline, frozen.T, shuffled.T, backwards, half)


def logits_in_orders(model: Model, video: Array, orders: Int[np.ndarray, "n frames"]) -> Float[np.ndarray, "n b k"]:
    """For all questions about classes at once."""
    return np.stack([np.asarray(_reordered(model, video, jnp.asarray(order)), np.float32) for order in orders])


@jax.jit
def _reordered(model: Model, video: Array, order: Array) -> Float[Array, "b k"]:
    return model(video[:, order])


@jax.jit
def _ordered(scored: Scored, video: Array, order: Array) -> Float[Array, " b"]:
    return scored.score(video[:, order])
