"""Relevance: rules in numpy loops over weights, conservation, gradient x input, and torch's guided backpropagation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

from tests.support.random_networks import small_cnn, small_swin
from tests.support.typed import compile_count, present
from vtcav_jax import attribution, tap
from vtcav_jax.attribution import targets
from vtcav_jax.attribution.lrp import interpreter, rules
from vtcav_jax.attribution.lrp import methods as lrp_methods

CLASSES = np.array([2, 0])


@pytest.fixture(scope="module")
def net():
    return small_cnn()


@pytest.fixture(scope="module")
def swin():
    return small_swin()


@pytest.fixture(scope="module")
def video():
    return jax.random.normal(jax.random.key(1), (2, 4, 12, 12, 3))


def test_lrp_0_of_a_network_without_biases_is_gradient_x_input(video):
    net = small_cnn(biases=False)
    relevance = attribution.attribute(net, video, CLASSES, "lrp_epsilon", rules=rules.LrpRules(epsilon=0.0))
    gradient = attribution.gradient_x_input(net, video, CLASSES)
    size = np.abs(gradient.map).max()
    np.testing.assert_allclose(relevance.map, gradient.map, atol=1e-4 * size)
    np.testing.assert_allclose(present(relevance.completeness_gap), 0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "stage"), [("lrp_z_plus", s) for s in ("video", "convs.0", "convs.2")] + [("deep_taylor", "video")]
)
def test_relevance_is_conserved(net, video, method, stage):
    if method == "deep_taylor":
        relevance = attribution.deep_taylor(net, video, targets.Class(CLASSES), bounds=(-5.0, 5.0))
    else:
        relevance = attribution.attribute(net, video, targets.Class(CLASSES), method, stage)
    score = np.asarray(net(video))[[0, 1], CLASSES]
    np.testing.assert_allclose(relevance.map.sum((1, 2, 3)), score, rtol=1e-4)


def loops(rule, x, w, s, b, c):
    """Compute one layer z = s (w x) + b by loops over inputs and outputs, with the rules as published."""
    z = s * (w @ x) + b
    relevance, out = z * c, np.zeros(len(x))
    bias = b if rule.bias else 0 * b
    for j in range(len(z)):
        parts = x * w[j] * s[j]
        plus, minus = np.maximum(parts, 0), np.minimum(parts, 0)
        if rule.linear == "epsilon":
            total = parts.sum() + bias[j]
            out += parts / (total + rule.epsilon * (1 if total >= 0 else -1)) * relevance[j]
        elif rule.linear == "gamma":
            kept_parts = plus if parts.sum() + bias[j] > 0 else minus
            kept_bias = max(bias[j], 0) if parts.sum() + bias[j] > 0 else min(bias[j], 0)
            total = (parts + rule.gamma * kept_parts).sum() + bias[j] + rule.gamma * kept_bias
            out += (parts + rule.gamma * kept_parts) / total * relevance[j]
        else:
            up, down = plus.sum() + max(bias[j], 0), minus.sum() + min(bias[j], 0)
            out += (rule.alpha * plus / up - rule.beta * minus / down) * relevance[j]
    return out


ALL_RULES = [
    rules.LrpRules(epsilon=0.3),
    rules.LrpRules(epsilon=0.3, bias=False),
    rules.LrpRules("gamma", gamma=0.5),
    rules.LrpRules("gamma", gamma=0.5, bias=False),
    rules.LrpRules("alpha_beta", alpha=2.0, beta=1.0),
    rules.LrpRules("alpha_beta", bias=False),
]


@pytest.mark.parametrize("rule", ALL_RULES, ids=str)
@pytest.mark.slow
def test_rules_by_loops(rule):
    random = np.random.default_rng(3)
    x, w, s, b, c = (random.normal(size=n) for n in (7, (5, 7), 5, 5, 5))
    arrays = [jnp.asarray(a, jnp.float32) for a in (x, w, s, b)]
    _, pullback = jax.vjp(lambda x: rules.linear_rule(lambda x, w: w @ x, rule, x, *arrays[1:]), arrays[0])
    relevance = arrays[0] * pullback(jnp.asarray(c, jnp.float32))[0]
    np.testing.assert_allclose(relevance, loops(rule, x, w, s, b, c), rtol=1e-3, atol=1e-4)


def test_bounded_rule_by_loops():
    random = np.random.default_rng(4)
    x, w, s, b, c = (random.normal(size=n) for n in (7, (5, 7), 5, 5, 5))
    low, high = x - random.random(7), x + random.random(7)
    arrays = [jnp.asarray(a, jnp.float32) for a in (x, w, s, b, low, high)]

    def call(x):
        return rules.z_b_rule(lambda x, w: w @ x, rules.LrpRules(), x, *arrays[1:])

    bounded_relevance = jax.vjp(call, arrays[0])[1](jnp.asarray(c, jnp.float32))[0]
    relevance, out, v = (s * (w @ x) + b) * c, np.zeros(7), w * s[:, None]
    for j in range(5):
        parts = x * v[j] - low * np.maximum(v[j], 0) - high * np.minimum(v[j], 0)
        out += parts / parts.sum() * relevance[j]
        assert (parts >= 0).all()
    np.testing.assert_allclose(bounded_relevance, out, rtol=1e-3, atol=1e-4)


def batch_normed(parameters, video, tap=tap.identity_tap):
    """CNN with the operations of 3D CNNs: convolution, norm with stored statistics, ReLU, max pooling, groups, sum."""
    p = parameters
    dims = ("NDHWC", "DHWIO", "NDHWC")
    x = jax.lax.conv_general_dilated(video, p["a"], (1, 1, 1), "SAME", dimension_numbers=dims)
    x = (x - p["mean"]) * jax.lax.rsqrt(p["var"] + 1e-5) * p["scale"] + p["shift"]
    x = tap("stem", jax.nn.relu(x))
    x = nnx.max_pool(x, (1, 2, 2), (1, 2, 2))
    groups = jax.lax.conv_general_dilated(x, p["b"], (1, 1, 1), "SAME", dimension_numbers=dims, feature_group_count=2)
    x = tap("sum", jax.nn.relu(groups) + x)
    return x.mean((1, 2, 3)) @ p["head"]


@pytest.fixture(scope="module")
def normed():
    random = np.random.default_rng(5)
    shapes = dict(a=(3, 3, 3, 3, 4), b=(3, 3, 3, 2, 4), head=(4, 4), mean=4, scale=4, shift=4)
    arrays = {k: random.normal(size=s) / 3 for k, s in shapes.items()}
    arrays = {k: v.reshape((1, 1, 1, 1, 4)) if v.ndim == 1 else v for k, v in arrays.items()}
    arrays["var"] = np.ones((1, 1, 1, 1, 4))
    return Partial(batch_normed, {k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()})


@pytest.mark.slow
def test_a_norm_after_a_layer_is_fused(normed, video):
    """Check that folding the norm into weights and bias does not change relevance, for every rule."""
    p = normed.args[0]
    scale = p["scale"] / jnp.sqrt(p["var"] + 1e-5)
    folded = p | {"a": p["a"] * scale, "shift": p["shift"] - p["mean"] * scale}
    plain = {"mean": jnp.zeros_like(scale), "var": jnp.full_like(scale, 1 - 1e-5), "scale": jnp.ones_like(scale)}
    other = Partial(batch_normed, folded | plain)
    for rule in (ALL_RULES[2], ALL_RULES[5]):
        normed_map, folded_map = (
            attribution.propagate_relevance(m, video, CLASSES, rules=rule).map for m in (normed, other)
        )
        np.testing.assert_allclose(normed_map, folded_map, atol=2e-4 * np.abs(folded_map).max())


@pytest.mark.slow
def test_sums_pools_and_groups_conserve(normed, video):
    score = np.asarray(normed(video))[[0, 1], CLASSES]
    for stage in ("video", "stem", "sum"):
        relevance = attribution.attribute(normed, video, targets.Class(CLASSES), "lrp_z_plus", stage)
        if stage == "sum":
            np.testing.assert_allclose(relevance.map.sum((1, 2, 3)), score, rtol=1e-4)
    relevance = attribution.deep_taylor(normed, video, targets.Class(CLASSES), bounds=(video.min(), video.max()))
    assert np.isfinite(relevance.map).all()


def preactivated(parameters, video, tap=tap.identity_tap):
    """Network with a norm after a sum and before the next layer, as in MF-Net."""
    p = parameters
    x = tap("stem", video @ p["a"])
    x = x + jax.nn.relu(x) @ p["b"]
    x = jax.nn.relu(x * p["scale"] + p["shift"])
    return tap("tail", x).mean((1, 2, 3)) @ p["head"]


def test_a_norm_before_a_layer_absorbs_its_shift(video):
    """Check that z-plus conserves relevance except for the shifts of such norms, reported as completeness gap."""
    random = np.random.default_rng(7)
    shapes = dict(a=(3, 4), b=(4, 4), head=(4, 4), scale=(1, 1, 1, 1, 4), shift=(1, 1, 1, 1, 4))
    p = {k: jnp.asarray(np.abs(random.normal(size=s)), jnp.float32) for k, s in shapes.items()}
    clips, target = jnp.abs(video[:, :2, :3, :3]), targets.Class(CLASSES)
    for shift in (0 * p["shift"], p["shift"]):
        model = Partial(preactivated, p | {"shift": shift})
        relevance = attribution.attribute(model, clips, target, "lrp_z_plus", "stem")
        score = np.asarray(model(clips))[[0, 1], CLASSES]
        expected_gap = np.asarray(shift).reshape(4) @ np.asarray(p["head"])[:, CLASSES]  # nothing is negative here
        gap = present(relevance.completeness_gap)
        np.testing.assert_allclose(gap, expected_gap, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(relevance.map.sum((1, 2, 3)) + gap, score, rtol=1e-4)


def by_hand(p, video, constant):
    """Compute attention and an MLP in the efficient form of AttnLRP or CP-LRP: gradients stopped and halved."""
    stop = jax.lax.stop_gradient

    def half(a):
        return 0.5 * a + stop(0.5 * a)

    x = video.reshape(len(video), -1, video.shape[-1])
    y = x - x.mean(-1, keepdims=True)
    y = y / stop(jnp.sqrt((y**2).mean(-1, keepdims=True) + 1e-5))
    q, k, v = (y @ p[n] for n in "qkv")
    attention = jax.nn.softmax(half(q) @ half(k).swapaxes(-1, -2))
    x = x + (stop(attention) @ v if constant else half(attention) @ half(v))
    u = x @ p["up"]
    x = x + (u * stop(0.5 + 0.5 * jax.lax.erf(u / 2**0.5))) @ p["down"]
    return x.mean(1) @ p["head"]


def attention_net(parameters, video, tap=tap.identity_tap):
    """Compute it as an ordinary network: softmax normalised last, in a loop and rematerialised, as in Video Swin."""
    p = parameters
    x = tap("tokens", video).reshape(len(video), -1, video.shape[-1])
    y = x - x.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt((y**2).mean(-1, keepdims=True) + 1e-5)

    @jax.checkpoint
    def attend(y):
        q, k, v = (y @ p[n] for n in "qkv")
        scores = q @ k.T
        e = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
        return (e @ v) / e.sum(-1, keepdims=True)

    x = x + jax.lax.map(attend, y)
    u = x @ p["up"]
    x = x + (u * (0.5 + 0.5 * jax.lax.erf(u / 2**0.5))) @ p["down"]
    return x.mean(1) @ p["head"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attn_lrp", "cp_lrp"])
def test_attention_rules_equal_their_efficient_form(video, method):
    random = np.random.default_rng(6)
    shapes = dict(q=(3, 3), k=(3, 3), v=(3, 3), up=(3, 5), down=(5, 3), head=(3, 4))
    p = {n: jnp.asarray(random.normal(size=s), jnp.float32) for n, s in shapes.items()}
    clips = video[:, :2, :3, :3]
    relevance = attribution.attribute(Partial(attention_net, p), clips, targets.Class(CLASSES), method)

    def score(v):
        return by_hand(p, v, method == "cp_lrp")[jnp.arange(2), jnp.asarray(CLASSES)].sum()

    expected = (clips * jax.grad(score)(clips)).sum(-1)
    np.testing.assert_allclose(relevance.map, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_video_swin_has_relevance_at_every_stage(swin, video):
    score = np.asarray(swin(video))[[0, 1], CLASSES]
    bias = np.asarray(swin.head.bias[...])[CLASSES]
    last = attribution.attribute(swin, video, targets.Class(CLASSES), "attn_lrp", "norm")
    np.testing.assert_allclose(last.map.sum((1, 2, 3)), score - bias, rtol=1e-4, atol=1e-5)
    for method in ("attn_lrp", "cp_lrp"):
        relevance = attribution.attribute(swin, video, CLASSES, method)
        assert (
            relevance.map.shape == video.shape[:4]
            and np.isfinite(relevance.map).all()
            and np.abs(relevance.map).max() > 0
        )


def test_guided_backprop_equals_torch(net, video):
    torch = pytest.importorskip("torch")
    gradient = attribution.attribute(net, video, targets.Class(CLASSES), "guided_backprop")

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, g):
            return g.clamp(min=0) * (ctx.saved_tensors[0] > 0)

    start = torch.tensor(np.asarray(video)).permute(0, 4, 1, 2, 3).requires_grad_()
    x = start
    for conv in net.convs:
        kernel = torch.tensor(np.asarray(conv.kernel[...])).permute(4, 3, 0, 1, 2)
        pads = []  # "SAME" pads one more at the end
        for n, k, s in reversed(list(zip(x.shape[2:], kernel.shape[2:], conv.strides))):
            missing = max((-(-n // s) - 1) * s + k - n, 0)
            pads += [missing // 2, missing - missing // 2]
        bias = torch.tensor(np.asarray(conv.bias[...]))
        x = Guided.apply(torch.nn.functional.conv3d(torch.nn.functional.pad(x, pads), kernel, bias, conv.strides))
    head = torch.tensor(np.asarray(net.head.kernel[...]))
    (x.mean((2, 3, 4)) @ head)[[0, 1], CLASSES].sum().backward()
    expected = start.grad.permute(0, 2, 3, 4, 1).sum(-1).numpy()
    np.testing.assert_allclose(gradient.map, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_many_stages_of_the_same_rules_share_a_pass(net, video):
    before = compile_count(lrp_methods._relevance)
    method_stages = [("lrp_gamma", "video"), ("lrp_gamma", "convs.0"), ("lrp_gamma", None), ("lrp_gamma", "convs.2")]
    relevance_maps = attribution.attribute_many(net, video, CLASSES, method_stages)
    assert compile_count(lrp_methods._relevance) == before + 1
    assert [relevance.stage for relevance in relevance_maps] == ["video", "convs.0", "video", "convs.2"]
    alone = attribution.attribute(net, video, CLASSES, "lrp_gamma", "convs.0")
    np.testing.assert_allclose(relevance_maps[1].map, alone.map, atol=1e-5 * np.abs(alone.map).max())
    np.testing.assert_allclose(present(relevance_maps[1].completeness_gap), present(alone.completeness_gap), atol=1e-5)
    assert {relevance.method for relevance in relevance_maps} == {"lrp_gamma"}


def test_errors_say_what_was_expected(swin, net, video):
    with pytest.raises(ValueError, match="needs a network with ReLUs"):
        attribution.attribute(swin, video, CLASSES, "guided_backprop")
    with pytest.raises(ValueError, match=r"deep_taylor requires bounds=..."):
        attribution.attribute(net, video, CLASSES, "deep_taylor")
    with pytest.raises(ValueError, match=r"no option of lrp_gamma named 'rule' \(did you mean rules"):
        attribution.attribute(net, video, CLASSES, "lrp_gamma", rule=None)
    with pytest.raises(ValueError, match="alpha - beta must be 1"):
        rules.LrpRules("alpha_beta", alpha=2.0, beta=0.0)
    with pytest.raises(ValueError, match=r"does not depend on convs.2"):
        attribution.attribute(net, video, attribution.Channel("convs.1", 1), "lrp_gamma", "convs.2")

    def curved(video, tap=tap.identity_tap):
        return jnp.tanh(video).mean((1, 2, 3))

    with pytest.raises(ValueError, match="begins with a linear layer"):
        attribution.deep_taylor(curved, video, CLASSES, bounds=(0.0, 1.0))
    assert interpreter.FROM_INPUT > interpreter.FROM_DETACHED_INPUT
