"""Rules of layer-wise relevance propagation (Bach et al., 2015): how a layer passes relevance to its inputs.

Relevance is written R = x c, a value times a coefficient. Operations that move, crop, pad or add values then pass c on
like an ordinary gradient, and only layers with weights need rules. A layer is z = s f(x, w) + b, with the scale s and
the shift b of a norm after it; P and N are the sums of its positive and of its negative products x w s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

LinearRuleName = Literal["epsilon", "gamma", "alpha_beta"]


@dataclass(frozen=True)
class LrpRules:
    """Rules of the backward pass; p and n are an input's positive and negative products, R the output's relevance.

    `linear`: "epsilon", (p + n) R / (z + epsilon sign z); "gamma", (p + n) R / z with products of z's sign weighted
    by 1 + gamma; "alpha_beta", (alpha p / P - beta n / N) R. `bias`: biases absorb their share (else relevance is
    conserved). `attention`: "attn" divides a product's relevance equally between its factors and propagates through the
    softmax (AttnLRP, Achtibat et al., 2024); "cp" treats attention as constant (Ali et al., 2022). `guided`: ordinary
    gradient, except that ReLUs pass positive gradients only (Springenberg et al., 2015).
    """

    linear: LinearRuleName = "epsilon"
    epsilon: float = 1e-6
    gamma: float = 0.25
    alpha: float = 1.0
    beta: float = 0.0
    bias: bool = True
    attention: Literal["attn", "cp"] = "attn"
    guided: bool = False

    def __post_init__(self):
        if self.linear not in ("epsilon", "gamma", "alpha_beta") or self.attention not in ("attn", "cp"):
            raise ValueError(
                f"linear must be epsilon, gamma or alpha_beta, and attention attn or cp; got {self.linear!r} and "
                f"{self.attention!r}"
            )
        if self.linear == "alpha_beta" and abs(self.alpha - self.beta - 1) > 1e-6:
            raise ValueError(f"alpha - beta must be 1 to conserve relevance, got {self.alpha} and {self.beta}")
        if min(self.epsilon, self.gamma, self.beta) < 0:
            raise ValueError("epsilon, gamma and beta must be at least 0")


def linear_rule(f: Callable[[Array, Array], Array], rules: LrpRules, x: Array, w: Array, s: Array, b: Array) -> Array:
    """Compute `s f(x, w) + b`, f linear in both, with the rule's backward pass for x and none for the parameters."""

    @jax.custom_vjp
    def apply(x, w, s, b):
        return s * f(x, w) + b

    def forward(x, w, s, b):
        return apply(x, w, s, b), (x, w, s, b)

    def backward(saved, c):
        x, w, s, b = saved
        z, plain = jax.vjp(lambda x: s * f(x, w), x)
        z = z + b
        relevance = z * c
        if rules.linear == "epsilon":
            stabilised = z if rules.bias else z - b
            (out,) = plain(
                relevance / (stabilised + jnp.where(stabilised < 0, -1, 1) * _nonzero_epsilon(rules.epsilon, z))
            )
            return out, *map(jnp.zeros_like, (w, s, b))
        (p, n), signed = jax.vjp(lambda xp, xn: _parts(f, xp, xn, w, s), jnp.maximum(x, 0), jnp.minimum(x, 0))
        bias_share = b if rules.bias else jnp.zeros_like(b)
        p, n = p + jnp.maximum(bias_share, 0), n + jnp.minimum(bias_share, 0)
        if rules.linear == "alpha_beta":
            above, below = signed((rules.alpha * _ratio(relevance, p), -rules.beta * _ratio(relevance, n)))
        else:
            total = p + n
            ratio = _ratio(relevance, total + rules.gamma * jnp.where(total > 0, p, n))
            up, down = jnp.where(total > 0, ratio, 0), jnp.where(total > 0, 0, ratio)
            above, below = signed((ratio + rules.gamma * up, ratio + rules.gamma * down))
        return jnp.where(x > 0, above, jnp.where(x < 0, below, 0)), *map(jnp.zeros_like, (w, s, b))

    apply.defvjp(forward, backward)
    return apply(x, w, s, b)


