"""The strictest jax: no silent broadcasting between ranks, no silent promotion between types."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def usual_promotion():
    """For float64 and bfloat16, since flax's LayerNorm mixes float32 in."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def float64(usual_promotion):
    with jax.enable_x64(True):
        yield
