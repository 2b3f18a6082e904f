"""Attention propagated through windows, shifts and merges, compared with dense matrices over all tokens from loops."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.support.random_networks import with_random_parameters
from tests.support.typed import compile_count, present
from vtcav_jax import attribution, tap
from vtcav_jax.models.small_cnn import SmallCnn
from vtcav_jax.models.video_swin import SwinBlock, VideoSwin

SHAPE = (1, 8, 20, 12, 3)  # tokens: (4, 5, 3), then (4, 3, 2); no window of (2, 2, 2) fits in height or width
CLASSES = np.array([2])


@pytest.fixture(scope="module")
def swin():
    sizes: dict[str, Any] = dict(embed_dim=8, depths=(2, 2), num_heads=(2, 2), window=(2, 2, 2), num_classes=4)
    return with_random_parameters(lambda: VideoSwin(**sizes, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def video():
    return jax.random.normal(jax.random.key(1), SHAPE)


def check_parts(block, inputs, expected):
    """Check that each attention operation, as softmax(q k + bias) v, finishes to the block's outputs."""
    for parts in block.attention_parts(*inputs):
        scores = jnp.einsum("ghnd,ghmd->ghnm", parts.queries, parts.keys) / math.sqrt(parts.queries.shape[-1])
        scores = scores + (0 if parts.bias is None else parts.bias)
        scores = scores + (0 if parts.mask is None else parts.mask[:, None])
        mixed = jnp.einsum("ghnm,ghmd->gnhd", jax.nn.softmax(scores), parts.values)
        outputs = parts.finish(mixed.reshape(*mixed.shape[:2], -1))
        for output, value in zip(outputs, expected):
            np.testing.assert_allclose(output.reshape(value.shape), value, rtol=1e-4, atol=1e-5)


def norm(x, layer):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * np.asarray(layer.scale[...], np.float64) + np.asarray(layer.bias[...], np.float64)


