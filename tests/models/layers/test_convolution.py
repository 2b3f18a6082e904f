"""Each way to compute a convolution on a CPU, and its gradients, against XLA's own convolution in float64."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vtcav_jax.models.layers import column_products, convolution, overlap_add, row_products, winograd
from vtcav_jax.models.layers.convolution import Conv3d, conv_on_cpu

THREES, ONES, HALF = (3, 3, 3), (1, 1, 1), ((1, 1),) * 3
# input, kernel, channels of the output, strides, padding, groups
LAYERS = {
    "a stem": ((2, 4, 17, 20, 3), (3, 7, 7), 8, (1, 2, 2), ((1, 1), (3, 3), (3, 3)), 1),
    "a stem with a smaller kernel": ((2, 4, 17, 20, 3), (3, 7, 5), 8, (1, 2, 2), ((1, 1), (3, 3), (2, 2)), 1),
    "a stem of uneven sizes": ((1, 4, 22, 17, 2), (4, 8, 7), 5, (1, 3, 2), ((2, 0), (1, 0), (0, 3)), 1),
    "a stem with a stride in time": ((1, 9, 20, 18, 3), (5, 7, 7), 6, (2, 2, 2), ((2, 2), (3, 3), (3, 3)), 1),
    "a stem of seven frames": ((2, 9, 22, 21, 3), (7, 7, 7), 5, (1, 2, 2), ((3, 3),) * 3, 1),
    "a stem of five frames with two outputs in time": ((1, 6, 18, 14, 2), (5, 7, 8), 4, (1, 3, 2), ((0, 0),) * 3, 1),
    "a stem of nine frames with one output in time": (
        (1, 7, 16, 15, 1),
        (9, 7, 7),
        4,
        (1, 2, 2),
        ((1, 1), (3, 3), (3, 3)),
        1,
    ),
    "a stem of two frames": ((1, 6, 16, 15, 3), (2, 7, 7), 4, (1, 2, 2), ((0, 0), (3, 3), (3, 3)), 1),
    "a stem with a stride longer than its kernel": ((1, 2, 8, 8, 3), (1, 2, 2), 4, (1, 3, 3), ((0, 0),) * 3, 1),
    "a stem padded more at the end": ((1, 4, 16, 16, 3), (3, 5, 5), 8, (1, 2, 2), ((1, 1), (1, 2), (1, 2)), 1),
    "a stem without padding": ((1, 5, 16, 19, 3), (2, 5, 5), 8, (2, 2, 3), ((0, 0),) * 3, 1),
    "a small kernel over few channels": ((2, 3, 9, 10, 3), THREES, 5, ONES, HALF, 1),
    "few channels and single pixels": ((1, 2, 5, 5, 3), (3, 1, 1), 5, ONES, ((1, 1), (0, 0), (0, 0)), 1),
    "pixels": ((2, 3, 5, 6, 16), ONES, 8, (1, 2, 2), ((0, 0),) * 3, 1),
    "Winograd with tiles of 4": ((2, 8, 25, 26, 16), THREES, 8, ONES, HALF, 1),
    "Winograd with frames summed within the product": ((1, 4, 30, 26, 72), THREES, 20, ONES, HALF, 1),
    "Winograd with tiles of 2": ((2, 3, 13, 14, 16), (1, 3, 3), 8, ONES, ((0, 0), (1, 1), (1, 1)), 1),
    "columns": ((2, 4, 7, 6, 16), THREES, 8, ONES, HALF, 1),
    "columns of an even kernel": ((2, 4, 20, 21, 16), (2, 4, 3), 6, (1, 2, 3), ((1, 1), (0, 0), (0, 1)), 1),
    "columns with strides": ((2, 5, 9, 8, 16), THREES, 8, (2, 2, 1), ((1, 0), (0, 1), (2, 1)), 1),
    "a few frames": ((2, 6, 3, 3, 16), (3, 1, 1), 8, ONES, ((1, 1), (0, 0), (0, 0)), 1),
    "many frames": ((2, 12, 7, 8, 16), (3, 1, 1), 8, ONES, ((1, 1), (0, 0), (0, 0)), 1),
    "frames with a stride": ((1, 12, 7, 8, 16), (7, 1, 1), 8, (2, 1, 1), ((3, 3), (0, 0), (0, 0)), 1),
    "groups": ((2, 4, 6, 6, 16), THREES, 8, ONES, HALF, 4),
    "groups with strides": ((1, 4, 6, 7, 12), THREES, 24, (1, 2, 2), HALF, 6),
    "groups on large frames": ((2, 3, 13, 12, 12), THREES, 24, ONES, HALF, 6),
    "groups on large frames with a stride in time": (
        (2, 5, 12, 13, 6),
        (3, 3, 1),
        12,
        (2, 1, 1),
        ((1, 1), (0, 2), (0, 0)),
        3,
    ),
    "groups on large frames with strides": ((1, 3, 26, 25, 8), THREES, 6, (1, 2, 2), HALF, 2),
    "groups of one channel": ((1, 4, 6, 7, 6), (3, 1, 3), 12, (2, 1, 1), ((1, 1), (0, 0), (0, 1)), 6),
    "groups of pixels": ((1, 4, 6, 7, 12), ONES, 24, (2, 1, 1), ((0, 0),) * 3, 6),
    "each channel by itself": ((2, 4, 6, 6, 6), THREES, 6, ONES, HALF, 6),
    "each channel by itself with strides": ((1, 4, 9, 10, 16), THREES, 16, (2, 2, 2), HALF, 16),
    "each channel by itself with long strides": ((2, 4, 17, 18, 6), THREES, 6, (1, 8, 8), HALF, 6),
}


def random_layer(shape, kernel, outputs, groups):
    random = np.random.default_rng(0)
    weights = random.normal(size=(*kernel, shape[-1] // groups, outputs))
    return jnp.asarray(random.normal(size=shape)), jnp.asarray(weights)


def values_and_gradients(compute, x, kernel):
    y, pull = jax.vjp(compute, x, kernel)
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=y.shape))
    return y, *pull(cotangent)


def require_xla_results(shape, kernel, outputs, strides, padding, groups):
    x, weights = random_layer(shape, kernel, outputs, groups)

    def reference(x, weights):
        layout = ("NDHWC", "DHWIO", "NDHWC")
        return jax.lax.conv_general_dilated(
            x, weights, strides, padding, dimension_numbers=layout, feature_group_count=groups
        )

    def ours(x, weights):
        return conv_on_cpu(x, weights, None, strides, padding, groups)

    expected = jax.jit(lambda x, weights: values_and_gradients(reference, x, weights))(x, weights)
    actual = jax.jit(lambda x, weights: values_and_gradients(ours, x, weights))(x, weights)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * float(jnp.abs(b).max()))  # Winograd amplifies rounding
    clip_by_clip = jax.jit(jax.vmap(lambda clip: ours(clip[None], weights)[0]))(x)
    np.testing.assert_allclose(clip_by_clip, expected[0], rtol=0, atol=1e-12 * float(jnp.abs(expected[0]).max()))


@pytest.mark.parametrize("layer", LAYERS)
def test_values_and_gradients_are_those_of_xla(float64, layer):
    require_xla_results(*LAYERS[layer])


@pytest.mark.parametrize(
    "layer",
    [
        *("a stem", "a stem of uneven sizes", "a stem with a stride in time", "a stem of seven frames"),
        *("columns", "columns with strides"),
        *("many frames", "groups", "groups on large frames", "Winograd with tiles of 2", "Winograd with tiles of 4"),
        "Winograd with frames summed within the product",
    ],
)
def test_blocks_of_any_size_have_the_same_results(float64, monkeypatch, layer):
    for module in (column_products, convolution):
        monkeypatch.setattr(module, "CACHED_COLUMNS", 1)
    monkeypatch.setattr(column_products, "CACHED_PRODUCTS", 2_000)
    monkeypatch.setattr(column_products, "MIN_ROWS", 1)
    monkeypatch.setattr(overlap_add, "CACHED_VALUES", 10_000)
    monkeypatch.setattr(row_products, "CACHED_VALUES", 10_000)
    monkeypatch.setattr(winograd, "MAX_VALUES", 1)
    monkeypatch.setattr(winograd, "VALUES_OF_PARTS", 20_000)
    jax.clear_caches()
    require_xla_results(*LAYERS[layer])


@pytest.mark.parametrize("is_batched", [(True, False), (False, True), (True, True)])
def test_batches_of_clips_or_kernels_have_the_results_of_each_alone(float64, is_batched):
    shape, kernel, outputs, strides, padding, groups = LAYERS["groups"]
    random = np.random.default_rng(0)
    arguments = [
        jnp.asarray(random.normal(size=(3, *sizes) if batched else sizes))
        for sizes, batched in zip((shape, (*kernel, shape[-1] // groups, outputs)), is_batched)
    ]

    def gradients(x, weights):
        return values_and_gradients(lambda x, w: conv_on_cpu(x, w, None, strides, padding, groups), x, weights)

    together = jax.vmap(gradients, [0 if batched else None for batched in is_batched])(*arguments)
    for i in range(3):
        alone = gradients(*(a[i] if batched else a for a, batched in zip(arguments, is_batched)))
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=0, atol=1e-12 * float(jnp.abs(b).max()))


def test_no_clips_and_no_outputs_give_empty_results():
    assert jax.vmap(lambda x: conv_on_cpu(x, jnp.ones((3, 3, 3, 16, 4)), None, ONES, HALF))(
        jnp.zeros((0, 2, 4, 6, 7, 16))
    ).shape == (0, 2, 4, 6, 7, 4)
    stem = Conv3d(3, 4, (5, 7, 7), (1, 2, 2), padding=[(0, 0), (3, 3), (3, 3)], rngs=nnx.Rngs(0))
    assert stem(jnp.ones((1, 4, 16, 16, 3))).shape == (1, 0, 8, 8, 4)


@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize("taps", [2, 3, 4])
def test_a_tile_in_winograds_basis_is_a_convolution(outputs, taps):
    output, kernel, inputs = winograd.transform_matrices(outputs, taps)
    random = np.random.default_rng(0)
    x, weights = random.normal(size=outputs + taps - 1), random.normal(size=taps)
    np.testing.assert_allclose(output @ ((kernel @ weights) * (inputs @ x)), np.correlate(x, weights), atol=1e-12)


def test_a_stem_of_seven_frames_rounds_a_few_times_more_than_a_sum():
    shape, kernel, outputs, strides, padding, _ = LAYERS["a stem of seven frames"]
    random = np.random.default_rng(0)
    x, weights = (random.normal(size=sizes) for sizes in (shape, (*kernel, 3, outputs)))
    with jax.enable_x64(True):
        expected = np.asarray(conv_on_cpu(jnp.asarray(x), jnp.asarray(weights), None, strides, padding))
    actual = conv_on_cpu(jnp.asarray(x, jnp.float32), jnp.asarray(weights, jnp.float32), None, strides, padding)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_half_precision_stays_out_of_winograds_basis(monkeypatch):
    for module in (row_products, winograd):
        monkeypatch.setattr(module, "transform_matrices", None)
    jax.clear_caches()
    for layer in ("a stem", "Winograd with tiles of 4"):
        shape, kernel, outputs, strides, padding, _ = LAYERS[layer]
        x, weights = jnp.ones(shape, jnp.bfloat16), jnp.ones((*kernel, shape[-1], outputs), jnp.bfloat16)
        y = conv_on_cpu(x, weights, None, strides, padding)
        assert float(y.max()) == pytest.approx(math.prod(kernel) * shape[-1], rel=0.01)  # inside, all inputs are seen


def test_kernels_over_time_choose_the_way_with_less_work():
    pads = ((1, 1), (0, 0), (0, 0))
    assert column_products.prefer_frame_products((1, 8, 28, 28, 288), (3, 1, 1), ONES, pads)
    assert not column_products.prefer_frame_products((1, 16, 28, 28, 230), (3, 1, 1), (2, 1, 1), pads)
    assert column_products.prefer_frame_products((1, 16, 112, 112, 64), (7, 1, 1), (2, 1, 1), pads)
    assert not column_products.prefer_frame_products((1, 8, 28, 28, 64), (3, 3, 3), ONES, HALF)


MODULE_OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "valid": dict(strides=(1, 2, 2), padding="VALID"),
    "one number each": dict(strides=2, padding=1),
    "circular": dict(padding="CIRCULAR", use_bias=False),
    "kernel dilation": dict(kernel_dilation=2),
    "input dilation": dict(input_dilation=(2, 1, 1), padding=((0, 1), 1, (2, 0))),
    "negative padding": dict(padding=((0, 0), (-1, 0), (1, 1))),
    "groups": dict(feature_group_count=2, strides=(2, 1, 1)),
    "a mask": dict(mask=np.indices((3, 5, 5, 6, 4)).sum(0) % 2.0),
    "a smaller type": dict(dtype=jnp.float32),
}


@pytest.mark.parametrize("options", MODULE_OPTIONS)
def test_modules_compute_what_those_of_flax_do(float64, options):
    ours, theirs = (
        conv(6, 4, (3, 5, 5), param_dtype=jnp.float64, rngs=nnx.Rngs(0), **MODULE_OPTIONS[options])
        for conv in (Conv3d, nnx.Conv)
    )
    for module in (ours, theirs):
        if module.bias is not None:
            module.bias[...] = jnp.arange(4.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 9, 10, 6)))
    expected, pull = jax.vjp(jax.jit(lambda conv, x: conv(x)), theirs, x)
    actual, our_pull = jax.vjp(jax.jit(lambda conv, x: conv(x)), ours, x)
    assert actual.dtype == expected.dtype
    direction = jnp.asarray(np.random.default_rng(1).normal(size=expected.shape), expected.dtype)
    pairs = zip(
        jax.tree.leaves((actual, our_pull(direction))), jax.tree.leaves((expected, pull(direction))), strict=True
    )
    tolerance = 1e-12 if expected.dtype == jnp.float64 else 1e-5
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(jnp.abs(b).max()))


@pytest.mark.parametrize("shape", [(4, 9, 10, 6), (2, 1, 4, 9, 10, 6), (0, 4, 9, 10, 6)])
def test_modules_take_any_number_of_batch_axes(shape):
    conv = Conv3d(6, 4, (3, 3, 3), feature_group_count=2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert conv(jnp.asarray(x)).shape == (*shape[:-1], 4)
    if x.ndim == 4:
        np.testing.assert_allclose(conv(jnp.asarray(x)), conv(jnp.asarray(x[None]))[0], rtol=1e-6)


def test_channels_that_do_not_fit_the_kernel_are_an_error():
    with pytest.raises(ValueError, match=r"expected 8 channels for a kernel \(1, 1, 1, 4, 6\) in 2 groups, got 4"):
        conv_on_cpu(jnp.zeros((1, 2, 2, 2, 4)), jnp.zeros((1, 1, 1, 4, 6)), None, ONES, ((0, 0),) * 3, 2)
