"""Concept vectors: linear classifiers between examples, fitted in batches from the examples' kernel K alone.

A label vector has one number per example: the sign is the side (positive: the concept), the magnitude the weight, and
0 means unused. Random sets, permutations, bootstraps and folds are label vectors over the same K. A concept vector
w = X'a is represented by its coefficients `a`, which sum to 0: w does not depend on the centre of X, and only
`intercept` relates w.x to the classifier's score.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.settings import check_settings, setting
from vtcav_jax.tcav.stats import kernel_lbfgs

ESTIMATORS = "logistic", "ridge", "mean_difference"
Kernel = Float[np.ndarray, "m m"]
Labels = Float[np.ndarray, "v m"]

KERNEL_NUMBERS_PER_BLOCK = 2**25  # entries of K copied at once when each vector has its own examples


@dataclass(frozen=True)
class FitConfig:
    """Estimator of concept vectors from labels.

    logistic: minimises the mean log loss + l2/2 |w|^2. ridge: minimises half the mean squared distance to the labels -1
    and 1, with the same penalty. Both have an intercept without penalty. mean_difference: mean of the concept minus
    mean of the negatives. With `relative_l2`, `l2` is multiplied by the mean squared distance of a vector's examples
    from their mean, so that a value is equally strong at every stage. Iterations stop when the relative error of w is
    at most `tolerance`.
    """

    estimator: str = setting("logistic", "how concept vectors are estimated", choices=ESTIMATORS)
    l2: float = setting(0.01, "L2 penalty of logistic and ridge", above=0)
    relative_l2: bool = True
    tolerance: float = 1e-7
    max_iterations: int = 500

    def __post_init__(self):
        check_settings(self)


LOGISTIC = FitConfig()


@dataclass(frozen=True)
class ConceptVectors:
    """Concept vectors w = X'a of several label vectors.

    `l2` is the penalty in the objective; `residual` bounds the relative error of w (see `kernel_lbfgs.Solution`).
    """

    estimator: str
    a: Float[np.ndarray, "v m"]
    intercept: Float[np.ndarray, " v"]
    norm: Float[np.ndarray, " v"]  # |w|; 0 if the two sides do not differ
    l2: Float[np.ndarray, " v"]
    residual: Float[np.ndarray, " v"]
    iterations: Int[np.ndarray, " v"]
    converged: Bool[np.ndarray, " v"]

    def __len__(self) -> int:
        return len(self.norm)

    @property
    def unit(self) -> Float[np.ndarray, "v m"]:
        """Coefficients of w / |w|; NaN for the zero vector."""
        return self.a / np.where(self.norm > 0, self.norm, np.nan)[:, None]

    def take(self, rows: Int[np.ndarray, " w"] | slice) -> "ConceptVectors":
        """Return some of the vectors."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _VECTOR_ARRAYS})


_VECTOR_ARRAYS = ("a", "intercept", "norm", "l2", "residual", "iterations", "converged")


