"""What becomes of a score when a clip's time is changed: forward passes only, and the plainest measure of motion."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.baselines import Baseline, missing
from vtcav_jax.attribution.passes import Scored, explained, on_host
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

Scores = Float[np.ndarray, " b"]


@dataclass(frozen=True, eq=False)
class Probe:
    """The score of each clip as it is, with its time changed, and of each of its frames standing still."""

    score: Scores
    baseline: Scores  # of nothing: what all scores are held against
    frozen: Float[np.ndarray, "b t"]  # of each frame, as long as the clip lasts
    shuffled: Scores  # the mean over orders
    reversed: Scores
    half_rate: Scores  # every second frame, shown twice

    @property
    def temporal_share(self) -> Scores:
        """Of what raises the score above the baseline's, how much is gone when the clip stands still.

        The mean over the frames at which it may. NaN where the clip does not raise the score: of nothing there is no
        share. Below 0 where it scores higher standing still; above 1 where standing still it scores less than nothing.
        """
        return temporal_share(self.score, self.frozen.mean(1), self.baseline)

    @property
    def temporal_range(self) -> Float[np.ndarray, "2 b"]:
        """The least and the greatest share over the frames: how much hangs on which one it stands still at."""
        shares = np.stack([temporal_share(self.score, one, self.baseline) for one in self.frozen.T])
        return np.stack([shares.min(0), shares.max(0)])


def temporal_share(score: Scores, still: Scores, baseline: Scores) -> Scores:
    rise = score - baseline
    return np.where(rise > 0, (score - still) / np.where(rise > 0, rise, 1), np.nan)


def temporal_probe(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    baseline: Baseline = "zero",
    shuffles: int = 4,
    seed: int = 0,
) -> Probe:
    """Scores of the clips, of `baseline`, and of the clips frozen, shuffled, reversed and at half their rate."""
    if shuffles < 1:
        raise ValueError(f"expected at least one shuffled order, got {shuffles}")
    what = explained(model, clips, target)
    t = what.video.shape[1]
    if t < 2:
        raise ValueError("a clip of one frame has no time that could be changed; expected at least two frames")
    random = np.random.default_rng(seed)
    orders = [np.full(t, i) for i in range(t)] + [random.permutation(t) for _ in range(shuffles)]
    orders += [np.arange(t)[::-1], np.arange(t) // 2 * 2, np.arange(t)]
    scores = on_host(_ordered(what.scored, what.video, jnp.asarray(np.stack(orders), jnp.int32)))
    frozen, shuffled, (backwards, half, whole) = scores[:t], scores[t:-3], scores[-3:]
    empty = on_host(_score(what.scored, missing(what.video, baseline)))
    return Probe(whole, empty, frozen.T, shuffled.mean(0), backwards, half)


def scores(scored: Scored, video: Array) -> Scores:
    return on_host(_score(scored, video))


@jax.jit
def _ordered(scored: Scored, video: Array, orders: Array) -> Float[Array, "orders b"]:
    return jax.lax.map(lambda order: scored.score(video[:, order]), orders)


@jax.jit
def _score(scored: Scored, video: Array) -> Float[Array, " b"]:
    return scored.score(video)
