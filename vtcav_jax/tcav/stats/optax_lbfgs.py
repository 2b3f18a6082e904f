"""The optimum of `kernel_lbfgs` computed by `optax.lbfgs`: all label vectors in one program, on JAX's default device.

Every row iterates until the last one has converged, and every shape is compiled. On a CPU with few cores
`kernel_lbfgs`, whose blocks fit into the cache, is therefore faster (`benchmarks/tcav.py` times both). The coordinates
are those of `kernel_lbfgs`, scaled such that the Hessian at 0 is about 1 along each.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vtcav_jax.tcav.stats import kernel_lbfgs
from vtcav_jax.tcav.stats.kernel_lbfgs import Kernels, Loss, Solution


def minimise_with_optax(
    kernel: Kernels,
    labels: Float[np.ndarray, "v s"],
    lam: Float[np.ndarray, " v"],
    loss: Loss = "logistic",
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 500,
) -> Solution:
    """Solve the same problem as `kernel_lbfgs.minimise`."""
    problem = kernel_lbfgs.build_problem(kernel, labels, lam, loss)
    curvature = np.sqrt(problem.curvature)
    with jax.enable_x64(True):
        parts = problem.factor, np.sign(labels), problem.weights, lam, problem.scale, curvature
        ends = jnp.asarray(tolerance), jnp.asarray(max_iterations)
        outputs = _solve(*map(jnp.asarray, parts), *ends, loss, problem.factor.ndim == 3)
        slopes, intercept, residual, iterations = map(np.asarray, outputs)
    return Solution(-slopes / lam[:, None], intercept, residual, iterations, residual <= tolerance)


@partial(jax.jit, static_argnames=("loss", "has_own_kernel"))
def _solve(
    factor: Float[Array, "s r"] | Float[Array, "v s r"],
    labels: Float[Array, "v s"],
    weights: Float[Array, "v s"],
    lam: Float[Array, " v"],
    scale: Float[Array, " v"],
    curvature: Float[Array, "v r1"],
    tolerance: Float[Array, ""],
    max_iterations: Int[Array, ""],
    loss: Loss,
    has_own_kernel: bool,
) -> tuple[Float[Array, "v s"], Float[Array, " v"], Float[Array, " v"], Int[Array, " v"]]:
    optimiser = optax.lbfgs(memory_size=kernel_lbfgs.LBFGS_HISTORY)

    def solve_row(factor, labels, weights, lam, scale, curvature):
        def values(x):
            x = x / curvature
            return factor @ x[:-1] + scale * x[-1]

        def losses(f):
            example_losses = jax.nn.softplus(-labels * f) if loss == "logistic" else (f - labels) ** 2 / 2
            return (weights * example_losses).sum()

        def objective(x):
            return losses(values(x)) + lam * ((x / curvature)[:-1] ** 2).sum() / 2

        value_and_grad = optax.value_and_grad_from_state(objective)

        def residual(x, gradient):
            """Return 2 |gradient| / (lambda |w|) in the unscaled coordinates."""
            slope, norm = jnp.linalg.norm(gradient * curvature), jnp.linalg.norm((x / curvature)[:-1])
            return jnp.where(slope > 0, 2 * slope / jnp.maximum(lam * norm, 1e-8 * start), 0.0)

        def is_unfinished(carry) -> Bool[Array, ""]:
            _, _, n, error = carry
            return (error > tolerance) & (n < max_iterations)

        def step(carry):
            x, state, n, _ = carry
            value, gradient = value_and_grad(x, state=state)
            updates, state = optimiser.update(gradient, state, x, value=value, grad=gradient, value_fn=objective)
            x = optax.apply_updates(x, updates)
            return x, state, n + 1, residual(x, jax.grad(objective)(x))

        origin = jnp.zeros_like(curvature)
        first_gradient = jax.grad(objective)(origin)
        start = jnp.linalg.norm(first_gradient * curvature)
        initial = origin, optimiser.init(origin), jnp.zeros((), jnp.int64), residual(origin, first_gradient)
        x, _, n, error = jax.lax.while_loop(is_unfinished, step, initial)
        return jax.grad(losses)(values(x)), (x / curvature)[-1] * scale, error, n

    return jax.vmap(solve_row, (0 if has_own_kernel else None, 0, 0, 0, 0, 0))(
        factor, labels, weights, lam, scale, curvature
    )
