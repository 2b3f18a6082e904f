"""Kernels of attention of all tokens, interpreted, compared with the formula in float64, and where they are used."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vtcav_jax import models, tap
from vtcav_jax.attribution.lrp.methods import LRP_PRESETS, propagate_relevance
from vtcav_jax.attribution.targets import Class
from vtcav_jax.models.layers import token_attention_gpu as gpu
from vtcav_jax.models.layers import token_attention_tpu as tpu
from vtcav_jax.models.layers.token_attention import MAX_CHANNELS, join_heads, split_heads
from vtcav_jax.models.vit import blocks
from vtcav_jax.models.vit.videomae import VideoMae
from vtcav_jax.platforms import compile_for, use_kernels

FORWARD = {"tpu": tpu.tpu_token_forward, "gpu": gpu.gpu_token_forward}
BACKWARD = {"tpu": tpu.tpu_token_backward, "gpu": gpu.gpu_token_backward}
# Tokens, channels and heads of each attention of a preset
PRESETS = {
    "videomae_tiny": (256, 96, 3),
    "videomae_s_k400": (1568, 384, 6),
    "videomae_b_k400": (1568, 768, 12),
    "videomae_l_k400": (1568, 1024, 16),
    "videomae_h_k400": (1568, 1280, 16),
    "timesformer_b_k400": (197, 768, 12),
    "vivit_b_k400": (3137, 768, 12),
    "vjepa2_l_ssv2": (2048, 1024, 16),
    "vjepa2_h_ssv2": (2048, 1280, 16),
    "vjepa2_g_ssv2": (18432, 1408, 22),
}
OLDER_VMEM = 16 << 20  # bytes of a TPU v4


def draw_inputs(b: int, n: int, m: int, heads: int, d: int) -> tuple[list[jax.Array], jax.Array]:
    """Return queries, keys and values, and slopes of the attention."""
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(random.normal(size=(b, size, heads * d)), jnp.float32) for size in (n, m, m, n)]
    return arrays[:3], arrays[3]


def formula(qkv: list[Any], slopes: Any, heads: int) -> list[np.ndarray]:
    """Return the attention and the slopes of queries, keys and values in float64."""
    q, k, v, g = (np.asarray(split_heads(x, heads).astype(jnp.float32), np.float64) for x in (*qkv, slopes))
    scale = q.shape[-1] ** -0.5
    e = np.exp(scale * q @ k.swapaxes(2, 3))
    p = e / e.sum(-1, keepdims=True)
    dp = g @ v.swapaxes(2, 3)
    ds = scale * p * (dp - (p * dp).sum(-1, keepdims=True))
    results = p @ v, ds @ k, ds.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ g
    return [x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1) for x in results]


def compare(platform: str, qkv: list[jax.Array], slopes: jax.Array, heads: int, tolerance: float) -> None:
    q, k, v = qkv
    y, shift = FORWARD[platform](q, k, v, heads=heads, interpret=True)
    ours = (y, *BACKWARD[platform](q, k, v, y, shift, slopes, heads=heads, interpret=True))
    for name, values, expected in zip(("y", "q", "k", "v"), ours, formula(qkv, slopes, heads), strict=True):
        assert values.dtype == q.dtype and values.shape == expected.shape
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(np.asarray(values, np.float64), expected, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("platform", FORWARD)
def test_kernels_equal_the_formula(platform):
    qkv, slopes = draw_inputs(1, 20, 27, 1, 16)
    compare(platform, qkv, slopes, 1, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("platform", FORWARD)
@pytest.mark.parametrize(
    ("b", "n", "m", "heads", "d"),
    [(1, 197, 197, 2, 64), (2, 100, 100, 2, 80), (1, 130, 150, 3, 32), (1, 65, 65, 4, 64), (1, 40, 40, 1, 128)],
)
def test_widths_of_heads_and_numbers_of_tokens_that_no_block_divides(platform, b, n, m, heads, d):
    """Several blocks of the GPU; one or two groups of heads of the TPU."""
    qkv, slopes = draw_inputs(b, n, m, heads, d)
    compare(platform, qkv, slopes, heads, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("b", "n", "m", "heads", "d"), [(1, 197, 197, 2, 64), (2, 70, 100, 2, 80), (1, 96, 96, 4, 64)])
def test_blocks_of_keys_of_the_tpu(b, n, m, heads, d, monkeypatch):
    """No block divides the keys: what is read after the last is masked."""
    for name, value in dict(MAX_RESIDENT_KEYS=64, MAX_KEYS=48, MAX_QUERIES=32, MAX_QUERIES_OF_MANY_KEYS=64).items():
        monkeypatch.setattr(tpu, name, value)
    monkeypatch.setattr(tpu, "MAX_BACKWARD_KEYS", 48 * tpu.group_width(heads * d, heads))
    for divide in (tpu.divide_forward, tpu.divide_backward):
        divided = divide(heads * d, heads, n, m, 4)
        assert divided.key_blocks > 1 and divided.query_blocks > 1
    qkv, slopes = draw_inputs(b, n, m, heads, d)
    compare("tpu", qkv, slopes, heads, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("platform", FORWARD)
def test_token_kernels_in_bfloat16(platform):
    qkv, slopes = draw_inputs(1, 100, 150, 2, 64)
    compare(platform, [x.astype(jnp.bfloat16) for x in qkv], slopes.astype(jnp.bfloat16), 2, 0.01)


@pytest.mark.parametrize("platform", FORWARD)
def test_large_scores_do_not_overflow(platform):
    """The first score is 800 and the others less, so that each row has one weight, and no slope of its queries."""
    tokens = jnp.arange(20, 0, -1, jnp.float32)[None, :, None] * jnp.ones((1, 1, 16), jnp.float32)
    q = 10 * jnp.ones((1, 20, 16), jnp.float32)
    y, shift = FORWARD[platform](q, tokens, tokens, heads=1, interpret=True)
    np.testing.assert_allclose(y, 20, rtol=1e-6)
    np.testing.assert_allclose(shift, 800, rtol=1e-6)
    slopes = BACKWARD[platform](q, tokens, tokens, y, shift, y, heads=1, interpret=True)
    assert all(np.isfinite(x).all() for x in slopes)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_blocks_of_presets_fit_older_tpus(name, itemsize):
    """Blocks are stored twice; the scores of a head three or four times, as weights, slopes and copies."""
    n, c, heads = PRESETS[name]
    forward = tpu.divide_forward(c, heads, n, n, itemsize)
    backward = tpu.divide_backward(c, heads, n, n, itemsize)
    for divided in (forward, backward):
        assert divided.width % 128 == 0 or divided.width == c
        for size in (divided.queries, divided.keys):
            assert size == n or size % 16 == 0
        assert divided.query_blocks * divided.queries < n + 16 * divided.query_blocks
        assert divided.key_blocks * divided.keys < n + 16 * divided.key_blocks
    rows, keys = 2 * itemsize * forward.queries * forward.width, 2 * itemsize * forward.keys * forward.width
    scores = 4 * forward.queries * forward.keys
    assert 2 * rows + 2 * keys + 4 * forward.queries * forward.width + 3 * scores <= OLDER_VMEM
    rows, keys = 2 * itemsize * backward.queries * backward.width, 2 * itemsize * backward.keys * backward.width
    scores = 4 * backward.queries * backward.keys
    assert 5 * rows + 4 * keys + 8 * backward.keys * backward.width + 4 * scores <= OLDER_VMEM


def test_which_keys_are_read_once():
    """In bfloat16, those of all presets but the one with most tokens; else once per block of queries."""
    for name, (n, c, heads) in PRESETS.items():
        assert (tpu.divide_forward(c, heads, n, n, 2).key_blocks == 1) == (name != "vjepa2_g_ssv2"), name


def draw_heads(n: int, m: int, heads: int, d: int, dtype: Any = jnp.float32) -> list[jax.Array]:
    random = np.random.default_rng(1)
    return [jnp.asarray(random.normal(size=(1, heads, size, d)), dtype) for size in (n, m, m)]


def uses_kernels(q: jax.Array, k: jax.Array, v: jax.Array) -> bool:
    return "pallas_call" in str(jax.make_jaxpr(blocks.attend)(q, k, v))


def test_where_kernels_of_tokens_apply():
    assert not uses_kernels(*draw_heads(128, 130, 1, 16))  # on a CPU
    with compile_for("tpu"):
        assert uses_kernels(*draw_heads(128, 130, 1, 16))
        assert uses_kernels(*draw_heads(128, 130, 1, 16, jnp.bfloat16))
        assert not uses_kernels(*draw_heads(1, 130, 1, 16))  # the query of a pooler
        assert not uses_kernels(*draw_heads(127, 127, 1, 16))
        assert not uses_kernels(*draw_heads(128, 128, 1, 8))
        assert not uses_kernels(*draw_heads(128, 128, 1, MAX_CHANNELS + 1))
        assert not uses_kernels(*draw_heads(128, 128, 1, 16, jnp.float16))
        with use_kernels(False):
            assert not uses_kernels(*draw_heads(128, 130, 1, 16))


@pytest.mark.slow
@pytest.mark.parametrize("platform", FORWARD)
def test_several_targets_share_a_backward_pass_of_kernels(platform, monkeypatch):
    """The whole function with its derivative, by kernels of the platform that are interpreted, over several slopes."""
    branch = {"tpu": "tpu", "gpu": "cuda"}[platform]

    def interpreted(*args: Any, **branches: Any) -> Any:
        return branches[branch](*args, interpret=True)

    qkv = draw_heads(128, 150, 2, 16)
    expected, expected_pullback = jax.vjp(blocks.attend_in_pieces, *qkv)
    several = jnp.stack([expected, 2 - expected, jnp.sin(expected)])
    monkeypatch.setattr(jax.lax, "platform_dependent", interpreted)
    with compile_for(platform):  # type: ignore[arg-type]
        values, pullback = jax.vjp(blocks.attend, *qkv)
        ours = jax.vmap(pullback)(several)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    for a, b in zip(ours, jax.vmap(expected_pullback)(several), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * float(abs(b).max()))


@pytest.fixture(scope="module")
def network():
    make: Any = dict(hidden_size=32, layers=2, heads=2, intermediate_size=48, num_classes=3, clip=(4, 32, 32))
    model = VideoMae(**make, patch=(2, 4, 4), rngs=nnx.Rngs(0))  # 128 tokens
    return model, jax.random.normal(jax.random.key(1), (2, 4, 32, 32, 3))


@pytest.mark.slow
def test_a_transformer_with_kernels_has_the_same_values_and_gradients(network):
    model, video = network
    expected = tap.gradients_for_classes(model, video, [0, 2], model.stages)
    with compile_for("tpu"):
        assert "pallas_call" in str(jax.make_jaxpr(lambda m, v: m(v))(model, video))
        ours = tap.gradients_for_classes(model, video, [0, 2], model.stages)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, float(abs(b).max())))


@pytest.mark.slow
def test_relevance_and_derivatives_of_derivatives_of_a_transformer_need_plain_jax(network):
    model, video = network

    def second(model, video):
        return jax.jvp(jax.grad(lambda v: model(v).sum()), (video,), (video,))[1]

    expected = propagate_relevance(model, video, Class(1), rules=LRP_PRESETS["attn_lrp"])
    expected_second = second(model, video)
    with compile_for("gpu"):
        ours = propagate_relevance(model, video, Class(1), rules=LRP_PRESETS["attn_lrp"])
        with use_kernels(False):
            ours_second = second(model, video)
    np.testing.assert_allclose(ours.map, expected.map, atol=1e-5 * np.abs(expected.map).max())
    np.testing.assert_allclose(ours_second, expected_second, atol=1e-4 * float(abs(expected_second).max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["videomae_b_k400", "timesformer_b_k400", "vivit_b_k400", "vjepa2_l_ssv2"])
def test_every_plain_transformer_uses_kernels(name, usual_promotion, monkeypatch):
    """Along time, TimeSformer has 8 tokens, which need none."""
    calls: list[tuple[int, int, int]] = []

    def record(q: Any, k: Any, v: Any, plain: Any) -> Any:
        del k, v, plain
        calls.append((q.shape[2], join_heads(q).shape[2], q.shape[1]))
        return q

    monkeypatch.setattr(blocks, "token_attention", record)
    preset, layers = models.PRESETS[name], {"layers": 1} | ({"pooler_layers": 1} if "vjepa2" in name else {})
    model = nnx.eval_shape(lambda: preset.maker(num_classes=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0), **layers))
    video = jax.ShapeDtypeStruct((1, *preset.clip_spec.shape), jnp.bfloat16)
    with compile_for("gpu"):
        jax.eval_shape(lambda m, v: m(v), model, video)
    assert set(calls) == {PRESETS[name]}
