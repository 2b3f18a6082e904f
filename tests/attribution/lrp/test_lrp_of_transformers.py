"""Relevance of plain transformers: conservation, and AttnLRP and CP-LRP with relevances propagated by hand in numpy."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.support.random_networks import with_random_parameters
from tests.support.typed import present
from vtcav_jax.attribution import attribute, targets
from vtcav_jax.attribution.lrp import interpreter, rules
from vtcav_jax.models.vit.timesformer import TimeSformer
from vtcav_jax.models.vit.videomae import VideoMae
from vtcav_jax.models.vit.vivit import Vivit
from vtcav_jax.models.vit.vjepa2 import Vjepa2

SIZES: dict[str, Any] = dict(hidden_size=24, layers=2, heads=2, intermediate_size=32, num_classes=3, dtype=jnp.float64)
MAKERS = {
    "videomae": partial(VideoMae, **SIZES, clip=(4, 8, 8), patch=(2, 4, 4)),
    "timesformer": partial(TimeSformer, **SIZES, clip=(4, 8, 8), patch=(4, 4)),
    "vivit": partial(Vivit, **SIZES, clip=(4, 8, 8), patch=(2, 4, 4)),
    "vjepa2": partial(Vjepa2, **SIZES, patch=(2, 4, 4), pooler_layers=1),
}
CLASSES = np.array([1, 2])
VIDEO = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 3))


def network(name: str, without: tuple[str, ...] = ()) -> Any:
    """Return a random network in float64; parameters whose name contains one of `without` are 0."""
    graph, state = nnx.split(with_random_parameters(lambda: MAKERS[name](rngs=nnx.Rngs(0))))

    def value(path: Any, x: Any) -> Any:
        return jnp.asarray(x, jnp.float64) * (not any(part in str(path) for part in without))

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(value, state))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["epsilon", "gamma", "alpha_beta", "z_plus"])
@pytest.mark.parametrize("name", MAKERS)
def test_relevance_of_tokens_is_the_score_without_biases(name, rule, float64):
    """Check conservation with constant attention; tokens that are parameters absorb relevance like biases."""
    model = network(name, without=("bias", "token", "position"))
    options: dict[str, Any] = dict(
        epsilon=dict(epsilon=0.0),
        gamma=dict(linear="gamma"),
        alpha_beta=dict(linear="alpha_beta", alpha=2.0, beta=1.0, bias=False),
        z_plus=dict(linear="alpha_beta", bias=False),
    )[rule]
    lrp_rules = rules.LrpRules(**options, attention="cp")
    relevance = attribute(model, VIDEO, targets.Class(CLASSES), "lrp_epsilon", model.stages[0], rules=lrp_rules)
    score = np.asarray(model(jnp.asarray(VIDEO)))[[0, 1], CLASSES]
    np.testing.assert_allclose(relevance.map.sum((1, 2, 3)), score, rtol=1e-6)
    assert np.abs(present(relevance.completeness_gap)).max() < 1e-6 * np.abs(relevance.map).max()
    assert np.abs(relevance.map).min() > 0


class Backward:
    """Rules of AttnLRP as published, each from a relevance to a relevance, in numpy."""

    def __init__(self, constant_attention: bool):
        self.constant_attention = constant_attention

    def linear(self, x: np.ndarray, layer: nnx.Linear, relevance: np.ndarray) -> np.ndarray:
        kernel = np.asarray(layer.kernel[...])
        total = apply(layer, x)
        return x * ((relevance / (total + 1e-6 * np.where(total < 0, -1, 1))) @ kernel.T)

    def norm(self, x: np.ndarray, layer: nnx.LayerNorm, relevance: np.ndarray) -> np.ndarray:
        """Share with the bias, pass the division on, and share between the token and its mean."""
        scaled, bias = normalised(layer, x)
        relevance = relevance * scaled / (scaled + bias)
        slope = relevance / (x - x.mean(-1, keepdims=True))
        return x * (slope - slope.mean(-1, keepdims=True))

    def product(self, a: np.ndarray, b: np.ndarray, relevance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the relevances of both factors of a @ b: half of each product's relevance."""
        slope = relevance / (a @ b) / 2
        return a * (slope @ b.swapaxes(-1, -2)), b * (a.swapaxes(-1, -2) @ slope)

    def attention(self, x: np.ndarray, block: Any, relevance: np.ndarray) -> np.ndarray:
        """Return the relevance of the normalised tokens, from that of the values mixed by all heads."""
        qkv = block.attention.attention
        layers, heads = (qkv.query, qkv.key, qkv.value), qkv.heads
        q, k, v = (by_head(apply(layer, x), heads) for layer in layers)
        d = q.shape[-1]
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(d)
        weights = softmax(scores)
        relevance = by_head(relevance, heads)
        if self.constant_attention:
            r_v = v * (weights.swapaxes(-1, -2) @ (relevance / (weights @ v)))
            return self.linear(x, qkv.value, joined(r_v))
        r_weights, r_v = self.product(weights, v, relevance)
        r_scores = scores * (r_weights - weights * r_weights.sum(-1, keepdims=True))  # Taylor expansion of the softmax
        r_q, r_k = self.product(q, k.swapaxes(-1, -2), r_scores)
        parts = (r_q, r_k.swapaxes(-1, -2), r_v)
        return np.sum([self.linear(x, layer, joined(part)) for layer, part in zip(layers, parts)], 0)

    def block(self, x: np.ndarray, block: Any, relevance: np.ndarray) -> np.ndarray:
        after_norm = norm(block.layernorm_before, x)
        mixed = attend(block, after_norm)
        middle = x + apply(block.attention.output.dense, mixed)
        hidden = norm(block.layernorm_after, middle)
        active = gelu(block, apply(block.intermediate.dense, hidden))
        out = apply(block.output.dense, active)

        r_out = relevance * out / (middle + out)
        r_hidden = self.linear(active, block.output.dense, r_out)  # a GELU passes relevance on unchanged
        r_middle = relevance * middle / (middle + out)
        r_middle = r_middle + self.norm(
            middle, block.layernorm_after, self.linear(hidden, block.intermediate.dense, r_hidden)
        )
        r_mixed = self.linear(mixed, block.attention.output.dense, r_middle * (middle - x) / middle)
        r_norm = self.attention(after_norm, block, r_mixed)
        return r_middle * x / middle + self.norm(x, block.layernorm_before, r_norm)


