"""Sensitivity to time over depth, of a network that reads rises of brightness from one stage on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtcav_jax.adapters import from_function
from vtcav_jax.attribution.motion.reliance import TIME_EDITS
from vtcav_jax.attribution.motion.time_sensitivity import depth_stages, sensitivity_rows, time_edits, time_sensitivity
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.runs.time_sensitivity_rows import ACTIVATION_CHANGE, CARRIED_SCORE, SCORE_LOSS
from vtcav_jax.tap import identity_tap

CLIPS = np.random.default_rng(0).integers(0, 256, (6, 4, 2, 2, 3)).astype(np.uint8)
VIDEOS = ("a", "a", "b", "c", "d", "d")


def brightness_network(video, tap=identity_tap):
    """Score rises and falls of brightness from frame to frame, and the brightness of all frames."""
    x = tap("blocks.0", jnp.concatenate([video, video**2], -1))
    steps = jnp.pad(x[:, 1:, ..., :1] - x[:, :-1, ..., :1], ((0, 0), (0, 1), (0, 0), (0, 0), (0, 0)))
    x = tap("blocks.1", jnp.concatenate([jax.nn.relu(steps), jax.nn.relu(-steps), x[..., 1:2]], -1))
    pooled = tap("pool", x.sum((1, 2, 3)))
    return jnp.stack([pooled[:, 0], pooled[:, 1], 3 * pooled[:, 2], -pooled[:, 2]], -1)


NETWORK = from_function(
    brightness_network,
    clip=ClipSpec(frames=4, size=2),
    classes={"motion": ("rises", "falls"), "appearance": ("bright", "dark")},
)


@pytest.fixture(scope="module")
def sensitivity():
    return time_sensitivity(NETWORK, CLIPS, stages=["*"], source_videos=VIDEOS, shuffles=3, seed=2, batch_size=4)


def logits_of(clips, order):
    return np.asarray(brightness_network(jnp.asarray(NETWORK.clip_spec.normalise(clips))[:, order]))


def signs():
    """Return 1 for clips that the network calls rising, -1 for falling."""
    logits = logits_of(CLIPS, np.arange(4))
    return np.where(logits[:, 0] > logits[:, 1], 1, -1)


def values(rows, quantity, stage, target="", channel=-1):
    matching = [r for r in rows if (r.quantity, r.stage, r.target, r.channel) == (quantity, stage, target, channel)]
    return {row.edit: row.value for row in matching if not row.answer}


def test_a_stage_of_single_frames_does_not_change_and_later_stages_do(sensitivity):
    rows = sensitivity_rows(sensitivity)
    assert max(values(rows, ACTIVATION_CHANGE, "blocks.0").values()) < 1e-9
    assert min(values(rows, ACTIVATION_CHANGE, "blocks.1").values()) > 0.01
    assert min(values(rows, ACTIVATION_CHANGE, "blocks.1", channel=0).values()) > 0.01  # rises
    assert max(values(rows, ACTIVATION_CHANGE, "blocks.1", channel=2).values()) < 1e-9  # brightness


def test_the_score_depends_on_time_until_motion_is_read(sensitivity):
    rows = sensitivity_rows(sensitivity)
    at_input = values(rows, SCORE_LOSS, "video", "motion")
    at_frames = values(rows, SCORE_LOSS, "blocks.0", "motion")
    assert at_input["frozen"] == pytest.approx(1, abs=1e-6) and set(at_input) == set(TIME_EDITS)
    assert at_frames == pytest.approx(at_input, abs=1e-5)
    for stage, target in (("blocks.1", "motion"), ("pool", "motion"), ("video", "appearance")):
        assert values(rows, SCORE_LOSS, stage, target) == pytest.approx(dict.fromkeys(TIME_EDITS, 0), abs=1e-5)


def test_scores_equal_the_logits_of_edited_clips(sensitivity):
    evidence = [clip for clip in sensitivity.evidence["video"] if clip.row.target == "motion"]
    for edit, orders in time_edits(4, 3, 2).items():
        logits = np.mean([logits_of(CLIPS, order) for order in orders], 0)
        scores = [getattr(clip.row, f"score_{edit}") for clip in evidence]
        np.testing.assert_allclose(scores, signs() * (logits[:, 0] - logits[:, 1]), rtol=1e-5, atol=1e-5)
    assert [clip.row.source_video for clip in evidence] == list(VIDEOS)


def test_channels_carry_the_score_and_lose_it(sensitivity):
    """First-order estimates are exact, since the network is linear from this stage on."""
    channels = sensitivity.channels["blocks.1"]
    logits = logits_of(CLIPS, np.arange(4)).astype(np.float64)
    others = np.array([[a != b for b in VIDEOS] for a in VIDEOS])
    rises = logits[:, 0]
    carried = signs() * (rises - others @ rises / others.sum(1))
    np.testing.assert_allclose(channels.carried["motion"][:, 0], carried, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(channels.carried["motion"][:, 2], 0, atol=1e-6)
    for edit, orders in time_edits(4, 3, 2).items():
        edited = np.mean([logits_of(CLIPS, order) for order in orders], 0)
        lost = signs() * (logits[:, 0] - logits[:, 1] - (edited[:, 0] - edited[:, 1]))
        np.testing.assert_allclose(channels.removed["motion", edit].sum(1), lost, rtol=1e-4, atol=1e-5)
    rows = sensitivity_rows(sensitivity, max_channels=1)
    listed = {row.channel for row in rows if (row.stage, row.target) == ("blocks.1", "motion")} - {-1}
    assert listed == {int(channels.carried["motion"].mean(0).argmax())}
    assert set(values(rows, CARRIED_SCORE, "blocks.1", "motion", listed.pop())) == {""}


def test_distances_are_those_to_clips_of_other_videos(sensitivity):
    video = np.asarray(NETWORK.clip_spec.normalise(CLIPS), np.float64).mean(1)
    for i, own in enumerate(VIDEOS):
        others = video[[name != own for name in VIDEOS]]
        expected = ((others - video[i]) ** 2).sum((1, 2)).mean(0)
        np.testing.assert_allclose(sensitivity.channels["blocks.0"].distances[i, :3], expected, rtol=1e-5)


def test_the_default_stages_are_those_that_no_connection_bypasses():
    assert depth_stages(NETWORK) == ("blocks.0", "blocks.1", "pool")


def test_orders_of_an_edit():
    orders = time_edits(2, 5, 0)
    assert (orders["shuffled"] == [1, 0]).all()  # never the original order
    assert orders["frozen"].tolist() == [[0, 0], [1, 1]] and orders["reversed"].tolist() == [[1, 0]]
    assert time_edits(32, 1, 0)["frozen"][:, 0].tolist() == [0, 4, 9, 13, 18, 22, 27, 31]


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="got 6 clips and 1 source videos"):
        time_sensitivity(NETWORK, CLIPS, source_videos=["a"] * 6)
    with pytest.raises(ValueError, match="no head named 'motions'"):
        time_sensitivity(NETWORK, CLIPS, ["motions"])
