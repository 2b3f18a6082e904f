"""Colours for numbers: two tables of our own, even to the eye, so that a step in colour is a step in value.

Both are lines through OKLab (Ottosson, 2020), a space in which equal distances look equal, cut into equal steps.
`SEQUENTIAL` goes from dark violet over green to pale yellow, always lighter. `DIVERGING` has a light grey in the middle
and as much lightness at either end: blue speaks against, red for.
"""

import numpy as np
from jaxtyping import Float, UInt8

LEVELS = 256
TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def rgb(lab: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """OKLab as sRGB in 0..1; what lies outside is no colour of a screen."""
    linear = (lab @ TO_LMS.T) ** 3 @ TO_RGB.T
    small = 12.92 * linear
    return np.where(linear <= 0.0031308, small, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def line(
    lightness: tuple[float, ...], chroma: tuple[float, ...], hue: tuple[float, ...], levels: int
) -> Float[np.ndarray, "levels 3"]:
    """A curve through points of OKLab, in steps of equal length."""
    points, fine = np.linspace(0, 1, len(lightness)), np.linspace(0, 1, 8192)
    light, radius, angle = (np.interp(fine, points, values) for values in (lightness, chroma, hue))
    angle = np.radians(angle)
    curve = np.stack([light, radius * np.cos(angle), radius * np.sin(angle)], -1)
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))]
    wanted = np.linspace(0, length[-1], levels)
    return np.stack([np.interp(wanted, length, axis) for axis in curve.T], -1)


SEQUENTIAL_LAB = line(
    (0.16, 0.42, 0.62, 0.80, 0.97), (0.06, 0.11, 0.085, 0.13, 0.09), (300.0, 275.0, 200.0, 140.0, 108.0), LEVELS
)
_ARM = line((0.45, 0.70, 0.955), (0.13, 0.11, 0.0), (28.0, 28.0, 28.0), LEVELS // 2)
_COLD = line((0.45, 0.70, 0.955), (0.13, 0.11, 0.0), (258.0, 258.0, 258.0), LEVELS // 2)
DIVERGING_LAB = np.concatenate([_COLD, _ARM[::-1]])


def table(lab: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    return np.rint(255 * np.clip(rgb(lab), 0, 1)).astype(np.uint8)


SEQUENTIAL, DIVERGING = table(SEQUENTIAL_LAB), table(DIVERGING_LAB)


def coloured(values: Float[np.ndarray, "*shape"], largest: float, *, signed: bool) -> UInt8[np.ndarray, "*shape 3"]:
    """0 to `largest` in sequential colours, or from its negative to it in diverging ones; beyond, the last colour."""
    share = values / largest if largest > 0 else np.zeros_like(values)
    place = (share + 1) / 2 if signed else share
    index = np.rint(np.clip(place, 0, 1) * (LEVELS - 1)).astype(int)
    return (DIVERGING if signed else SEQUENTIAL)[index]