def concatenate_vectors(parts: Sequence[ConceptVectors]) -> ConceptVectors:
    """Return the vectors of all parts, which have the same examples."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _VECTOR_ARRAYS}
    return ConceptVectors(parts[0].estimator, **arrays)


def label_vector(
    positive: Iterable[int] | Int[np.ndarray, " p"],
    negative: Iterable[int] | Int[np.ndarray, " n"],
    count: int,
    *,
    balanced: bool = False,
) -> Float[np.ndarray, " m"]:
    """Return the label vector of these examples out of `count`; `balanced` gives both sides the same total weight."""
    sides = [np.array(list(side), int) for side in (positive, negative)]
    problems = [
        f"{name} needs at least one example" for name, side in zip(("positive", "negative"), sides) if not len(side)
    ]
    examples = np.concatenate(sides)
    if len(unknown_examples := examples[(examples < 0) | (examples >= count)]):
        unknown_names = ", ".join(map(str, unknown_examples))
        problems.append(f"examples are numbered 0 to {count - 1}, there is no example {unknown_names}")
    if len(np.unique(examples)) < len(examples):
        problems.append("an example must be listed only once, on one side")
    if problems:
        raise ValueError("; ".join(problems))
    out = np.zeros(count)
    for side, sign in zip(sides, (1.0, -1.0)):
        out[side] = sign * (len(examples) / 2 / len(side) if balanced else 1.0)
    return out


def fit(
    kernel: Kernel,
    labels: Labels,
    fit_config: FitConfig = LOGISTIC,
    l2: Float[np.ndarray, " v"] | None = None,
) -> ConceptVectors:
    """Fit one concept vector per row of `labels`; `l2` overrides `fit_config.l2` for each vector."""
    kernel, labels = np.asarray(kernel, np.float64), np.asarray(labels, np.float64)
    l2 = np.full(len(labels), float(fit_config.l2)) if l2 is None else l2
    _check(kernel, labels, l2)
    if fit_config.estimator == "mean_difference":
        return _mean_difference(kernel, labels)
    if fit_config.relative_l2:
        l2 = l2 * mean_squared_spread(kernel, labels)
    l2 = np.where(l2 > 0, l2, 1.0)  # l2 is 0 only if all examples are equal, and then w is 0 for any penalty
    parts = [
        _solve_rows(kernel, labels[rows], has_own_kernel, l2[rows], fit_config)
        for rows, has_own_kernel in _row_blocks(labels != 0)
    ]
    a, intercept, *solver_stats = (np.concatenate(arrays) for arrays in zip(*parts))
    return ConceptVectors(fit_config.estimator, a, intercept, norms(kernel, a), l2, *solver_stats)


def mean_squared_spread(kernel: Kernel, labels: Labels) -> Float[np.ndarray, " v"]:
    """Return the mean squared distance of each label vector's examples from their mean."""
    weights = np.abs(labels) / np.abs(labels).sum(1, keepdims=True)
    centre = np.einsum("vm,vm->v", weights @ kernel, weights)
    return np.maximum(weights @ np.diagonal(kernel) - centre, 0)


def norms(kernel: Kernel, a: Float[np.ndarray, "v m"]) -> Float[np.ndarray, " v"]:
    return np.sqrt(np.maximum(np.einsum("vm,vm->v", a @ kernel, a), 0))


def classifier_scores(kernel: Kernel, vectors: ConceptVectors) -> Float[np.ndarray, "v m"]:
    """Return each classifier's score of every example, including those that it was not trained on."""
    return vectors.a @ kernel + vectors.intercept[:, None]


def cosines(kernel: Kernel, left: ConceptVectors, right: ConceptVectors | None = None) -> Float[np.ndarray, "v w"]:
    """Return the cosines between all vectors of `left` and of `right` (default `left`); NaN for zero vectors."""
    right = left if right is None else right
    return np.clip(left.unit @ kernel @ right.unit.T, -1, 1)


def side_weights(labels: Labels) -> tuple[Float[np.ndarray, "v m"], Float[np.ndarray, "v m"]]:
    """Return the weights of the examples in the mean of the concept and in that of the negatives."""
    positive, negative = (np.where(sign * labels > 0, np.abs(labels), 0) for sign in (1, -1))
    return positive / positive.sum(1, keepdims=True), negative / negative.sum(1, keepdims=True)


def _mean_difference(kernel: Kernel, labels: Labels) -> ConceptVectors:
    positive, negative = side_weights(labels)
    a = positive - negative
    row = a @ kernel
    intercept = -np.einsum("vm,vm->v", row, positive + negative) / 2
    norm = np.sqrt(np.maximum(np.einsum("vm,vm->v", row, a), 0))
    zeros, count = np.zeros(len(a)), len(a)
    return ConceptVectors(
        "mean_difference",
        a,
        intercept,
        norm,
        np.full(count, np.nan),
        zeros,
        np.zeros(count, int),
        np.ones(count, bool),
    )


