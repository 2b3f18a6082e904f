"""From features to products: K = XX' and P = GX', over blocks of features; what comes after needs nothing else.

X are the examples' activations, G the gradients of class scores at the targets. Each block of X is centred by its own
mean before it is multiplied, because float32 has no digits left for the differences of activations that are far from
0; what centre that is matters no more afterwards, since every other one follows in example space (`centred`), and
coefficients that add up to 0 do not see it. Products are float32 at the highest precision within a block, float64
across blocks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from vtcav_jax.tcav.features.feature_store import Features

TILES_PER_SIDE = 4  # K is symmetric: of 4 x 4 tiles 10 are enough


@dataclass(frozen=True)
class Gram:
    """Of one stage, with m examples, n targets and c classes."""

    kernel: Float[np.ndarray, "m m"]  # examples by examples, from their mean
    cross: Float[np.ndarray, "c n m"]  # gradients by examples
    gradients: Float[np.ndarray, "c n n"]  # gradients by gradients, of the same class

    @property
    def gradient_norms(self) -> Float[np.ndarray, "c n"]:
        """Of the gradients."""
        return np.sqrt(np.maximum(np.diagonal(self.gradients, axis1=1, axis2=2), 0))


def compute_gram(
    examples: Features,
    gradients: Features,
    classes: int = 1,
    mesh: Mesh | None = None,
    *,
    blocks: Sequence[int] | None = None,
) -> Gram:
    """`gradients` has the rows of the first class, then those of the second, ... Of some `blocks` of features only, it
    is a part: what all blocks give is the sum.

    With a mesh, each block is spread over its devices by features, and they add up what they find. Without one it is
    the first device, or, where that is the host, numpy, whose product of a matrix with itself takes half the time.
    """
    _check(examples, gradients, classes)
    blocks = range(len(examples.columns)) if blocks is None else blocks
    pairs = ((examples.block(i), gradients.block(i)) for i in blocks)
    if mesh is None and jax.default_backend() == "cpu":
        return _gram_on_host(pairs, examples.n_rows, gradients.n_rows // classes, classes)
    mesh = mesh or Mesh(np.array(jax.local_devices()[:1]), ("b",))
    by_feature = NamedSharding(mesh, PartitionSpec(None, mesh.axis_names))
    m, n = examples.n_rows, gradients.n_rows // classes
    tiles = _tiles(m)
    kernel, products, squares = np.zeros((m, m)), np.zeros((classes, n, m)), np.zeros((classes, n, n))
    devices = mesh.devices.size
    width = -(-min(examples.width, examples.size) // devices) * devices
    with jax.enable_x64(examples.dtype == np.float64):
        for x, g in pairs:
            padding = width - x.shape[1]  # filled up with features that are always 0, so that there is one shape
            x, g = (jax.device_put(np.pad(a, ((0, 0), (0, padding))) if padding else a, by_feature) for a in (x, g))
            upper, cross, inner = _products(x, g, classes, tiles)
            for (start, stop), tile in zip(tiles, upper):
                kernel[start:stop, start:] += np.asarray(tile)
            products += np.asarray(cross)
            squares += np.asarray(inner)
    kernel = np.triu(kernel)
    return Gram(kernel + np.triu(kernel, 1).T, products, squares)


def center_kernel(kernel: Float[np.ndarray, "m m"], weights: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m m"]:
    """K when the examples' weighted mean is the origin."""
    fractions = weights / weights.sum()
    row = kernel @ fractions
    return kernel - row - row[:, None] + fractions @ row


def _gram_on_host(pairs: Iterable[tuple[np.ndarray, np.ndarray]], m: int, n: int, classes: int) -> Gram:
    kernel, products, squares = np.zeros((m, m)), np.zeros((classes, n, m)), np.zeros((classes, n, n))
    for x, g in pairs:
        x, g = x - x.mean(0), g.reshape(classes, n, -1)
        kernel += x @ x.T
        products += g @ x.T
        squares += g @ g.swapaxes(1, 2)
    return Gram(kernel, products, squares)


def _tiles(m: int) -> tuple[tuple[int, int], ...]:
    step = max(-(-m // TILES_PER_SIDE), 128)
    return tuple((i, min(i + step, m)) for i in range(0, m, step))


@partial(jax.jit, static_argnames=("classes", "tiles"))
def _products(x: Array, g: Array, classes: int, tiles: tuple[tuple[int, int], ...]):
    x = x - x.mean(0, keepdims=True)
    g = g.reshape(classes, -1, g.shape[1])
    einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    upper = [einsum("iw,jw->ij", x[start:stop], x[start:]) for start, stop in tiles]
    return upper, einsum("cnw,mw->cnm", g, x), einsum("cnw,ckw->cnk", g, g)


def _check(examples: Features, gradients: Features, classes: int) -> None:
    problems = []
    if examples.shape != gradients.shape:
        problems.append(f"activations are {examples.shape} and gradients {gradients.shape}; they must be of one stage")
    if examples.columns != gradients.columns or examples.dtype != gradients.dtype:
        problems.append("activations and gradients need blocks of the same features and type")
    if classes < 1 or gradients.n_rows % classes:
        problems.append(f"{gradients.n_rows} gradients are not the same number for each of {classes} classes")
    if problems:
        raise ValueError("; ".join(problems))
