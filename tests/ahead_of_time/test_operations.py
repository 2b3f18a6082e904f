"""Operations counted in jaxprs, compared with counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vtcav_jax import models
from vtcav_jax.ahead_of_time.operations import count_operations
from vtcav_jax.platforms import compile_for

A, B = jnp.ones((3, 4)), jnp.ones((4, 5))


def grouped_convolution(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=layout, feature_group_count=2)


def repeated(a):
    return jax.lax.scan(lambda carry, _: (carry @ a, None), a, None, length=7)[0]


def branches(a):
    return jax.lax.cond(a[0, 0] > 0, lambda a: a @ a, lambda a: a, a)


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (jnp.matmul, (A, B), 2 * 3 * 4 * 5),
        (lambda a, b: jnp.exp(a @ b) + 1, (A, B), 2 * 3 * 4 * 5),
        (lambda a, b: jnp.einsum("nij,njk->nik", a, b), (jnp.ones((6, 3, 4)), jnp.ones((6, 4, 5))), 6 * 2 * 3 * 4 * 5),
        (jax.grad(lambda a, b: jnp.sin(a @ b).sum(), argnums=(0, 1)), (A, B), 3 * 2 * 3 * 4 * 5),
        (jax.jit(jax.checkpoint(jnp.matmul)), (A, B), 2 * 3 * 4 * 5),
        (repeated, (jnp.ones((3, 3)),), 7 * 2 * 3**3),
        (branches, (jnp.ones((3, 3)),), 2 * 3**3),
        (grouped_convolution, (jnp.ones((2, 9, 9, 6)), jnp.ones((3, 3, 3, 8))), 2 * (2 * 4 * 4 * 8) * 3 * 3 * 3),
        (lambda a: a + a, (A,), 0),
    ],
)
def test_operations_by_hand(function, args, expected):
    assert count_operations(function, *args) == expected


def test_a_loop_of_unknown_length_is_refused():
    def function(a):
        return jax.lax.while_loop(lambda a: a[0, 0] < 10, lambda a: a @ a, a)

    with pytest.raises(ValueError, match="number of iterations depends on data"):
        count_operations(function, jnp.ones((3, 3)))


def test_operations_of_a_network_by_hand():
    """Those of a Video Swin: patches, qkv, scores, their product with the values, projection, MLP, merging, head."""
    model = nnx.eval_shape(lambda: models.make("video_swin_tiny"))
    video = jax.ShapeDtypeStruct((2, 8, 32, 32, 3), np.float32)
    tokens, c, n = 2 * 4 * 8 * 8, 48, 64
    expected = tokens * 2 * 96 * c
    expected += 2 * tokens * (24 * c * c + 4 * n * c)
    expected += tokens // 4 * 2 * (4 * c) * (2 * c)
    expected += 2 * (tokens // 4) * (24 * (2 * c) ** 2 + 4 * n * 2 * c)
    expected += 2 * 2 * (2 * c) * 4
    bias = 2 * (3 + 3 + 6 + 6) * 7 * 7**2 * (4 * 4) ** 2  # of four blocks with windows of 4 x 4 x 4, as a product
    for platform, operations in (("cpu", expected), ("tpu", expected + bias)):
        with compile_for(platform):
            assert count_operations(lambda m, v: m(v), model, video) == operations
