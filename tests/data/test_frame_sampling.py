"""Frame sampling against an independent implementation of the reference's rules, and by time."""

import itertools
from typing import Any

import numpy as np
import pytest

from vtcav_jax import data, models
from vtcav_jax.clip_spec import ClipSpec

SMALL = ClipSpec(frames=4, size=32, interval=3)
KINETICS = models.get_preset("video_swin_t_k400").clip_spec


def reference_clips(total, frames, interval, clips):
    """Return the clips of Video Swin's test-time sampling, implemented independently."""
    room = total - frames * interval + 1
    starts = [int(room / clips * i + room / clips / 2) if room > 0 else 0 for i in range(clips)]
    return [[(start + interval * i) % total for i in range(frames)] for start in starts]


def evenly(total, rate=25.0):
    return np.arange(total) / rate, total / rate


@pytest.mark.parametrize("clips", [1, 2, 10])
@pytest.mark.parametrize("total", [1, 5, 31, 63, 64, 65, 300])
def test_clips_are_sampled_as_in_the_reference(total, clips):
    chosen = data.select_frames(*evenly(total), KINETICS, n_clips=clips)
    assert chosen.frames.tolist() == reference_clips(total, 32, 2, clips)
    assert chosen.padded == (total < 63)


def test_starts_are_rounded_as_in_the_reference():
    """Halves that floating point rounds down: another order of the same operations differs for 54 of these videos."""
    for total in range(1, 1198):
        chosen = data.select_frames(*evenly(total), KINETICS, n_clips=10).frames
        assert chosen.tolist() == reference_clips(total, 32, 2, 10), total


@pytest.mark.parametrize("total", [3, 32, 33, 100, 257])
def test_uniform_takes_the_middle_of_equal_segments(total):
    geometry = models.get_preset("video_swin_b_ssv2").clip_spec
    chosen = data.select_frames(*evenly(total), geometry)
    edges = [int(np.round((total - 1) / 32 * i)) for i in range(33)]
    assert chosen.frames.tolist() == [[(a + b) // 2 for a, b in itertools.pairwise(edges)]]
    assert chosen.padded == (total < 32)
    several = data.select_frames(*evenly(total), geometry, n_clips=3).frames
    assert (np.diff(several, axis=0) >= 0).all() and several.max() < total
    with pytest.raises(ValueError, match="omit start and interval"):
        data.select_frames(*evenly(total), geometry, start=1)


def test_an_interval_in_seconds_is_independent_of_the_frame_rate():
    moments = [
        data.select_frames(*evenly(10 * rate, rate), SMALL, interval_seconds=0.2, n_clips=3) for rate in (25, 50, 60)
    ]
    for rate, chosen in zip((25, 50, 60), moments):
        # Starts are the middles of three parts of 9.2 s.
        wanted = np.array([[(i + 0.5) * 9.2 / 3 + 0.2 * j for j in range(4)] for i in range(3)])
        lag = wanted - chosen.frames / rate
        assert (lag > -2e-3).all() and (lag < 1 / rate).all() and not chosen.padded
    wrapped = data.select_frames(*evenly(10), SMALL, interval_seconds=0.2, start_seconds=0.2)
    assert wrapped.frames.tolist() == [[5, 0, 5, 0]] and wrapped.padded
    milliseconds = np.round(np.arange(30) * 1000 / 30) / 1000  # rounded as in Matroska
    assert data.select_frames(milliseconds, 1.0, SMALL, start=2, interval_seconds=1 / 30).frames.tolist() == [
        [2, 3, 4, 5]
    ]


def test_random_starts_are_uniform():
    random = np.random.default_rng(0)
    starts = data.select_frames(*evenly(20), SMALL, n_clips=3000, random=random).frames[:, 0]
    assert np.bincount(starts, minlength=9).min() > 250 and starts.max() == 8  # 9 = 20 - 4 * 3 + 1 starts
    short = data.select_frames(*evenly(6), SMALL, n_clips=2, random=random)
    assert short.frames.tolist() == [[0, 3, 0, 3]] * 2 and short.padded
    timed = data.select_frames(*evenly(50), SMALL, n_clips=500, random=random, interval_seconds=0.12).frames
    assert timed.min() == 0 and timed.max() == 46 and set(np.diff(timed).ravel()) == {3}


def test_random_frames_of_segments():
    geometry = ClipSpec(frames=4, size=32, sampling="uniform")
    frames = data.select_frames(*evenly(41), geometry, n_clips=400, random=np.random.default_rng(0)).frames
    for segment in range(4):
        assert set(frames[:, segment]) == set(range(10 * segment, 10 * segment + 10))


def test_a_time_range_is_treated_as_the_whole_video():
    times, duration = evenly(100)
    for sampling in ("clip", "uniform"):
        geometry = ClipSpec(frames=4, size=32, interval=3, sampling=sampling)
        part = data.select_frames(times, duration, geometry, n_clips=2, time_range=(1.0, 2.0))
        alone = data.select_frames(*evenly(25), geometry, n_clips=2)
        np.testing.assert_array_equal(part.frames, alone.frames + 25)
    assert data.select_frames(times, duration, SMALL, time_range=(3.6, 9.0)).frames.tolist() == [[90, 93, 96, 99]]
    assert data.select_frames(times, duration, SMALL, time_range=(1.0, 2.0), start=2).frames.tolist() == [
        [27, 30, 33, 36]
    ]
    clock: dict[str, Any] = dict(start_seconds=0.5, interval_seconds=0.04)
    assert data.select_frames(times, duration, SMALL, time_range=(1.02, 2.0), **clock).frames.tolist() == [
        [38, 39, 40, 41]
    ]
    # Between two frames, the displayed one counts.
    assert data.select_frames(times, duration, SMALL, time_range=(1.021, 1.022)).frames.tolist() == [[25] * 4]
    for time_range, reason in (((2.0, 2.0), "not empty"), ((-1.0, 2.0), "begins at 0"), ((4.0, 5.0), "lasts 4.000 s")):
        with pytest.raises(ValueError, match=reason):
            data.select_frames(times, duration, SMALL, time_range=time_range)


def test_consecutive_clips_follow_each_other():
    spec = ClipSpec(frames=4, size=8, interval=2)
    times = np.arange(35) / 25
    selection = data.select_frames(times, 35 / 25, spec, consecutive=True)
    np.testing.assert_array_equal(selection.frames, np.arange(0, 32, 2).reshape(4, 4))
    assert not selection.padded
    by_time = data.select_frames(times, 35 / 25, spec, consecutive=True, interval_seconds=2 / 25)
    np.testing.assert_array_equal(by_time.frames, selection.frames)
    part = data.select_frames(times, 35 / 25, spec, consecutive=True, time_range=(0.4, 1.2))
    np.testing.assert_array_equal(part.frames, 10 + np.arange(0, 16, 2).reshape(2, 4))
    short = data.select_frames(times[:5], 5 / 25, spec, consecutive=True)
    assert short.frames.tolist() == [[0, 2, 4, 1]] and short.padded
    faults: list[dict[str, Any]] = [{"n_clips": 2}, {"start": 1}, {"random": np.random.default_rng(0)}]
    for wrong in faults:
        with pytest.raises(ValueError, match="consecutive clips begin at the first frame"):
            data.select_frames(times, 35 / 25, spec, consecutive=True, **wrong)
