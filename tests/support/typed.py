"""What a type checker cannot know of values in tests."""

from typing import Any, TypeVar

from vtcav_jax.attribution.videos.clip_windows import Window
from vtcav_jax.data import ReadResult

T = TypeVar("T")


def present(value: T | None) -> T:
    """`value`, which is not None here."""
    assert value is not None
    return value


def compile_count(function: Any) -> int:
    """How often a jitted function was compiled."""
    return function._cache_size()


def statistic(result: Any) -> float:
    """Of a test of scipy's, whose results have no usable types."""
    return float(result.statistic)


def p_value(result: Any) -> float:
    return float(result.pvalue)


def readable(result: Window | ReadResult) -> Window:
    """A window that could be read."""
    assert isinstance(result, Window)
    return result
