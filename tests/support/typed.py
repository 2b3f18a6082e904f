"""Narrowing of types in tests for the type checker."""

from typing import Any, TypeVar

from flax import nnx

from vtcav_jax.attribution.videos.clip_windows import Window
from vtcav_jax.data import ReadResult
from vtcav_jax.models import Network

T = TypeVar("T")


def present(value: T | None) -> T:
    """Return `value`, asserting that it is not None."""
    assert value is not None
    return value


def compile_count(function: Any) -> int:
    """Return how often a jitted function was compiled."""
    return function._cache_size()


def statistic(result: Any) -> float:
    """Return the statistic of a scipy test, whose results are untyped."""
    return float(result.statistic)


def p_value(result: Any) -> float:
    return float(result.pvalue)


def readable(result: Window | ReadResult) -> Window:
    """Return the clip of a window that could be read."""
    assert isinstance(result, Window)
    return result


def module_of(network: Network) -> nnx.Module:
    """Return the model of a network of `models` as an nnx module."""
    assert isinstance(network.model, nnx.Module)
    return network.model


def set_stages(function: Any, stages: tuple[str, ...]) -> None:
    """Name the stages of a model that is a function."""
    function.stages = stages
