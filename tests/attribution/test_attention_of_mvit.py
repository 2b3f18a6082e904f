"""Attention maps of MViT against matrices over all tokens: attention and its gradients from torchvision's network,
and pooling as matrices of means over the window that each pooled token reads."""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.attribution.test_attention import check_parts
from tests.attribution.test_attention_of_transformers import RecordSoftmax, assert_close
from tests.models.test_network_parity import small_mvit
from tests.support.typed import present
from vtcav_jax import attribution, tap
from vtcav_jax.models.layers.convolution import THREES
from vtcav_jax.models.layers.pooling import mean_of_windows

CLASS = 1
GRIDS = ((3, 16, 16), (3, 16, 16), (3, 8, 8))  # before each block
KEY_STRIDES = (2, 1, 1)  # of each block
CLIPS = np.random.default_rng(2).normal(size=(2, 6, 64, 64, 3)).astype(np.float32)


class Reference(NamedTuple):
    """Our network and, for each block, matrices over all tokens with the class token first."""

    model: Any
    attention: list[np.ndarray]  # (b, queries, tokens), averaged over heads
    relevant: list[np.ndarray]  # relu(A * dscore/dA), averaged over heads
    bypass: list[np.ndarray]  # (queries, tokens)


@cache
def reference(version) -> Reference:
    network, model = small_mvit(version)
    with RecordSoftmax() as recorder:
        logits = network(torch.from_numpy(CLIPS).permute(0, 4, 1, 2, 3))
    gradients = torch.autograd.grad(logits[:, CLASS].sum(), recorder.results)
    weights = [a.detach().double().numpy() for a in recorder.results]
    keys = [means(grid, THREES, stride) for grid, stride in zip(GRIDS, KEY_STRIDES)]
    products = [np.maximum(a * g.double().numpy(), 0) for a, g in zip(weights, gradients, strict=True)]
    bypass = [np.eye(769), means(GRIDS[1], (1, 3, 3), 2), np.eye(193)]
    return Reference(
        model,
        [a.mean(1) @ matrix for a, matrix in zip(weights, keys, strict=True)],
        [a.mean(1) @ matrix for a, matrix in zip(products, keys, strict=True)],
        bypass,
    )


def means(grid: tuple[int, ...], window: tuple[int, ...], stride: int) -> np.ndarray:
    """Return the matrix (pooled tokens, tokens) of the class token and of means over centred windows."""
    matrix = np.ones((1, 1))
    for size, width, step in zip(grid, window, (1, stride, stride)):
        centres, positions = np.arange(0, size, step)[:, None], np.arange(size)
        inside = (np.abs(centres - positions) <= width // 2).astype(float)
        matrix = np.kron(matrix, inside / inside.sum(1, keepdims=True))
    full = np.zeros((len(matrix) + 1, matrix.shape[1] + 1))
    full[0, 0], full[1:, 1:] = 1, matrix
    return full


def first_row(ref: Reference) -> np.ndarray:
    """Return the row of the class token after the last block."""
    rows = np.zeros((len(CLIPS), ref.attention[-1].shape[1]))
    rows[:, 0] = 1
    return rows


def as_map(rows: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    return rows[:, 1:].reshape(-1, *grid)


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_rollout_is_the_product_of_matrices(version):
    ref = reference(version)
    rows = first_row(ref)
    for a, bypass in zip(reversed(ref.attention), reversed(ref.bypass)):
        rows = np.einsum("bn,bnm->bm", rows, (a + bypass) / 2)
    rollout = attribution.attribute(ref.model, CLIPS, CLASS, "rollout")
    assert rollout.stage == "tokens"
    assert_close(rollout.map, as_map(rows, GRIDS[0]))
    np.testing.assert_allclose(present(rollout.completeness_gap), rows[:, 0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("version", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_gradient_rollout_is_the_sum_of_matrices(version):
    ref = reference(version)
    rows = first_row(ref)
    for a, bypass in zip(reversed(ref.relevant), reversed(ref.bypass)):
        rows = np.einsum("bn,bnm->bm", rows, a + bypass)
    expected = as_map(rows, GRIDS[0])
    assert np.abs(expected).max() > 0
    result = attribution.attribute(ref.model, CLIPS, attribution.Class(CLASS), "gradient_rollout")
    assert_close(result.map, expected)


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_last_attention(version):
    ref = reference(version)
    last = attribution.attribute(ref.model, CLIPS, CLASS, "last_attention")
    assert last.stage == "blocks.1"
    assert_close(last.map, as_map(ref.attention[-1][:, 0], GRIDS[2]))


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_parts_of_a_block_reassemble_it(version):
    model = reference(version).model
    _, values = tap.activations(model, jnp.asarray(CLIPS), model.stages)
    for step in model.attention_path():
        inputs = step.inputs(*(values[stage] for stage in step.before))
        check_parts(step.block, inputs, [values[stage] for stage in step.after])


@pytest.mark.parametrize(("stride", "window"), [(1, (3, 3, 3)), (2, (1, 3, 3)), (4, (3, 3, 3))])
def test_means_of_windows(stride, window):
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 4, 5)).astype(np.float32)
    pooled = mean_of_windows(jnp.asarray(x), window, (1, stride, stride))
    expected = means((3, 8, 4), window, stride)[1:, 1:] @ x.reshape(2, -1, 5)
    np.testing.assert_allclose(pooled.reshape(expected.shape), expected, atol=1e-6)
