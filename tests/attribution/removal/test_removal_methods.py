"""Maps of removal methods on networks equal direct evaluation, whatever the segments, the infill and the batches."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.random_networks import small_cnn
from tests.support.typed import present
from vtcav_jax import attribution
from vtcav_jax.attribution.baselines import BASELINES, hold_last
from vtcav_jax.attribution.registry import PERTURBATION_METHODS, attribute_targets
from vtcav_jax.attribution.removal import engine, segments
from vtcav_jax.attribution.removal.soft_masks import draw_soft_masks
from vtcav_jax.worlds import make_clips

CLASSES = np.array([2, 0])
CELLS = (2, 2, 2)


@pytest.fixture(scope="module")
def net():
    return small_cnn()


@pytest.fixture(scope="module")
def video():
    return np.random.default_rng(1).normal(size=(2, 4, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def score(net, video):
    model = attribution.prepare_explanation(net, video, CLASSES).score_model
    return lambda clips: np.asarray(model.score(jnp.asarray(clips)), np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["mean", "hold"])
def test_single_segments_by_definition(net, video, score, baseline):
    ids = segments.grid((4, 12, 12), CELLS)
    drop, alone = (np.zeros((2, 4, 12, 12)) for _ in range(2))

    def remaining(keep):
        if baseline == "hold":
            masks = jnp.asarray(np.broadcast_to(keep, video.shape[:4]))
            return np.asarray(hold_last(jnp.asarray(video), jnp.zeros(video.shape), masks))
        return np.where(keep[None, ..., None], video, BASELINES[baseline](jnp.asarray(video)))

    for i in range(8):
        drop[:, ids == i] = (score(video) - score(remaining(ids != i)))[:, None]
        alone[:, ids == i] = (score(remaining(ids == i)) - score(remaining(ids < 0)))[:, None]
    loco = attribution.loco(net, video, CLASSES, cells=CELLS, baseline=baseline)
    up = attribution.up(net, video, CLASSES, cells=CELLS, baseline=baseline)
    np.testing.assert_allclose(loco.map, drop, atol=1e-5)
    np.testing.assert_allclose(up.map, alone, atol=1e-5)
    assert loco.forward_passes == up.forward_passes == 9 and loco.standard_error is None


def test_methods_agree_where_they_are_equal(net, video):
    loco = attribution.loco(net, video, CLASSES, cells=CELLS).map
    windows = attribution.occlusion(net, video, CLASSES, window=(2, 6, 6), stride=(2, 6, 6)).map
    np.testing.assert_allclose(loco, windows, atol=1e-6)
    half: dict[str, Any] = {"window": (2, 6, 6), "stride": (1, 3, 3)}
    cuboids, half_windows = (
        attribution.sos(net, video, CLASSES, **half),
        attribution.occlusion(net, video, CLASSES, **half),
    )
    np.testing.assert_array_equal(cuboids.map, half_windows.map)
    exact = attribution.shapley(net, video, CLASSES, cells=CELLS)
    kernel = attribution.kernel_shap(net, video, CLASSES, cells=CELLS)
    np.testing.assert_allclose(kernel.map, exact.map, atol=1e-6)
    frames = attribution.frame_shapley(net, video, CLASSES, groups=2, baseline="zero").map
    np.testing.assert_allclose(frames, attribution.shapley(net, video, CLASSES, cells=(2, 1, 1)).map, atol=1e-6)
    for complete in (kernel, exact):
        np.testing.assert_allclose(present(complete.completeness_gap), 0, atol=1e-5)
        assert complete.forward_passes == 256


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kernel_shap", "rise", "occlusion", "frame_shapley"])
def test_batches_of_masks_do_not_change_maps(net, video, monkeypatch, name):
    options = {"kernel_shap": {"masks": 26, "cells": CELLS}, "rise": {"masks": 26, "cells": CELLS}}.get(name, {})
    together = attribution.attribute(net, video, CLASSES, name, **options)
    monkeypatch.setattr(engine, "masks_per_call", lambda clips_shape: 3)
    apart = attribution.attribute(net, video, CLASSES, name, **options)
    np.testing.assert_allclose(apart.map, together.map, atol=1e-5)
    first = attribution.attribute(net, video[:1], CLASSES[:1], name, **options)
    np.testing.assert_allclose(first.map[0], together.map[0], atol=1e-5)
    assert len(together[1:].map) == 1 and apart.forward_passes == together.forward_passes


@pytest.mark.slow
def test_segments_of_each_clip(net, video):
    clips = make_clips("small", n=2, seed=5).frames
    ids = segments.supervoxels(clips / 255.0, (2, 4, 4))
    scaled = clips.astype(np.float32) / 255
    both = attribution.kernel_shap(net, scaled, CLASSES, segments=ids, masks=100)
    for i in range(2):
        alone = attribution.kernel_shap(net, scaled[i : i + 1], CLASSES[i], segments=ids[i], masks=100)
        np.testing.assert_allclose(both.map[i], alone.map[0], atol=1e-6)
        for segment in range(32):
            assert np.ptp(both.map[i][ids[i] == segment]) == 0
    np.testing.assert_allclose(present(both.completeness_gap), 0, atol=1e-4)
    by_name = attribution.kernel_shap(net, scaled, CLASSES, segments="supervoxels", cells=(2, 4, 4), masks=100)
    np.testing.assert_array_equal(by_name.map, both.map)


def test_tubes_follow_a_moving_square():
    pytest.importorskip("cv2", reason="optical flow needs OpenCV (pip install 'vtcav-jax[flow]')")
    frames = np.zeros((1, 8, 48, 48, 3), np.float32)
    texture = np.random.default_rng(0).random((12, 12, 3))
    for t in range(8):
        frames[0, t, 18:30, 6 + 2 * t : 18 + 2 * t] = texture
    ids = segments.flow_tubes(frames, (1, 4, 4))[0]
    assert set(np.unique(ids[0])) == set(range(16)) == set(np.unique(ids))
    np.testing.assert_array_equal(ids[0], segments.grid((1, 48, 48), (1, 4, 4))[0])
    moved = ids[0, 18:30, 6:18]  # the square takes the numbers of the first frame along
    assert (ids[7, 18:30, 20:32] == moved).mean() > 0.9 > (ids[0, 18:30, 20:32] == moved).mean()
    halves = segments.flow_tubes(frames, (2, 4, 4))[0]
    np.testing.assert_array_equal(halves[4], segments.grid((8, 48, 48), (2, 4, 4))[4])
    still = segments.flow_tubes(frames[:, [0] * 8], (2, 4, 4))
    np.testing.assert_array_equal(still[0], segments.grid((8, 48, 48), (2, 4, 4)))


def test_supervoxels_of_large_clips_are_clustered_at_a_lower_resolution():
    clip = np.zeros((1, 8, 120, 120, 1), np.float32)
    clip[:, :, 37:90, 25:80] = 1
    ids = segments.supervoxels(clip, (2, 4, 4))[0]
    share = np.bincount(ids.ravel(), weights=clip.ravel()) / np.bincount(ids.ravel())
    assert len(share) == 32 and (np.minimum(share, 1 - share) < 0.1).mean() > 0.8


def test_standard_errors_of_rise_are_the_spread_over_seeds():
    def network(video, tap=None):
        score = jnp.tanh(video[:, :2, :4, :4].mean((1, 2, 3, 4)) * 3) + video[:, 2:, 4:, 4:].mean((1, 2, 3, 4)) * 2
        return jnp.stack([score, 0 * score], 1)

    clip = np.ones((1, 4, 8, 8, 1), np.float32)
    maps = [attribution.rise(network, clip, 0, masks=200, seed=seed) for seed in range(30)]
    spread = np.std([a.map for a in maps], 0, ddof=1)
    errors = np.array([present(a.standard_error) for a in maps])
    assert 0.85 < np.sqrt((errors**2).mean() / (spread**2).mean()) < 1.2
    assert maps[0].sampling_noise[0] == pytest.approx(np.sqrt((errors[0] ** 2).mean() / (maps[0].map ** 2).mean()))


def test_masks_of_rise_are_smooth_and_visible_as_often_as_requested():
    for keep in (0.5, 0.2):
        voxels = np.asarray(draw_soft_masks((4, 12, 12), (2, 3, 3), 400, keep, 0).voxels(np.arange(400)))
        assert voxels.shape == (400, 1, 4, 12, 12) and voxels.min() == 0 and 0.99 < voxels.max() <= 1
        assert voxels.mean() == pytest.approx(keep, abs=0.02)
        steps = np.abs(np.diff(voxels, axis=-1)).max()
        assert steps == pytest.approx(3 / 12, abs=1e-5)  # linear over a cell of 4 pixels


def test_targets_share_passes(net, video):
    pairs = [("occlusion", None), ("gradient_x_input", None), ("lime", "video")]
    options = {"lime": {"cells": CELLS, "masks": 30}}
    results = attribute_targets(net, video, [CLASSES, attribution.Class(1)], pairs, options)
    for target, maps in zip([CLASSES, attribution.Class(1)], results):
        for (name, _), shared in zip(pairs, maps):
            alone = attribution.attribute(net, video, target, name, **options.get(name, {}))
            np.testing.assert_allclose(shared.map, alone.map, atol=1e-5)
            assert shared.method == name


@pytest.mark.slow
def test_every_method_accepts_the_shortest_clips(net):
    clip = np.random.default_rng(0).normal(size=(1, 2, 12, 12, 3)).astype(np.float32)
    for name in PERTURBATION_METHODS:
        result = attribution.attribute(net, clip, 1, name, budget=60)
        assert np.isfinite(result.map).all() and result.map.any() and result.forward_passes <= 60
