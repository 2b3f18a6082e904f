"""CAMs, gradients and targets: identities, an independent numpy version, finite differences and costs."""

from typing import Any

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
from vtcav_jax.models.small_cnn import SmallCnn
from vtcav_jax.worlds import handwired_network

SHAPE = (2, 4, 12, 12, 3)
CLASSES = np.array([2, 0])


@pytest.fixture(scope="module")
def net():
    return small_cnn()


@pytest.fixture(scope="module")
def swin():
    return small_swin()


@pytest.fixture(scope="module")
def video():
    return jax.random.normal(jax.random.key(1), SHAPE)


def attribute(model, video, method, stage=None, target: targets.Target = CLASSES, **options):
    return attribution.attribute(model, video, target, method, stage, **options)


def by_numpy(name, a, g):
    """The CAM formulas of the papers, channel by channel, in float64."""
    b, t, h, w, c = a.shape
    out = np.zeros((b, t, h, w))
    for i in range(b):
        for k in range(c):
            x, d = a[i, ..., k], g[i, ..., k]
            if name == "gradcam":
                out[i] += d.sum() / (t * h * w) * x
            elif name == "gradcam_per_time":
                for s in range(t):
                    out[i, s] += d[s].sum() / (h * w) * x[s]
            elif name == "hirescam":
                out[i] += d * x
            elif name == "layercam":
                out[i] += np.maximum(d, 0) * x
            elif name == "gradcam++":
                with np.errstate(invalid="ignore", divide="ignore"):
                    share = np.nan_to_num(d**2 / (2 * d**2 + x.sum() * d**3), posinf=0, neginf=0)
                out[i] += (share * np.maximum(d, 0)).sum() * x
            elif name == "xgradcam":
                out[i] += ((d * x).sum() / x.sum() if x.sum() else 0) * x
    return out


@pytest.mark.parametrize("name", sorted(attribution.CAM_METHODS))
def test_cams_equal_their_formulas(net, video, name):
    stage = "convs.1"
    tapped = tap.activations_and_gradients(net, video, CLASSES, stage)
    a, g = (np.asarray(x[stage], np.float64) for x in (tapped.activations, tapped.gradients))
    cam_map = attribute(net, video, name, stage, targets.Class(CLASSES))
    expected = by_numpy(name, a, g)
    np.testing.assert_allclose(cam_map.map, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert (cam_map.stage, cam_map.granularity, cam_map.signed, cam_map.forward_passes, cam_map.method) == (
        stage,
        "token",
        True,
        3,
        name,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "target"),
    [
        ("net", CLASSES),
        ("net", targets.Contrast(CLASSES, 1)),
        ("swin", targets.Class(CLASSES)),
    ],
)
def test_with_a_pooled_linear_head_cams_agree(request, video, network, target):
    """CAM = Grad-CAM = HiResCAM = XGrad-CAM in sum at the last grid, and all sum to the score minus its bias."""
    model = request.getfixturevalue(network)
    bias = np.asarray(model.head.bias[...])
    score, bias_score = targets_score(target, np.asarray(model(video))), targets_score(target, np.tile(bias, (2, 1)))
    cam, grad, hires = (attribute(model, video, name, target=target) for name in ("cam", "gradcam", "hirescam"))
    size = np.abs(cam.map).max()
    np.testing.assert_allclose(cam.map, grad.map, atol=1e-5 * size)
    np.testing.assert_allclose(hires.map, grad.map, atol=1e-5 * size)
    np.testing.assert_allclose(hires.map.sum((1, 2, 3)), score - bias_score, rtol=1e-4, atol=1e-5)
    assert cam.stage == {"net": "convs.2", "swin": "norm"}[network] and cam.forward_passes == 1


def targets_score(target, logits):
    class_logits = logits[np.arange(2), CLASSES]
    if isinstance(target, targets.Class):
        return class_logits
    if isinstance(target, targets.Contrast):
        return class_logits - logits[:, 1]
    return class_logits - (logits.sum(1) - class_logits) / 3


