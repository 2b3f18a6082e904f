"""What a type checker cannot know of values in tests."""

from typing import Any, TypeVar

from flax import nnx

from vtcav_jax.attribution.videos.clip_windows import Window
from vtcav_jax.data import ReadResult
from vtcav_jax.models import Network

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


def module_of(network: Network) -> nnx.Module:
    """The model of a network of `models`, which is an nnx module."""
    assert isinstance(network.model, nnx.Module)
    return network.model


def set_stages(function: Any, stages: tuple[str, ...]) -> None:
    """Name the stages of a model that is a function."""
    function.stages = stages
