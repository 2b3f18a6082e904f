"""Numbers that describe a movement: which joints move, in which direction, and how much to and fro.

Each coordinate of a joint, minus its mean in the window, is written in cosines over time (DCT-II). The first, a way
from one side to the other, and the second, there and back, keep their signs. Of the faster ones only the size counts:
where in its cycle a repeated movement is at the start of a window says nothing about the movement. Sizes are relative
to the whole window's, so that a movement in large and in small is the same.
"""

import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax.discovery.movements.skeleton import LEFT, MIRROR, RIGHT

N_SIGNED = 2
Paths = Float[np.ndarray, "w steps joints 2"]


def displacements(paths: Paths) -> Paths:
    """Return the positions minus their mean over the window; 0 for joints that are not visible."""
    return np.nan_to_num(paths - paths.mean(1, keepdims=True))


def movement_sizes(paths: Paths) -> Float[np.ndarray, " w"]:
    """Return the movement of the joint that moves most: the root mean square distance from its mean place."""
    return np.sqrt((displacements(paths) ** 2).sum(-1).mean(1)).max(-1)


def describe_movements(paths: Paths) -> Float[np.ndarray, "w features"]:
    """Return one row per window; sizes of fast movements are relative to the mean of all windows."""
    steps = paths.shape[1]
    times = (np.arange(steps) + 0.5) / steps
    cosines = -np.sqrt(2) * np.cos(np.pi * np.arange(1, steps)[:, None] * times) / steps
    coefficients = np.einsum("kt,wtjc->wkjc", cosines, displacements(paths))
    signed = coefficients[:, :N_SIGNED].reshape(len(paths), -1)
    fast = np.sqrt((coefficients[:, N_SIGNED:] ** 2).sum(1)).reshape(len(paths), -1)
    norms = np.maximum(np.sqrt((signed**2).sum(1) + (fast**2).sum(1))[:, None], 1e-12)
    signed, fast = signed / norms, fast / norms
    return np.concatenate([signed, fast - fast.mean(0)], 1)


def mirror_paths(paths: Paths) -> Paths:
    """Return the mirror images: left and right joints exchanged, and the picture's left and right."""
    return paths[:, :, list(MIRROR)] * np.array([-1.0, 1.0])


def moves_left_most(paths: Paths) -> Bool[np.ndarray, " w"]:
    """Return where the person's left arm and leg move more than the right ones."""
    sizes = (displacements(paths) ** 2).sum(-1).mean(1)
    return sizes[:, list(LEFT)].sum(1) > sizes[:, list(RIGHT)].sum(1)
