"""Relevance through channels and directions: sums over a basis, finite differences, numpy loops, and zennit."""

import contextlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import vtcav_jax as vtcav
from tests.support.random_networks import small_cnn, small_swin
from tests.support.typed import present
from vtcav_jax import attribution, tap
from vtcav_jax.attribution import targets
from vtcav_jax.attribution.conditional.relevance import (
    CONDITIONAL_METHODS,
    conditional_relevance,
    propagate,
    rules_of,
    stage_relevance,
    totals_along,
)
from vtcav_jax.attribution.lrp import methods as lrp_methods
from vtcav_jax.attribution.score_model import prepare_explanation
from weights_conversion.torch_reference import video_models

TARGET = targets.Class(np.array([2, 0]))
NETWORKS = {"cnn": (small_cnn, "convs.1"), "swin": (small_swin, "layers.0")}


@pytest.fixture(scope="module")
def video():
    return jax.random.normal(jax.random.key(1), (2, 4, 12, 12, 3))


def orthonormal(channels):
    return np.linalg.qr(np.random.default_rng(0).normal(size=(channels, channels)))[0].astype(np.float32)


def whole_map(context, stage, method):
    """Return the map of all relevance; the score depends on the video through the stage only."""
    if method == "gradient_x_input":
        return attribution.gradient_x_input(context.score_model.model, context.video, TARGET).map
    rules = lrp_methods.LRP_PRESETS[method]
    return lrp_methods.relevance_at(context, [stage, attribution.VIDEO], rules, method)[1].map


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "method"),
    [("cnn", method) for method in ("gradient_x_input", "lrp_epsilon", "lrp_gamma", "lrp_alpha_beta", "lrp_z_plus")]
    + [("swin", method) for method in ("gradient_x_input", "attn_lrp", "cp_lrp")],
)
def test_maps_of_all_channels_and_of_any_basis_sum_to_the_whole_map(video, network, method):
    make, stage = NETWORKS[network]
    context = prepare_explanation(make(), video, TARGET)
    channels = context.shapes[stage][-1]
    expected = whole_map(context, stage, method)
    for basis in (np.eye(channels, dtype=np.float32), orthonormal(channels)):
        parts = [
            propagate(context.score_model, context.video, jnp.asarray(v), stage, "video", rules_of(method))
            for v in basis
        ]
        maps = np.stack([values for values, _ in parts])
        np.testing.assert_allclose(maps.sum(0), expected, atol=2e-4 * np.abs(expected).max())
        assert min(np.abs(part).max() for part in maps) < 0.5 * np.abs(expected).max()  # no part is the whole map


