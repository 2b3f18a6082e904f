"""Colour maps: matplotlib's viridis for values from 0 up, and blue to red around 0 for signed values."""

from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.names import unknown_name_message

LEVELS = 256
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"


@cache
def color_table(*, signed: bool, name: str = "") -> UInt8[np.ndarray, "levels 3"]:
    """Return the colours in order, of matplotlib's colour map `name`.

    By default, signed values are blue below zero, nearly white at zero and red above.
    """
    import matplotlib

    if name and name not in matplotlib.colormaps:
        raise ValueError(unknown_name_message("colour map", [name], list(matplotlib.colormaps)))
    colormap = matplotlib.colormaps[name or (DIVERGING if signed else SEQUENTIAL)].resampled(LEVELS)
    table = colormap(np.arange(LEVELS), bytes=True)[:, :3]
    table.flags.writeable = False  # cached, so shared by all callers
    return table


def apply_colormap(
    values: Float[np.ndarray, "*shape"], largest: float, *, signed: bool, name: str = ""
) -> UInt8[np.ndarray, "*shape 3"]:
    """Map 0 to `largest` (signed: −`largest` to `largest`) to colours; values beyond get the last colour."""
    share = values / largest if largest > 0 else np.zeros_like(values)
    place = (share + 1) / 2 if signed else share
    index = np.rint(np.clip(place, 0, 1) * (LEVELS - 1)).astype(int)
    return color_table(signed=signed, name=name)[index]