def dense(block, x):
    """Return the attention among all tokens of one clip, (heads, N, N), and v, (heads, N, d), by loops over tokens."""
    sizes, heads = x.shape[:3], block.attn.heads
    window = [min(n, w) for n, w in zip(sizes, block.window)]
    shift = [s if n > w else 0 for n, w, s in zip(sizes, block.window, block.shift)]
    grid, channels = [-(-n // w) * w for n, w in zip(sizes, window)], x.shape[3]
    y = np.zeros((*grid, channels))
    y[: sizes[0], : sizes[1], : sizes[2]] = norm(x, block.norm1)
    qkv = y.reshape(-1, channels) @ np.asarray(block.attn.qkv.kernel[...], np.float64)
    qkv = (qkv + np.asarray(block.attn.qkv.bias[...])).reshape(len(qkv), 3, heads, -1)
    table = np.asarray(block.attn.relative_position_bias_table[...], np.float64)
    places = list(np.ndindex(*grid))
    rolled = [[(p - s) % n for p, s, n in zip(place, shift, grid)] for place in places]

    def region(where, axis):
        n, s = grid[axis], shift[axis]
        return 0 if not s or where < n - window[axis] else 1 if where < n - s else 2

    weights = np.zeros((heads, len(places), len(places)))
    for i, a in enumerate(rolled):
        scores = np.full((heads, len(places)), -np.inf)
        for j, b in enumerate(rolled):
            if any(p // w != q // w for p, q, w in zip(a, b, window)):
                continue
            offset = [p % w - q % w + full - 1 for p, q, w, full in zip(a, b, window, block.window)]
            row = (offset[0] * (2 * block.window[1] - 1) + offset[1]) * (2 * block.window[2] - 1) + offset[2]
            masked = any(region(p, n) != region(q, n) for n, (p, q) in enumerate(zip(a, b)))
            product = (qkv[i, 0] * qkv[j, 1]).sum(-1) / math.sqrt(qkv.shape[-1])
            scores[:, j] = product + table[row] - 100 * masked
        e = np.exp(scores - scores.max(1, keepdims=True))
        weights[:, i] = e / e.sum(1, keepdims=True)
    inside = [i for i, place in enumerate(places) if all(p < n for p, n in zip(place, sizes))]
    return weights[:, inside][:, :, inside], qkv[inside, 2].transpose(1, 0, 2)


def merge_matrix(sizes):
    """Return the matrix (tokens after, tokens before) of a merge: equal weights of up to four tokens per row."""
    t, h, w = sizes
    after = (t, -(-h // 2), -(-w // 2))
    matrix = np.zeros((*after, *sizes))
    for place in np.ndindex(*sizes):
        matrix[(place[0], place[1] // 2, place[2] // 2, *place)] = 1
    matrix = matrix.reshape(math.prod(after), math.prod(sizes))
    return matrix / matrix.sum(1, keepdims=True)


def steps(swin: VideoSwin) -> Iterator[tuple[SwinBlock | None, str, str]]:
    """Return every block (None for a merge of tokens) with the stages before and after it."""
    yield swin.layers[0].blocks[0], "patch_embed", "layers.0.blocks.0"
    yield swin.layers[0].blocks[1], "layers.0.blocks.0", "layers.0.blocks.1"
    yield None, "layers.0.blocks.1", "layers.0.downsample"
    yield swin.layers[1].blocks[0], "layers.0.downsample", "layers.1.blocks.0"
    yield swin.layers[1].blocks[1], "layers.1.blocks.0", "layers.1.blocks.1"


@pytest.fixture(scope="module")
def stage_values(swin, video):
    names = ["patch_embed", *(after for _, _, after in steps(swin))]
    tapped = tap.activations_and_gradients(swin, video, CLASSES, names)
    return tuple({k: np.asarray(v, np.float64)[0] for k, v in d.items()} for d in tapped[1:])


@pytest.mark.slow
def test_rollout_is_the_dense_product(swin, video, stage_values):
    matrix = None
    for block, before, _ in steps(swin):
        x = stage_values[0][before]
        if block is None:
            step = merge_matrix(x.shape[:3])
        else:
            step = (np.eye(len(x.reshape(-1, x.shape[3]))) + dense(block, x)[0].mean(0)) / 2
        matrix = step if matrix is None else step @ matrix
    expected = present(matrix).mean(0).reshape(1, 4, 5, 3)
    rollout = attribution.attribute(swin, video, CLASSES, "rollout")
    np.testing.assert_allclose(rollout.map, expected, rtol=1e-3, atol=1e-6)
    gap = present(rollout.completeness_gap)
    np.testing.assert_allclose(gap, 1 - expected.sum(), atol=1e-4)
    assert rollout.stage == "patch_embed" and 0 < gap[0] < 0.9 and not rollout.signed


@pytest.mark.slow
def test_last_attention(swin, video):
    block, before, after = list(steps(swin))[-1]
    x = np.asarray(tap.activations(swin, video, before)[1][before], np.float64)[0]
    expected = dense(block, x)[0].mean((0, 1)).reshape(1, 4, 3, 2)
    attention_map = attribution.attribute(swin, video, CLASSES, "last_attention")
    np.testing.assert_allclose(attention_map.map, expected, rtol=1e-3, atol=1e-6)
    assert attention_map.stage == after


@pytest.mark.slow
def test_gradient_rollout_is_the_dense_sum(swin, video, stage_values):
    rollout = attribution.attribute(swin, video, attribution.Class(CLASSES), "gradient_rollout")
    row, straight = (np.full(24, 1 / 24) for _ in range(2))
    for block, before, after in reversed(list(steps(swin))):
        x = stage_values[0][before]
        if block is None:
            row, straight = (r @ merge_matrix(x.shape[:3]) for r in (row, straight))
            continue
        weights, values = dense(block, x)
        x32, gradient = (jnp.asarray(a, jnp.float32)[None] for a in (x, stage_values[1][after]))
        split, merge, regions = block.windows(x32)
        attended = x32 + merge(block.attn(split(block.norm1(x32)), regions))
        (gradient,) = jax.vjp(block.add_mlp, attended)[1](gradient)  # before the MLP, and below before the projection
        mixed_gradient = np.asarray(gradient, np.float64) @ np.asarray(block.attn.proj.kernel[...], np.float64).T
        mixed_gradient = mixed_gradient.reshape(len(row), block.attn.heads, -1)
        slopes = np.einsum("nhd,hmd->hnm", mixed_gradient, values)
        row = row + row @ np.maximum(weights * slopes, 0).mean(0)
    expected = row - straight
    np.testing.assert_allclose(rollout.map[0].ravel(), expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.slow
def test_parts_of_a_block_reassemble_it(swin, stage_values):
    for block, before, after in steps(swin):
        if block is not None:
            x = jnp.asarray(stage_values[0][before], jnp.float32)[None]
            check_parts(block, (x,), (stage_values[0][after],))


@pytest.mark.slow
def test_many_maps_with_attention_share_a_pass(swin, video):
    before = compile_count(tap._activations_and_gradients)
    method_stages = [("rollout", None), ("gradient_rollout", None), ("gradcam", "norm"), ("saliency", None)]
    maps = attribution.attribute_many(swin, video, CLASSES, method_stages)
    assert compile_count(tap._activations_and_gradients) == before + 1
    for (name, stage), shared in zip(method_stages, maps, strict=True):
        alone = attribution.attribute(swin, video, CLASSES, name, stage).map
        np.testing.assert_allclose(shared.map, alone, rtol=1e-3, atol=1e-5 * np.abs(alone).max())


@pytest.mark.slow
def test_errors_say_what_was_expected(swin, video):
    net = SmallCnn(widths=(2,), kernels=((1, 1, 1),), strides=((1, 1, 1),), num_classes=4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="such as Video Swin or VideoMAE, and this one has none; use attn_lrp"):
        attribution.attribute(net, video, CLASSES, "rollout")
    with pytest.raises(ValueError, match=r"one of patch_embed, layers.0.blocks.0"):
        attribution.attribute(swin, video, CLASSES, "rollout", "norm")
