"""Regularised linear models without features: L-BFGS for many label vectors at once, on the examples' products alone.

The optimum of an L2-regularised loss lies in the span of the examples, w = X'a, and with the inner product
<X'a, X'b> = a'Kb everything that L-BFGS does to w can be done to a. That is the same as working with any factor
K = ZZ', but there is nothing to factorise, and a singular K is no special case. An element is held twice, as its
coefficients and as its values at the examples, so that an iteration costs one product with K whatever the line search
does. The intercept is one more coordinate; it is not regularised.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

Loss = Literal["logistic", "squares"]
Rows = Float[np.ndarray, "v e"]  # one more than the examples: the intercept is last

HISTORY = 6


@dataclass(frozen=True)
class Solved:
    """`a` is what the slopes of the loss at the optimum say, -slope / lambda: 0 for examples that are not used, of
    sum 0, and one choice where examples depend on each other so that others give the same w.

    `residual` is 2 |gradient| / (lambda |w|): as the objective is convex, X'a is off by no more than that share of |w|.
    """

    a: Float[np.ndarray, "v s"]
    intercept: Float[np.ndarray, " v"]
    residual: Float[np.ndarray, " v"]
    iterations: Int[np.ndarray, " v"]
    converged: Bool[np.ndarray, " v"]


def minimise(
    kernel: Float[np.ndarray, "s s"] | Float[np.ndarray, "v s s"],
    signed: Float[np.ndarray, "v s"],
    lam: Float[np.ndarray, " v"],
    loss: Loss = "logistic",
    *,
    tolerance: float = 1e-7,
    limit: int = 500,
) -> Solved:
    """Weighted mean loss + lam/2 |w|^2 for each row of `signed`: the label is the sign, the weight the size.

    `kernel` is one for all rows, or one each. A row is done when its residual is below `tolerance`; others go on
    without it.
    """
    count, size = signed.shape
    labels, weights = np.sign(signed), np.abs(signed)
    weights = weights / weights.sum(1, keepdims=True)
    diagonal = np.diagonal(kernel, axis1=-2, axis2=-1)
    # What one unit of the intercept weighs in the inner product: as much as an example.
    scale = np.sqrt((weights * diagonal).sum(1))
    scale[scale == 0] = 1.0
    problem = _Problem(kernel, labels, weights, lam, scale, loss)

    state = np.zeros((count, size + 1))  # the slopes, and the intercept
    residual, iterations = np.full(count, np.inf), np.zeros(count, int)
    converged = np.zeros(count, bool)
    rows = np.arange(count)
    x = np.zeros((count, size + 1)), np.zeros((count, size + 1))
    g = problem.gradient(x)
    start = _size(g)
    history: list[tuple[_Element, _Element]] = []
    for iteration in range(limit + 1):
        norm, slope = _size(x, 1), _size(g)
        reached = np.maximum(problem.lam * norm, 1e-8 * start)
        residual[rows] = np.where(slope > 0, 2 * slope / np.where(reached > 0, reached, 1.0), 0.0)
        done = residual[rows] <= tolerance
        state[rows, :-1], state[rows, -1] = g[0][:, :-1] - problem.lam[:, None] * x[0][:, :-1], x[0][:, -1]
        iterations[rows], converged[rows] = iteration, done
        if done.all() or iteration == limit:
            break
        if done.mean() > 0.25:  # not at each one: that copies what is left
            left = ~done
            rows, start, problem = rows[left], start[left], problem.only(left)
            x, g = _only(x, left), _only(g, left)
            history = [(_only(s, left), _only(y, left)) for s, y in history]
        direction = _direction(g, history)
        length = problem.line_search(x, direction)
        step = _times(direction, length)
        x, before = _plus(x, step), g
        g = problem.gradient(x)
        history = [*history[1 - HISTORY :], (step, _plus(g, before, -1.0))]
    return Solved(-state[:, :-1] / lam[:, None], state[:, -1] * scale, residual, iterations, converged)


_Element = tuple[Rows, Rows]  # coefficients and values; the intercept's coordinate is the same in both


def _dot(u: _Element, v: _Element, without: int = 0) -> Float[np.ndarray, " v"]:
    """The inner product, with or `without` the one coordinate of the intercept."""
    end = u[0].shape[1] - without
    return np.einsum("ve,ve->v", u[0][:, :end], v[1][:, :end])


def _size(u: _Element, without: int = 0) -> Float[np.ndarray, " v"]:
    return np.sqrt(np.maximum(_dot(u, u, without), 0))  # rounding may leave a little less than nothing


def _plus(u: _Element, v: _Element, by: float = 1.0) -> _Element:
    return u[0] + by * v[0], u[1] + by * v[1]


def _times(u: _Element, by: Float[np.ndarray, " v"]) -> _Element:
    return u[0] * by[:, None], u[1] * by[:, None]


def _only(u: _Element, rows: Bool[np.ndarray, " v"]) -> tuple[Float[np.ndarray, "w e"], Float[np.ndarray, "w e"]]:
    return u[0][rows], u[1][rows]


def _direction(g: _Element, history: list[tuple[_Element, _Element]]) -> _Element:
    """Minus the gradient times the inverse Hessian as the last steps show it (the two loops of L-BFGS)."""
    q = -g[0], -g[1]
    shares = []
    for s, y in reversed(history):
        curvature = _dot(s, y)
        inverse = np.divide(1.0, curvature, out=np.zeros_like(curvature), where=curvature > 0)
        share = inverse * _dot(s, q)
        shares.append((inverse, share))
        q = _subtract(q, y, share)
    if history:
        s, y = history[-1]
        size = _dot(y, y)
        ratio = np.divide(_dot(s, y), size, out=np.ones_like(size), where=size > 0)
        q = _times(q, np.where(ratio > 0, ratio, 1.0))
    for (s, y), (inverse, share) in zip(history, reversed(shares)):
        q = _subtract(q, s, inverse * _dot(y, q) - share)
    return q


def _subtract(q: _Element, u: _Element, by: Float[np.ndarray, " v"]) -> _Element:
    return q[0] - by[:, None] * u[0], q[1] - by[:, None] * u[1]


@dataclass(frozen=True)
class _Problem:
    kernel: Float[np.ndarray, "s s"] | Float[np.ndarray, "v s s"]
    labels: Float[np.ndarray, "v s"]
    weights: Float[np.ndarray, "v s"]
    lam: Float[np.ndarray, " v"]
    scale: Float[np.ndarray, " v"]
    loss: Loss

    def only(self, rows: Bool[np.ndarray, " v"]) -> "_Problem":
        kernel = self.kernel[rows] if self.kernel.ndim == 3 else self.kernel
        return _Problem(kernel, self.labels[rows], self.weights[rows], self.lam[rows], self.scale[rows], self.loss)

    def gradient(self, x: _Element) -> _Element:
        slope, _ = self._by_value(x[1][:, :-1] + (self.scale * x[1][:, -1])[:, None])
        a = slope + self.lam[:, None] * x[0][:, :-1]
        values = a @ self.kernel if self.kernel.ndim == 2 else np.matmul(self.kernel, a[:, :, None])[:, :, 0]
        last = (self.scale * slope.sum(1))[:, None]
        return np.concatenate([a, last], 1), np.concatenate([values, last], 1)

    def line_search(self, x: _Element, d: _Element) -> Float[np.ndarray, " v"]:
        """How far along `d`: Newton's method in one dimension, kept between bounds by halving."""
        at = x[1][:, :-1] + (self.scale * x[1][:, -1])[:, None]
        along = d[1][:, :-1] + (self.scale * d[1][:, -1])[:, None]
        linear, square = self.lam * _dot(x, d, 1), self.lam * _dot(d, d, 1)
        t = np.ones(len(at))
        low, high = np.zeros(len(at)), np.full(len(at), np.inf)
        first = None
        for _ in range(20):
            slopes, bends = self._by_value(at + t[:, None] * along)
            slope = np.einsum("vs,vs->v", slopes, along) + linear + t * square
            bend = np.einsum("vs,vs,vs->v", bends, along, along) + square
            if first is None:
                zero, _ = self._by_value(at)
                first = np.abs(np.einsum("vs,vs->v", zero, along) + linear)
            close = np.abs(slope) <= 0.1 * first
            if close.all():
                break
            low, high = np.where(slope < 0, t, low), np.where(slope > 0, t, high)
            newton = t - np.divide(slope, bend, out=np.zeros_like(slope), where=bend > 0)
            middle = np.where(np.isfinite(high), (low + high) / 2, 2 * t)
            inside = (newton > low) & (newton < np.minimum(high, 10 * t))
            t = np.where(close, t, np.where(inside, newton, middle))
        return t

    def _by_value(self, f: Float[np.ndarray, "v s"]) -> tuple[Float[np.ndarray, "v s"], Float[np.ndarray, "v s"]]:
        """First and second derivative of the mean loss by each example's value."""
        if self.loss == "squares":
            return self.weights * (f - self.labels), self.weights
        wrong = 1 / (1 + np.exp(np.clip(self.labels * f, -500, 500)))
        return -self.weights * self.labels * wrong, self.weights * wrong * (1 - wrong)
