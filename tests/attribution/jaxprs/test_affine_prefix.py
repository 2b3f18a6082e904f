"""The affine beginning of a function: where it ends, and that both parts together are the function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.random_networks import small_cnn, small_swin
from vtcav_jax.attribution.jaxprs.affine_prefix import affine_prefix, after_affine_prefix

WEIGHTS = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)


def layer(w, x):
    return x @ w + 1


def two_layers(w, x):
    return jax.nn.relu(layer(w, jax.jit(layer)(w, x)))


def residual(w, x):
    y = layer(w, x)
    return y + jnp.tanh(y.T.T * 2)


def centred(w, x):
    y = layer(w, x)
    return (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-5)


def gated(w, x):
    return layer(w, x) * x


def unused(w, x):
    return w.sum() + x.sum() * 0


def loop(w, x):
    return jax.lax.scan(lambda carry, _: (jnp.sin(carry @ w), None), layer(w, x), length=2)[0]


def split(f, x):
    ends = affine_prefix(f, WEIGHTS, x)
    return ends, after_affine_prefix(f, WEIGHTS, jax.ShapeDtypeStruct(x.shape, x.dtype), ends)


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (layer, [(4, 6)]),
        (two_layers, [(4, 6)]),
        (residual, [(4, 6), (4, 6)]),
        (gated, [(4, 6), (4, 6)]),
        (unused, [()]),
        (loop, [(4, 6)]),
        (lambda w, x: jnp.exp(x) @ w, [(4, 6)]),
        (lambda w, x: w, []),
    ],
)
def test_both_parts_are_the_function(f, shapes):
    ends, result = split(f, X)
    assert [end.shape for end in ends] == shapes
    np.testing.assert_allclose(result, f(WEIGHTS, X), rtol=1e-6)


@pytest.mark.parametrize("f", [two_layers, residual, centred, gated, loop])
def test_ends_move_in_a_straight_line_and_give_the_gradient(f):
    with jax.enable_x64(True):
        w, start, end = (np.float64(a) for a in (WEIGHTS, X, X[::-1] * 2))
        starts, ends = affine_prefix(f, w, start), affine_prefix(f, w, end)
        middle = [0.7 * a + 0.3 * b for a, b in zip(starts, ends)]
        for actual, expected in zip(middle, affine_prefix(f, w, 0.7 * start + 0.3 * end), strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-12)
        pull = jax.grad(lambda ends: after_affine_prefix(f, w, start, ends).sum())(middle)
        actual = jax.vjp(lambda x: affine_prefix(f, w, x), start)[1](pull)[0]
        expected = jax.grad(lambda x: f(w, x).sum())(0.7 * start + 0.3 * end)
        np.testing.assert_allclose(actual, expected, atol=1e-10)


def test_rounding_to_fewer_bits_ends_the_affine_part():
    assert [end.dtype for end in affine_prefix(lambda w, x: x.astype(jnp.bfloat16) * 2, WEIGHTS, X)] == [jnp.float32]
    assert [end.dtype for end in affine_prefix(lambda w, x: x.astype(jnp.float32) * 2, WEIGHTS, jnp.bfloat16(X))] == [
        jnp.float32
    ]


def test_the_first_layer_of_networks_is_affine():
    """The stem of the CNN up to its ReLU, the patches of Swin up to its normalisation: nothing runs twice."""
    clip = np.zeros((1, 4, 12, 12, 3), np.float32)
    cnn, swin = small_cnn(), small_swin()
    (stem,) = jax.eval_shape(lambda model, x: affine_prefix(lambda m, v: m(v), model, x), cnn, clip)
    assert stem.shape == jax.eval_shape(cnn.convs[0], clip).shape
    patches = jax.eval_shape(lambda model, x: affine_prefix(lambda m, v: m(v), model, x), swin, clip)
    assert max(end.size for end in patches) == jax.eval_shape(swin.patch_embed, clip).size
    jaxpr = jax.make_jaxpr(lambda model, x, ends: after_affine_prefix(lambda m, v: m(v), model, x, ends))
    assert str(jaxpr(cnn, clip, [stem])).count("conv") < str(jax.make_jaxpr(cnn)(clip)).count("conv")
