"""Dictionaries: k directions of activations, and the codes that say how much of each an activation contains.

All methods take activations minus their mean at the same place (`x`, one row per token) and give non-negative codes
`z`, so that `x` is about `z @ directions`; directions have length 1. Activations are first divided by the square root
of their norm, and codes multiplied by it: otherwise the few largest activations, such as those of a small bright
object, take all directions, and what is weak but everywhere, such as the background, gets none.

- `nmf`: alternating least squares with `z >= 0` and a penalty on the sum of `z` (semi-NMF, Ding et al. 2010, with
  sparse codes), since centred activations have both signs.
- `convex_nmf`: each direction is a non-negative mixture of activations (Ding et al. 2010).
- `topk_sae`: `z` keeps the largest few of `relu(W x + b)`. A contrastive term makes the codes of a place resemble those
  of the next step more than those of other clips: keeping the largest alone makes codes jump from frame to frame.
- `kmeans`: `z` is the projection on the nearest centre, and 0 for the other centres.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

CODE_PASSES, FIT_PASSES = 20, 60
CODE_PASSES_PER_FIT = 3
SPARSITY = 0.03  # penalty on codes, times the root mean square norm of an activation
CONVEX_TOKENS, CONVEX_PASSES = 2048, 150
KMEANS_PASSES = 30
SAE_STEPS, SAE_BATCH, SAE_RATE = 2000, 512, 3e-3
SAE_ACTIVE_SHARE = 1 / 4  # of the codes
CONSISTENCY, TEMPERATURE = 0.05, 0.1  # weight of the contrastive term, relative to the variance; and its temperature
CANDIDATE_SIZES = (8, 16, 24, 32)
SUFFICIENT_SHARE = 0.95  # of what the largest candidate explains
WEAKEST = 1e-3  # relative norm below which activations count as equally weak
TINY = 1e-9


class Dictionary(NamedTuple):
    """Directions of one stage, with what `encode` needs."""

    directions: Float[Array, "k c"]
    scale: Float[Array, ""]  # root mean square norm of activations
    penalty: Float[Array, ""]  # on codes; of nmf
    encoder: Float[Array, "k c"]  # of topk_sae
    bias: Float[Array, " k"]  # of topk_sae


class TokenPairs(NamedTuple):
    """Centred activations, and those at the same place one step later."""

    now: Float[np.ndarray, "n c"]
    after: Float[np.ndarray, "n c"]


def fit_dictionary(method: str, tokens: TokenPairs, k: int, seed: int) -> Dictionary:
    """Return k directions fitted to the tokens."""
    x, after = (jnp.asarray(part, jnp.float32) for part in tokens)
    scale = jnp.sqrt((x**2).sum(-1).mean()) + TINY
    fit = {"nmf": _fit_nmf, "convex_nmf": _fit_convex_nmf, "topk_sae": _fit_sae, "kmeans": _fit_kmeans}[method]
    x, after = (part / damping(part, scale) for part in (x, after))
    return fit(x, after, k, jax.random.key(seed))._replace(scale=scale)


def damping(x: Float[Array, "... c"], scale: Array) -> Float[Array, "... 1"]:
    """Return what activations are divided by: their norm then is the square root of the relative one."""
    return scale * jnp.sqrt(jnp.linalg.norm(x, axis=-1, keepdims=True) / scale + WEAKEST)


@partial(jax.jit, static_argnames="method")
def encode_tokens(method: str, dictionary: Dictionary, x: Float[Array, "... c"]) -> Float[Array, "... k"]:
    """Return the codes of centred activations."""
    directions = dictionary.directions
    flat = x.reshape(-1, x.shape[-1])
    factor = damping(flat, dictionary.scale)
    flat = flat / factor
    if method in ("nmf", "convex_nmf"):
        codes = _sparse_codes(flat, directions, dictionary.penalty, CODE_PASSES)
    elif method == "topk_sae":
        codes = _largest_codes(flat, dictionary)
    else:
        codes = _nearest_codes(flat, directions)
    return (factor * codes).reshape(*x.shape[:-1], len(directions))


def explained_share(codes: Array, x: Array, directions: Array) -> tuple[Array, Array]:
    """Return the share of the activations' variance that all concepts explain, and the part that each adds last."""
    codes, x = codes.reshape(-1, codes.shape[-1]), x.reshape(-1, x.shape[-1])
    residual = x - codes @ directions
    total = (x**2).sum() + TINY
    added = (2 * codes * (residual @ directions.T) + codes**2).sum(0)
    return 1 - (residual**2).sum() / total, added / total


