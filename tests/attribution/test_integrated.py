"""Integrated gradients, Shapley values, occlusion: exact values of the analytic world, completeness, definitions."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.random_networks import small_cnn, small_swin
from tests.support.typed import present
from vtcav_jax import attribution, models, tap
from vtcav_jax.attribution import score_model, targets
from vtcav_jax.attribution.removal import designs
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.models.layers.pooling import max_pool
from vtcav_jax.worlds import handwired_network, make_clips

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


@pytest.fixture(scope="module")
def dots():
    """Clips of the analytic world, their classes, and each voxel's exact Shapley value for the class."""
    clips, labels = handwired_network.binary_clips(3, 5, frames=4, size=8, dots=6)
    return clips, labels, handwired_network.shapley_values(clips)[labels, np.arange(3)]


def test_integrated_gradients_of_the_analytic_network_are_its_shapley_values(dots):
    """Check exact values: a pair's term along the path is relu(2a - 1), whose gradient steps amid symmetric nodes."""
    clips, labels, exact = dots
    for nodes in (2, 8, 16):
        integrated = attribution.integrated_gradients(
            handwired_network.MOTION_PAIRS, clips, targets.Class(labels), ig_steps=nodes
        )
        np.testing.assert_allclose(integrated.map, exact, atol=1e-6)
        np.testing.assert_allclose(present(integrated.completeness_gap), 0, atol=1e-5)
        assert integrated.forward_passes == 3 * nodes + 2


def test_infinite_constants_before_the_first_activation_function():
    """Padding for a maximum and masks of a softmax are -inf at both ends of the path, and stay so in between."""
    random = np.random.default_rng(0)
    kernel, head = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((3, 8), (8, 3)))
    hidden = jnp.where(jnp.arange(6) % 2, 0.0, -jnp.inf)[None, :, None, None, None]

    def pooled(x, tap=tap.identity_tap):
        return jax.nn.relu(max_pool(x @ kernel, (3, 3, 3), (2, 2, 2), (1, 1, 1))).mean((1, 2, 3)) @ head

    def masked(x, tap=tap.identity_tap):
        return jax.nn.softmax(x @ kernel + hidden, axis=1).max(1).mean((1, 2)) @ head

    clip = jnp.asarray(random.normal(size=(1, 6, 8, 8, 3)), jnp.float32)
    for model in (pooled, masked):
        integrated = attribution.integrated_gradients(model, clip, targets.Class(0), ig_steps=64)
        rise = float(model(clip)[0, 0] - model(0 * clip)[0, 0])
        assert abs(rise) > 0.1
        np.testing.assert_allclose(integrated.map.sum(), rise, atol=0.02 * abs(rise))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "baseline"),
    [("net", "zero"), ("net", ("blurred", "temporal_mean")), ("swin", "zero")],
)
def test_integrated_gradients_are_complete(request, video, network, baseline):
    model = request.getfixturevalue(network)
    integrated = attribution.integrated_gradients(model, video, CLASSES, baseline=baseline, ig_steps=64)
    gap = present(integrated.completeness_gap)
    rise = integrated.map.sum((1, 2, 3)) + gap
    assert np.abs(gap).max() < 0.01 * np.abs(rise).max()
    names = baseline if isinstance(baseline, tuple) else (baseline,)
    starts = [attribution.BASELINES[name](video) for name in names]
    margin = attribution.prepare_explanation(model, video, CLASSES).score_model.score
    np.testing.assert_allclose(rise, margin(video) - np.mean([margin(s) for s in starts], 0), atol=1e-5)


