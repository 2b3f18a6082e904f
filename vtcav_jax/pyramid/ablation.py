"""Do the kernels of a pyramid matter? The score without them, beside the score without as many others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax import tap
from vtcav_jax.attribution.score_model import Scored, explained, on_host
from vtcav_jax.attribution.targets import Target
from vtcav_jax.progress import progress
from vtcav_jax.pyramid.build import from_reference
from vtcav_jax.pyramid.graph import Pyramid
from vtcav_jax.stats import intervals
from vtcav_jax.tap import Model


@dataclass(frozen=True)
class Ablated:
    """Of one stage, the fall of the score when its `kernels` most relevant channels are taken out.

    Means over clips with bootstrap intervals; `random_*` are those of as many channels drawn from the whole stage, its
    interval the middle 95 % of the draws. `p`: how often a draw does as much, counted with the choice itself.
    """

    level: int
    stage: str
    kernels: int
    channels: int  # that the stage has
    drop: float
    drop_low: float
    drop_high: float
    random_drop: float
    random_low: float
    random_high: float
    p: float


def ablation(
    model: Model,
    clips: ArrayLike,
    target: Target,
    pyramid: Pyramid,
    *,
    reference: ArrayLike | None = None,
    counts: Sequence[int] | None = None,
    draws: int = 39,
    seed: int = 0,
) -> tuple[Ablated, ...]:
    """For every stage of the pyramid, and 1, 2, 4, ... of its kernels, the most relevant first, up to all.

    A channel is taken out by what it is in a clip drawn from `reference`, clips of all kinds, or by 0. Only what lies
    behind the stage is computed again. Clips other than those that the pyramid was made of tell more.
    """
    if draws < 1:
        raise ValueError(f"expected draws of at least 1, got {draws}")
    what = explained(model, clips, target)
    stages = [name for level in pyramid.levels for name in level]
    scores, values = tap.activations(what.scored, what.video, stages)
    instead = from_reference(model, reference, len(what.video), pyramid.levels, seed)
    full, random = on_host(scores[:, 0]), np.random.default_rng(seed)
    jobs: list[tuple[int, str, list[int], int]] = []
    for depth, level in enumerate(pyramid.levels):
        for stage in level:
            own = [node.channel for node in pyramid.at(depth) if node.stage == stage]
            sizes = _counts(len(own)) if counts is None else [n for n in counts if n <= len(own)]
            jobs += [(depth, stage, own, n) for n in sizes]
    rows = []
    for depth, stage, own, n in progress(jobs, len(jobs), "ablations", size=lambda _: 1):
        value = values[stage]
        channels = value.shape[-1]
        other = jnp.zeros_like(value) if instead is None else instead[stage]
        falls = []
        for chosen in [own[:n], *(random.choice(channels, n, replace=False) for _ in range(draws))]:
            gone = np.zeros(channels, bool)
            gone[chosen] = True
            falls.append(full - on_host(without(what.scored, what.video, stage, value, other, jnp.asarray(gone))))
        mine, others = falls[0], np.stack(falls[1:]).mean(1)
        p = (1 + int((others >= mine.mean()).sum())) / (1 + draws)
        low, high = (float(q) for q in np.quantile(others, (0.025, 0.975)))
        rows.append(Ablated(depth, stage, n, channels, *intervals.mean(mine), float(others.mean()), low, high, p))
    return tuple(rows)


@partial(jax.jit, static_argnames="stage")
def without(scored: Scored, video: Array, stage: str, value: Array, other: Array, gone: Array) -> Float[Array, " b"]:
    """The score where channels of a stage are taken out, that is, are what they are in `other`."""
    there = jnp.where(gone[None, None, None, None], other, value)
    return scored(video, lambda name, x: there if name == stage else x)[:, 0]


def _counts(most: int) -> list[int]:
    powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return [*powers, most] if most else []
