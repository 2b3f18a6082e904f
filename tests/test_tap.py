"""Taps on small models: manual derivatives, finite differences, targets, errors and number of compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

from tests.support.typed import compile_count, set_stages
from vtcav_jax import tap

SHAPE = (3, 4, 6, 6, 3)


class Net(nnx.Module):
    stages = ("stem", "middle", "pool")

    def __init__(self, rngs, dtype=jnp.float32):
        self.stem = nnx.Linear(3, 8, param_dtype=dtype, rngs=rngs)
        self.middle = nnx.Linear(8, 5, param_dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(5, 4, param_dtype=dtype, rngs=rngs)

    def __call__(self, video, tap=tap.identity_tap):
        x = tap("stem", jnp.tanh(self.stem(video)))
        x = tap("middle", jnp.sin(self.middle(x)))
        x = tap("pool", (x**2).mean((1, 2, 3)))
        return self.head(x)


def function_model(parameters, video, tap=tap.identity_tap):
    x = tap("a", jnp.tanh(video @ parameters["a"]))
    x = tap("b", x.mean((1, 2, 3)))
    return x @ parameters["b"]


set_stages(function_model, ("a", "b"))


@pytest.fixture
def net():
    return Net(nnx.Rngs(0))


@pytest.fixture
def video():
    return jax.random.normal(jax.random.key(1), SHAPE)


@pytest.fixture
def partial_model():
    a, b = jax.random.normal(jax.random.key(2), (3, 7)), jax.random.normal(jax.random.key(3), (7, 4))
    return Partial(function_model, {"a": a, "b": b})


def test_activations_are_the_values_of_the_forward_pass(net, video):
    logits, seen = tap.activations(net, video, ("pool", "stem"))
    assert list(seen) == ["pool", "stem"]
    np.testing.assert_allclose(seen["stem"], jnp.tanh(net.stem(video)), rtol=1e-6)
    np.testing.assert_allclose(logits, net(video), rtol=1e-5)


@pytest.mark.slow
def test_gradients_equal_finite_differences(float64):
    net, video = Net(nnx.Rngs(0), jnp.float64), jax.random.normal(jax.random.key(1), SHAPE, jnp.float64)
    target = np.array([2, 0, 3])
    tapped = tap.activations_and_gradients(net, video, target, Net.stages)
    eps = 1e-5
    for key, stage in enumerate(Net.stages):
        direction = jax.random.normal(jax.random.key(key), tapped.activations[stage].shape, jnp.float64)
        up, down = (tap.steered_logits(net, video, stage, direction, e) for e in (eps, -eps))
        slope = (up - down)[jnp.arange(3), target] / (2 * eps)
        ours = (tapped.gradients[stage] * direction).reshape(3, -1).sum(1)
        np.testing.assert_allclose(ours, slope, rtol=1e-8)  # error of a central difference: eps^2 f''' / 6


def test_gradients_equal_the_chain_of_segments(net, video):
    """Compare with a manual backward pass of a sequential model: one pullback per segment."""
    segments = [
        ("stem", lambda x: jnp.tanh(net.stem(x))),
        ("middle", lambda x: jnp.sin(net.middle(x))),
        ("pool", lambda x: (x**2).mean((1, 2, 3))),
    ]
    value, pullbacks = video, {}
    for name, segment in segments:
        value, pullbacks[name] = jax.vjp(segment, value)
    gradient = jax.grad(lambda x: net.head(x)[:, 1].sum())(value)
    tapped = tap.activations_and_gradients(net, video, np.array([1, 1, 1]), Net.stages)
    for name in reversed(Net.stages):
        np.testing.assert_allclose(tapped.gradients[name], gradient, rtol=1e-5, atol=1e-8)
        (gradient,) = pullbacks[name](gradient)


def test_partial_models_are_models(partial_model, video):
    target = np.array([0, 1, 2])
    tapped = tap.activations_and_gradients(partial_model, video, target, ("a", "b"))
    expected = partial_model.args[0]["b"].T[target]  # the head is linear
    np.testing.assert_allclose(tapped.gradients["b"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"no stage named 'c'.*available: a, b"):
        tap.activations(partial_model, video, "c")


def test_a_clip_does_not_depend_on_its_batch(net, video):
    together = tap.activations_and_gradients(net, video, np.array([3, 1, 2]), Net.stages)
    for i, target in enumerate((3, 1, 2)):
        alone = tap.activations_and_gradients(net, video[i : i + 1], np.array([target]), Net.stages)
        for name in Net.stages:
            np.testing.assert_allclose(together.gradients[name][i], alone.gradients[name][0], rtol=2e-6, atol=1e-9)


def test_many_classes_from_one_forward_equal_one_at_a_time(net, video):
    many = tap.gradients_for_classes(net, video, [0, 2, 3], Net.stages, classes_per_pass=2)
    for i, k in enumerate((0, 2, 3)):
        one = tap.activations_and_gradients(net, video, np.full(3, k), Net.stages)
        for name in Net.stages:
            np.testing.assert_allclose(many.gradients[name][i], one.gradients[name], rtol=2e-6, atol=1e-9)


def log_probability(classes, logits):
    return tap.class_logit(classes, jax.nn.log_softmax(logits))


def margin(classes, logits):
    others = jnp.where(jax.nn.one_hot(classes, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    return tap.class_logit(classes, logits) - others.max(-1)


def contrast(logits):
    return logits[:, 2] - logits[:, 0]


def group(logits):
    return logits[:, 1:3].mean(-1)


def test_any_function_of_the_logits_is_a_target(net, video):
    """Check that a target's gradient is the sum of class gradients weighted by its derivatives for the logits."""
    classes = jnp.array([2, 0, 3])
    logits, _, by_class = tap.gradients_for_classes(net, video, range(4), ["middle"])
    by_class = np.asarray(by_class["middle"])
    best_other = np.argmax(np.where(np.eye(4)[classes] > 0, -np.inf, logits), -1)
    onehot = np.eye(4)
    expected = {
        "log_probability": (Partial(log_probability, classes), onehot[classes] - np.asarray(jax.nn.softmax(logits))),
        "margin": (Partial(margin, classes), onehot[classes] - onehot[best_other]),
        "contrast": (contrast, np.tile([-1.0, 0, 1, 0], (3, 1))),
        "group": (group, np.tile([0, 0.5, 0.5, 0], (3, 1))),
    }
    for name, (target, share) in expected.items():
        ours = tap.activations_and_gradients(net, video, target, "middle").gradients["middle"]
        np.testing.assert_allclose(
            ours, np.einsum("bk,kb...->b...", share, by_class), rtol=1e-4, atol=1e-7, err_msg=name
        )