@pytest.mark.slow
def test_default_nodes_suffice_for_a_trained_network():
    """Measure gaps on world clips, for a head whose gradient changes often on the path from grey."""
    network = models.load("worlds_swin")
    clips = np.rint(255 * make_clips("small", 8, 7).video).astype(np.uint8)
    video = jnp.asarray(network.clip_spec.normalise(clips))
    head = network.head_slices["flash"]
    logits = np.asarray(tap.compute_logits(network.model, video))
    target = targets.Margin(head.start + logits[:, head].argmax(1), (head.start, head.stop))
    score = score_model.clip_scores(attribution.prepare_explanation(network.model, video, target).score_model, video)
    default_steps = attribution.integrated_gradients(network.model, video, target)
    assert np.abs(present(default_steps.completeness_gap) / score).max() < 0.05
    few_steps = attribution.integrated_gradients(network.model, video, target, ig_steps=16)
    assert np.abs(present(few_steps.completeness_gap) / score).max() > 0.1


def cubic(video, tap=tap.identity_tap):
    """Network of two classes whose gradient along a straight line is a polynomial with a known integral."""
    x = tap("x", video)
    return jnp.stack([(x**4).sum((1, 2, 3, 4)), 0 * x.sum((1, 2, 3, 4))], -1)


def test_gauss_legendre_is_exact_for_polynomials(video):
    """Check that two nodes suffice for degree 3: the integral of 4 (b + a d)^3 d is (b + d)^4 - b^4."""
    integrated = attribution.integrated_gradients(
        cubic, video, targets.Class(np.zeros(2, int)), ig_steps=2, baseline=0.5
    )
    np.testing.assert_allclose(integrated.map, (np.asarray(video) ** 4 - 0.5**4).sum(-1), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_expected_gradients(video):
    """Check that one reference gives integrated gradients, and that the gap uses the references' mean score."""
    references = jax.random.normal(jax.random.key(7), (3, *video.shape[1:]))
    target = targets.Class(np.array([0, 0]))
    of_one_reference = attribution.expected_gradients(cubic, video, target, references=references[:1], samples=256)
    exact = attribution.integrated_gradients(cubic, video, target, baseline=references[:1], ig_steps=2)
    np.testing.assert_allclose(of_one_reference.map, exact.map, atol=0.01 * np.abs(exact.map).max())
    of_three_references = attribution.expected_gradients(cubic, video, target, references=references, samples=8)
    scores = np.mean([(np.asarray(r) ** 4).sum() for r in references])
    rise = (np.asarray(video) ** 4).sum((1, 2, 3, 4)) - scores
    np.testing.assert_allclose(
        of_three_references.map.sum((1, 2, 3)) + present(of_three_references.completeness_gap), rise, rtol=1e-3
    )


def products(video, tap=tap.identity_tap):
    """Sums over pixel pairs: one part that a static clip has too, and one that it lacks."""
    x = tap("x", video)
    return jnp.stack([(x[:, 1:] * x[:, :-1]).sum((1, 2, 3, 4)), (x**2).mean((1, 2, 3, 4))], -1)


@pytest.mark.parametrize("network", ["products", pytest.param("swin", marks=pytest.mark.slow)])
def test_two_legs(request, video, network):
    """Check that both legs are complete, scores are correct, and a static clip has no dynamic leg."""
    model, nodes = (products, 2) if network == "products" else (request.getfixturevalue("swin"), 48)
    classes = np.array([0, 0]) if network == "products" else CLASSES
    legs = attribution.static_and_dynamic(model, video, classes, frames=4, ig_steps=nodes)
    score = attribution.prepare_explanation(model, video, classes).score_model.score
    static_score = np.mean([score(jnp.tile(video[:, i : i + 1], (1, 4, 1, 1, 1))) for i in range(4)], 0)
    np.testing.assert_allclose(legs.static_score, static_score, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(legs.score, score(video), rtol=1e-4, atol=1e-5)
    for leg in (legs.static, legs.dynamic):
        gap = present(leg.completeness_gap)
        rise = leg.map.sum((1, 2, 3)) + gap
        assert np.abs(gap).max() < (1e-4 if network == "products" else 0.01) * np.abs(rise).max()
    expected_share = (legs.score - legs.static_score).mean() / (legs.score - legs.baseline_score).mean()
    temporal_share, low, high = legs.temporal_share
    assert temporal_share == pytest.approx(expected_share, rel=1e-5) and low <= temporal_share <= high
    frozen = attribution.BASELINES["frozen"](video)
    frozen_legs = attribution.static_and_dynamic(model, frozen, classes, frames=2, ig_steps=2)
    assert np.abs(frozen_legs.dynamic.map).max() == 0 and frozen_legs.temporal_share[0] == pytest.approx(0, abs=1e-5)


def test_motion_pairs_need_motion(dots):
    """Check that direction is all dynamic in the analytic world: static dots form pairs only by chance."""
    clips, labels, _ = dots
    legs = attribution.static_and_dynamic(
        handwired_network.MOTION_PAIRS, clips, targets.Margin(labels), frames=2, ig_steps=16
    )
    assert legs.temporal_share[0] > 0.9


def grid_sums(exact, players):
    return np.stack([[clip[players == p].sum() for p in range(players.max() + 1)] for clip in exact])


@pytest.mark.parametrize("cells", [(4, 1, 1), (2, 2, 2), (1, 1, 8), (2, 2, 4)])
def test_shapley_values_of_the_analytic_world(dots, cells):
    """Check that a cell's value is the sum of its voxels' (all terms are pairs), also for an order and its reversal."""
    clips, labels, exact = dots
    shapley = attribution.shapley(handwired_network.MOTION_PAIRS, clips, targets.Class(labels), cells=cells, orders=2)
    t, h, w = (np.arange(n) * c // n for n, c in zip((4, 8, 8), cells))
    players = (t[:, None, None] * cells[1] + h[:, None]) * cells[2] + w
    np.testing.assert_allclose(grid_sums(shapley.map, players), grid_sums(exact, players), atol=1e-4)
    np.testing.assert_allclose(present(shapley.completeness_gap), 0, atol=1e-4)
    assert shapley.forward_passes == (256 if np.prod(cells) == 8 else 16 if np.prod(cells) == 4 else 2 * 15 + 2)


def by_definition(score, players):
    """Compare with a loop over all orders."""
    values = np.zeros((players, 2))
    for order in itertools.permutations(range(players)):
        for i, player in enumerate(order):
            values[player] += score(set(order[: i + 1])) - score(set(order[:i]))
    return values / math.factorial(players)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["hold", "mean"])
def test_frame_shapley_by_definition(net, video, baseline):
    score_of_clips = attribution.prepare_explanation(net, video, CLASSES).score_model
    known = {}

    def score(kept_frames):
        if frozenset(kept_frames) not in known:
            frames, last = [], min(kept_frames, default=None)
            for i in range(4):
                last = i if i in kept_frames else last
                empty = jnp.zeros_like if baseline == "hold" else attribution.BASELINES["mean"]
                frame = (
                    empty(video)[:, 0]
                    if last is None or (baseline == "mean" and i not in kept_frames)
                    else video[:, last]
                )
                frames.append(frame)
            known[frozenset(kept_frames)] = np.asarray(score_of_clips.score(jnp.stack(frames, 1)), np.float64)
        return known[frozenset(kept_frames)]

    shapley = attribution.frame_shapley(net, video, CLASSES, groups=4, baseline=baseline)
    np.testing.assert_allclose(shapley.map.sum((2, 3)), by_definition(score, 4).T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(present(shapley.completeness_gap), 0, atol=1e-6)


def test_sampled_orders_alternate_with_their_reversals():
    games = designs.sampled_shapley(5, 6, 0).keep.reshape(6, 6, 5)
    assert not games[:, 0].any() and games[:, -1].all() and (np.diff(games.astype(int), axis=1).sum(-1) == 1).all()
    np.testing.assert_array_equal(games[0], ~games[1, ::-1])
    assert (games[0] != games[2]).any()


def test_occlusion_by_definition(net, video):
    window, stride = (2, 5, 6), (1, 4, 6)
    occlusion = attribution.occlusion(net, video, CLASSES, window=window, stride=stride, baseline="mean")
    score_of_clips = attribution.prepare_explanation(net, video, CLASSES).score_model
    full_score, fill = np.asarray(score_of_clips.score(video)), np.asarray(attribution.BASELINES["mean"](video))
    total, count = np.zeros((2, 4, 12, 12)), np.zeros((4, 12, 12))
    starts = [(0, 1, 2), (0, 4, 7), (0, 6)]
    for t, h, w in itertools.product(*starts):
        inside = np.zeros((4, 12, 12), bool)
        inside[t : t + 2, h : h + 5, w : w + 6] = True
        changed = np.where(inside[None, ..., None], fill, np.asarray(video))
        total[:, inside] += (full_score - np.asarray(score_of_clips.score(jnp.asarray(changed))))[:, None]
        count += inside
    np.testing.assert_allclose(occlusion.map, total / count, rtol=1e-3, atol=1e-6)
    assert occlusion.forward_passes == 19 and count.min() > 0


@pytest.mark.slow
def test_baselines(video):
    x = np.asarray(video)
    baselines = {name: np.asarray(f(video)) for name, f in attribution.BASELINES.items()}
    np.testing.assert_allclose(baselines["mean"][1, 2, 3, 4], x[1].mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(baselines["temporal_mean"][:, 3], x.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(baselines["frozen"][:, 0], x[:, 2])
    np.testing.assert_allclose(np.asarray(attribution.BASELINES["blurred"](jnp.ones_like(video))), 1, rtol=1e-5)
    assert baselines["blurred"].std() < 0.3 * x.std()
    clip_spec = ClipSpec(frames=4, size=12, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1))
    black = np.asarray(clip_spec.normalise(np.zeros((1, 4, 12, 12, 3), np.uint8)))[0, 0, 0, 0]
    white = np.asarray(clip_spec.normalise(np.full((1, 4, 12, 12, 3), 255, np.uint8)))[0, 0, 0, 0]
    np.testing.assert_allclose(attribution.pixel_bounds(clip_spec), [black, white], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, v: attribution.integrated_gradients(n, v, 0, baseline="grey"), "no baseline named 'grey'"),
        (lambda n, v: attribution.integrated_gradients(n, v, 0, ig_steps=0), "at least one node"),
        (
            lambda n, v: attribution.integrated_gradients(n, v, 0, baseline=np.ones((5, 12, 12, 3))),
            r"must broadcast to the clips, \(2, 4, 12, 12, 3\); got \(5, 12, 12, 3\)",
        ),
        (lambda n, v: attribution.expected_gradients(n, v, 0, references=v[0]), r"clips \(4, 12, 12, 3\)"),
        (lambda n, v: attribution.static_and_dynamic(n, v, 0, frames=5), "1 to 4 frames"),
        (lambda n, v: attribution.occlusion(n, v, 0, window=(5, 1, 1)), r"must fit the clip, \(4, 12, 12\)"),
        (lambda n, v: attribution.occlusion(n, v, 0, window=(2, 2, 2), stride=(1, 3, 1)), "no voxel is skipped"),
        (lambda n, v: attribution.shapley(n, v, 0, cells=(5, 1, 1)), r"cannot be cut into \(5, 1, 1\)"),
        (lambda n, v: attribution.shapley(n, v, 0, segments=np.full((4, 12, 12), 1)), "from 0 without gaps"),
        (lambda n, v: attribution.rise(n, v, 0, baseline="hold"), "use another baseline than hold"),
        (
            lambda n, v: attribution.lime(n, v, 0, masks=20, cells=(2, 2, 2)),
            "8 segments need at least 24 masks, got 20",
        ),
        (lambda n, v: attribution.loco(n, v, 0, segments="cubes"), "no segments named 'cubes'"),
        (lambda n, v: attribution.loco(n, v, 0, cells=(4, 4, 4), budget=60), "takes 65 .* more than the budget of 60"),
    ],
)
def test_errors_say_what_was_expected(net, video, call, message):
    with pytest.raises(ValueError, match=message):
        call(net, video)
