"""Regularised linear models for many label vectors at once: L-BFGS by optax on the kernel K, without features.

The optimum w of an L2-regularised loss lies in the span of the examples and is represented by coordinates z in a factor
Z with K = ZZ'. Where all label vectors share K, Z holds its scaled eigenvectors: for equal label weights the Hessian at
w = 0 is then diagonal. Scaled such that it is about 1 along each coordinate, even an ill-conditioned K needs few
iterations. Where each label vector has its own K, Z is the Cholesky factor, since eigenvectors would cost more than
they save. The intercept is one more coordinate, without penalty.

Directions are those of `optax.scale_by_lbfgs`. An iteration takes two products with Z, regardless of the line search,
which moves the values at the examples along a known direction. Label vectors are solved in blocks, on JAX's default
device; rows that have converged keep their result. Sizes are padded to a few, so that few programs are compiled.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vtcav_jax.platforms import on_cpu

Loss = Literal["logistic", "squares"]
Kernels = Float[np.ndarray, "s s"] | Float[np.ndarray, "v s s"]

LBFGS_HISTORY = 4
MIN_PADDED_SIZE = 32
ROWS_PER_BLOCK = (4, 16, 64, 256)  # smallest that holds all label vectors, within the limit of numbers
NUMBERS_PER_CPU_BLOCK, NUMBERS_PER_DEVICE_BLOCK = 2**15, 2**24  # values at the examples; on a CPU, they fit the cache
MAX_LINE_SEARCH_STEPS = 20
MAX_RECENT_FACTORS = 4
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

    `kernel` is shared by all rows, or has one matrix per row. Rows whose residual is at most `tolerance` are finished.
    """
    problem = _build_problem(kernel, labels, lam, loss)
    (count, size), rank = labels.shape, problem.factor.shape[-1]
    padded_size = _padded(size)
    limit = NUMBERS_PER_CPU_BLOCK if on_cpu() else NUMBERS_PER_DEVICE_BLOCK
    fitting = [n for n in ROWS_PER_BLOCK if n * padded_size <= limit] or [ROWS_PER_BLOCK[0]]
    step = next((n for n in fitting if n >= count), fitting[-1])
    has_own_kernel = problem.factor.ndim == 3
    factor = _pad(problem.factor, (padded_size, padded_size))
    curvature = _pad(np.sqrt(problem.curvature[:, :rank]), (padded_size,), fill=1.0)
    curvature = np.concatenate([curvature, np.sqrt(problem.curvature[:, rank:])], 1)
    rows = _pad(problem.labels, (padded_size,)), _pad(problem.weights, (padded_size,)), lam, problem.scale, curvature
    blocks = []
    # optax mixes types of counters
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        shared = None if has_own_kernel else jnp.asarray(factor)
        for start in range(0, count, step):
            block = slice(start, start + step)
            parts = [_pad_rows(part[block], step) for part in rows]
            block_factor = jnp.asarray(_pad_rows(factor[block], step)) if shared is None else shared
            blocks.append(_solve_block(block_factor, *parts, tolerance, max_iterations, loss))
        outputs = [np.concatenate(part)[:count] for part in zip(*map(jax.device_get, blocks))]
    slopes, intercept, residual, iterations = outputs
    return Solution(-slopes[:, :size] / lam[:, None], intercept, residual, iterations, residual <= tolerance)


