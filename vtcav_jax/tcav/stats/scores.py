"""How a class score moves along concept vectors: everything about it is in P = GX', and no vector is ever formed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.vectors import Vectors

TIE = 1e-6  # of the gradient's length: below it the sign of a derivative is rounding


@dataclass(frozen=True)
class Scores:
    """Of each class and vector, over the target clips; NaN where the vector is 0.

    `sign_count` is the share of clips whose score rises along the vector, a tie counting half, so that the count of the
    opposite vector is always 1 minus it. `derivative` is the mean derivative along the unit vector, `share` what part
    of the mean gradient length that is. Positive: the concept raises the class score.
    """

    sign_count: Float[np.ndarray, "c v"]
    ties: Int[np.ndarray, "c v"]
    derivative: Float[np.ndarray, "c v"]
    share: Float[np.ndarray, "c v"]
    n_targets: int


@dataclass(frozen=True)
class Stage:
    """What a stage can say about each class before there is any concept.

    `variation` is how much the gradients of the clips differ: their mean squared distance from their mean over their
    mean squared length; `turning` is the same for gradients brought to length 1. Where turning is about 0 the stage is
    `degenerate`: all clips have gradients along one line, as where nothing but a linear map follows, every sign count
    is 0 or 1, and the number of clips means nothing. The cosine between gradient and vector is all there is then; it
    is `Scores.share`. `still`: no clip has a gradient at all.
    """

    variation: Float[np.ndarray, " c"]
    turning: Float[np.ndarray, " c"]
    degenerate: Bool[np.ndarray, " c"]
    still: Bool[np.ndarray, " c"]


def derivatives(gram: Gram, unit: Float[np.ndarray, "v m"]) -> Float[np.ndarray, "c n v"]:
    """Of each class score at each target along each vector, given as coefficients of length 1 (`Vectors.unit`)."""
    return gram.products @ unit.T


def scores(gram: Gram, vectors: Vectors) -> Scores:
    return scores_of(derivatives(gram, vectors.unit), gram.lengths)


def scores_of(along: Float[np.ndarray, "c n v"], lengths: Float[np.ndarray, "c n"]) -> Scores:
    """Of derivatives, however they were found."""
    ties = (np.abs(along) <= TIE * lengths[..., None]).sum(1)
    mean = along.mean(1)
    return Scores(sign_counts(along, lengths), ties, mean, share(mean, lengths), along.shape[1])


def sign_counts(
    along: Float[np.ndarray, "c n v"],
    lengths: Float[np.ndarray, "c n"],
    weights: Float[np.ndarray, "v n"] | None = None,
) -> Float[np.ndarray, "c v"]:
    """The share of clips with a positive derivative, ties as half; `weights` of clips may differ between vectors."""
    level = TIE * lengths[..., None]
    value = np.where(np.isnan(along), np.nan, (along > level) + 0.5 * (np.abs(along) <= level))
    return value.mean(1) if weights is None else np.einsum("vn,cnv->cv", weights, value)


def share(mean: Float[np.ndarray, "c v"], lengths: Float[np.ndarray, "c n"]) -> Float[np.ndarray, "c v"]:
    length = lengths.mean(1, keepdims=True)
    return mean / np.where(length > 0, length, np.nan)


def stage(gram: Gram, tolerance: float = 1e-5) -> Stage:
    """`tolerance` is well above what rounding to float32 makes of gradients that are the same."""
    lengths = gram.lengths
    still = (lengths == 0).all(1)
    variation = 1 - gram.gradients.mean((1, 2)) / np.where(still, np.nan, (lengths**2).mean(1))
    inverse = np.where(lengths > 0, 1 / np.where(lengths > 0, lengths, 1), 0)
    moving = np.where(still, np.nan, (lengths > 0).sum(1))
    turning = 1 - np.einsum("cn,cnk,ck->c", inverse, gram.gradients, inverse) / moving**2
    return Stage(np.maximum(variation, 0), np.maximum(turning, 0), still | (turning <= tolerance), still)
