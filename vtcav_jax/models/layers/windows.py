"""Windows of a grid of tokens, as in Video Swin: partition, shift, position bias and masks."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vtcav_jax.platforms import on_cpu

Triple = tuple[int, int, int]  # of time, height, width


def pad_to_multiple(x: Float[Array, "b t h w c"], sizes: Sequence[int]) -> Float[Array, "b t2 h2 w2 c"]:
    """Pad the end of each axis with zeros to a multiple of its size."""
    ends = [-n % size for n, size in zip(x.shape[1:4], sizes)]
    return jnp.pad(x, [(0, 0), *((0, end) for end in ends), (0, 0)]) if any(ends) else x


def to_windows(x: Float[Array, "b t h w c"], window: Sequence[int]) -> Float[Array, "m n c"]:
    b, t, h, w, c = x.shape
    p, q, r = window
    x = x.reshape(b, t // p, p, h // q, q, w // r, r, c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(-1, p * q * r, c)


def from_windows(
    x: Float[Array, "m n c"], b: int, grid: Sequence[int], window: Sequence[int]
) -> Float[Array, "b t h w c"]:
    (t, h, w), (p, q, r) = grid, window
    x = x.reshape(b, t // p, h // q, w // r, p, q, r, -1).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, t, h, w, -1)


def relative_position_bias(table: Float[Array, "heads offsets"], window: Triple, n: int) -> Float[Array, "heads n n"]:
    """Return the bias between the first `n` tokens of a full window.

    A smaller window uses the numbering of the full window, as in the reference: exact in time, approximate if height or
    width shrink. On a CPU, slicing and stacking the table along one axis at a time costs a tenth of a gather. On an
    accelerator, axes as short as those would be padded to a tile; a product with ones and zeros has long axes.
    """
    t, h, w = window
    steps = -(-n // (h * w))  # in time, enough for n tokens
    if not on_cpu():
        tokens = np.arange(h * w)
        offsets = (2 * w - 1) * (tokens // w) + tokens % w
        offsets = offsets[:, None] - offsets + (2 * w - 1) * (h - 1) + w - 1
        pairs = jnp.arange((2 * h - 1) * (2 * w - 1))[:, None, None] == jnp.asarray(offsets)[None]
        x = table.reshape(len(table), 2 * t - 1, -1)[:, ::-1]
        x = jnp.einsum("ktd,dij->kitj", x, pairs.astype(table.dtype), precision="highest")
        x = x.reshape(len(table), h * w, -1)  # pairs of one frame and another, the later first
        rows = [x[:, :, (t - 1 - i) * h * w : (t - 1 - i + steps) * h * w] for i in range(steps)]
        return jnp.concatenate(rows, 1)[:, :n, :n]
    x = table.reshape(-1, 2 * t - 1, 2 * h - 1, 2 * w - 1)
    x = jnp.stack([x[:, :, :, w - 1 - j : 2 * w - 1 - j] for j in range(w)], 4)  # heads dt dh w w'
    x = jnp.stack([x[:, :, h - 1 - j : 2 * h - 1 - j] for j in range(h)], 4)  # heads dt h w h' w'
    x = jnp.stack([x[:, t - 1 - j : t - 1 - j + steps] for j in range(steps)], 4)  # heads t h w t' h' w'
    return x.reshape(len(table), steps * h * w, steps * h * w)[:, :n, :n]


def region_of_token(grid: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> Float[Array, "m n"]:
    """Return the region of the grid that each token of each shifted window comes from, as an index."""
    region = np.zeros(tuple(grid), np.float32)
    for axis, (size, s) in enumerate(zip(window, shift)):
        part = np.zeros(grid[axis], np.float32)
        if s:
            part[-size:-s], part[-s:] = 1, 2
        region = 3 * region + part.reshape([-1 if a == axis else 1 for a in range(3)])
    return to_windows(jnp.asarray(region)[None, ..., None], window)[..., 0]


def region_penalty(regions: Float[Array, "... n"]) -> Float[Array, "... n n"]:
    """Return 100 for tokens of different regions, else 0: it is subtracted from the score of their attention."""
    return jnp.minimum(100 * jnp.abs(regions[..., :, None] - regions[..., None, :]), 100)


def mean_of_neighbours(x: Float[Array, "b t h w"]) -> Float[Array, "b t h2 w2"]:
    """Return the mean of each 2 x 2 tokens that `PatchMerging` merges, of fewer at the border."""

    def sums(x: Array) -> Array:
        x = pad_to_multiple(x[..., None], (1, 2, 2))
        b, t, h, w, _ = x.shape
        return x.reshape(b, t, h // 2, 2, w // 2, 2).sum((3, 5))

    return sums(x) / sums(jnp.ones_like(x))