def fit_smallest_sufficient(method: str, tokens: TokenPairs, held_out: np.ndarray, seed: int) -> Dictionary:
    """Return the dictionary of the smallest candidate size that explains enough of the held-out tokens."""
    sizes = [k for k in CANDIDATE_SIZES if k <= min(len(tokens.now) // 4, tokens.now.shape[1])] or [1]
    x = jnp.asarray(held_out, jnp.float32)
    fitted, shares = [], []
    for k in sizes:
        fitted.append(fit_dictionary(method, tokens, k, seed))
        shares.append(float(explained_share(encode_tokens(method, fitted[-1], x), x, fitted[-1].directions)[0]))
    return fitted[first_sufficient(shares)]


def first_sufficient(shares: Sequence[float]) -> int:
    """Return the position of the first share that is nearly as large as the largest."""
    best = max(shares)
    return next(i for i, share in enumerate(shares) if share >= SUFFICIENT_SHARE * best or best <= 0)


def _plain(directions: Array, penalty: float = 0.0) -> Dictionary:
    k = len(directions)
    return Dictionary(directions, jnp.float32(1), jnp.float32(penalty), jnp.zeros_like(directions), jnp.zeros(k))


def _unit(rows: Array) -> Array:
    return rows / (jnp.linalg.norm(rows, axis=-1, keepdims=True) + TINY)


def _initial_rows(x: Array, k: int, key: Array) -> Array:
    """Return k rows of x, each drawn in proportion to the squared distance from those before (k-means++)."""
    squares = (x**2).sum(-1)

    def draw(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, distances = state
        row = x[jax.random.categorical(jax.random.fold_in(key, i), jnp.log(distances + TINY))]
        return rows.at[i].set(row), jnp.minimum(distances, jnp.maximum(squares - 2 * x @ row + row @ row, 0))

    return jax.lax.fori_loop(0, k, draw, (jnp.zeros((k, x.shape[1]), x.dtype), squares))[0]


def _sparse_codes(
    x: Array, directions: Array, penalty: Array | float, passes: int, start: Array | None = None
) -> Array:
    """Return the codes that minimise half the squared residual plus `penalty` times their sum, by coordinates."""
    gram, products = directions @ directions.T, x @ directions.T - penalty

    def update(step: Array, codes: Array) -> Array:
        j = step % len(directions)
        gradient = products[:, j] - codes @ gram[:, j]
        return codes.at[:, j].set(jnp.maximum(codes[:, j] + gradient / (gram[j, j] + TINY), 0))

    start = jnp.zeros((len(x), len(directions)), x.dtype) if start is None else start
    return jax.lax.fori_loop(0, passes * len(directions), update, start)


@partial(jax.jit, static_argnames="k")
def _fit_nmf(x: Array, after: Array, k: int, key: Array) -> Dictionary:
    del after
    first_key, dead_key = jax.random.split(key)
    directions = _unit(_initial_rows(x, k, first_key))
    replacements = _unit(_initial_rows(x, k, dead_key))

    def fit_once(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        directions, codes = state
        squares, products = codes.T @ codes, codes.T @ x

        def update(j: Array, directions: Array) -> Array:
            change = (products[j] - squares[j] @ directions) / (squares[j, j] + TINY)
            # A direction that no token uses starts again from a token
            return directions.at[j].set(jnp.where(squares[j, j] > 0, _unit(directions[j] + change), replacements[j]))

        directions = jax.lax.fori_loop(0, k, update, directions)
        return directions, _sparse_codes(x, directions, SPARSITY, CODE_PASSES_PER_FIT, codes)

    codes = _sparse_codes(x, directions, SPARSITY, CODE_PASSES)
    directions, _ = jax.lax.fori_loop(0, FIT_PASSES, fit_once, (directions, codes))
    return _plain(directions, SPARSITY)


@partial(jax.jit, static_argnames="k")
def _fit_convex_nmf(x: Array, after: Array, k: int, key: Array) -> Dictionary:
    del after
    rows = x[jax.random.choice(key, len(x), (min(CONVEX_TOKENS, len(x)),), replace=False)]
    gram = rows @ rows.T
    positive, negative = jnp.maximum(gram, 0), jnp.maximum(-gram, 0)
    nearest = jnp.argmax(_unit(rows) @ _unit(_initial_rows(x, k, key)).T, 1)
    codes = jax.nn.one_hot(nearest, k) + 0.2
    mixture = codes / codes.sum(0, keepdims=True)

    def update(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        mixture, codes = state
        p, n = positive @ mixture, negative @ mixture
        codes = codes * jnp.sqrt((p + codes @ (mixture.T @ n)) / (n + codes @ (mixture.T @ p) + TINY))
        squares = codes.T @ codes
        grown = positive @ codes + n @ squares
        mixture = mixture * jnp.sqrt(grown / (negative @ codes + p @ squares + TINY))
        return mixture, codes

    mixture, _ = jax.lax.fori_loop(0, CONVEX_PASSES, update, (mixture, codes))
    return _plain(_unit(mixture.T @ rows))


@partial(jax.jit, static_argnames="k")
def _fit_kmeans(x: Array, after: Array, k: int, key: Array) -> Dictionary:
    del after
    centres = _initial_rows(x, k, key)

    def update(_: Array, centres: Array) -> Array:
        members = jax.nn.one_hot(jnp.argmin((centres**2).sum(-1)[None] - 2 * x @ centres.T, 1), k)
        sizes = members.sum(0)[:, None]
        return jnp.where(sizes > 0, members.T @ x / jnp.maximum(sizes, 1), centres)

    return _plain(_unit(jax.lax.fori_loop(0, KMEANS_PASSES, update, centres)))


def _nearest_codes(x: Array, directions: Array) -> Array:
    projections = x @ directions.T
    nearest = jax.nn.one_hot(projections.argmax(-1), len(directions), dtype=bool)  # one, also where two are equal
    return jnp.where(nearest, jnp.maximum(projections, 0), 0)


def _largest_codes(x: Array, dictionary: Dictionary) -> Array:
    codes = jax.nn.relu(x @ dictionary.encoder.T + dictionary.bias[None])
    active = max(1, round(SAE_ACTIVE_SHARE * codes.shape[-1]))
    return jnp.where(codes >= jax.lax.top_k(codes, active)[0][..., -1:], codes, 0)


@partial(jax.jit, static_argnames="k")
def _fit_sae(x: Array, after: Array, k: int, key: Array) -> Dictionary:
    first_key, loop_key = jax.random.split(key)
    directions = _unit(_initial_rows(x, k, first_key))
    dictionary = Dictionary(directions, jnp.float32(1), jnp.float32(0), directions, jnp.zeros(k))
    optimiser = optax.adam(SAE_RATE)

    def loss(dictionary: Dictionary, x: Array, after: Array) -> Array:
        codes, later_codes = (_largest_codes(part, dictionary) for part in (x, after))
        residual = x - codes @ _unit(dictionary.directions)
        similarity = _unit(codes) @ _unit(later_codes).T / TEMPERATURE
        contrast = -jnp.diagonal(jax.nn.log_softmax(similarity)).mean()
        return (residual**2).sum(-1).mean() + CONSISTENCY * contrast

    def step(i: Array, state: tuple) -> tuple:
        dictionary, moments = state
        rows = jax.random.randint(jax.random.fold_in(loop_key, i), (min(SAE_BATCH, len(x)),), 0, len(x))
        updates, moments = optimiser.update(jax.grad(loss)(dictionary, x[rows], after[rows]), moments)
        return optax.apply_updates(dictionary, updates), moments

    state = jax.lax.fori_loop(0, SAE_STEPS, step, (dictionary, optimiser.init(dictionary)))
    return state[0]._replace(directions=_unit(state[0].directions))
