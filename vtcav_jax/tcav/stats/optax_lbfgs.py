"""The optimum of `solver` by `optax.lbfgs`: all label vectors in one program, on whatever device jax has.

Every row goes on until the last is done and every shape is compiled, so that on a host of few cores `solver`, which
works in pieces that stay in cache, needs a fraction of the time (`benchmarks/tcav.py` has both). Coordinates are those
of `solver`, stretched so that the Hessian at 0 is about 1 along each.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vtcav_jax.tcav.stats import kernel_lbfgs
from vtcav_jax.tcav.stats.kernel_lbfgs import Kernels, Loss, Solved


def minimise(
    kernel: Kernels,
    signed: Float[np.ndarray, "v s"],
    lam: Float[np.ndarray, " v"],
    loss: Loss = "logistic",
    *,
    tolerance: float = 1e-7,
    limit: int = 500,
) -> Solved:
    """As `solver.minimise`."""
    problem = kernel_lbfgs.problem(kernel, signed, lam, loss)
    curvature = np.sqrt(problem.curvature)
    with jax.enable_x64(True):
        parts = problem.factor, np.sign(signed), problem.weights, lam, problem.scale, curvature
        ends = jnp.asarray(tolerance), jnp.asarray(limit)
        found = _solved(*map(jnp.asarray, parts), *ends, loss, problem.factor.ndim == 3)
        slopes, intercept, residual, iterations = map(np.asarray, found)
    return Solved(-slopes / lam[:, None], intercept, residual, iterations, residual <= tolerance)


@partial(jax.jit, static_argnames=("loss", "own"))
def _solved(
    factor: Float[Array, "s r"] | Float[Array, "v s r"],
    labels: Float[Array, "v s"],
    weights: Float[Array, "v s"],
    lam: Float[Array, " v"],
    scale: Float[Array, " v"],
    curvature: Float[Array, "v r1"],
    tolerance: Float[Array, ""],
    limit: Int[Array, ""],
    loss: Loss,
    own: bool,
) -> tuple[Float[Array, "v s"], Float[Array, " v"], Float[Array, " v"], Int[Array, " v"]]:
    optimiser = optax.lbfgs(memory_size=kernel_lbfgs.HISTORY)

    def one(factor, labels, weights, lam, scale, curvature):
        def values(x):
            x = x / curvature
            return factor @ x[:-1] + scale * x[-1]

        def losses(f):
            each = jax.nn.softplus(-labels * f) if loss == "logistic" else (f - labels) ** 2 / 2
            return (weights * each).sum()

        def objective(x):
            return losses(values(x)) + lam * ((x / curvature)[:-1] ** 2).sum() / 2

        value_and_grad = optax.value_and_grad_from_state(objective)

        def residual(x, gradient):
            """2 |gradient| / (lambda |w|), for `gradient` by the coordinates before they were stretched."""
            slope, norm = jnp.linalg.norm(gradient * curvature), jnp.linalg.norm((x / curvature)[:-1])
            return jnp.where(slope > 0, 2 * slope / jnp.maximum(lam * norm, 1e-8 * start), 0.0)

        def left(carry) -> Bool[Array, ""]:
            _, _, n, error = carry
            return (error > tolerance) & (n < limit)

        def step(carry):
            x, state, n, _ = carry
            value, gradient = value_and_grad(x, state=state)
            updates, state = optimiser.update(gradient, state, x, value=value, grad=gradient, value_fn=objective)
            x = optax.apply_updates(x, updates)
            return x, state, n + 1, residual(x, jax.grad(objective)(x))

        origin = jnp.zeros_like(curvature)
        first = jax.grad(objective)(origin)
        start = jnp.linalg.norm(first * curvature)
        begun = origin, optimiser.init(origin), jnp.zeros((), jnp.int64), residual(origin, first)
        x, _, n, error = jax.lax.while_loop(left, step, begun)
        return jax.grad(losses)(values(x)), (x / curvature)[-1] * scale, error, n

    return jax.vmap(one, (0 if own else None, 0, 0, 0, 0, 0))(factor, labels, weights, lam, scale, curvature)
