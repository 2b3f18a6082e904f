"""Products of features, K = XX' and P = GX', over blocks of features; all statistics are computed from them.

X holds the examples' activations, G the gradients of class scores at the target clips. Each block of X is centred
before multiplication, because float32 is too imprecise for differences of activations far from 0. The centre has no
effect afterwards: `center_kernel` computes K for any other one, and coefficients that sum to 0 do not depend on it.
Products are float32 at the highest precision within a block and float64 across blocks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from vtcav_jax.platforms import on_cpu
from vtcav_jax.tcav.features.feature_store import Features

TILES_PER_SIDE = 4  # K is symmetric: only 10 of 4 x 4 tiles are computed


@dataclass(frozen=True)
class Gram:
    """Products of one stage (layer), with m examples, n target clips and c classes."""

    kernel: Float[np.ndarray, "m m"]  # examples by examples, centred at their mean
    cross: Float[np.ndarray, "c n m"]  # gradients by examples
    gradients: Float[np.ndarray, "c n n"]  # gradients by gradients, of the same class

    @property
    def gradient_norms(self) -> Float[np.ndarray, "c n"]:
        """Norm of each gradient."""
        return np.sqrt(np.maximum(np.diagonal(self.gradients, axis1=1, axis2=2), 0))


def compute_gram(
    examples: Features,
    gradients: Features,
    classes: int = 1,
    mesh: Mesh | None = None,
    *,
    blocks: Sequence[int] | None = None,
) -> Gram:
    """Compute the products; `gradients` has the rows of the first class, then those of the second, and so on.

    With `blocks` only these blocks of features are summed. With a mesh, the features of each block are divided among
    its devices; without one, the first device computes, or NumPy on a CPU, which takes half the time for XX'.
    """
    _check(examples, gradients, classes)
    blocks = range(len(examples.columns)) if blocks is None else blocks
    pairs = ((examples.block(i), gradients.block(i)) for i in blocks)
    if mesh is None and on_cpu():
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
            padding = width - x.shape[1]  # zero features, so that one shape is compiled
            x, g = (jax.device_put(np.pad(a, ((0, 0), (0, padding))) if padding else a, by_feature) for a in (x, g))
            upper, cross, inner = _products(x, g, classes, tiles)
            for (start, stop), tile in zip(tiles, upper):
                kernel[start:stop, start:] += np.asarray(tile)
            products += np.asarray(cross)
            squares += np.asarray(inner)
    kernel = np.triu(kernel)
    return Gram(kernel + np.triu(kernel, 1).T, products, squares)


def contrast_gram(gram: Gram, pairs: Sequence[tuple[int, int]]) -> Gram:
    """Return the products of pair differences, first example minus second, in place of the examples."""
    first, second = (list(side) for side in zip(*pairs))
    differences = gram.cross[:, :, first] - gram.cross[:, :, second]
    return Gram(difference_kernel(gram.kernel, pairs), differences, gram.gradients)


def difference_kernel(kernel: Float[np.ndarray, "m m"], pairs: Sequence[tuple[int, int]]) -> Float[np.ndarray, "p p"]:
    """Return the kernel of pair differences, first example minus second."""
    first, second = (list(side) for side in zip(*pairs))
    rows = kernel[first] - kernel[second]
    return rows[:, first] - rows[:, second]


def center_kernel(kernel: Float[np.ndarray, "m m"], weights: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m m"]:
    """Return K with the examples' weighted mean as the origin."""
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
        problems.append(
            f"activations have shape {examples.shape} and gradients {gradients.shape}; both must be of the same stage"
        )
    if examples.columns != gradients.columns or examples.dtype != gradients.dtype:
        problems.append("activations and gradients need the same blocks and dtype")
    if classes < 1 or gradients.n_rows % classes:
        problems.append(f"{gradients.n_rows} gradients cannot be divided equally among {classes} classes")
    if problems:
        raise ValueError("; ".join(problems))
