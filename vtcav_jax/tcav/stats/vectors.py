"""Concept vectors: linear classifiers between examples, any number at once, from the examples' products alone.

A label vector has one number per example: its sign says which side the example is on (positive: the concept), its size
how much it weighs, and 0 that it is not used. Random sets, permutations, bootstraps and folds are such vectors over the
same K. A concept vector is `a`, and stands for w = X'a; `a` adds up to 0, so that it does not matter what X was centred
by, and the offset between w.x and the classifier's score is in `intercept` alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.tcav.stats import kernel_lbfgs

ESTIMATORS = "logistic", "ridge", "mean_difference"
SOLVERS = "host", "optax"
Kernel = Float[np.ndarray, "m m"]
Labels = Float[np.ndarray, "v m"]

AT_ONCE = 2**25  # numbers of K that are copied together when each vector has examples of its own


@dataclass(frozen=True)
class Training:
    """How vectors come out of labels.

    logistic: mean log-loss + lam/2 |w|^2. ridge: mean of half the squared distance to the labels -1 and 1, and the same
    penalty. Both with a free intercept. mean_difference: mean of the concept minus mean of the others. `lam` is in
    units of the mean squared distance of a vector's examples from their mean, so that it says the same at every stage;
    not `relative`, it is the objective's own. Iterations end when `tolerance` bounds the relative error of w. `solver`
    finds the same optimum on the host's cores, or by optax on jax's device.
    """

    estimator: str = "logistic"
    lam: float = 0.01
    relative: bool = True
    tolerance: float = 1e-7
    limit: int = 500
    solver: str = "host"

    def __post_init__(self):
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"estimator is one of {', '.join(ESTIMATORS)}, got {self.estimator!r}")
        if self.solver not in SOLVERS:
            raise ValueError(f"solver is one of {', '.join(SOLVERS)}, got {self.solver!r}")


LOGISTIC = Training()


@dataclass(frozen=True)
class Vectors:
    """`lam` is lambda as it was in the objective; `residual` bounds the relative error of w, see `solver.Solved`."""

    estimator: str
    a: Float[np.ndarray, "v m"]
    intercept: Float[np.ndarray, " v"]
    norm: Float[np.ndarray, " v"]  # |w|; 0 where the two sides have nothing that tells them apart
    lam: Float[np.ndarray, " v"]
    residual: Float[np.ndarray, " v"]
    iterations: Int[np.ndarray, " v"]
    converged: Bool[np.ndarray, " v"]

    def __len__(self) -> int:
        return len(self.norm)

    @property
    def unit(self) -> Float[np.ndarray, "v m"]:
        """Coefficients of w / |w|; NaN for a vector that is 0."""
        return self.a / np.where(self.norm > 0, self.norm, np.nan)[:, None]


def labels(
    positive: Iterable[int] | Int[np.ndarray, " p"],
    negative: Iterable[int] | Int[np.ndarray, " n"],
    count: int,
    *,
    balanced: bool = False,
) -> Float[np.ndarray, " m"]:
    """The label vector with these examples of `count` on its sides; `balanced` gives both sides the same weight."""
    sides = [np.array(list(side), int) for side in (positive, negative)]
    problems = [
        f"{name} needs at least one example" for name, side in zip(("positive", "negative"), sides) if not len(side)
    ]
    both = np.concatenate(sides)
    if len(wrong := both[(both < 0) | (both >= count)]):
        problems.append(f"examples are numbered 0 to {count - 1}, there is no {', '.join(map(str, wrong))}")
    if len(np.unique(both)) < len(both):
        problems.append("an example may be named once, and on one side")
    if problems:
        raise ValueError("; ".join(problems))
    out = np.zeros(count)
    for side, sign in zip(sides, (1.0, -1.0)):
        out[side] = sign * (len(both) / 2 / len(side) if balanced else 1.0)
    return out


def fit(
    kernel: Kernel,
    signed: Labels,
    training: Training = LOGISTIC,
    lam: Float[np.ndarray, " v"] | None = None,
) -> Vectors:
    """One concept vector per row of `signed`; `lam` is for each vector its own, where not `training.lam` for all."""
    kernel, signed = np.asarray(kernel, np.float64), np.asarray(signed, np.float64)
    lam = np.full(len(signed), float(training.lam)) if lam is None else lam
    _check(kernel, signed, lam)
    if training.estimator == "mean_difference":
        return _mean_difference(kernel, signed)
    if training.relative:
        lam = lam * spread(kernel, signed)
    lam = np.where(lam > 0, lam, 1.0)  # where all examples are the same any lambda gives 0
    parts = [_solved(kernel, signed[rows], own, lam[rows], training) for rows, own in _parts(signed != 0)]
    a, intercept, *how = (np.concatenate(each) for each in zip(*parts))
    return Vectors(training.estimator, a, intercept, norms(kernel, a), lam, *how)


def spread(kernel: Kernel, signed: Labels) -> Float[np.ndarray, " v"]:
    """Mean squared distance of the examples of each label vector from their mean."""
    weights = np.abs(signed) / np.abs(signed).sum(1, keepdims=True)
    centre = np.einsum("vm,vm->v", weights @ kernel, weights)
    return np.maximum(weights @ np.diagonal(kernel) - centre, 0)


def norms(kernel: Kernel, a: Float[np.ndarray, "v m"]) -> Float[np.ndarray, " v"]:
    return np.sqrt(np.maximum(np.einsum("vm,vm->v", a @ kernel, a), 0))


def values(kernel: Kernel, vectors: Vectors) -> Float[np.ndarray, "v m"]:
    """Each classifier's score of each example, whether it was trained on it or not."""
    return vectors.a @ kernel + vectors.intercept[:, None]


