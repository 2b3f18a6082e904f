"""Pyramids: shares by definition, allowed levels, selection, and ablation on networks with a known cause."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vtcav_jax import models, tap
from vtcav_jax import pyramid as fp
from vtcav_jax.attribution import Class, Margin
from vtcav_jax.pyramid import Selection
from vtcav_jax.pyramid.stergiou2019 import _drive, _kernel
from vtcav_jax.worlds import GLYPH_QUESTIONS, make_clips, redraw

CHANNELS = (4, 5, 6)
EVERY = Selection("top", 100.0, max_channels=100)


def conv(x, kernel, bias):
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))
    return y + jnp.asarray(bias)[None, None, None, None]


def chain(parameters, video, tap=tap.identity_tap, *, activation=lambda x: x):
    """Three successive convolutions, their mean and a linear map."""
    x = video
    for i, (kernel, bias) in enumerate(parameters["convs"]):
        x = tap(f"convs.{i}", activation(conv(x, kernel, bias)))
    return x.mean((1, 2, 3)) @ parameters["head"]


def random_parameters(bias=0.0, seed=0):
    random = np.random.default_rng(seed)
    sizes = (3, *CHANNELS)
    convs = [
        (random.normal(size=(3, 3, 3, a, b)).astype(np.float32) / (27 * a) ** 0.5, np.full(b, bias, np.float32))
        for a, b in itertools.pairwise(sizes)
    ]
    parameters = {"convs": convs, "head": random.normal(size=(CHANNELS[-1], 4)).astype(np.float32)}
    video = random.normal(size=(2, 4, 6, 6, 3)).astype(np.float32)
    return jax.tree.map(jnp.asarray, parameters), jnp.asarray(video)


def relu_chain(parameters, video, tap=tap.identity_tap):
    return chain(parameters, video, tap, activation=jax.nn.relu)


@pytest.mark.parametrize("response", ["mean", "relevant"])
def test_shares_sum_to_the_response_of_a_linear_network(response):
    parameters, video = random_parameters()
    stages = [f"convs.{i}" for i in range(3)]
    pyramid = fp.build_pyramid(
        Partial(chain, parameters), video, Class(1), stages=stages, selection=EVERY, response=response
    )
    followed = [node for node in pyramid.nodes if node.level < 2]
    assert len(followed) > 4
    assert max(abs(node.unexplained) for node in followed) < 1e-4
    assert {node.level for node in pyramid.nodes} == {0, 1, 2}


def test_the_unexplained_share_is_that_of_the_biases():
    parameters, video = random_parameters(bias=0.5)
    stages = ["convs.1", "convs.2"]
    pyramid = fp.build_pyramid(
        Partial(chain, parameters), video, Class(1), stages=stages, selection=EVERY, response="mean"
    )
    values = tap.activations(Partial(chain, parameters), video, stages)[1]["convs.2"]
    for node in pyramid.nodes_at(0):
        strength = np.asarray(values[..., node.channel].mean((1, 2, 3)))
        sign = np.sign(node.response) * np.sign(strength.mean())
        assert np.isclose(node.response, sign * strength.mean(), rtol=1e-4)
        assert np.isclose(node.unexplained, sign * 0.5 / np.abs(strength).mean(), rtol=1e-3)


def test_a_share_equals_the_response_to_one_channel():
    parameters, video = random_parameters()
    stages = ["convs.1", "convs.2"]
    pyramid = fp.build_pyramid(
        Partial(chain, parameters), video, Class(1), stages=stages, selection=EVERY, response="mean"
    )
    before = tap.activations(Partial(chain, parameters), video, stages)[1]["convs.1"]
    kernel, bias = parameters["convs"][2]
    alone = []  # (b, inputs, outputs): every output's mean when all inputs but one are 0
    for j in range(CHANNELS[1]):
        only = jnp.zeros_like(before).at[..., j].set(before[..., j])
        alone.append(np.asarray(conv(only, kernel, bias).mean((1, 2, 3))))
    alone = np.stack(alone, 1)
    checked = 0
    for edge in pyramid.edges:
        if edge.parent < 0:
            continue
        parent, child = pyramid.nodes[edge.parent], pyramid.nodes[edge.child]
        by_input = alone[:, :, parent.channel]
        wholes = [by_input / np.maximum(sign * by_input, 0).sum(1, keepdims=True) for sign in (1, -1)]  # strong or weak
        expected = [sign * whole[:, child.channel].mean() for sign, whole in zip((1, -1), wholes)]
        assert np.isclose(edge.share, expected, rtol=1e-3, atol=1e-5).any()
        checked += 1
    assert checked > 3


@pytest.mark.slow
def test_with_integration_shares_sum_through_activations():
    parameters, video = random_parameters(seed=3)
    reference = jnp.asarray(np.random.default_rng(4).normal(size=video.shape).astype(np.float32))
    model, stages = Partial(relu_chain, parameters), [f"convs.{i}" for i in range(3)]
    build = partial(fp.build_pyramid, model, video, Class(1), stages=stages, selection=EVERY, reference=reference)
    pyramids = build(ig_steps=64), build(ig_steps=1)
    worst = [max(abs(node.unexplained) for node in pyramid.nodes if node.level < 2) for pyramid in pyramids]
    assert worst[0] < 0.03 < worst[1]


@pytest.mark.slow
def test_relevance_flows_through_merged_nodes():
    parameters, video = random_parameters()
    pyramid = fp.build_pyramid(
        Partial(chain, parameters), video[:1], Class(1), stages=["convs.1", "convs.2"], selection=EVERY
    )
    assert len({(node.stage, node.channel) for node in pyramid.nodes}) == len(pyramid.nodes)
    for i, node in enumerate(pyramid.nodes):
        parents = [edge for edge in pyramid.edges if edge.child == i]
        above = [1.0 if edge.parent < 0 else pyramid.nodes[edge.parent].relevance for edge in parents]
        assert np.isclose(node.relevance, sum(a * edge.share for a, edge in zip(above, parents)), rtol=1e-4)
        assert np.isclose(pyramid.maps[i].sum(), node.relevance, rtol=1e-3, atol=1e-6)


def residual(kernels, video, tap=tap.identity_tap):
    x = tap("stem", conv(video, kernels[0], jnp.zeros(4)))
    branch = tap("branch", conv(x, kernels[1], jnp.zeros(4)))
    x = tap("sum", x + branch)
    x = tap("again", x)
    return tap("pool", x.mean((1, 2, 3)))


@pytest.mark.slow
def test_levels_are_stages_without_a_bypass():
    random = np.random.default_rng(0)
    kernels = [jnp.asarray(random.uniform(size=(1, 1, 1, a, 4)).astype(np.float32)) for a in (3, 4)]
    video = jnp.asarray(random.uniform(size=(2, 3, 4, 4, 3)).astype(np.float32))
    assert fp.find_cut_stages(Partial(residual, kernels), video) == ("stem", "again", "pool")
    pyramid = fp.build_pyramid(Partial(residual, kernels), video, Class(0))
    assert pyramid.levels == (("again",), ("stem",))
    # Both branches of the sum; each alone leaves a part unexplained
    both = fp.build_pyramid(
        Partial(residual, kernels), video, Class(0), stages=["sum", ("stem", "branch")], selection=EVERY
    )
    branch = fp.build_pyramid(Partial(residual, kernels), video, Class(0), stages=["sum", "branch"], selection=EVERY)
    assert max(abs(node.unexplained) for node in both.nodes_at(0)) < 1e-4
    assert {node.stage for node in both.nodes_at(1)} == {"stem", "branch"}
    assert max(abs(node.unexplained) for node in branch.nodes_at(0)) > 0.05


@pytest.mark.parametrize(
    ("text", "expected"), [("mass:0.5", [0]), ("mass:0.8", [0, 2]), ("threshold:0.4", [0, 2]), ("top:3", [0, 2, 3])]
)
def test_selection(text, expected):
    relevance = np.array([0.5, -3.0, 0.3, 0.15, 0.05])
    assert np.flatnonzero(Selection.parse(text)(relevance)).tolist() == expected
    assert Selection.parse(text, max_channels=1)(relevance).sum() == 1
    assert not Selection.parse(text)(-np.abs(relevance)).any()


@pytest.mark.parametrize("text", ["mass:0", "mass:2", "top:0", "top:1.5", "best:1", "mass"])
def test_selection_refused(text):
    with pytest.raises(ValueError, match="expected mass:SHARE, threshold:SHARE or top:NUMBER"):
        Selection.parse(text)


def test_bad_levels_are_refused():
    parameters, video = random_parameters()
    build = partial(fp.build_pyramid, Partial(chain, parameters), video, Class(1))
    with pytest.raises(ValueError, match="did you mean convs"):
        build(stages=["conv.1"])
    with pytest.raises(ValueError, match="no duplicates"):
        build(stages=["convs.1", "convs.1"])
    with pytest.raises(ValueError, match="overlap"):
        build(stages=[("convs.0", "convs.2"), "convs.1"])
    with pytest.raises(ValueError, match="depth of at least 1"):
        build(depth=0)


def test_published_shares_use_their_own_group_and_sign():
    kernel = np.zeros((27, 2, 4), np.float32)  # 4 outputs in 2 groups of 2 inputs each
    kernel[:, :, 3] = [1.0, 2.0]
    assert _drive(kernel, 3, np.ones((1, 4), np.float32)).tolist() == [[0, 0, 0.5, 1]]
    plain = np.tile(np.array([0.5, -2.0, 0.3, -0.4], np.float32)[None, :, None], (27, 1, 1))
    drive = _drive(plain, 0, np.ones((1, 4), np.float32))[0]
    assert drive.argmax() == 0 and drive.argmin() == 1


@pytest.mark.slow
def test_published_edges_of_plain_convolutions(small):
    network, clips = small
    pyramid = fp.build_pyramid(
        network.model, clips[:4], Class(0), edge_rule="stergiou2019", selection=Selection("threshold", 0.6)
    )
    assert pyramid.edge_rule == "stergiou2019" and pyramid.nodes_at(1)
    parent = next(i for i, node in enumerate(pyramid.nodes) if node.level == 0)
    with pytest.raises(ValueError, match="not the name of a convolution"):
        _kernel(network.model, "pool")
    assert all(edge.share >= 0 for edge in pyramid.edges if edge.parent == parent)


@pytest.fixture(scope="module")
def small():
    network = models.load("worlds_cnn")
    clips = make_clips("small", 48, 21)
    return network, jnp.asarray(network.clip_spec.normalise(np.rint(255 * clips.video)))


def planted(parameters, video, tap=tap.identity_tap):
    """Class 0 depends only on channel 3 of `late`, which depends only on channel 2 of `early`."""
    early = tap("early", jnp.concatenate([video, video[..., :1] * 2, video[..., 1:2]], -1))
    late = tap("late", jax.nn.relu(early @ parameters))
    return jnp.stack([late[..., 3].mean((1, 2, 3)), 0 * late[..., 0].mean((1, 2, 3))], -1)


def test_a_known_path_is_selected_and_its_ablation_lowers_the_score():
    way = np.zeros((5, 6), np.float32)
    way[2, 3] = 1.0
    way[0, 0] = way[1, 1] = way[3, 4] = 5.0
    video = jnp.abs(jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 4, 4, 3)).astype(np.float32)))
    model = Partial(planted, jnp.asarray(way))
    pyramid = fp.build_pyramid(model, video, Class(0))
    assert [(node.stage, node.channel) for node in pyramid.nodes] == [("late", 3), ("early", 2)]
    assert all(np.isclose(node.relevance, 1) and node.frequency == 1 for node in pyramid.nodes)
    assert pyramid.stability == (1.0, 1.0)
    for row in fp.ablate_pyramid(model, video, Class(0), pyramid, draws=30):
        assert (
            np.isclose(row.score_drop, video[..., 2].mean(), rtol=1e-4) and row.random_score_drop < 0.5 * row.score_drop
        )
    assert fp.noise_stability(model, video, Class(0), pyramid, draws=2) == ((1.0, 1.0), (1.0, 1.0))


@pytest.mark.slow
def test_without_noise_the_same_channels_are_selected():
    parameters, video = random_parameters(seed=3)
    model, reference = Partial(relu_chain, parameters), np.random.default_rng(4).normal(size=(9, *video.shape[1:]))
    options = {"reference": jnp.asarray(reference, jnp.float32), "seed": 7, "ig_steps": 2}
    pyramid = fp.build_pyramid(
        model, video, Class(1), stages=["convs.1", "convs.2"], selection=Selection("top", 2.0), **options
    )
    assert fp.noise_stability(model, video, Class(1), pyramid, noise=0.0, draws=1, **options) == ((1.0,), (1.0,))
    with pytest.raises(ValueError, match="noise of at least 0"):
        fp.noise_stability(model, video, Class(1), pyramid, noise=-1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head", "rival"), [("worlds_cnn", "shape", "direction"), ("worlds_swin", "direction", "shape")]
)
def test_selected_channels_matter_for_their_question_and_respond_to_it(name, head, rival):
    """Check on new clips that ablating the pyramid's channels lowers the score more than ablating others, and that they
    respond more to the question's factor, relative to another factor, than all channels do."""
    network = models.load(name)
    world, other = make_clips("small", 96, 31), make_clips("small", 96, 32)

    def normalised(clips):
        return jnp.asarray(network.clip_spec.normalise(np.rint(255 * clips.video).astype(np.uint8)))

    target = Margin(network.head_slices[head].start, (network.head_slices[head].start, network.head_slices[head].stop))
    class_clips, new_clips = (normalised(clips[clips.labels[head] == 0]) for clips in (world, other))
    reference = normalised(world[world.labels[head] != 0][:24])
    pyramid = fp.build_pyramid(network.model, class_clips, target, reference=reference, ig_steps=4)
    ablation = {
        row.stage: row for row in fp.ablate_pyramid(network.model, new_clips, target, pyramid, reference=reference)
    }
    assert all(row.score_drop > 1.5 * max(row.random_score_drop, 0) for row in ablation.values())
    assert all(row.p <= 0.05 for row in ablation.values() if row.level == 0)

    stage = pyramid.nodes[0].stage
    before = tap.activations(network.model, normalised(world), stage)[1][stage].mean((1, 2, 3))
    changes = {}
    for factor in (head, rival):
        after = tap.activations(network.model, normalised(redraw(world, factor, 5)), stage)[1][stage].mean((1, 2, 3))
        changes[factor] = np.asarray(jnp.abs(after - before).mean(0) / before.std(0).clip(1e-6))
    share = changes[head] / (changes[head] + changes[rival])
    kernels = [node.channel for node in pyramid.nodes_at(0)]
    assert share[kernels].mean() > share.mean() and share[kernels].mean() > 0.5
    assert set(GLYPH_QUESTIONS) >= {"direction", "shape"}