def test_the_second_call_does_not_compile(net, partial_model, video):
    other = jax.random.normal(jax.random.key(9), SHAPE)
    calls = {
        tap._activations: lambda v, k, e: tap.activations(net, v, Net.stages),
        tap._activations_and_gradients: lambda v, k, e: (
            tap.activations_and_gradients(net, v, np.full(3, k), Net.stages),
            tap.activations_and_gradients(net, v, Partial(margin, jnp.full(3, k, jnp.int32)), Net.stages),
            tap.activations_and_gradients(partial_model, v, contrast, "b"),
        ),
        tap._gradients_for_classes: lambda v, k, e: tap.gradients_for_classes(net, v, [k, 0], Net.stages),
        tap.run_patched: lambda v, k, e: tap.patch(net, v, [tap.Patch("stem", v[::-1], np.arange(6) < e)]),
        tap._run_steered: lambda v, k, e: tap.steered_logits(net, v, "pool", np.full(5, e, np.float32), e),
    }
    for compiled, call in calls.items():
        call(video, 1, 0.1)
        before = compile_count(compiled)
        call(other, 2, 7)
        call(np.asarray(other), np.int64(3), np.float32(2))
        assert compile_count(compiled) == before


def test_one_forward_pass_serves_all_stages(video):
    """Check that the model is traced once per program (and once for shapes), for any number of stages."""
    calls = []

    def counting(video, tap=tap.identity_tap):
        calls.append(1)
        for name in "abcd":
            video = tap(name, jnp.sin(video))
        return video.mean((1, 2, 3))

    tap.activations_and_gradients(counting, video, np.zeros(3, int), ("a", "b", "c", "d"))
    assert len(calls) == 2


def test_inside_another_jit(net, video):
    @jax.jit
    def outer(model, video, target):
        return tap.activations_and_gradients(model, video, target, "pool").gradients["pool"]

    inside = outer(net, video, jnp.array([0, 1, 2]))
    outside = tap.activations_and_gradients(net, video, np.array([0, 1, 2]), "pool").gradients["pool"]
    np.testing.assert_allclose(inside, outside, rtol=1e-6)


def test_steering_along_one_direction_for_all_clips(net, video):
    direction = np.arange(5, dtype=np.float32)
    by_clip = tap.steered_logits(net, video, "pool", direction, np.array([[0.5], [0.0], [2.0]]))
    np.testing.assert_allclose(by_clip[1], net(video)[1], rtol=1e-5)
    shifted = net.head(tap.activations(net, video, "pool")[1]["pool"] + 0.5 * direction[None])
    np.testing.assert_allclose(tap.steered_logits(net, video, "pool", direction, 0.5), shifted, rtol=1e-5)
    np.testing.assert_allclose(by_clip[0], shifted[0], rtol=1e-5)


def test_patching_everything_gives_the_logits_of_the_other_clips(net, video):
    other = jax.random.normal(jax.random.key(5), SHAPE)
    for stage in Net.stages:
        everything = tap.patch(net, video, [tap.Patch(stage, other)])
        np.testing.assert_allclose(everything, net(other), rtol=1e-5)
        nothing = tap.patch(net, video, [tap.Patch(stage, other, np.zeros((), bool))])
        np.testing.assert_allclose(nothing, net(video), rtol=1e-5)
        one_for_all = tap.patch(net, video, [tap.Patch(stage, other[1:2])])
        np.testing.assert_allclose(one_for_all, np.broadcast_to(net(other[1:2]), (3, 4)), rtol=1e-5)