def cosines(kernel: Kernel, left: Vectors, right: Vectors | None = None) -> Float[np.ndarray, "v w"]:
    """Between every vector of `left` and every one of `right` (else of `left`); NaN where one is 0."""
    right = left if right is None else right
    return np.clip(left.unit @ kernel @ right.unit.T, -1, 1)


def _mean_difference(kernel: Kernel, signed: Labels) -> Vectors:
    sides = [np.where(sign * signed > 0, np.abs(signed), 0) for sign in (1, -1)]
    positive, negative = (side / side.sum(1, keepdims=True) for side in sides)
    a = positive - negative
    row = a @ kernel
    middle = -np.einsum("vm,vm->v", row, positive + negative) / 2
    norm = np.sqrt(np.maximum(np.einsum("vm,vm->v", row, a), 0))
    none, count = np.zeros(len(a)), len(a)
    return Vectors(
        "mean_difference",
        a,
        middle,
        norm,
        np.full(count, np.nan),
        none,
        np.zeros(count, int),
        np.ones(count, bool),
    )


def _parts(used: Bool[np.ndarray, "v m"]) -> list[tuple[slice, bool]]:
    """Which rows to solve together, and whether each has a K of its own.

    A product with a K of all examples that any row uses runs at the speed of a matrix product, one with each row's own
    at the speed of memory: a dozen times slower a number, but of far fewer numbers where rows use few examples each.
    """
    size, union = int(used.sum(1).max()), int(used.any(0).sum())
    own = 12 * size**2 < union**2
    step = max(1, AT_ONCE // size**2) if own else max(1024, AT_ONCE // (8 * union))
    return [(slice(i, i + step), own) for i in range(0, len(used), step)]


def _solved(
    kernel: Kernel, signed: Labels, own: bool, lam: Float[np.ndarray, " v"], training: Training
) -> tuple[np.ndarray, ...]:
    """What `Vectors` has from `a` on, but for norm and lam."""
    used = signed != 0
    if own:
        size = int(used.sum(1).max())
        index = np.argsort(~used, axis=1, kind="stable")[:, :size]  # those that have fewer: some more, at weight 0
        here = np.take_along_axis(signed, index, 1)
        part = kernel[index[:, :, None], index[:, None, :]]
        weights = centre = np.abs(here) / np.abs(here).sum(1, keepdims=True)
        row = np.matmul(part, centre[:, :, None])
        part += np.matmul(centre[:, None, :], row) - row - row.swapaxes(1, 2)
        row = row[:, :, 0]
    else:
        index = np.flatnonzero(used.any(0))
        here = signed[:, index]
        part = kernel[np.ix_(index, index)]
        weights = np.abs(here) / np.abs(here).sum(1, keepdims=True)
        # One centre for all: near each one's own, and which it is makes no difference to the optimum.
        centre = weights.mean(0)
        row = part @ centre
        part += centre @ row - row - row[:, None]
    loss = "logistic" if training.estimator == "logistic" else "squares"
    minimise = kernel_lbfgs.minimise
    if training.solver == "optax":
        from vtcav_jax.tcav.stats.optax_lbfgs import minimise
    found = minimise(part, here, lam, loss, tolerance=training.tolerance, limit=training.limit)
    a = found.a - found.a.sum(1, keepdims=True) * weights  # what is left of the sum, which is 0 at the optimum
    intercept = found.intercept - (a * row).sum(1)
    everywhere = np.zeros_like(signed)
    if own:
        np.put_along_axis(everywhere, index, a, 1)
    else:
        everywhere[:, index] = a
    return everywhere, intercept, found.residual, found.iterations, found.converged


def _check(kernel: Kernel, signed: Labels, lam: Float[np.ndarray, " v"]) -> None:
    problems = []
    if signed.shape[1] != len(kernel):
        problems.append(f"label vectors have one number per example, {len(kernel)}, got {signed.shape[1]}")
    if not np.isfinite(kernel).all():
        problems.append("K has values that are not finite; look for clips that overflow the network")
    if not np.isfinite(signed).all():
        problems.append("labels must be finite")
    if len(one_sided := np.flatnonzero(~((signed > 0).any(1) & (signed < 0).any(1)))):
        problems.append(f"each label vector needs examples on both sides, those in rows {_some(one_sided)} have not")
    if not (np.isfinite(lam) & (lam > 0)).all():
        problems.append("lambda must be above 0, or the classifier has no optimum where a plane separates the sides")
    if problems:
        raise ValueError("; ".join(problems))


def _some(rows: Sequence[int] | np.ndarray) -> str:
    return ", ".join(str(i) for i in rows[:5]) + (" ..." if len(rows) > 5 else "")
