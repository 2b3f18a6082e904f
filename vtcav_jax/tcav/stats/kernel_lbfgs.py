"""Regularised linear models for many label vectors at once: L-BFGS on the kernel K of the examples, without features.

The optimum w of an L2-regularised loss lies in the span of the examples and is represented by coordinates z in a factor
Z with K = ZZ'. Where all label vectors share K, Z holds its scaled eigenvectors: for equal label weights the Hessian at
w = 0 is then diagonal, so that L-BFGS starts from it and needs few iterations even for ill-conditioned K. Where each
label vector has its own K, Z is the Cholesky factor, since eigenvectors would cost more than they save. An iteration
takes two products with Z, regardless of the line search. The intercept is one more coordinate, without penalty.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

Loss = Literal["logistic", "squares"]
Kernels = Float[np.ndarray, "s s"] | Float[np.ndarray, "v s s"]
Rows = Float[np.ndarray, "v e"]  # one column more than the factor: the intercept is last

LBFGS_HISTORY = 4
SOLVER_NUMBERS_PER_BLOCK = 2**15  # size of the arrays of a block, so that they fit into the CPU cache
EIGENVALUE_EPS = 1e-14  # relative to the largest eigenvalue; smaller ones are rounding errors


@dataclass(frozen=True)
class Solution:
    """Coefficients `a` of w = X'a and convergence statistics.

    `a` is -slope / lambda, with the slopes of the loss at the optimum: it sums to 0 and is 0 for unused examples. If
    examples are linearly dependent, other coefficients give the same w. `residual` is 2 |gradient| / (lambda |w|): as
    the objective is strongly convex, it bounds the relative error of w.
    """

    a: Float[np.ndarray, "v s"]
    intercept: Float[np.ndarray, " v"]
    residual: Float[np.ndarray, " v"]
    iterations: Int[np.ndarray, " v"]
    converged: Bool[np.ndarray, " v"]


def minimise(
    kernel: Kernels,
    labels: Float[np.ndarray, "v s"],
    lam: Float[np.ndarray, " v"],
    loss: Loss = "logistic",
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 500,
) -> Solution:
    """Minimise the weighted mean loss + lam/2 |w|^2 for each row of `labels` (sign: the label; magnitude: the weight).

    `kernel` is shared by all rows, or has one matrix per row. Rows whose residual is at most `tolerance` are finished
    and leave the computation.
    """
    full_problem = build_problem(kernel, labels, lam, loss)
    step = max(1, SOLVER_NUMBERS_PER_BLOCK // labels.shape[1])
    parts = [
        _minimise_block(full_problem.take(slice(start, start + step)), tolerance, max_iterations)
        for start in range(0, len(labels), step)
    ]
    return Solution(*(np.concatenate(arrays) for arrays in zip(*parts)))


def build_problem(
    kernel: Kernels, labels: Float[np.ndarray, "v s"], lam: Float[np.ndarray, " v"], loss: Loss
) -> "_Problem":
    """Return the problem in the coordinates of a factor of K."""
    weights = np.abs(labels) / np.abs(labels).sum(1, keepdims=True)
    # Scale the intercept's coordinate to the root mean square norm of an example
    scale = np.sqrt((weights * np.diagonal(kernel, axis1=-2, axis2=-1)).sum(1))
    scale[scale == 0] = 1.0
    factor, spectrum = _eigenvectors(kernel) if kernel.ndim == 2 else _cholesky(kernel)
    return _Problem(factor, spectrum, np.sign(labels) * weights, weights, lam, scale, loss)


def _eigenvectors(kernel: Float[np.ndarray, "s s"]) -> tuple[Float[np.ndarray, "s r"], Float[np.ndarray, " r"]]:
    """Return the eigenvectors as a factor of K, without its null space, and the eigenvalues."""
    values, vectors = np.linalg.eigh(kernel)
    real = values > EIGENVALUE_EPS * len(values) * max(values[-1], 0)
    return vectors[:, real] * np.sqrt(values[real]), values[real]


def _cholesky(kernel: Float[np.ndarray, "v s s"]) -> tuple[Float[np.ndarray, "v s s"], None]:
    """Return the Cholesky factors of K plus EIGENVALUE_EPS times its trace on the diagonal, since K is singular.

    Kernels of float32 products can have eigenvalues further below 0; these are factored by eigenvectors.
    """
    size = kernel.shape[-1]
    diagonal = EIGENVALUE_EPS * size * np.trace(kernel, axis1=1, axis2=2)
    diagonal = np.where(diagonal > 0, diagonal, 1.0)
    try:
        return np.linalg.cholesky(kernel + diagonal[:, None, None] * np.eye(size)), None
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(kernel)
        return vectors * np.sqrt(np.maximum(values, 0))[:, None, :], None


def _minimise_block(problem: "_Problem", tolerance: float, max_iterations: int) -> tuple[np.ndarray, ...]:
    """Return the fields of `Solution`."""
    lam, scale, count = problem.lam, problem.scale, len(problem.lam)
    final_slopes, intercept = np.zeros(problem.weights.shape), np.zeros(count)
    residual, iterations = np.full(count, np.inf), np.full(count, max_iterations)
    converged = np.zeros(count, bool)
    rows = np.arange(count)
    x, f = np.zeros((count, problem.factor.shape[-1] + 1)), np.zeros(problem.weights.shape)
    slopes = problem.slopes(f)
    g = problem.gradient(x, slopes)
    initial_norm = _norm(g)
    history: list[tuple[Rows, Rows]] = []
    for iteration in range(max_iterations + 1):
        gradient_bound = np.maximum(problem.lam * _norm(x[:, :-1]), 1e-8 * initial_norm)
        slope = _norm(g)
        error = np.where(slope > 0, 2 * slope / np.where(gradient_bound > 0, gradient_bound, 1.0), 0.0)
        # A row keeps the result of its first convergence, even if it stays in the block for more iterations
        is_new = ~converged[rows]
        finished_rows = rows[is_new]
        residual[finished_rows], final_slopes[finished_rows], intercept[finished_rows] = (
            error[is_new],
            slopes[is_new],
            x[is_new, -1],
        )
        iterations[finished_rows], converged[finished_rows] = iteration, error[is_new] <= tolerance
        unfinished = ~converged[rows]
        if not unfinished.any() or iteration == max_iterations:
            break
        if unfinished.mean() < 0.75:  # not after every row, since it copies the arrays of the remaining ones
            rows, initial_norm, problem = rows[unfinished], initial_norm[unfinished], problem.take(unfinished)
            x, f, g = x[unfinished], f[unfinished], g[unfinished]
            history = [(s[unfinished], y[unfinished]) for s, y in history]
        direction = _direction(g, history, problem.curvature)
        direction_values = problem.values(direction)
        length, slopes = problem.line_search(x, g, direction, f, direction_values)
        step = length[:, None] * direction
        x, f, previous_gradient = x + step, f + length[:, None] * direction_values, g
        g = problem.gradient(x, slopes)
        history = [*history[1 - LBFGS_HISTORY :], (step, g - previous_gradient)]
    return -final_slopes / lam[:, None], intercept * scale, residual, iterations, converged


def _dot(u: Rows, v: Rows) -> Float[np.ndarray, " v"]:
    return np.einsum("ve,ve->v", u, v)


def _norm(u: Rows) -> Float[np.ndarray, " v"]:
    return np.sqrt(_dot(u, u))


def _direction(g: Rows, history: list[tuple[Rows, Rows]], curvature: Rows) -> Rows:
    """Return the L-BFGS direction (two-loop recursion) with the diagonal `curvature` as initial Hessian."""
    q = -g
    shares = []
    for s, y in reversed(history):
        bend = _dot(s, y)
        inverse = np.divide(1.0, bend, out=np.zeros_like(bend), where=bend > 0)
        share = inverse * _dot(s, q)
        shares.append((inverse, share))
        q -= share[:, None] * y
    q /= curvature
    if history:
        s, y = history[-1]
        curved_norm = _dot(y, y / curvature)
        ratio = np.divide(_dot(s, y), curved_norm, out=np.ones_like(curved_norm), where=curved_norm > 0)
        q *= np.where(ratio > 0, ratio, 1.0)[:, None]
    for (s, y), (inverse, share) in zip(history, reversed(shares)):
        q += (share - inverse * _dot(y, q))[:, None] * s
    return q


@dataclass(frozen=True)
class _Problem:
    factor: Float[np.ndarray, "s r"] | Float[np.ndarray, "v s r"]
    spectrum: Float[np.ndarray, " r"] | None
    labels: Float[np.ndarray, "v s"]  # times weights
    weights: Float[np.ndarray, "v s"]
    lam: Float[np.ndarray, " v"]
    scale: Float[np.ndarray, " v"]
    loss: Loss

    def take(self, rows: Bool[np.ndarray, " v"] | slice) -> "_Problem":
        factor = self.factor[rows] if self.factor.ndim == 3 else self.factor
        labels, weights, lam, scale = (part[rows] for part in (self.labels, self.weights, self.lam, self.scale))
        return _Problem(factor, self.spectrum, labels, weights, lam, scale, self.loss)

    @property
    def curvature(self) -> Rows:
        """Curvature of the objective at 0 along each coordinate, for equal weights of all examples."""
        if self.spectrum is None:
            return np.ones((len(self.lam), self.factor.shape[-1] + 1))
        bend = 0.25 if self.loss == "logistic" else 1.0
        inside = bend / self.weights.shape[1] * self.spectrum + self.lam[:, None]
        return np.concatenate([inside, (bend * self.scale**2)[:, None]], 1)

    def values(self, x: Rows) -> Float[np.ndarray, "v s"]:
        """Return the values of the linear model at the examples."""
        z = x[:, :-1]
        inside = z @ self.factor.T if self.factor.ndim == 2 else np.matmul(self.factor, z[:, :, None])[:, :, 0]
        return inside + (self.scale * x[:, -1])[:, None]

    def gradient(self, x: Rows, slopes: Float[np.ndarray, "v s"]) -> Rows:
        factor = self.factor
        inside = slopes @ factor if factor.ndim == 2 else np.matmul(slopes[:, None], factor)[:, 0]
        inside += self.lam[:, None] * x[:, :-1]
        return np.concatenate([inside, (self.scale * slopes.sum(1))[:, None]], 1)

    def line_search(
        self, x: Rows, g: Rows, d: Rows, f: Float[np.ndarray, "v s"], direction_values: Float[np.ndarray, "v s"]
    ) -> tuple[Float[np.ndarray, " v"], Float[np.ndarray, "v s"]]:
        """Return the step length along `d` and the slopes there, by one-dimensional Newton safeguarded by bisection."""
        linear, square = self.lam * _dot(x[:, :-1], d[:, :-1]), self.lam * _dot(d[:, :-1], d[:, :-1])
        initial_slope = np.abs(_dot(g, d))
        t = np.ones(len(f))
        low, high = np.zeros(len(f)), np.full(len(f), np.inf)
        slopes = self.slopes(f + direction_values)
        for _ in range(20):
            slope = _dot(slopes, direction_values) + linear + t * square
            is_close = (slope <= 0.1 * initial_slope) & (slope >= -0.5 * initial_slope)
            if is_close.all():
                break
            bend = (
                _dot(self.second_derivatives(f + t[:, None] * direction_values) * direction_values, direction_values)
                + square
            )
            low, high = np.where(slope < 0, t, low), np.where(slope > 0, t, high)
            newton = t - np.divide(slope, bend, out=np.zeros_like(slope), where=bend > 0)
            middle = np.where(np.isfinite(high), (low + high) / 2, 2 * t)
            is_inside = (newton > low) & (newton < np.minimum(high, 10 * t))
            t = np.where(is_close, t, np.where(is_inside, newton, middle))
            slopes = self.slopes(f + t[:, None] * direction_values)
        return t, slopes

    def slopes(self, f: Float[np.ndarray, "v s"]) -> Float[np.ndarray, "v s"]:
        """Return the derivative of the mean loss with respect to each example's value."""
        if self.loss == "squares":
            return self.weights * f - self.labels
        return (self.weights * np.tanh(f / 2) - self.labels) / 2

    def second_derivatives(self, f: Float[np.ndarray, "v s"]) -> Float[np.ndarray, "v s"]:
        """Return the second derivative of the mean loss with respect to each example's value."""
        return self.weights if self.loss == "squares" else self.weights * (1 - np.tanh(f / 2) ** 2) / 4
