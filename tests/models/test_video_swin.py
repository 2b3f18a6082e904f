"""Video Swin: sizes, stages, one block computed by hand, and independence of the results of chunking."""

from functools import partial
from math import erf

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vtcav_jax import models, tap
from vtcav_jax.models import parameters as weights
from vtcav_jax.models import video_swin
from vtcav_jax.platforms import compile_for
from weights_conversion.convert import relative_position_index


@pytest.mark.slow
def test_stages_are_tapped_in_their_order():
    model = models.make("video_swin_tiny")
    names = []
    jax.eval_shape(lambda v: model(v, lambda name, x: (names.append(name), x)[1]), jnp.zeros((1, 8, 32, 32, 3)))
    assert tuple(names) == tap.stages_of(model)
    assert tap.stages_of(model) == (
        "patch_embed",
        *("layers.0.blocks.0", "layers.0.blocks.1", "layers.0", "layers.0.downsample"),
        *("layers.1.blocks.0", "layers.1.blocks.1", "layers.1", "norm", "pool"),
    )


@pytest.fixture(scope="module")
def tiny():
    """Return a tiny network with random parameters, and a clip whose grid needs padding and shifted windows."""
    model = models.make("video_swin_tiny")
    keys = jax.random.split(jax.random.key(0), 100)
    arrays = {
        name: a + 0.1 * jax.random.normal(key, a.shape)
        for key, (name, a) in zip(keys, weights.named_parameters(model).items())
    }
    return weights.load(partial(models.make, "video_swin_tiny"), arrays), jax.random.normal(
        keys[-1], (2, 10, 40, 36, 3)
    )


def norm(x, layer):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


def affine(x, layer):
    return x @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])


@pytest.mark.slow
def test_a_shifted_block_token_by_token(tiny):
    """Each token attends to the tokens of its shifted window that were not rolled in from the other end."""
    block = tiny[0].layers[0].blocks[1]
    t, h, w, c, heads = 4, 8, 8, 48, 3
    x = np.random.default_rng(0).normal(size=(t, h, w, c))
    q, k, v = np.split(affine(norm(x, block.norm1), block.attn.qkv), 3, -1)
    table = np.asarray(block.attn.relative_position_bias_table[...]).reshape(7, 7, 7, heads)

    out = np.zeros_like(x)
    places = list(np.ndindex(t, h, w))
    # The grid has the window's length in time (4), so no shift there; in space (8), windows begin at 2 and 6.
    window_of = {p: (p[1] - 2) // 4 * 10 + (p[2] - 2) // 4 for p in places}
    for p in places:
        friends = [o for o in places if window_of[o] == window_of[p]]
        for head in range(heads):
            part = slice(16 * head, 16 * (head + 1))
            scores = [
                q[p][part] @ k[o][part] / 4 + table[p[0] - o[0] + 3, p[1] - o[1] + 3, p[2] - o[2] + 3, head]
                for o in friends
            ]
            share = np.exp(scores - np.max(scores))
            out[p][part] = (share / share.sum()) @ np.array([v[o][part] for o in friends])
    x = x + affine(out, block.attn.proj)
    y = affine(norm(x, block.norm2), block.mlp.fc1)
    x = x + affine(y * 0.5 * (1 + np.vectorize(erf)(y / np.sqrt(2))), block.mlp.fc2)
    ours = block(jnp.asarray(np.random.default_rng(0).normal(size=(1, t, h, w, c)), jnp.float32))[0]
    np.testing.assert_allclose(ours, x, rtol=0, atol=1e-5 * np.abs(x).max())  # float32 against float64


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("n", [1, 20, 49, 100, 392])
def test_bias_is_the_table_at_the_full_windows_index(n, platform):
    table = np.random.default_rng(0).normal(size=(15 * 13 * 13, 2)).astype(np.float32)
    index = relative_position_index((8, 7, 7))[:n, :n]
    with compile_for(platform):
        ours = video_swin.relative_position_bias(jnp.asarray(table.T), (8, 7, 7), n)
    np.testing.assert_array_equal(ours, table[index].transpose(2, 0, 1))


def outputs(model, video):
    return tap.activations_and_gradients(model, video, np.array([0, 3]), model.stages)


def assert_same(one, other, tolerance):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.slow
def test_chunks_give_the_same_result_as_the_whole(tiny, monkeypatch):
    model, video = tiny
    with compile_for("gpu"):
        whole = outputs(model, video)
    for tokens, score_bytes in ((1, 1), (200, 1 << 15)):
        monkeypatch.setattr(video_swin, "TOKENS_PER_CHUNK", tokens)
        monkeypatch.setattr(video_swin, "SCORE_BYTES_PER_CHUNK", score_bytes)
        jax.clear_caches()
        assert_same(outputs(model, video), whole, 1e-5)
    jax.clear_caches()


@pytest.mark.slow
def test_remat_changes_memory_but_not_results(tiny):
    """remat reduces the residuals of the backward pass; XLA's CPU compiler undoes this, GPUs and TPUs do not."""
    model, video = tiny
    lean = weights.load(partial(models.make, "video_swin_tiny", remat=True), weights.named_parameters(model))
    assert_same(outputs(lean, video), outputs(model, video), 1e-5)

    def kept(model):
        _, pullback = jax.vjp(model, video)
        parameters = {id(a) for a in weights.named_parameters(model).values()}
        return sum(a.nbytes for a in jax.tree.leaves(pullback) if id(a) not in parameters)

    assert kept(lean) < 0.5 * kept(model)


@pytest.mark.slow
def test_bfloat16_arithmetic_keeps_float32_parameters(tiny, usual_promotion):
    model, video = tiny
    half = weights.load(partial(models.make, "video_swin_tiny", dtype=jnp.bfloat16), weights.named_parameters(model))
    assert {a.dtype for a in weights.named_parameters(half).values()} == {jnp.dtype(jnp.float32)}
    logits, seen = tap.activations(half, video, tap.stages_of(half))
    expected, _ = tap.activations(model, video, tap.stages_of(model))
    assert logits.dtype == jnp.float32 and seen["layers.1"].dtype == jnp.bfloat16
    # Eight bits of mantissa, rounded about thirty times.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.03 * np.abs(expected).max())


@pytest.mark.slow
def test_unshifted_windows_do_not_interact(tiny):
    block = tiny[0].layers[0].blocks[0]
    x = jax.random.normal(jax.random.key(5), (1, 4, 8, 8, 48))
    moved = block(x.at[0, :, :4, :4].add(1.0)) != block(x)
    assert moved[0, :, :4, :4].all() and not moved[0, :, 4:].any() and not moved[0, :, :, 4:].any()


@pytest.mark.parametrize("patch", [(2, 4, 4), (4, 2)])
def test_patches_are_projected_alike_on_all_platforms(patch):
    conv = nnx.Conv(3, 5, patch, strides=patch, bias_init=nnx.initializers.normal(1.0), rngs=nnx.Rngs(0))
    video = jax.random.normal(jax.random.key(0), (2, 4, 8, 8, 3))
    expected = video_swin.project_patches(conv, video)
    with compile_for("tpu"):
        np.testing.assert_allclose(video_swin.project_patches(conv, video), expected, atol=1e-5)
