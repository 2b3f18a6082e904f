"""Stability, simplicity and randomisation metrics, for explainers with known behaviour."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage, stats

from tests.support.typed import present
from vtcav_jax import models, worlds
from vtcav_jax.attribution import Class, Margin, attribute, gradient_x_input
from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.evaluation.faithfulness import randomisation, robustness
from vtcav_jax.models.small_cnn import SmallCnn

TARGET = Class(np.array([2, 0]))


@pytest.fixture(scope="module")
def net():
    sizes: dict[str, Any] = dict(widths=(4, 4), kernels=((3, 3, 3),) * 2, strides=((1, 2, 2), (1, 1, 1)))
    return SmallCnn(**sizes, num_classes=3, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).normal(size=(2, 6, 8, 8, 3)).astype(np.float32)


def brightness(model, clips, target, change=lambda x: x, grid=None):
    maps = change(np.abs(np.asarray(clips)).mean(-1))
    return Attribution(area_resize(maps, grid) if grid else maps, "video", True, 1, "brightness")


def constant_noise(model, clips, target):
    """Return the same map for every clip."""
    maps = np.random.default_rng(0).random(np.shape(clips)[:4], np.float32)
    return Attribution(maps, "video", True, 1, "still")


def test_max_sensitivity(net, clips):
    flat = robustness.max_sensitivity(constant_noise, net, clips, TARGET)
    assert not flat.max_change.any() and not flat.mean_change.any()
    movement = robustness.max_sensitivity(brightness, net, clips, TARGET, radius=0.05, draws=4, seed=3)
    draws = robustness.add_noise(clips, 0.05, 4, 3)
    for i in range(2):
        reach = 0.05 * np.ptp(clips[i])
        assert all(0.95 * reach < np.abs(d[i] - clips[i]).max() <= reach * 1.001 for d in draws)
        before = np.abs(clips[i]).mean(-1)
        far = [np.linalg.norm(np.abs(d[i]).mean(-1) - before) / np.linalg.norm(before) for d in draws]
        assert movement.max_change[i] == pytest.approx(max(far), rel=1e-3)
        assert movement.mean_change[i] == pytest.approx(np.mean(far), rel=1e-3)
    nothing = robustness.max_sensitivity(partial(brightness, change=np.zeros_like), net, clips, TARGET)
    assert np.isnan(nothing.max_change).all()
    with pytest.raises(ValueError, match="got 0 and"):
        robustness.max_sensitivity(constant_noise, net, clips, TARGET, draws=0)


def test_a_map_that_moves_with_the_clip_is_stable(net, clips):
    for move in (robustness.time_shift_correlation, robustness.translation_correlation):
        np.testing.assert_allclose(move(brightness, net, clips, TARGET), 1, atol=1e-5)
        assert (np.abs(move(constant_noise, net, clips, TARGET)) < 0.3).all()
    np.testing.assert_allclose(
        robustness.time_shift_correlation(brightness, net, clips, TARGET, frames=3), 1, atol=1e-5
    )
    paired = partial(brightness, grid=(3, 8, 8))  # steps of two frames: a shift by one frame splits them differently
    assert (robustness.time_shift_correlation(paired, net, clips, TARGET, frames=2) > 0.999).all()
    assert (robustness.time_shift_correlation(paired, net, clips, TARGET) < 0.9).all()
    with pytest.raises(ValueError, match=r"shift of 1 to 4 of 6.*got 5"):
        robustness.time_shift_correlation(brightness, net, clips, TARGET, frames=5)


@pytest.mark.slow
def test_a_map_of_appearance_ignores_frame_order(net, clips):
    np.testing.assert_allclose(robustness.frame_shuffle_correlation(brightness, net, clips, TARGET), 1, atol=1e-5)

    def changes(x):
        return np.abs(np.diff(x, axis=1, append=0))

    assert (robustness.frame_shuffle_correlation(partial(brightness, change=changes), net, clips, TARGET) < 0.8).all()
    both_clips = robustness.frame_shuffle_correlation(gradient_x_input, net, clips, TARGET, seed=1)
    alone = robustness.frame_shuffle_correlation(gradient_x_input, net, clips[1:], Class(TARGET.classes[1:]), seed=1)
    np.testing.assert_allclose(both_clips[1:], alone, atol=1e-4)


def test_simplicity():
    random = np.random.default_rng(0)
    maps = random.normal(size=(3, 2, 3, 4)).astype(np.float32)
    maps[1], maps[2] = 2, 0
    maps[2, 0, 0, 0] = -1
    size = np.abs(maps[0]).ravel()
    pairs = np.abs(size[:, None] - size[None]).mean() / (2 * size.mean())
    np.testing.assert_allclose(robustness.gini(maps), [pairs, 0, 23 / 24], atol=1e-5)
    np.testing.assert_allclose(robustness.entropy(maps), [stats.entropy(size) / np.log(24), 1, 0], atol=1e-5)
    largest = np.sort(size)[::-1].cumsum() / size.sum()
    expected = [(np.flatnonzero(largest >= 0.9)[0] + 1) / 24, 22 / 24, 1 / 24]
    np.testing.assert_allclose(robustness.effective_complexity(maps), expected, atol=1e-5)
    for measure in (robustness.gini, robustness.entropy, robustness.effective_complexity):
        assert np.isnan(measure(np.zeros((1, 2, 2, 2), np.float32))).all()


def test_ssim():
    random = np.random.default_rng(0)
    a, b = (random.random((2, 4, 6, 6), np.float32) for _ in range(2))
    np.testing.assert_allclose(randomisation.ssim(a, a), 1, atol=1e-6)
    np.testing.assert_allclose(randomisation.ssim(a, 3 * a - 1), 1, atol=1e-5)  # each map is scaled to 0 to 1
    assert (randomisation.ssim(a, 1 - a) < 0).all()

    window: Any = (0, 3, 3, 3)  # scipy's type stub allows only one size for all axes

    def smooth(x):  # mean over the part of the window within the map
        ones = ndimage.uniform_filter(np.ones(x.shape), window, mode="constant")
        return ndimage.uniform_filter(x, window, mode="constant") / ones

    x, y = ((m - m.min((1, 2, 3), keepdims=True)) / np.ptp(m, axis=(1, 2, 3), keepdims=True) for m in (a, b))
    x, y = x.astype(np.float64), y.astype(np.float64)
    mx, my = smooth(x), smooth(y)
    vx, vy, xy = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
    expected = (2 * mx * my + 1e-4) * (2 * xy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    np.testing.assert_allclose(randomisation.ssim(a, b), expected.mean((1, 2, 3)), rtol=1e-4)


def of_parameters(model, clips, target):
    """Return a map that depends only on the first convolution's weights."""
    weights = np.abs(np.asarray(model.convs[0].kernel[...])).ravel()
    maps = np.resize(weights, np.shape(clips)[:4]).astype(np.float32)
    return Attribution(maps, "video", True, 1, "weights")


