"""Colours for numbers: matplotlib's viridis from zero upwards, and its blue to red map around zero."""

from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

LEVELS = 256
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"


@cache
def color_table(*, signed: bool) -> UInt8[np.ndarray, "levels 3"]:
    """The colours in order; signed ones are blue below zero, nearly white at zero and red above."""
    import matplotlib

    colormap = matplotlib.colormaps[DIVERGING if signed else SEQUENTIAL].resampled(LEVELS)
    table = colormap(np.arange(LEVELS), bytes=True)[:, :3]
    table.flags.writeable = False  # every caller gets the same array
    return table


def apply_colormap(
    values: Float[np.ndarray, "*shape"], largest: float, *, signed: bool
) -> UInt8[np.ndarray, "*shape 3"]:
    """0 to `largest` in sequential colours, or from its negative to it in diverging ones; beyond, the last colour."""
    share = values / largest if largest > 0 else np.zeros_like(values)
    place = (share + 1) / 2 if signed else share
    index = np.rint(np.clip(place, 0, 1) * (LEVELS - 1)).astype(int)
    return color_table(signed=signed)[index]
