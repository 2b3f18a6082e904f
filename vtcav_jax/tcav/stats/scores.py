"""Sensitivity of class scores along concept vectors, computed from P = GX' without forming the vectors."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.vectors import ConceptVectors

TIE_TOLERANCE = 1e-6  # relative to the gradient norm; smaller derivatives have a sign by rounding only


@dataclass(frozen=True)
class TcavScores:
    """TCAV scores of each class and vector over the target clips; NaN where the vector is 0.

    `sign_count` is the share of clips whose score rises along the vector; ties count half, so that the opposite vector
    has 1 minus this value. `derivative` is the mean derivative along the unit vector (positive: the concept raises the
    class score), `relative_derivative` its ratio to the mean gradient norm.
    """

    sign_count: Float[np.ndarray, "c v"]
    n_ties: Int[np.ndarray, "c v"]
    derivative: Float[np.ndarray, "c v"]
    relative_derivative: Float[np.ndarray, "c v"]
    n_clips: int


@dataclass(frozen=True)
class GradientStats:
    """Diversity of the target clips' gradients of each class at a stage (layer).

    `variation` is the mean squared distance of the gradients from their mean, relative to their mean squared norm;
    `gradient_diversity` the same for gradients of norm 1. Where the latter is about 0, the stage is `degenerate`: all
    clips have parallel gradients (for example if only a linear map follows), every sign count is 0 or 1 for any number
    of clips, and only the cosine between gradient and vector is informative: `TcavScores.relative_derivative`.
    `zero_gradient`: the gradients of all clips are 0.
    """

    variation: Float[np.ndarray, " c"]
    gradient_diversity: Float[np.ndarray, " c"]
    degenerate: Bool[np.ndarray, " c"]
    zero_gradient: Bool[np.ndarray, " c"]


def derivatives(gram: Gram, unit: Float[np.ndarray, "v m"]) -> Float[np.ndarray, "c n v"]:
    """Return the derivative of each class score at each target clip along each unit vector (`ConceptVectors.unit`)."""
    return gram.cross @ unit.T


def tcav_scores(gram: Gram, vectors: ConceptVectors) -> TcavScores:
    return scores_from_derivatives(derivatives(gram, vectors.unit), gram.gradient_norms)


def scores_from_derivatives(
    target_derivatives: Float[np.ndarray, "c n v"], gradient_norms: Float[np.ndarray, "c n"]
) -> TcavScores:
    """Summarise derivatives, from gradients or finite steps, over the target clips."""
    n_ties = (np.abs(target_derivatives) <= TIE_TOLERANCE * gradient_norms[..., None]).sum(1)
    mean = target_derivatives.mean(1)
    return TcavScores(
        sign_counts(target_derivatives, gradient_norms),
        n_ties,
        mean,
        relative_derivative(mean, gradient_norms),
        target_derivatives.shape[1],
    )


def sign_counts(
    target_derivatives: Float[np.ndarray, "c n v"],
    gradient_norms: Float[np.ndarray, "c n"],
    weights: Float[np.ndarray, "v n"] | None = None,
) -> Float[np.ndarray, "c v"]:
    """Return the share of clips with a positive derivative, ties as half; `weights` of clips may differ by vector."""
    tie_level = TIE_TOLERANCE * gradient_norms[..., None]
    value = np.where(
        np.isnan(target_derivatives),
        np.nan,
        (target_derivatives > tie_level) + 0.5 * (np.abs(target_derivatives) <= tie_level),
    )
    return value.mean(1) if weights is None else np.einsum("vn,cnv->cv", weights, value)


def relative_derivative(
    mean: Float[np.ndarray, "c v"], gradient_norms: Float[np.ndarray, "c n"]
) -> Float[np.ndarray, "c v"]:
    mean_norm = gradient_norms.mean(1, keepdims=True)
    return mean / np.where(mean_norm > 0, mean_norm, np.nan)


def gradient_stats(gram: Gram, tolerance: float = 1e-5) -> GradientStats:
    """Compute gradient diversity; `tolerance` is well above that of equal gradients rounded to float32."""
    gradient_norms = gram.gradient_norms
    zero_gradient = (gradient_norms == 0).all(1)
    variation = 1 - gram.gradients.mean((1, 2)) / np.where(zero_gradient, np.nan, (gradient_norms**2).mean(1))
    inverse_norms = np.where(gradient_norms > 0, 1 / np.where(gradient_norms > 0, gradient_norms, 1), 0)
    n_nonzero = np.where(zero_gradient, np.nan, (gradient_norms > 0).sum(1))
    gradient_diversity = 1 - np.einsum("cn,cnk,ck->c", inverse_norms, gram.gradients, inverse_norms) / n_nonzero**2
    return GradientStats(
        np.maximum(variation, 0),
        np.maximum(gradient_diversity, 0),
        zero_gradient | (gradient_diversity <= tolerance),
        zero_gradient,
    )