def test_the_cascade_goes_from_head_to_stem(net, clips):
    cascade = randomisation.cascade(of_parameters, net, clips, TARGET)
    assert cascade.layers == (randomisation.REMAINING_PARAMETERS, "convs.1", "convs.0") and cascade.rank.shape == (4, 2)
    np.testing.assert_allclose(cascade.rank[:3], 1, atol=1e-6)  # unchanged until the first convolution is randomised
    assert (cascade.rank[3] < 0.5).all() and (cascade.structure[3] < cascade.structure[2]).all()
    np.testing.assert_allclose(cascade.area, cascade.rank[1:].mean(0))
    alone = randomisation.cascade(of_parameters, net, clips, TARGET, independent=True, layers=["convs.0", "head"])
    assert alone.layers == ("convs.0", "head") and alone.rise is None
    assert (alone.rank[1] < 0.5).all() and (alone.rank[2] > 0.999).all()
    blind = randomisation.cascade(constant_noise, net, clips, TARGET)
    assert (blind.area == pytest.approx(1)) and (blind.rise == 0).all()
    with pytest.raises(ValueError, match=r"no layer with parameters of its own named 'convs.7'.*convs.1.kernel"):
        randomisation.cascade(constant_noise, net, clips, TARGET, layers=["head", "convs.7"])
    with pytest.raises(ValueError, match="no parameters"):
        randomisation.cascade(constant_noise, lambda video, tap: video.sum((1, 2, 3)), clips, TARGET)


