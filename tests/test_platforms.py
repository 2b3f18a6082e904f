"""The platform that programs are traced for."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from vtcav_jax.platforms import compile_for, kernels_apply, on_cpu, platform, use_kernels


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


def test_kernels_apply_to_one_device_or_inside_shard_map(monkeypatch):
    """A program that the compiler divides among devices cannot contain kernels."""
    assert kernels_apply()
    with use_kernels(False):
        assert not kernels_apply()
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert not kernels_apply()
    applied = []
    mesh, everywhere = Mesh(np.array(jax.devices()), ("b",)), PartitionSpec()

    def function(x):
        applied.append(kernels_apply())
        return x

    jax.eval_shape(jax.shard_map(function, mesh=mesh, in_specs=everywhere, out_specs=everywhere), jnp.zeros(()))
    assert applied == [True]
