"""The platform that programs are traced for."""

import jax
import jax.numpy as jnp

from vtcav_jax.platforms import compile_for, on_cpu, platform


def test_a_function_is_traced_again_for_another_platform():
    traced = []

    @jax.jit
    def function(x):
        traced.append(platform())
        return x if on_cpu() else x + 1

    for _ in range(2):
        assert function(jnp.zeros(())) == 0
        with compile_for("tpu"):
            assert function(jnp.zeros(())) == 1
    assert traced == ["cpu", "tpu"]
    assert on_cpu()
