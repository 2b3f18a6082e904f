"""Causal tracing equals patching by hand, and finds the cause of a world's answer."""

import jax.numpy as jnp
import numpy as np
import pytest

import vtcav_jax as vtcav
from tests.support.random_networks import small_cnn
from vtcav_jax import tap
from vtcav_jax.attribution import Contrast, causal_tracing
from vtcav_jax.report.figures.causal_tracing import causal_tracing_figure
from vtcav_jax.worlds.render import redraw

VIDEO = np.random.default_rng(3).normal(size=(4, 4, 12, 12, 3)).astype(np.float32)


def two_pixels(video, tap=tap.identity_tap):
    x = tap("sum", video.sum(-1))[..., None]
    x = tap("squares", x**2)
    return jnp.stack([2 * x[:, 1, 2, 3, 0] + x[:, 3, 0, 0, 0], 0 * x[:, 0, 0, 0, 0]], 1)


def lead(target, logits):
    rows = np.arange(len(logits))
    return np.asarray(logits)[rows, target.classes] - np.asarray(logits)[rows, target.others]


def test_shares_of_a_network_that_reads_two_pixels():
    clean = np.zeros((3, 4, 4, 4, 1), np.float32)
    clean[:, 1, 2, 3], clean[:, 3, 0, 0] = 1, 2  # 2 * 1 + 4 of a score of 6
    trace = causal_tracing(two_pixels, clean, np.zeros_like(clean), Contrast(0, 1), cells=(4, 2, 2))
    assert list(trace.patched_scores) == ["video", "squares"] and trace.forward_passes == 34
    expected = np.zeros((4, 2, 2))
    expected[1, 1, 1], expected[3, 0, 0] = 1 / 3, 2 / 3
    for stage in trace.patched_scores:
        np.testing.assert_allclose(trace.shares(stage), np.stack([expected] * 3, -1), atol=1e-6)
    over_time = causal_tracing(two_pixels, clean, np.zeros_like(clean), Contrast(0, 1), stages=["squares"])
    np.testing.assert_allclose(over_time.shares("squares")[:, 0, 0, 0], [0, 1 / 3, 0, 2 / 3], atol=1e-6)


def test_scores_equal_patches_by_hand():
    net, other = small_cnn(), VIDEO[::-1] * 0.5
    stage = tap.stages_of(net)[1]
    logits = np.asarray(tap.compute_logits(net, VIDEO))
    target = Contrast(logits.argmax(1), logits.argmin(1))
    trace = causal_tracing(net, VIDEO, other, target, stages=[stage])
    scores = trace.patched_scores[stage]
    for step in range(scores.shape[1]):
        places = np.arange(scores.shape[1])[:, None, None] == step
        shape = tap.activations(net, VIDEO, stage)[1][stage].shape[1:4]
        patched = tap.patch(net, other, [tap.Patch(stage, VIDEO, np.broadcast_to(places, shape))])
        np.testing.assert_allclose(scores[:, step, 0, 0], lead(target, patched), rtol=1e-5)
    videos = ["a", "a", "b", "b"]
    assert not np.array_equal(trace.shares(stage), trace.shares(stage, source_videos=videos))


def test_the_figure_has_every_place_with_its_interval():
    clean = np.zeros((3, 4, 4, 4, 1), np.float32)
    clean[:, 1, 2, 3], clean[:, 3, 0, 0] = 1, 2
    figure = causal_tracing_figure(
        causal_tracing(two_pixels, clean, np.zeros_like(clean), Contrast(0, 1), cells=(4, 2, 2)), "two pixels"
    )
    assert "squares, time step 2 of 4, row 2, column 2: 33 % (33 to 33 %), 3 clips" in figure.svg
    assert figure.svg.count("<title>video, time step") == figure.svg.count("<title>squares, time step") == 2 * 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(corrupted=VIDEO[:2]), "one corrupted clip for each clean one"),
        (dict(corrupted=VIDEO), "scores higher for the clean clips"),
        (dict(stages=["conv"]), "no stage named 'conv'"),
        (dict(cells=(0, 1, 1)), "cannot be cut into"),
    ],
)
def test_errors_say_what_was_expected(change, message):
    arguments = dict(corrupted=-VIDEO, stages=None, cells=None) | change
    logits = np.asarray(tap.compute_logits(small_cnn(), VIDEO))
    with pytest.raises(ValueError, match=message):
        causal_tracing(small_cnn(), VIDEO, target=Contrast(logits.argmax(1), logits.argmin(1)), **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["worlds_cnn", "worlds_swin"])
def test_the_direction_moves_with_the_places_of_the_key(name):
    network, clean = vtcav.load(name), vtcav.worlds.make_clips("small", 16, seed=7)
    other = redraw(redraw(redraw(clean, "direction", 1), "dis_shape", 1), "scene", 1)
    first = network.head_slices["direction"].start
    target = Contrast(first + clean.labels["direction"], first + other.labels["direction"])
    trace = causal_tracing(network, clean.frames, other.frames, target, cells=(8, 1, 1))
    whole = (trace.clean_scores - trace.corrupted_scores).mean()
    video, other_video = (network.clip_spec.normalise(clips.frames) for clips in (clean, other))
    key = clean.masks["key_box"] | other.masks["key_box"]
    stage = tap.stages_of(network.model)[0]
    grid = tap.activations(network.model, video, stage)[1][stage].shape[1:4]
    blocks = [n // cells for n, cells in zip(key.shape[1:], grid)]
    on_key = key.reshape(16, grid[0], blocks[0], grid[1], blocks[1], grid[2], blocks[2]).any((2, 4, 6))
    shares = []
    for places in (on_key, ~on_key):
        scores = lead(target, tap.patch(network.model, other_video, [tap.Patch(stage, video, places)]))
        shares.append((scores - trace.corrupted_scores).mean() / whole)
    assert shares[0] > 0.7 and abs(shares[1]) < 0.2
    over_time = {stage: trace.shares(stage)[:, 0, 0, 0] for stage in trace.patched_scores}
    assert all(0.7 < values.sum() < 1.4 for values in over_time.values()), over_time
    if name == "worlds_swin":  # the last attention has mixed all time steps
        np.testing.assert_allclose(over_time["norm"], 0.25, atol=0.01)