def _row_blocks(used: Bool[np.ndarray, "v m"]) -> list[tuple[slice, bool]]:
    """Return the rows to solve together, and whether each row gets its own K.

    A product with one K of all used examples is a matrix product; products with a K per row are bound by memory
    bandwidth, about 12 times slower per entry, but have fewer entries if each row uses few examples.
    """
    size, union = int(used.sum(1).max()), int(used.any(0).sum())
    has_own_kernel = 12 * size**2 < union**2
    step = (
        max(1, KERNEL_NUMBERS_PER_BLOCK // size**2)
        if has_own_kernel
        else max(1024, KERNEL_NUMBERS_PER_BLOCK // (8 * union))
    )
    return [(slice(i, i + step), has_own_kernel) for i in range(0, len(used), step)]


def _solve_rows(
    kernel: Kernel, labels: Labels, has_own_kernel: bool, l2: Float[np.ndarray, " v"], fit_config: FitConfig
) -> tuple[np.ndarray, ...]:
    """Return `a`, `intercept`, `residual`, `iterations` and `converged` of `ConceptVectors`."""
    used = labels != 0
    if has_own_kernel:
        size = int(used.sum(1).max())
        index = np.argsort(~used, axis=1, kind="stable")[:, :size]  # shorter rows are padded with weight 0
        row_labels = np.take_along_axis(labels, index, 1)
        row_kernel = kernel[index[:, :, None], index[:, None, :]]
        weights = centre = np.abs(row_labels) / np.abs(row_labels).sum(1, keepdims=True)
        row = np.matmul(row_kernel, centre[:, :, None])
        row_kernel += np.matmul(centre[:, None, :], row) - row - row.swapaxes(1, 2)
        row = row[:, :, 0]
    else:
        index = np.flatnonzero(used.any(0))
        row_labels = labels[:, index]
        row_kernel = kernel[np.ix_(index, index)]
        weights = np.abs(row_labels) / np.abs(row_labels).sum(1, keepdims=True)
        # One centre for all labels, so that fits share a factor of K: the optimum does not depend on it, rounding does
        centre = np.full(len(index), 1 / len(index))
        row = row_kernel @ centre
        row_kernel += centre @ row - row - row[:, None]
    loss = "logistic" if fit_config.estimator == "logistic" else "squares"
    solution = kernel_lbfgs.minimise(
        row_kernel, row_labels, l2, loss, tolerance=fit_config.tolerance, max_iterations=fit_config.max_iterations
    )
    a = solution.a - solution.a.sum(1, keepdims=True) * weights  # the sum is 0 at the exact optimum
    intercept = solution.intercept - (a * row).sum(1)
    coefficients = np.zeros_like(labels)
    if has_own_kernel:
        np.put_along_axis(coefficients, index, a, 1)
    else:
        coefficients[:, index] = a
    return coefficients, intercept, solution.residual, solution.iterations, solution.converged


def _check(kernel: Kernel, labels: Labels, l2: Float[np.ndarray, " v"]) -> None:
    problems = []
    if labels.shape[1] != len(kernel):
        problems.append(f"label vectors need one number per example ({len(kernel)}), got {labels.shape[1]}")
    if not np.isfinite(kernel).all():
        problems.append("K has values that are not finite; check for clips whose activations overflow")
    if not np.isfinite(labels).all():
        problems.append("labels must be finite")
    if len(one_sided := np.flatnonzero(~((labels > 0).any(1) & (labels < 0).any(1)))):
        problems.append(
            f"each label vector needs examples on both sides; rows {_format_rows(one_sided)} have only one side"
        )
    if not (np.isfinite(l2) & (l2 > 0)).all():
        problems.append("l2 must be above 0: without a penalty the classifier has no optimum for separable sides")
    if problems:
        raise ValueError("; ".join(problems))


def _format_rows(rows: Sequence[int] | np.ndarray) -> str:
    return ", ".join(str(i) for i in rows[:5]) + (" ..." if len(rows) > 5 else "")