def test_a_channel_at_its_own_stage_is_its_gradient_times_its_activation(video):
    net = small_cnn()
    result = tap.activations_and_gradients(net, video, TARGET.classes, ["convs.1"])
    product = result.activations["convs.1"] * result.gradients["convs.1"]
    part = conditional_relevance(net, video, TARGET, "convs.1", 3, "gradient_x_input", map_stage="convs.1")
    np.testing.assert_allclose(part.map, product[..., 3], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(present(part.completeness_gap), 0, atol=1e-5)
    earlier = conditional_relevance(net, video, TARGET, "convs.1", 3, "lrp_z_plus", map_stage="convs.0")
    video_map = conditional_relevance(net, video, TARGET, "convs.1", 3, "lrp_z_plus")
    assert earlier.map.shape == (2, 4, 6, 6)
    np.testing.assert_allclose(earlier.map.sum((1, 2, 3)), video_map.map.sum((1, 2, 3)), rtol=1e-3)
    np.testing.assert_allclose(present(video_map.completeness_gap), 0, atol=1e-4)


def test_the_gradient_map_equals_finite_differences():
    net, stage, v = small_cnn(), "convs.1", orthonormal(8)[2]
    clips = np.random.default_rng(3).normal(size=(1, 4, 12, 12, 3)).astype(np.float32)
    target = targets.Class(np.array([1]))
    at_stage = conditional_relevance(net, clips, target, stage, v, "gradient_x_input", map_stage=stage).map
    activation = np.asarray(tap.activations(net, clips, stage)[1][stage])
    # At one place: the score's change when the activation moves along v there, times the activation along v
    index = np.unravel_index(np.abs(at_stage).argmax(), at_stage.shape)
    place = np.zeros((*at_stage.shape, 1), np.float32)
    place[index] = 1
    scores = [np.asarray(tap.steered_logits(net, clips, stage, place * v, eps))[0, 1] for eps in (0.01, -0.01)]
    np.testing.assert_allclose(at_stage[index], (scores[0] - scores[1]) / 0.02 * (activation[index] @ v), rtol=0.02)
    # In the video: the change of the activation along v, weighted by the gradient along v, when the clip is scaled
    gradient = np.asarray(tap.activations_and_gradients(net, clips, [1], [stage]).gradients[stage]) @ v
    ends = [np.asarray(tap.activations(net, clips * scale, stage)[1][stage]) @ v for scale in (1.001, 0.999)]
    in_video = conditional_relevance(net, clips, target, stage, v, "gradient_x_input")
    np.testing.assert_allclose(in_video.map.sum(), ((ends[0] - ends[1]) * gradient).sum() / 0.002, rtol=5e-3)


def two_layers(weights, video, tap=tap.identity_tap):
    first, second = weights
    hidden = tap("hidden", jax.nn.relu(tap("video_grid", video) @ first))
    return hidden.reshape(len(video), -1) @ second


def test_relevance_along_a_direction_equals_loops_in_numpy():
    random = np.random.default_rng(5)
    first, second = random.normal(size=(3, 6)), random.normal(size=(2 * 6, 4))
    x, v = random.normal(size=(1, 2, 1, 1, 3)), random.normal(size=6)
    model = Partial(two_layers, tuple(jnp.asarray(w, jnp.float32) for w in (first, second)))
    values = conditional_relevance(
        model, x.astype(np.float32), targets.Class(np.array([2])), "hidden", v, "lrp_epsilon"
    ).map
    v = v / np.linalg.norm(v)
    hidden = np.maximum(x[0, :, 0, 0] @ first, 0)
    expected = np.zeros(2)
    for t in range(2):
        coefficient = second[6 * t : 6 * t + 6, 2]  # of one output: its relevance z times c / z is the weight
        coefficient = (v @ coefficient) * v
        for j in range(6):
            z = x[0, t, 0, 0] @ first[:, j]
            relevance = hidden[t, j] * coefficient[j]
            expected[t] += sum(x[0, t, 0, 0, i] * first[i, j] / z * relevance for i in range(3))
    np.testing.assert_allclose(values[0, :, 0, 0], expected, rtol=1e-3, atol=1e-5)


def torch_layers(weights):
    import torch

    a, b, head = (torch.tensor(np.asarray(w)) for w in weights)
    first, second = (torch.nn.Conv3d(w.shape[1], w.shape[0], (2, 3, 3), bias=False) for w in (a, b))
    linear = torch.nn.Linear(head.shape[1], head.shape[0], bias=False)
    with torch.no_grad():
        for layer, weight in ((first, a), (second, b), (linear, head)):
            layer.weight.copy_(weight)
    relus = torch.nn.ReLU(), torch.nn.ReLU()
    return torch.nn.Sequential(first, relus[0], torch.nn.Identity(), second, relus[1], torch.nn.Flatten(), linear)


def jax_layers(weights, video, tap=tap.identity_tap):
    a, b, head = weights
    dimensions = ("NCDHW", "OIDHW", "NCDHW")
    convolve = partial(
        jax.lax.conv_general_dilated, window_strides=(1, 1, 1), padding="VALID", dimension_numbers=dimensions
    )
    hidden = jax.nn.relu(convolve(jnp.moveaxis(video, -1, 1), a))
    hidden = jnp.moveaxis(tap("hidden", jnp.moveaxis(hidden, 1, -1)), -1, 1)
    return jax.nn.relu(convolve(hidden, b)).reshape(len(video), -1) @ head.T


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradient_x_input", "lrp_epsilon", "lrp_z_plus"])
def test_channels_equal_masked_relevance_of_zennit(method):
    torch = pytest.importorskip("torch")
    layers: list[Any] = []
    if method != "gradient_x_input":
        video_models()  # a torchvision built for CUDA loads only with this after a torch without
        rules = pytest.importorskip("zennit.rules")
        from zennit.types import Activation, Convolution, Linear

        rule = {"lrp_epsilon": partial(rules.Epsilon, epsilon=1e-6), "lrp_z_plus": rules.ZPlus}[method]
        layers = [(Activation, rules.Pass()), (Convolution, rule()), (Linear, rule())]
    random = np.random.default_rng(6)
    shapes = (5, 3, 2, 3, 3), (4, 5, 2, 3, 3), (3, 4 * 2 * 4 * 4)
    weights = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    clips = random.normal(size=(2, 4, 8, 8, 3)).astype(np.float32)
    module = torch_layers(weights)
    for channel in (0, 3):
        keep = torch.zeros(1, 5, 1, 1, 1)
        keep[:, channel] = 1

        def mask_relevance(_module, _inputs, out: Any, keep=keep) -> None:
            out.register_hook(lambda gradient: gradient * keep)

        hook = module[2].register_forward_hook(mask_relevance)
        x = torch.tensor(np.moveaxis(clips, -1, 1).copy(), requires_grad=True)
        with contextlib.ExitStack() as stack:
            if layers:
                from zennit.composites import LayerMapComposite

                stack.enter_context(LayerMapComposite(layers).context(module))
            out = module(x)
            start = torch.nn.functional.one_hot(torch.tensor([1, 2]), 3) * (out.detach() if layers else 1.0)
            (relevance,) = torch.autograd.grad(out, x, start)
        hook.remove()
        expected = (relevance * (1 if layers else x)).sum(1).detach().numpy()
        part = conditional_relevance(
            Partial(jax_layers, tuple(map(jnp.asarray, weights))),
            clips,
            targets.Class(np.array([1, 2])),
            "hidden",
            channel,
            method,
        )
        np.testing.assert_allclose(part.map, expected, atol=1e-3 * np.abs(expected).max())


def test_totals_along_directions_are_sums_of_their_maps(video):
    context = prepare_explanation(small_cnn(), video, TARGET)
    _, value, coefficient = stage_relevance(context.score_model, context.video, "convs.1", rules_of("lrp_gamma"))
    basis = orthonormal(8)
    totals = np.asarray(totals_along(value, coefficient, jnp.asarray(basis)))
    for v, expected in zip(basis, totals.T):
        part = conditional_relevance(small_cnn(), video, TARGET, "convs.1", v, "lrp_gamma", map_stage="convs.1")
        np.testing.assert_allclose(part.map.sum((1, 2, 3)), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(totals.sum(1), np.asarray((value * coefficient).sum((1, 2, 3, 4))), rtol=1e-3)


def test_vectors_that_differ_between_frames_are_scaled_at_each(video):
    vectors = np.random.default_rng(4).normal(size=(4, 1, 1, 8))
    run = partial(conditional_relevance, small_cnn(), video, TARGET, "convs.1", method="gradient_x_input")
    frames = np.shape(run(0, map_stage="convs.1").map)[1]
    parts = run(vectors[:frames] * 7, map_stage="convs.1").map
    for t in range(frames):
        np.testing.assert_allclose(
            parts[:, t], run(vectors[t, 0, 0], map_stage="convs.1").map[:, t], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "convs.7"}, r"no stage named 'convs.7' \(did you mean convs"),
        ({"stage": "pool"}, "without time and space"),
        ({"stage": "video"}, "at a stage of the network"),
        ({"concept": 8}, "convs.1 has channels 0 to 7; there is no channel 8"),
        ({"concept": np.ones(5)}, r"of shape \(8,\) or .*, got \(5,\)"),
        ({"concept": np.zeros(8)}, "not all 0"),
        ({"method": "gradcam"}, "no method of conditional relevance named 'gradcam'.*available: gradient_x_input"),
        ({"map_stage": "convs.2"}, "convs.2 comes after convs.1"),
        ({"target": targets.Channel("convs.0", 1)}, "does not depend on convs.1"),
    ],
)
def test_errors_name_what_is_wrong(video, changes, message):
    arguments = {"target": TARGET, "stage": "convs.1", "concept": 0} | changes
    with pytest.raises(ValueError, match=message):
        conditional_relevance(small_cnn(), video, **arguments)


def test_the_public_function_takes_networks_frames_and_names():
    network = vtcav.load("worlds_cnn")
    clips = vtcav.worlds.make_clips("small", n=1, seed=3)
    part = vtcav.conditional_relevance(network, clips.frames, "direction:left", "convs.1", 5)
    assert part.map.shape == clips.frames.shape[:4] and part.method == "attn_lrp through channel 5 of convs.1"
    assert set(CONDITIONAL_METHODS) == {"gradient_x_input", *lrp_methods.LRP_PRESETS}
