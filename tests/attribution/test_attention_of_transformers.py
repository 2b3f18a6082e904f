"""Attention maps of plain transformers against matrices over all tokens, from the attention of transformers' networks.

Gradients with respect to attention are those of torch. Tokens are the class token, if there is one, and the grid.
"""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.attribution.test_attention import check_parts
from tests.models.test_video_transformers import CONFIGS, load_pair
from tests.support.typed import present
from vtcav_jax import attribution, tap

NAMES = ["videomae", "timesformer", "vivit", "vjepa2_unrotated_channels"]
CLASS = 0


class RecordSoftmax(TorchFunctionMode):
    """Record the result of every softmax."""

    def __init__(self):
        super().__init__()
        self.results: list[torch.Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.nn.functional.softmax, torch.softmax, torch.Tensor.softmax):
            self.results.append(result)
        return result


class Reference(NamedTuple):
    """A network of ours and, per attention operation, matrices over all tokens from torch."""

    model: Any
    video: jnp.ndarray
    grid: tuple[int, ...]
    attention: list[np.ndarray]  # (b, queries, keys), averaged over heads
    relevant: list[np.ndarray]  # relu(A * dscore/dA), averaged over heads
    start: np.ndarray  # the row of what the head reads
    class_token: int  # 1 if there is one


@cache
def reference(name: str) -> Reference:
    network, model, video = load_pair(CONFIGS[name])
    kind = network.config.model_type
    if kind != "timesformer":
        network.set_attn_implementation("eager")
    with RecordSoftmax() as recorder:
        logits = network(torch.from_numpy(video).permute(0, 1, 4, 2, 3)).logits
    gradients = torch.autograd.grad(logits[:, CLASS].sum(), recorder.results)
    weights = [a.detach().double().numpy() for a in recorder.results]
    relevant = [np.maximum(a * g.double().numpy(), 0) for a, g in zip(weights, gradients, strict=True)]
    _, values = tap.activations(model, jnp.asarray(video), model.stages[0])
    grid = values[model.stages[0]].shape[1:4]
    class_token = int(kind in ("timesformer", "vivit"))
    n = class_token + int(np.prod(grid))

    def matrices(parts: list[np.ndarray]) -> list[np.ndarray]:
        if kind != "timesformer":
            return [a.mean(1) for a in parts]
        return [dense(a.mean(1), grid, i % 2 == 0) for i, a in enumerate(parts)]

    start = np.full(n, 1 / n)
    if class_token:
        start = np.eye(n)[0]
    return Reference(model, jnp.asarray(video), grid, matrices(weights), matrices(relevant), start, class_token)


def dense(a: np.ndarray, grid: tuple[int, ...], temporal: bool) -> np.ndarray:
    """Return TimeSformer's attention of places `(b h w, t, t)` or frames `(b t, n, n)` as matrices over all tokens."""
    t, h, w = grid
    b = len(a) // (h * w if temporal else t)
    numbers = np.arange(t * h * w).reshape(t, h * w) + 1
    full = np.zeros((b, 1 + t * h * w, 1 + t * h * w))
    for clip in range(b):
        if temporal:
            for place, matrix in enumerate(a.reshape(b, h * w, t, t)[clip]):
                full[clip][np.ix_(numbers[:, place], numbers[:, place])] = matrix
            continue
        for frame, matrix in enumerate(a.reshape(b, t, 1 + h * w, 1 + h * w)[clip]):
            tokens = np.concatenate([[0], numbers[frame]])
            full[clip][np.ix_(tokens[1:], tokens)] = matrix[1:]
            full[clip][0, tokens] += matrix[0] / t  # the class token's result is the mean over frames
    return full


def identity_plus(a: np.ndarray) -> np.ndarray:
    """Return A + I with rows that sum to 1, as Abnar and Zuidema define it."""
    with_identity = a + np.eye(a.shape[-1])
    return with_identity / with_identity.sum(-1, keepdims=True)


def as_map(rows: np.ndarray, ref: Reference) -> np.ndarray:
    return rows[:, ref.class_token :].reshape(-1, *ref.grid)


def assert_close(ours: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rollout_is_the_product_of_matrices(name):
    ref = reference(name)
    rows = np.repeat(ref.start[None], len(ref.video), 0)
    for a in reversed(ref.attention):
        rows = a[:, 0] if a.shape[1] == 1 else np.einsum("bn,bnm->bm", rows, identity_plus(a))
    rollout = attribution.attribute(ref.model, ref.video, CLASS, "rollout")
    assert_close(rollout.map, as_map(rows, ref))
    assert rollout.stage == ref.model.stages[0]
    np.testing.assert_allclose(present(rollout.completeness_gap), rows[:, 0] if ref.class_token else 0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gradient_rollout_is_the_sum_of_matrices(name):
    ref = reference(name)
    rows = np.repeat(ref.start[None], len(ref.video), 0)
    without_attention = as_map(rows, ref)
    for a in reversed(ref.relevant):
        if a.shape[1] == 1:
            rows, without_attention = a[:, 0], 0
        else:
            rows = rows + np.einsum("bn,bnm->bm", rows, a)
    expected = as_map(rows, ref) - without_attention
    assert np.abs(expected).max() > 0
    target = attribution.Class(CLASS)
    assert_close(attribution.attribute(ref.model, ref.video, target, "gradient_rollout").map, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_last_attention(name):
    ref = reference(name)
    rows = np.repeat(ref.start[None], len(ref.video), 0)
    if ref.attention[-1].shape[1] == 1:
        rows = ref.attention[-1][:, 0]
    else:
        for a in ref.attention[-1 : -3 if name == "timesformer" else -2 : -1]:
            rows = np.einsum("bn,bnm->bm", rows, a)
    last = attribution.attribute(ref.model, ref.video, CLASS, "last_attention")
    assert_close(last.map, as_map(rows, ref))
    assert len(tap.activations(ref.model, ref.video, last.stage)[1][last.stage].shape) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_block_reassemble_it(name):
    ref = reference(name)
    _, values = tap.activations(ref.model, ref.video, ref.model.stages)
    for step in ref.model.attention_path():
        inputs = step.inputs(*(values[stage] for stage in step.before))
        check_parts(step.block, inputs, [values[stage] for stage in step.after])


def test_rollout_from_a_later_block_needs_a_grid():
    ref = reference("vivit")
    later = attribution.attribute(ref.model, ref.video, CLASS, "rollout", "encoder.layer.0")
    rows = identity_plus(ref.attention[1])[:, 0]
    assert_close(later.map, as_map(rows, ref))
    with pytest.raises(ValueError, match=r"one of embeddings, encoder.layer.0; got encoder.layer.1.class_token"):
        attribution.attribute(ref.model, ref.video, CLASS, "rollout", "encoder.layer.1.class_token")
