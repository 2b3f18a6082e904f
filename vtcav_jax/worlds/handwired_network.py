"""Hand-wired network on clips of dots, for which the Shapley value of every voxel is known in closed form.

For direction d, the score counts pairs of lit voxels, the second one step further and one frame later:

    f_d(x) = sum over t, p of relu(x[t, p] + x[t+1, p+d] - 1)

On a binary clip, each term is 1 if both voxels are lit, else 0: a game that two players win only together, so that each
receives half. Shapley values are additive over terms, so a voxel's value is half the number of lit pairs that contain
it, if absent voxels are 0. Integrated gradients with a black baseline give the same values. Space wraps around; time
does not.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vtcav_jax.tap import Tap, identity_tap
from vtcav_jax.worlds.spec import DIRECTION_STEPS


@jax.tree_util.register_static
@dataclass(frozen=True)
class MotionPairs:
    """Network whose classes are the four directions; colours are averaged, so a voxel is lit if all its colours are."""

    step: int = 1  # pixels per frame
    stages: ClassVar[tuple[str, ...]] = ("sums", "pairs")

    def __call__(self, video: Float[Array, "b t h w c"], tap: Tap = identity_tap) -> Float[Array, "b 4"]:
        x = video.mean(-1)
        ends = [
            jnp.roll(x[:, 1:], tuple(-self.step * d for d in direction), (2, 3))
            for direction in DIRECTION_STEPS.tolist()
        ]
        sums = tap("sums", x[:, :-1, ..., None] + jnp.stack(ends, -1) - 1)  # at the earlier voxel of each pair
        pairs = tap("pairs", jax.nn.relu(sums))
        return pairs.sum((1, 2, 3))


MOTION_PAIRS = MotionPairs()


def shapley_values(video: Float[np.ndarray, "b t h w c"], step: int = 1) -> Float[np.ndarray, "4 b t h w"]:
    """Return the Shapley value (float64) of every voxel for every direction; all colours of a voxel are one player."""
    if not np.isin(video, (0, 1)).all() or (video != video[..., :1]).any():
        raise ValueError("the closed form requires clips of 0 and 1 with equal colours; see binary_clips")
    x = video[..., 0].astype(np.float64)
    values = np.zeros((len(DIRECTION_STEPS), *x.shape))
    for k, direction in enumerate(step * DIRECTION_STEPS):
        lit = x[:, :-1] * np.roll(x[:, 1:], tuple(-direction), (2, 3))
        values[k, :, :-1] += lit / 2
        values[k, :, 1:] += np.roll(lit, tuple(direction), (2, 3)) / 2
    return values


def binary_clips(
    n: int, seed: int, *, frames: int = 8, size: int = 16, dots: int = 12, density: float = 0.05, step: int = 1
) -> tuple[Float[np.ndarray, "n t h w 1"], Int[np.ndarray, " n"]]:
    """Make binary clips of `dots` that move coherently among random dots, and return them with their directions.

    Clip i of a seed does not depend on `n`. With the defaults, a clip has about 88 pairs in its direction and 15 in
    each other one; with few dots or a high `density`, random pairs may outnumber the coherent ones.
    """
    video = np.empty((n, frames, size, size, 1), np.float32)
    labels = np.empty(n, np.int64)
    for i in range(n):
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        labels[i] = random.integers(len(DIRECTION_STEPS))
        y, x = np.divmod(random.choice(size * size, dots, replace=False), size)
        dy, dx = step * DIRECTION_STEPS[labels[i]]
        clip = random.random((frames, size, size)) < density
        for t in range(frames):
            clip[t, (y + t * dy) % size, (x + t * dx) % size] = True
        video[i, ..., 0] = clip
    return video, labels
