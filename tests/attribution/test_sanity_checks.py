"""Sanity measures on maps with known faults, and agreement of motion parts with moving pixels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from tests.support.typed import present, readable, statistic
from vtcav_jax import attribution
from vtcav_jax.attribution import resample, sanity_checks, targets
from vtcav_jax.attribution.motion import map_split, optical_flow
from vtcav_jax.attribution.motion.flow_agreement import flow_agreement
from vtcav_jax.attribution.videos.clip_windows import stream_windows
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, open_source
from vtcav_jax.evaluation import regions
from vtcav_jax.models.small_cnn import SmallCnn
from vtcav_jax.worlds import handwired_network, make_clips


def test_area_resize_averages_within_cells():
    x = np.random.default_rng(0).random((2, 4, 6, 9)).astype(np.float32)
    np.testing.assert_allclose(
        resample.area_resize(x, (2, 3, 3)), x.reshape(2, 2, 2, 3, 2, 3, 3).mean((2, 4, 6)), rtol=1e-5
    )
    uneven = resample.area_resize(np.arange(5, dtype=np.float32).reshape(1, 1, 1, 5), (1, 1, 2))[0, 0, 0]
    np.testing.assert_allclose(uneven, [(0 + 1 + 2 / 2) / 2.5, (2 / 2 + 3 + 4) / 2.5])
    assert [resample.frame_of_step(s, 4, 8) for s in range(4)] == [1, 3, 5, 7]


def moving_dot(frames=6, size=12, step=2):
    maps, flow = np.zeros((1, frames, size, size), np.float32), np.zeros((1, frames - 1, size, size, 2), np.float32)
    for t in range(frames):
        maps[0, t, 5, t * step] = 1
    flow[..., 0] = step
    return maps, flow


def test_motion_along_the_flow_is_no_flicker():
    maps, flow = moving_dot()
    assert sanity_checks.flicker(maps, flow)[0] == pytest.approx(0, abs=1e-6)
    assert sanity_checks.flicker(maps, None)[0] == pytest.approx(2)  # the spot leaves one place and appears in another
    assert sanity_checks.flicker(maps * np.array([1, 2] * 3).reshape(1, 6, 1, 1), flow)[0] == pytest.approx(
        (1 + 0.5) / 2, rel=0.2
    )
    coarse = resample.area_resize(maps, (3, 12, 12))
    assert sanity_checks.flicker(coarse, flow)[0] < 0.01 < sanity_checks.flicker(coarse, None)[0]
    assert np.isnan(sanity_checks.flicker(maps[:, :1], None)[0]) and np.isnan(sanity_checks.flicker(0 * maps, None)[0])


def test_relevance_outside_the_region():
    maps, _ = moving_dot()
    inside = maps > 0
    share, elsewhere = sanity_checks.relevance_outside(maps, inside)
    assert share[0] == 0 and elsewhere[0] == pytest.approx(1 - 1 / 144)
    share, elsewhere = sanity_checks.relevance_outside(np.ones_like(maps), inside)
    assert share[0] == pytest.approx(elsewhere[0])
    assert sanity_checks.relevance_outside(-maps, ~inside)[0][0] == 1


def test_correlations_are_scipys():
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 5, (2, 3, 4, 4)).astype(np.float32) for _ in range(2))
    for i in range(2):
        x, y = a[i].ravel(), b[i].ravel()
        assert sanity_checks.pearson(a, b)[i] == pytest.approx(statistic(stats.pearsonr(x, y)))
        assert sanity_checks.spearman(a, b)[i] == pytest.approx(statistic(stats.spearmanr(x, y)))
    assert np.isnan(sanity_checks.pearson(np.ones_like(a), b)).all()


@pytest.fixture(scope="module")
def net():
    sizes: dict[str, Any] = dict(widths=(4, 4), kernels=((3, 3, 3),) * 2, strides=((1, 2, 2), (1, 1, 1)))
    return SmallCnn(**sizes, num_classes=3, rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_shuffled_parameters_keep_their_values(net):
    other: Any = sanity_checks.shuffle_parameters(net, 1)
    for a, b in zip(jax.tree.leaves(net), jax.tree.leaves(other)):
        np.testing.assert_allclose(np.sort(np.ravel(a)), np.sort(np.ravel(b)))
    assert (np.asarray(net.convs[0].kernel[...]) != np.asarray(other.convs[0].kernel[...])).mean() > 0.9
    assert sanity_checks.shuffle_parameters(handwired_network.MOTION_PAIRS, 0) is None


@pytest.mark.slow
def test_sanity_scores_of_maps(net):
    video = jax.random.normal(jax.random.key(0), (2, 4, 8, 8, 3))
    target = targets.Class(np.array([0, 2]))
    region = np.zeros((2, 4, 8, 8), bool)
    region[:, :, 2:5, 2:5] = True
    scores = sanity_checks.sanity_scores(net, video, target, "gradient_x_input", region=region, shuffle_seed=3)

    def maps(model, clips):
        return attribution.gradient_x_input(model, clips, target).map

    forward_maps, backward_maps = maps(net, video), maps(net, video[:, ::-1])[:, ::-1]
    for i in range(2):
        assert scores.time_reversal_change[i] == pytest.approx(
            1 - np.corrcoef(forward_maps[i].ravel(), backward_maps[i].ravel())[0, 1], abs=1e-4
        )
        shuffled_maps = np.abs(maps(sanity_checks.shuffle_parameters(net, 3), video)[i]).ravel()
        assert scores.randomised_weights_similarity[i] == pytest.approx(
            statistic(stats.spearmanr(np.abs(forward_maps[i]).ravel(), shuffled_maps)), abs=1e-3
        )
    outside = (np.abs(forward_maps) * ~region).sum((1, 2, 3)) / np.abs(forward_maps).sum((1, 2, 3))
    np.testing.assert_allclose(scores.mass_outside, outside, rtol=1e-4)
    np.testing.assert_allclose(scores.area_outside, 1 - 9 / 64, rtol=1e-5)
    assert np.isnan(scores.flicker).all() and (scores.static_flicker > 0).all()  # the ends of a clip differ
    assert (scores.method, scores.stage) == ("gradient_x_input", "video")


def test_the_analytic_network_depends_on_the_direction_of_time():
    clips, labels = handwired_network.binary_clips(2, 0)
    pair_scores = sanity_checks.sanity_scores(
        handwired_network.MOTION_PAIRS, clips, targets.Class(labels), "gradient_x_input"
    )
    assert (pair_scores.time_reversal_change > 0.2).all() and np.isnan(pair_scores.randomised_weights_similarity).all()

    def brightness(video, tap=lambda name, value: value):
        return tap("x", jnp.abs(video)).mean((1, 2, 3))

    brightness_scores = sanity_checks.sanity_scores(
        brightness, np.tile(clips, 3), targets.Class(np.zeros(2, int)), "gradient_x_input"
    )
    np.testing.assert_allclose(brightness_scores.time_reversal_change, 0, atol=1e-5)


def test_worlds_have_the_region_and_flow_of_the_key_object():
    source, clip_spec = open_source("worlds:small:3:9"), ClipSpec(frames=8, size=32)
    window = readable(list(stream_windows(source, clip_spec, SamplingConfig(), num_workers=0))[2])
    clips = make_clips("small", 1, 9, first=2)
    np.testing.assert_array_equal(present(regions.target_region(source, window, clip_spec)), clips.masks["key_box"][0])
    behind = ~(clips.masks["key_box"] | clips.masks["dis_box"])[0]
    np.testing.assert_array_equal(present(regions.target_region(source, window, clip_spec, "scene")), behind)
    flow = present(regions.ground_truth_flow(source, window))
    key, other = clips.masks["key_box"][0, 1:], clips.masks["dis_box"][0, 1:]
    assert flow.shape == (7, 32, 32, 2) and (flow[~(key | other)] == 0).all()
    step = {0: (-2, 0), 1: (2, 0), 2: (0, -2), 3: (0, 2)}[int(clips.factors["direction"][0])]
    np.testing.assert_array_equal(flow[key], np.broadcast_to(step, flow[key].shape))
    carried = [resample.warp(m, d) for m, d in zip(clips.masks["key_box"][0, :-1].astype(float), flow)]
    inner = np.stack(carried)[:, 3:-3, 3:-3] > 0.5  # without values that cross the border
    assert (inner[key[:, 3:-3, 3:-3]]).mean() > 0.95


def test_regions_are_read_from_box_files(tmp_path):
    from vtcav_jax.data.world_export import write_clips

    clips = make_clips("small", 2, 9)
    write_clips(clips, tmp_path)
    (tmp_path / "with.csv").write_text(
        "path,boxes\n" + "".join(f"clip_9_{i:06d}.mp4,boxes.csv\n" for i in range(2)), encoding="utf-8"
    )
    source, clip_spec = open_source(tmp_path / "with.csv"), ClipSpec(frames=8, size=16)
    for i, window in enumerate(stream_windows(source, clip_spec, SamplingConfig(), num_workers=0)):
        boxes = present(regions.target_region(source, readable(window), clip_spec))
        both = clips.masks["key_box"][i] | clips.masks["dis_box"][i]
        small = both.reshape(8, 16, 2, 16, 2).mean((2, 4))
        assert (boxes[small == 1]).all() and not boxes[small == 0].any()
    bare = open_source(tmp_path / "manifest.csv")
    window = readable(next(iter(stream_windows(bare, clip_spec, SamplingConfig(), num_workers=0))))
    assert regions.target_region(bare, window, clip_spec) is None


def test_flow_agreement_of_a_motion_part():
    maps, _ = moving_dot()
    moves = np.zeros((1, 6, 12, 12), bool)
    moves[:, :, 4:7] = True
    parts = map_split.split_by_motion(maps, 0.5)
    agreement = flow_agreement(parts, moves)
    inside = (parts.mask & moves).sum()
    assert agreement.precision[0] == pytest.approx(inside / parts.mask.sum())
    assert agreement.recall[0] == pytest.approx(inside / moves.sum())
    assert agreement.iou[0] == pytest.approx(inside / (parts.mask | moves).sum())
    assert agreement.energy_map[0] == pytest.approx(1) and agreement.area[0] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="masks of 1 clips, got 2"):
        flow_agreement(parts, moves.repeat(2, 0))


@pytest.mark.parametrize("algorithm", ["farneback", "dis"])
def test_optical_flow_of_a_square_that_moves(algorithm):
    pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    ground = np.kron(random.integers(60, 120, (16, 16)), np.ones((4, 4))).astype(np.uint8)
    patch = np.kron(random.integers(0, 256, (8, 8)), np.ones((3, 3))).astype(np.uint8)
    frames = np.repeat(ground[None, ..., None], 5, 0).repeat(3, -1)
    for t in range(5):
        frames[t, 20:44, 10 + 2 * t : 34 + 2 * t] = patch[..., None]
    forward = optical_flow.flow(frames, algorithm)
    np.testing.assert_allclose(np.median(forward[1, 24:40, 18:30], (0, 1)), [2, 0], atol=0.3)
    backward = optical_flow.flow(frames, algorithm, backwards=True)
    np.testing.assert_allclose(np.median(backward[1, 24:40, 20:32], (0, 1)), [2, 0], atol=0.3)
    moving = optical_flow.moving_pixels(frames, algorithm=algorithm)
    assert moving[:, 24:40, 22:30].mean() > 0.9 and moving[:, :8].mean() < 0.05 and moving[:, 56:].mean() < 0.05
    with pytest.raises(ValueError, match="two frames of at least 12 x 12"):
        optical_flow.flow(frames[:1])


def test_missing_opencv_is_reported(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ValueError, match=r"needs OpenCV; install it: pip install 'vtcav-jax\[flow\]'"):
        optical_flow.flow(np.zeros((2, 16, 16, 3), np.uint8))