def z_b_rule(
    f: Callable[[Array, Array], Array], rules: LrpRules, x: Array, w: Array, s: Array, b: Array, low: Array, high: Array
) -> Array:
    """Compute the first layer with the z-B rule, inputs in `low` to `high`: the gradient of x is its relevance."""

    @jax.custom_vjp
    def apply(x, w, s, b):
        return s * f(x, w) + b

    def forward(x, w, s, b):
        return apply(x, w, s, b), (x, w, s, b, low, high)

    def backward(saved, c):
        x, w, s, b, low, high = saved
        z, plain = jax.vjp(lambda x: s * f(x, w), x)
        p, from_low = jax.vjp(lambda x: _signed_weight_sum(f, x, w, s, jnp.maximum, jnp.minimum), low)
        n, from_high = jax.vjp(lambda x: _signed_weight_sum(f, x, w, s, jnp.minimum, jnp.maximum), high)
        ratio = _ratio((z + b) * c, z - p - n)
        out = x * plain(ratio)[0] - low * from_low(ratio)[0] - high * from_high(ratio)[0]
        return out, *map(jnp.zeros_like, (w, s, b))

    apply.defvjp(forward, backward)
    return apply(x, w, s, b)


def relu_rule(x: Array, floor: Array, guided: bool) -> Array:
    """Compute max(x, floor); x's coefficient passes where x is larger and, if `guided`, the coefficient is positive."""

    @jax.custom_vjp
    def apply(x, floor):
        return jnp.maximum(x, floor)

    def backward(saved, c):
        x, floor = saved
        return jnp.where(x > floor, jnp.maximum(c, 0) if guided else c, 0), jnp.zeros_like(floor)

    apply.defvjp(lambda x, floor: (apply(x, floor), (x, floor)), backward)
    return apply(x, floor)


def slope_rule(f: Callable[[Array], Array], x: Array) -> Array:
    """Compute an elementwise f; its input gets all relevance, as if f were the line through 0 and (x, f(x))."""

    @jax.custom_vjp
    def apply(x):
        return f(x)

    def forward(x):
        y = f(x)
        at_zero = jax.jvp(f, (x,), (jnp.ones_like(x),))[1]
        return y, jnp.where(x == 0, at_zero, y / jnp.where(x == 0, 1, x))

    apply.defvjp(forward, lambda slope, c: (slope * c,))
    return apply(x)


@jax.custom_vjp
def halve_relevance(x: Array) -> Array:
    """Return x and pass on half of its coefficient, for one of the two factors of a product."""
    return x


halve_relevance.defvjp(lambda x: (x, None), lambda _, c: (c / 2,))


def _parts(f, xp: Array, xn: Array, w: Array, s: Array) -> tuple[Array, Array]:
    """Return the sums of positive and of negative products of `s f(x, w)`, for x = xp + xn."""
    wp, wn = jnp.maximum(w, 0), jnp.minimum(w, 0)
    same, opposite = f(xp, wp) + f(xn, wn), f(xp, wn) + f(xn, wp)
    sp, sn = jnp.maximum(s, 0), jnp.minimum(s, 0)
    return sp * same + sn * opposite, sp * opposite + sn * same


def _signed_weight_sum(f, x: Array, w: Array, s: Array, first, second) -> Array:
    """Compute `s f(x, w)` with only the positive (`first` is maximum) or only the negative weights w s."""
    return jnp.maximum(s, 0) * f(x, first(w, 0)) + jnp.minimum(s, 0) * f(x, second(w, 0))


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def _nonzero_epsilon(epsilon: float, z: Array) -> float:
    """Return `epsilon`, or the smallest positive float if it is 0, to avoid division by 0."""
    return max(epsilon, float(jnp.finfo(z.dtype).tiny))