def test_cam_requires_a_pooled_stage(net, video):
    with pytest.raises(ValueError, match=r"pool is not the mean of convs.0"):
        attribute(net, video, "cam", "convs.0")
    with pytest.raises(ValueError, match="there is no 'pool'"):
        attribute(handwired_network.MOTION_PAIRS, video[..., :1], "cam")


def test_framewise_equals_gradcam_of_static_clips(net, video):
    framewise = attribute(net, video, "gradcam_framewise")
    assert framewise.map.shape == (2, 4, 6, 6) and framewise.forward_passes == 12
    for frame in (0, 3):
        static_clip = jnp.tile(video[:, frame : frame + 1], (1, 4, 1, 1, 1))
        alone = attribute(net, static_clip, "gradcam").map
        np.testing.assert_allclose(framewise.map[:, frame], alone[:, alone.shape[1] // 2], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_gradients_equal_finite_differences(float64):
    sizes: dict[str, Any] = dict(widths=(4,), kernels=((3, 3, 3),), strides=((1, 2, 2),))
    net = SmallCnn(**sizes, num_classes=4, dtype=jnp.float64, rngs=nnx.Rngs(0))
    video = jax.random.normal(jax.random.key(1), (1, 4, 8, 8, 3), jnp.float64)
    product = attribute(net, video, "gradient_x_input", attribution.VIDEO, np.array([2]))
    slope = attribute(net, video, "saliency", attribution.VIDEO, np.array([2]))

    logits_of = jax.jit(lambda v: net(v))

    def margin(video):
        logits = np.asarray(logits_of(video))[0]
        return logits[2] - (logits.sum() - logits[2]) / 3

    for place in ((0, 0, 0), (1, 3, 5), (3, 7, 7)):
        by_channel = []
        for c in range(3):
            step = np.zeros(video.shape)
            step[(0, *place, c)] = 1e-5
            by_channel.append((margin(video + step) - margin(video - step)) / 2e-5)
        pixel = np.asarray(video[(0, *place)])
        np.testing.assert_allclose(product.map[(0, *place)], pixel @ by_channel, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(slope.map[(0, *place)], np.abs(by_channel).sum(), rtol=1e-6)
    np.testing.assert_allclose(
        present(product.completeness_gap), margin(video) - product.map.sum(), rtol=1e-6, atol=1e-12
    )


def curved(parameters, video, tap=tap.identity_tap):
    x = tap("a", jnp.tanh(video @ parameters["a"]))
    return x.mean((1, 2, 3)) @ parameters["b"]


@pytest.fixture(scope="module")
def plain():
    """Check a plain function with parameters as a model."""
    random = np.random.default_rng(3)
    shapes = {"a": (3, 7), "b": (7, 4)}
    return Partial(curved, {k: jnp.asarray(random.normal(size=s), jnp.float32) for k, s in shapes.items()})


@pytest.mark.slow
def test_smoothgrad(plain, video):
    """Check that SmoothGrad without noise is the gradient, and with noise a mean that depends only on the seed."""

    def gradient(v):
        return np.asarray(jax.grad(lambda v: targets.Margin(jnp.asarray(CLASSES))(plain(v), {}).sum())(v))

    noiseless = attribution.smoothgrad(plain, video, CLASSES, samples=2, noise=0.0)
    np.testing.assert_allclose(noiseless.map, gradient(video).sum(-1), rtol=1e-4, atol=1e-7)
    squared = attribution.smoothgrad(plain, video, CLASSES, samples=3, noise=0.2, squared=True, seed=4)
    spans = np.ptp(np.asarray(video), (1, 2, 3, 4))[:, None, None, None, None]
    keys = [jax.random.fold_in(jax.random.key(4), i) for i in range(3)]
    noisy = [video + 0.2 * spans * jax.random.normal(key, SHAPE[1:])[None] for key in keys]
    expected = np.mean([gradient(v) ** 2 for v in noisy], 0).sum(-1)
    np.testing.assert_allclose(squared.map, expected, rtol=1e-3, atol=1e-9)
    both = attribution.smoothgrad(plain, video, CLASSES, samples=3, seed=4)
    alone = attribution.smoothgrad(plain, video[1:], CLASSES[1:], samples=3, seed=4)
    np.testing.assert_allclose(both.map[1:], alone.map, rtol=1e-4, atol=1e-7)
    names = ("smoothgrad_squared", "smoothgrad")  # requested together, from the same copies
    together = attribution.attribute_many(plain, video, CLASSES, [(name, None) for name in names])
    for name, smooth in zip(names, together):
        np.testing.assert_array_equal(smooth.map, attribution.attribute(plain, video, CLASSES, name).map)
        assert smooth.method == name and smooth.forward_passes == 75


@pytest.mark.slow
def test_target_values(net, video):
    logits, activations_by_stage = tap.activations(net, video, "convs.1")
    logits, a = np.asarray(logits, np.float64), np.asarray(activations_by_stage["convs.1"], np.float64)
    direction = np.arange(8, dtype=np.float32)
    everywhere = np.ones(a.shape[1:], np.float32)
    odds = np.exp(logits)
    class_logits = logits[[0, 1], CLASSES]
    expected = [
        (targets.Group((0, 3)), np.log(odds[:, [0, 3]].sum(1) / odds[:, [1, 2]].sum(1))),
        (targets.Channel("convs.1", 5), a[..., 5].mean((1, 2, 3))),
        (targets.ConceptTarget("convs.1", direction), (a @ direction).mean((1, 2, 3))),
        (targets.ConceptTarget("convs.1", everywhere), a.sum((1, 2, 3, 4))),
        (targets.Margin(CLASSES, (0, 3)), class_logits - (logits[:, :3].sum(1) - class_logits) / 2),
        (targets.Contrast(CLASSES, np.array([1, 1])), class_logits - logits[:, 1]),
    ]
    for target, score in expected:
        scored = attribution.prepare_explanation(net, video, target).score_model
        np.testing.assert_allclose(scored.score(video), score, rtol=1e-4, atol=1e-5)


def test_a_concept_target_at_its_stage(net, video):
    """Check that gradient x activation at the target's stage is the projection on the concept vector."""
    direction = np.random.default_rng(0).normal(size=8).astype(np.float32)
    concept_map = attribute(net, video, "hirescam", "convs.1", targets.ConceptTarget("convs.1", direction))
    a = np.asarray(tap.activations(net, video, "convs.1")[1]["convs.1"])
    along = a @ direction / np.prod(a.shape[1:4])
    np.testing.assert_allclose(concept_map.map, along, rtol=1e-4, atol=1e-5 * np.abs(along).max())
    earlier = attribute(net, video, "gradcam", "convs.0", targets.ConceptTarget("convs.1", direction))
    assert np.isfinite(earlier.map).all() and np.abs(earlier.map).max() > 0


@pytest.mark.slow
def test_many_maps_cost_one_pass(net, video):
    """Check that twelve maps trace the model as often as one map, and equal separate calls."""
    runs = []

    def counting(net, video, tap=tap.identity_tap):
        runs.append(1)
        return net(video, tap)

    method_stages = [(name, stage) for name in attribution.CAM_METHODS for stage in ("convs.1", "convs.2")]
    method_stages += [("saliency", attribution.VIDEO), ("gradient_x_input", None), ("gradient_x_input", "convs.0")]
    model = Partial(counting, net)
    shared_maps = attribution.attribute_many(model, video, CLASSES, method_stages)
    traced_for_many = len(runs)
    runs.clear()
    jax.clear_caches()
    attribution.attribute(model, video, CLASSES, "gradcam", "convs.2")
    assert traced_for_many == len(runs) == 3  # shapes of all stages, shapes of the requested ones, the pass itself
    for (name, stage), shared in zip(method_stages, shared_maps, strict=True):
        alone = attribute(net, video, name, stage)
        np.testing.assert_allclose(shared.map, alone.map, rtol=1e-3, atol=1e-5 * np.abs(alone.map).max())
        assert (shared.method, shared.stage, shared.forward_passes) == (alone.method, alone.stage, alone.forward_passes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, v: attribute(net, v, "gradcamm"), r"no method named 'gradcamm' \(did you mean gradcam"),
        (lambda net, v: attribute(net, v, "gradcam", "convs.9"), "no stage named 'convs.9'.*convs.0"),
        (lambda net, v: attribute(net, v, "gradcam", "pool"), "without time and space; use one of video, convs.0"),
        (lambda net, v: attribute(net, v, "gradcam", target=[0, 4]), "0 to 3; there is no class 4"),
        (lambda net, v: attribute(net, v, "gradcam", target=[0, 1, 2]), r"one for each of 2 clips; got int64.*\(3,\)"),
        (lambda net, v: attribute(net, v, "gradcam", target=targets.Group((0, 1, 2, 3))), "not all"),
        (lambda net, v: attribute(net, v, "saliency", target=targets.Channel("convs.1", 8)), "there is no channel 8"),
        (lambda net, v: attribute(net, v, "gradcam", target=targets.Channel("conv", 1)), "no stage named 'conv'"),
        (
            lambda net, v: attribute(net, v, "gradcam", "convs.2", target=targets.Channel("convs.1", 1)),
            "does not depend on convs.2",
        ),
        (
            lambda net, v: attribute(net, v, "saliency", target=targets.ConceptTarget("convs.1", np.ones(3))),
            r"or \(8,\), got \(3,\)",
        ),
        (lambda net, v: attribute(net, v[0], "gradcam"), r"\(b, t, h, w, 3\)"),
        (lambda net, v: attribute(net, v, "smoothgrad", samples=0), "samples of at least 1"),
        (lambda net, v: attribute(net, v, "smoothgrad", "convs.1"), "smoothgrad only makes maps of the video"),
        (lambda net, v: attribute(net, v, "gradcam", target=jnp.sum), "one score per clip"),
        (lambda net, v: attribute(net, v, "smoothgrad", target=lambda logits: logits), "one score per clip"),
        (
            lambda net, v: attribute(net, v, "integrated_gradients", target=lambda logits: logits[:, :1]),
            "one score per",
        ),
    ],
)
def test_errors_say_what_was_expected(net, video, call, message):
    with pytest.raises(ValueError, match=message):
        call(net, video)


@pytest.mark.slow
def test_the_second_call_does_not_compile(net, video):
    from vtcav_jax.attribution import cam_methods, gradients, integrated

    watched = (
        cam_methods._weight_activations,
        gradients._add_noisy_gradients,
        integrated._add_node_gradient,
        tap._activations_and_gradients,
    )

    def calls(video, classes, seed):
        for name in ("gradcam", "gradcam_framewise", "cam"):
            attribute(net, video, name, target=classes)
        attribution.smoothgrad(net, video, classes, samples=2, seed=seed, noise=0.1 + seed)
        attribution.integrated_gradients(net, video, classes, ig_steps=2 + seed)

    calls(video, CLASSES, 1)
    before = [compile_count(f) for f in watched]
    calls(video + 1, [0, 1], 2)
    calls(np.asarray(video), 3, 3)
    assert [compile_count(f) for f in watched] == before


def test_models_may_be_functions(plain, video):
    assert attribute(plain, video, "gradcam").map.shape == SHAPE[:4]
    clips, labels = handwired_network.binary_clips(2, 0)
    pair_map = attribute(handwired_network.MOTION_PAIRS, clips, "hirescam", "pairs", targets.Class(labels))
    scores = np.asarray(handwired_network.MOTION_PAIRS(jnp.asarray(clips)))[[0, 1], labels]
    np.testing.assert_allclose(pair_map.map.sum((1, 2, 3)), scores)