def test_the_last_step_is_a_network_of_shuffled_weights(net, clips):
    from vtcav_jax.attribution.sanity_checks import shuffle_parameters, spearman

    cascade = randomisation.cascade(gradient_x_input, net, clips, TARGET, seed=4)
    networks = (net, present(shuffle_parameters(net, 4)))
    trained, shuffled = (np.abs(gradient_x_input(m, clips, TARGET).map) for m in networks)
    np.testing.assert_allclose(cascade.rank[-1], spearman(trained, shuffled), atol=1e-4)
    rise = robustness.entropy(shuffled) / robustness.entropy(trained) - 1
    np.testing.assert_allclose(present(cascade.rise), rise, atol=1e-4)


def of_class(model, clips, target):
    classes = np.asarray(target.classes)
    maps = np.stack([np.random.default_rng(c).random(np.shape(clips)[1:4], np.float32) for c in classes])
    return Attribution(maps, "video", True, 1, "class")


def test_a_map_of_another_class(net, clips):
    np.testing.assert_allclose(randomisation.random_logit(constant_noise, net, clips, TARGET), 1, atol=1e-6)
    assert (np.abs(randomisation.random_logit(of_class, net, clips, TARGET)) < 0.2).all()
    explained_classes = []

    def spy(model, clips, target):
        explained_classes.append(np.asarray(target.classes))
        return constant_noise(model, clips, target)

    for seed in range(6):
        randomisation.random_logit(spy, net, clips, Margin(np.array([2, 1]), (1, 3)), seed=seed)
        assert explained_classes[-2].tolist() == [2, 1] and explained_classes[-1].tolist() == [
            1,
            2,
        ]  # the only other one of the head
        randomisation.random_logit(spy, net, clips, TARGET, seed=seed)
        assert (explained_classes[-1] != explained_classes[-2]).all() and set(explained_classes[-1].tolist()) <= {
            0,
            1,
            2,
        }
    with pytest.raises(ValueError, match="give classes"):
        randomisation.random_logit(constant_noise, net, clips, lambda logits: logits[:, 0])
    with pytest.raises(ValueError, match="no other class"):
        randomisation.random_logit(constant_noise, net, clips, Margin(np.array([2, 2]), (2, 3)))


@pytest.mark.slow
def test_real_explainers_on_the_shipped_network():
    network = models.load("worlds_swin")
    world_clips = worlds.make_clips("small", 8, 77)
    video = jnp.asarray((world_clips.video - 0.5) / 0.5)
    head = network.head_slices["direction"]
    target = Margin(head.start + world_clips.labels["direction"], (head.start, head.stop))
    saliency, rollout = (partial(attribute, method=name) for name in ("saliency", "rollout"))
    cascade = randomisation.cascade(saliency, network.model, video, target)
    assert cascade.layers[0] == randomisation.REMAINING_PARAMETERS and cascade.layers[-1] == "patch_embed"
    assert cascade.rank[-1].mean() < 0.5 < cascade.rank[1].mean()
    correlations = [
        randomisation.random_logit(explainer, network.model, video, target).mean() for explainer in (saliency, rollout)
    ]
    assert correlations[0] < correlations[1] and correlations[1] > 0.999  # rollout ignores the class
    moves = robustness.time_shift_correlation(saliency, network.model, video, target)
    assert jax.tree.all(jax.tree.map(np.isfinite, moves.tolist()))
