"""Three uncertainties apart: other concept clips, other negatives, other target clips; and all three together.

Targets are drawn with replacement as usual. Concept clips and negatives are not: a vector from a draw has a third fewer
different clips behind it, and in many dimensions that alone makes it so much noisier that no draw comes near what the
real vector reaches; the percentiles of a strong concept then lie altogether below its estimate. So a vector is trained
without each clip in turn, the difference to each target's derivative is that clip's influence, and a draw adds up the
influences of the clips that it has. That needs one vector per clip, not one per draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.scores import derivatives, sign_counts
from vtcav_jax.tcav.stats.vectors import LOGISTIC, Training, fit

Source = Literal["concept", "negatives", "targets", "all"]
SOURCES: tuple[Source, ...] = ("concept", "negatives", "targets", "all")
GROUPS = 50  # where a side has more clips, that many groups of them are left out in turn


@dataclass(frozen=True)
class Interval:
    """Percentiles over the draws, for each class."""

    low: Float[np.ndarray, " c"]
    high: Float[np.ndarray, " c"]


@dataclass(frozen=True)
class Intervals:
    sign_count: Interval
    derivative: Interval
    share: Interval


def bootstrap(
    gram: Gram,
    signed: Float[np.ndarray, " m"],
    training: Training = LOGISTIC,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int | Sequence[int] = 0,
    sources: Sequence[Source] = SOURCES,
) -> dict[Source, Intervals]:
    """The interval of each value over `draws`, when only that source, or all of them, had come out differently."""
    return bootstraps([gram], signed, training, draws=draws, level=level, seed=seed, sources=sources)[0]


def bootstraps(
    grams: Sequence[Gram],
    signed: Float[np.ndarray, " m"],
    training: Training = LOGISTIC,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int | Sequence[int] = 0,
    sources: Sequence[Source] = SOURCES,
    observed: Sequence[Float[np.ndarray, "c n"]] | None = None,
) -> list[dict[Source, Intervals]]:
    """The same for several groups of targets over one K: their vectors are trained once.

    `observed` are the derivatives where they are not those of `gram`; what other clips would change is still that.
    """
    sides = [np.flatnonzero(sign * signed > 0) for sign in (1, -1)]
    problems = []
    if draws < 2 or not 0 < level < 1:
        problems.append(f"expected at least 2 draws and a level between 0 and 1, got {draws} and {level}")
    if min(len(side) for side in sides) < 2:
        problems.append(f"other clips are drawn from at least 2 on each side, got {[len(side) for side in sides]}")
    if problems:
        raise ValueError("; ".join(problems))
    for_clips, for_targets = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(for_clips)
    # Drawn for every source, so that none depends on which others are asked for
    left_out, counts = zip(*(_left_out(signed, side, draws, rng) for side in sides))
    rows = np.concatenate([signed[None], *left_out])
    unit = fit(grams[0].kernel, rows, training).unit
    ends = np.cumsum([1, *map(len, left_out)])
    found = []
    for i, gram in enumerate(grams):
        along = derivatives(gram, unit)
        estimate = along[:, :, :1]
        moved = [
            (len(count[0]) - 1) / len(count[0]) * (estimate - along[:, :, start:stop]) @ (count - 1.0).T
            for start, stop, count in zip(ends, ends[1:], counts)
        ]
        centre = estimate if observed is None else observed[i][:, :, None]
        changes: dict[Source, Any] = {
            "concept": moved[0],
            "negatives": moved[1],
            "targets": 0.0,
            "all": moved[0] + moved[1],
        }
        found.append(_intervals(gram, centre, changes, draws, level, np.random.default_rng(for_targets), sources))
    return found


def _left_out(
    signed: Float[np.ndarray, " m"], side: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "g m"], Int[np.ndarray, "b g"]]:
    """The labels without each clip of one side in turn, and how often each draw has it."""
    groups = min(len(side), GROUPS)
    rows = np.tile(signed, (groups, 1))
    rows[np.arange(len(side)) % groups, rng.permutation(side)] = 0
    return rows, rng.multinomial(groups, np.full(groups, 1 / groups), draws)


def _intervals(
    gram: Gram,
    centre: Float[np.ndarray, "c n 1"],
    changes: dict[Source, Any],
    draws: int,
    level: float,
    rng: np.random.Generator,
    sources: Sequence[Source],
) -> dict[Source, Intervals]:
    n = gram.products.shape[1]
    targets = rng.multinomial(n, np.full(n, 1 / n), draws) / n
    same = np.full((1, n), 1 / n)
    found: dict[Source, Intervals] = {}
    for source in sources:
        along = np.broadcast_to(centre + changes[source], (*centre.shape[:2], draws))
        clips = np.broadcast_to(targets if source in ("targets", "all") else same, (draws, n))
        mean = np.einsum("vn,cnv->cv", clips, along)
        lengths = gram.lengths @ clips.T
        share = np.clip(mean / np.where(lengths > 0, lengths, np.nan), -1, 1)
        counts = sign_counts(along, gram.lengths, clips)
        found[source] = Intervals(_interval(counts, level), _interval(mean, level), _interval(share, level))
    return found


def _interval(values: Float[np.ndarray, "c b"], level: float) -> Interval:
    real = ~np.isnan(values).all(1)
    low, high = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if real.any():
        low[real], high[real] = np.nanquantile(values[real], [(1 - level) / 2, (1 + level) / 2], axis=1)
    return Interval(low, high)
