"""Kernels of window attention, interpreted, compared with the same arithmetic in plain JAX."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vtcav_jax import tap
from vtcav_jax.attribution.lrp.methods import LRP_PRESETS, propagate_relevance
from vtcav_jax.attribution.targets import Class
from vtcav_jax.models.layers import window_attention as attention
from vtcav_jax.models.layers.window_attention import plain_attention, window_attention
from vtcav_jax.models.layers.window_attention_gpu import gpu_backward, gpu_forward
from vtcav_jax.models.video_swin import VideoSwin
from vtcav_jax.platforms import compile_for, use_kernels

KERNELS = {
    "tpu": (attention.tpu_forward, attention.tpu_backward),
    "gpu": (gpu_forward, gpu_backward),
}


def draw_inputs(m: int, n: int, heads: int, d: int, is_masked: bool) -> tuple[Any, jax.Array]:
    random = np.random.default_rng(0)
    shapes = ((m, n, 3 * heads * d), (3 * heads * d,), (heads, n, n))
    arrays = [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]
    regions = jnp.asarray(random.integers(0, 3, (m, n)), jnp.float32) if is_masked else None
    return (*arrays, regions), jnp.asarray(random.normal(size=(m, n, heads * d)), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("platform", KERNELS)
@pytest.mark.parametrize(
    ("m", "n", "heads", "d", "is_masked"), [(2, 20, 2, 16, False), (1, 70, 1, 32, True), (1, 16, 8, 32, True)]
)
def test_kernels_equal_plain_jax(platform, m, n, heads, d, is_masked):
    """Few tokens, more than a block of the GPU, and several groups of heads of the TPU."""
    inputs, slopes = draw_inputs(m, n, heads, d, is_masked)
    values, pullback = jax.vjp(lambda qkv: plain_attention(qkv, *inputs[1:]), inputs[0])
    forward, backward = (partial(kernel, interpret=True) for kernel in KERNELS[platform])
    np.testing.assert_allclose(forward(*inputs), values, atol=1e-5)
    np.testing.assert_allclose(backward(*inputs, slopes), pullback(slopes)[0], atol=1e-4)


def test_heads_whose_bias_exceeds_the_vector_memory_are_divided(monkeypatch):
    monkeypatch.setattr(attention, "MAX_BIAS_BYTES_PER_CALL", 4 * 16 * 128 * 4)  # four of eight heads
    inputs, slopes = draw_inputs(1, 16, 8, 32, True)
    assert str(jax.make_jaxpr(attention.tpu_forward)(*inputs)).count("pallas_call") == 2
    values, pullback = jax.vjp(lambda qkv: plain_attention(qkv, *inputs[1:]), inputs[0])
    forward, backward = (partial(kernel, interpret=True) for kernel in KERNELS["tpu"])
    np.testing.assert_allclose(forward(*inputs), values, atol=1e-5)
    np.testing.assert_allclose(backward(*inputs, slopes), pullback(slopes)[0], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("platform", KERNELS)
def test_kernels_in_bfloat16(platform):
    inputs, slopes = draw_inputs(2, 20, 2, 32, True)
    values, pullback = jax.vjp(lambda qkv: plain_attention(qkv, *inputs[1:]), inputs[0])
    forward, backward = (partial(kernel, interpret=True) for kernel in KERNELS[platform])
    narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), inputs[:3])
    for ours, expected in (
        (forward(*narrow, inputs[3]), values),
        (backward(*narrow, inputs[3], slopes.astype(jnp.bfloat16)), pullback(slopes)[0]),
    ):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(ours.astype(jnp.float32), expected, atol=0.05 * float(abs(expected).max()))


@pytest.mark.parametrize("platform", KERNELS)
def test_a_masked_token_with_a_large_score_still_counts(platform):
    """The penalty is 100, as in the reference, and not infinite."""
    n, heads, d = 4, 1, 16
    qkv = jnp.zeros((1, n, 3 * d)).at[..., 2 * d :].set(jnp.arange(n, dtype=jnp.float32)[None, :, None])
    bias = jnp.zeros((heads, n, n)).at[0, 0, 3].set(100.0)
    regions = jnp.asarray([[0.0, 0, 1, 1]])
    values = KERNELS[platform][0](qkv, jnp.zeros(3 * d), bias, regions, interpret=True)
    np.testing.assert_allclose(values[0, 0, 0], (0 + 1 + 3) / 3, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("is_masked", [False, True])
def test_all_slopes_are_those_of_plain_jax(is_masked):
    (qkv, offset, bias, regions), slopes = draw_inputs(2, 20, 2, 16, is_masked)

    def slopes_of(function):
        return jax.vjp(lambda *inputs: function(*inputs, regions), qkv, offset, bias)[1](slopes)

    with compile_for("gpu"):
        assert "pallas_call" in str(jax.make_jaxpr(window_attention)(qkv, offset, bias, regions))
        ours = slopes_of(window_attention)
    for a, b in zip(ours, slopes_of(plain_attention), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(("n", "d"), [(513, 16), (4, 24), (4, 8)])
def test_where_the_kernels_do_not_apply(n, d):
    inputs, _ = draw_inputs(1, n, 1, d, False)
    with compile_for("tpu"):
        assert "pallas_call" not in str(jax.make_jaxpr(window_attention)(*inputs))


@pytest.fixture(scope="module")
def network():
    make: Any = dict(embed_dim=32, depths=(2,), num_heads=(2,), window=(2, 2, 2), num_classes=3, rngs=nnx.Rngs(0))
    return VideoSwin(**make), jax.random.normal(jax.random.key(1), (2, 8, 16, 16, 3))


@pytest.mark.slow
def test_a_network_with_kernels_has_the_same_values_and_gradients(network):
    model, video = network
    expected = tap.gradients_for_classes(model, video, [0, 2], model.stages)
    with compile_for("tpu"):
        assert "pallas_call" in str(jax.make_jaxpr(lambda m, v: m(v))(model, video))
        ours = tap.gradients_for_classes(model, video, [0, 2], model.stages)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_relevance_is_propagated_without_kernels(network):
    model, video = network
    expected = propagate_relevance(model, video, Class(1), rules=LRP_PRESETS["attn_lrp"])
    with compile_for("gpu"):
        ours = propagate_relevance(model, video, Class(1), rules=LRP_PRESETS["attn_lrp"])
    np.testing.assert_allclose(ours.map, expected.map, atol=1e-5 * np.abs(expected.map).max())


@pytest.mark.slow
def test_derivatives_of_derivatives_need_plain_jax(network):
    model, video = network

    def second(model, video):
        return jax.jvp(jax.grad(lambda v: model(v).sum()), (video,), (video,))[1]

    expected = second(model, video)
    with compile_for("gpu"), use_kernels(False):
        np.testing.assert_allclose(second(model, video), expected, atol=1e-4 * float(abs(expected).max()))