def _build_problem(
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
    """Return the eigenvectors as a factor of K, without its null space, and the eigenvalues.

    Vector, permutations, bootstrap and folds of one comparison share K, so that recent factors are kept by content.
    """
    key = hashlib.blake2b(kernel.tobytes()).digest()
    if key not in _recent_factors:
        values, vectors = np.linalg.eigh(kernel)
        real = values > EIGENVALUE_EPS * len(values) * max(values[-1], 0)
        _recent_factors[key] = vectors[:, real] * np.sqrt(values[real]), values[real]
        while len(_recent_factors) > MAX_RECENT_FACTORS:
            _recent_factors.popitem(last=False)
    _recent_factors.move_to_end(key)
    return _recent_factors[key]


_recent_factors: OrderedDict[bytes, tuple[np.ndarray, np.ndarray]] = OrderedDict()


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


@dataclass(frozen=True)
class _Problem:
    factor: Float[np.ndarray, "s r"] | Float[np.ndarray, "v s r"]
    spectrum: Float[np.ndarray, " r"] | None
    labels: Float[np.ndarray, "v s"]  # times weights
    weights: Float[np.ndarray, "v s"]
    lam: Float[np.ndarray, " v"]
    scale: Float[np.ndarray, " v"]
    loss: Loss

    @property
    def curvature(self) -> Float[np.ndarray, "v e"]:
        """Curvature of the objective at 0 along each coordinate, for equal weights of all examples."""
        if self.spectrum is None:
            return np.ones((len(self.lam), self.factor.shape[-1] + 1))
        bend = 0.25 if self.loss == "logistic" else 1.0
        inside = bend / self.weights.shape[1] * self.spectrum + self.lam[:, None]
        return np.concatenate([inside, (bend * self.scale**2)[:, None]], 1)


def _padded(size: int) -> int:
    """Return the next of 32, 48, 64, 96, 128, 192, ..."""
    power = max(MIN_PADDED_SIZE, 1 << (size - 1).bit_length())
    return power * 3 // 4 if size <= power * 3 // 4 and power > MIN_PADDED_SIZE else power


def _pad(array: np.ndarray, sizes: tuple[int, ...], fill: float = 0.0) -> np.ndarray:
    """Pad the last axes at their ends."""
    first = array.ndim - len(sizes)
    ends = [(0, 0)] * first + [(0, size - n) for size, n in zip(sizes, array.shape[first:], strict=True)]
    return np.pad(array, ends, constant_values=fill)


def _pad_rows(array: np.ndarray, count: int) -> np.ndarray:
    """Repeat the last row until there are `count`."""
    return np.concatenate([array, np.repeat(array[-1:], count - len(array), 0)])


class _State(NamedTuple):
    """Iterate of all rows of a block: scaled coordinates, values at the examples, slopes and gradient there."""

    x: Float[Array, "v e"]
    f: Float[Array, "v s"]
    slopes: Float[Array, "v s"]
    gradient: Float[Array, "v e"]
    residual: Float[Array, " v"]
    iterations: Int[Array, " v"]
    lbfgs: Any  # optax's state
    n: Int[Array, ""]


@partial(jax.jit, static_argnames=("loss",))
def _solve_block(
    factor: Float[Array, "s r"] | Float[Array, "v s r"],
    labels: Float[Array, "v s"],
    weights: Float[Array, "v s"],
    lam: Float[Array, " v"],
    scale: Float[Array, " v"],
    curvature: Float[Array, "v e"],
    tolerance: Float[Array, ""],
    max_iterations: Int[Array, ""],
    loss: Loss,
) -> tuple[Float[Array, "v s"], Float[Array, " v"], Float[Array, " v"], Int[Array, " v"]]:
    """Return slopes, intercepts, residuals and numbers of iterations."""
    to_values, to_coordinates = ("vr,sr->vs", "vs,sr->vr") if factor.ndim == 2 else ("vr,vsr->vs", "vs,vsr->vr")
    lbfgs = optax.scale_by_lbfgs(memory_size=LBFGS_HISTORY)
    by_row = optax.ScaleByLBFGSState(None, 0, 0, 0, 0, 0)  # type: ignore[arg-type] (axes in place of arrays)
    precondition: Any = jax.vmap(lbfgs.update, in_axes=(0, by_row, 0), out_axes=(0, by_row))

    def values(x: Array) -> Array:
        z = x / curvature
        return jnp.einsum(to_values, z[:, :-1], factor) + (scale * z[:, -1])[:, None]

    def slopes_at(f: Array) -> Array:
        return weights * f - labels if loss == "squares" else (weights * jnp.tanh(f / 2) - labels) / 2

    def gradient_at(x: Array, slopes: Array) -> Array:
        inside = jnp.einsum(to_coordinates, slopes, factor) + lam[:, None] * (x / curvature)[:, :-1]
        return jnp.concatenate([inside, (scale * slopes.sum(1))[:, None]], 1) / curvature

    def residual(x: Array, gradient: Array) -> Array:
        """Return 2 |gradient| / (lambda |w|) in the unscaled coordinates."""
        slope, norm = jnp.linalg.norm(gradient * curvature, axis=1), jnp.linalg.norm((x / curvature)[:, :-1], axis=1)
        bound = jnp.maximum(lam * norm, 1e-8 * initial_norm)
        return jnp.where(slope > 0, 2 * slope / jnp.where(bound > 0, bound, 1.0), 0.0)

    def is_unfinished(state: _State) -> Bool[Array, ""]:
        return (state.residual > tolerance).any() & (state.n < max_iterations)

    def step(state: _State) -> _State:
        updates, memory = precondition(state.gradient, state.lbfgs, state.x)
        moving = state.residual > tolerance
        direction = jnp.where(moving[:, None], -updates, 0.0)
        along = values(direction)
        z, dz = (state.x / curvature)[:, :-1], (direction / curvature)[:, :-1]
        penalty = lam * (z * dz).sum(1), lam * (dz**2).sum(1)
        length = search_line(state.f, along, *penalty, jnp.abs((state.gradient * direction).sum(1)))
        x, f = state.x + length[:, None] * direction, state.f + length[:, None] * along
        slopes = slopes_at(f)
        gradient = jnp.where(moving[:, None], gradient_at(x, slopes), state.gradient)
        error = jnp.where(moving, residual(x, gradient), state.residual)
        return _State(x, f, slopes, gradient, error, state.iterations + moving, memory, state.n + 1)

    def search_line(f: Array, along: Array, linear: Array, square: Array, initial: Array) -> Array:
        """Return the step lengths, by Newton's method in one dimension, safeguarded by bisection."""

        def is_far(carry: tuple) -> Array:
            _, _, _, slope, n = carry
            return (~is_close(slope)).any() & (n < MAX_LINE_SEARCH_STEPS)

        def is_close(slope: Array) -> Array:
            return (slope <= 0.1 * initial) & (slope >= -0.5 * initial)

        def slope_at(t: Array) -> Array:
            return (slopes_at(f + t[:, None] * along) * along).sum(1) + linear + t * square

        def improve(carry: tuple) -> tuple:
            t, low, high, slope, n = carry
            at = f + t[:, None] * along
            second = weights if loss == "squares" else weights * (1 - jnp.tanh(at / 2) ** 2) / 4
            bend = (second * along**2).sum(1) + square
            low, high = jnp.where(slope < 0, t, low), jnp.where(slope > 0, t, high)
            newton = t - jnp.where(bend > 0, slope / jnp.where(bend > 0, bend, 1.0), 0.0)
            middle = jnp.where(jnp.isfinite(high), (low + high) / 2, 2 * t)
            is_inside = (newton > low) & (newton < jnp.minimum(high, 10 * t))
            t = jnp.where(is_close(slope), t, jnp.where(is_inside, newton, middle))
            return t, low, high, slope_at(t), n + 1

        t = jnp.ones_like(linear)
        carry = t, jnp.zeros_like(t), jnp.full_like(t, jnp.inf), slope_at(t), jnp.zeros((), int)
        return jax.lax.while_loop(is_far, improve, carry)[0]

    origin, zeros = jnp.zeros_like(curvature), jnp.zeros_like(weights)
    slopes = slopes_at(zeros)
    gradient = gradient_at(origin, slopes)
    initial_norm = jnp.linalg.norm(gradient * curvature, axis=1)
    count = jnp.zeros(len(lam), int)
    memory = jax.vmap(lbfgs.init, out_axes=by_row)(origin)
    state = _State(origin, zeros, slopes, gradient, residual(origin, gradient), count, memory, jnp.zeros((), int))
    state = jax.lax.while_loop(is_unfinished, step, state)
    return state.slopes, (state.x / curvature)[:, -1] * scale, state.residual, state.iterations