def apply(layer: Any, x: np.ndarray) -> np.ndarray:
    bias = 0 if layer.bias is None else np.asarray(layer.bias[...])
    return x @ np.asarray(layer.kernel[...]) + bias


def normalised(layer: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.epsilon)
    return scaled * np.asarray(layer.scale[...]), np.asarray(layer.bias[...])


def norm(layer: Any, x: np.ndarray) -> np.ndarray:
    scaled, bias = normalised(layer, x)
    return scaled + bias


def by_head(x: np.ndarray, heads: int) -> np.ndarray:
    return x.reshape(*x.shape[:-1], heads, -1).swapaxes(1, 2)


def joined(x: np.ndarray) -> np.ndarray:
    return x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(block: Any, x: np.ndarray) -> np.ndarray:
    qkv = block.attention.attention
    q, k, v = (by_head(apply(layer, x), qkv.heads) for layer in (qkv.query, qkv.key, qkv.value))
    return joined(softmax(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])) @ v)


def gelu(block: Any, x: np.ndarray) -> np.ndarray:
    if block.activation == "gelu_fast":
        return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attn_lrp", "lrp_epsilon", "cp_lrp"])
@pytest.mark.parametrize("name", ["videomae", "vivit"])
def test_attention_block_by_hand(name, method, float64):
    """Compare with relevances in numpy, of ViViT with a class token and the GELU with tanh."""
    model = network(name)
    by_hand = Backward(constant_attention=method == "cp_lrp")
    token, grid = None, model.embeddings(jnp.asarray(VIDEO))
    if name == "vivit":
        token, grid = grid
    tokens = np.asarray(grid).reshape(2, -1, 24)
    if token is not None:
        tokens = np.concatenate([np.asarray(token)[:, None], tokens], 1)
    values = [tokens]
    for block in model.encoder.layer:
        middle = values[-1] + apply(
            block.attention.output.dense, attend(block, norm(block.layernorm_before, values[-1]))
        )
        active = gelu(block, apply(block.intermediate.dense, norm(block.layernorm_after, middle)))
        values.append(middle + apply(block.output.dense, active))
    last = values[-1][:, 0] if name == "vivit" else values[-1].mean(1)
    last_norm = model.layernorm if name == "vivit" else model.fc_norm
    features = norm(last_norm, last)
    scores = apply(model.head, features)
    np.testing.assert_allclose(scores, model(jnp.asarray(VIDEO)), rtol=1e-6)

    relevance = np.zeros_like(scores)
    relevance[[0, 1], CLASSES] = scores[[0, 1], CLASSES]
    pooled = by_hand.norm(last, last_norm, by_hand.linear(features, model.head, relevance))
    if name == "vivit":
        relevance = np.zeros_like(tokens)
        relevance[:, 0] = pooled
    else:
        relevance = values[-1] / tokens.shape[1] * (pooled / last)[:, None]
    for block, x in zip(reversed(model.encoder.layer), reversed(values[:-1])):
        relevance = by_hand.block(x, block, relevance)
    expected = relevance[:, len(tokens[0]) - 8 :].sum(-1).reshape(2, 2, 2, 2)
    ours = attribute(model, VIDEO, targets.Class(CLASSES), method, "embeddings").map
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_tanh_is_a_gate_only_if_one_is_added():
    def gated(x):
        return x * (0.5 * (1 + jnp.tanh(x)))

    def activations(x):
        y = jnp.tanh(x)
        return y * (1 + y), jnp.tanh(x) + x

    assert len(interpreter._gates(jax.make_jaxpr(gated)(1.0).jaxpr)) == 1
    assert not interpreter._gates(jax.make_jaxpr(activations)(1.0).jaxpr)