def test_patches_at_some_places_equal_a_manual_forward_pass(net, video):
    other = jax.random.normal(jax.random.key(5), SHAPE)
    places, late = np.random.default_rng(0).random((2, 3, 4, 6, 6)) < 0.5

    def stem(clips):
        return jnp.tanh(net.stem(clips))

    mixed = jnp.where(places[..., None], stem(other), stem(video))
    middle = jnp.where(late[0, ..., None], jnp.sin(net.middle(stem(video[::-1]))), jnp.sin(net.middle(mixed)))
    expected = net.head((middle**2).mean((1, 2, 3)))
    patches = [tap.Patch("stem", other, places), tap.Patch("middle", video[::-1], late[0])]
    np.testing.assert_allclose(tap.patch(net, video, patches), expected, rtol=1e-5)
    np.testing.assert_allclose(tap.patch(net, video, patches[::-1]), expected, rtol=1e-5)
    undone = [tap.Patch("stem", other, places), tap.Patch("stem", video)]
    np.testing.assert_allclose(tap.patch(net, video, undone), net(video), rtol=1e-5)


def nameless(video, tap=tap.identity_tap):
    return tap("x", video).mean((1, 2, 3))


def twice(video, tap=tap.identity_tap):
    return tap("x", tap("x", video)).mean((1, 2, 3))


def boastful(video, tap=tap.identity_tap):
    return video.mean((1, 2, 3))


set_stages(boastful, ("x",))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda net, v: tap.activations(net, v, ["midle", "pool"]),
            r"no stage named 'midle' \(did you mean middle\?\)",
        ),
        (lambda net, v: tap.steered_logits(net, v, "poool", 1.0, 1.0), "did you mean pool"),
        (lambda net, v: tap.activations(net, v, ()), "at least one stage name"),
        (lambda net, v: tap.patch(net, v, [tap.Patch("poool", v)]), "did you mean pool"),
        (lambda net, v: tap.patch(net, v, []), "expected at least one stage name"),
        (lambda net, v: tap.patch(net, v, [tap.Patch("stem", v, np.arange(6))]), "expected places as booleans"),
        (
            lambda net, v: tap.patch(net, v, [tap.Patch("stem", v, np.ones(5, bool))]),
            r"stem is \(3, 4, 6, 6, 8\).*all but its last axis, got \(5,\)",
        ),
        (lambda net, v: tap.patch(net, v, [tap.Patch("stem", v[:2])]), r"must broadcast to it.*got \(2, 4, 6, 6, 8\)"),
        (lambda net, v: tap.activations(nameless, v, "y"), r"never called its tap with \['y'\]"),
        (lambda net, v: tap.activations(boastful, v, "x"), r"never called its tap with \['x'\]"),
        (lambda net, v: tap.activations(twice, v, "x"), "tap twice with 'x'"),
        (lambda net, v: tap.activations_and_gradients(net, v, np.array([0, 1]), "pool"), r"shape \(3,\)\), got int64"),
        (lambda net, v: tap.activations_and_gradients(net, v, np.array([0.0, 1, 2]), "pool"), "got float64"),
        (
            lambda net, v: tap.activations_and_gradients(net, v, np.array([0, 4, -1]), "pool"),
            "0 to 3; there is no class -1, 4",
        ),
        (lambda net, v: tap.gradients_for_classes(net, v, [4], "pool"), "no class 4"),
        (lambda net, v: tap.activations_and_gradients(net, v, [2**32 + 1, 1, 1], "pool"), "no class 4294967297"),
        (lambda net, v: tap.activations(net, v[0], "pool"), r"\(b, t, h, w, c\).*got float32 of shape \(4, 6, 6, 3\)"),
        (lambda net, v: tap.activations(net, v[:0], "pool"), "at least one clip"),
        (lambda net, v: tap.activations(net, v, [1]), "at least one stage name"),
        (lambda net, v: tap.activations(net.__call__, v, "pool"), "a method hides its parameters from jax"),
        (lambda net, v: tap.steered_logits(net, v, "pool", np.ones(7), 1.0), r"pool is \(3, 5\).*must broadcast to it"),
        (
            lambda net, v: jax.jit(lambda t: tap.activations_and_gradients(net, v, t, "pool"))(jnp.ones(3)),
            "one class index per clip.*got float32",
        ),
        (lambda net, v: tap.gradients_for_classes(net, v, [], "pool"), "expected a list of class indices"),
        (
            lambda net, v: tap.activations_and_gradients(net, v, jnp.sum, "pool"),
            r"one score per clip, shape \(3,\); got \(\)",
        ),
    ],
)
def test_errors_say_what_was_expected(net, video, call, message):
    with pytest.raises(ValueError, match=message):
        call(net, video)
