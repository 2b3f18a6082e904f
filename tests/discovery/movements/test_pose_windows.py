"""Windows of people: where they are, what they do not depend on, and what counts as visible."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.support.planted_movements import SPAN, planted_videos, pose
from vtcav_jax.concepts.boxes import Box
from vtcav_jax.concepts.config import OptionalMiningConfig
from vtcav_jax.discovery.movements.config import MovementConfig
from vtcav_jax.discovery.movements.pose_windows import fill_gaps, find_windows, joint_positions, relative_path
from vtcav_jax.discovery.movements.skeleton import BONES, JOINT_INDEX, JOINTS, MIRROR

CONFIG, MOVEMENT_CONFIG = OptionalMiningConfig(clip_frames=SPAN), MovementConfig()


def moved(box: Box, scale: float, shift: np.ndarray) -> Box:
    """Return the box as another camera shows it."""
    points = np.array(box.keypoints).reshape(-1, 3)
    points[:, :2] = points[:, :2] * scale + shift
    x1, y1, x2, y2 = (float(value) * scale + float(shift[i % 2]) for i, value in enumerate(box.corners))
    return box._replace(keypoints=tuple(points.ravel().tolist()), x1=x1, y1=y1, x2=x2, y2=y2)


def track_boxes(points: np.ndarray, confidence: float | np.ndarray = 0.9) -> list[Box]:
    values = np.concatenate([points, np.broadcast_to(confidence, points.shape[:2])[..., None]], -1)
    return [
        Box(i, 0, "person", 0, 0, 300, 300, 0.9, (), tuple(frame.ravel().tolist())) for i, frame in enumerate(values)
    ]


def standing(n_frames: int) -> np.ndarray:
    return np.stack([pose("stand", 0.0)] * n_frames) * 50 + 200.0


def windows_of(points: np.ndarray, confidence: float | np.ndarray = 0.9, span: int = SPAN):
    (scan,), _ = planted_videos(1, 0)
    scan = replace(scan, boxes=tuple(track_boxes(points, confidence)), end=len(points))
    return find_windows([scan], OptionalMiningConfig(clip_frames=span), MOVEMENT_CONFIG)


def test_paths_do_not_depend_on_place_size_and_camera():
    scans, _ = planted_videos(2, 3, lose_hips=False)
    random = np.random.default_rng(0)
    expected, _ = find_windows(scans, CONFIG, MOVEMENT_CONFIG)
    for scale, speed in ((1.0, 5.0), (2.5, 0.0), (0.6, 20.0)):
        others = []
        for scan in scans:
            shifts = np.cumsum(random.normal(0, speed, (scan.end, 2)), 0) + 30
            others.append(replace(scan, boxes=tuple(moved(box, scale, shifts[box.frame]) for box in scan.boxes)))
        windows, _ = find_windows(others, CONFIG, MOVEMENT_CONFIG)
        assert [w.start for w in windows] == [w.start for w in expected]
        for window, other in zip(windows, expected):
            np.testing.assert_allclose(window.path, other.path, atol=1e-9)


def test_windows_are_centred_on_the_movement_and_do_not_overlap():
    rest, points = standing(40), [pose("right arm up", i / (SPAN - 1)) for i in range(SPAN)]
    up = np.stack(points) * 50 + 200
    held = np.stack([points[-1]] * 40) * 50 + 200
    windows, counts = windows_of(np.concatenate([rest, up, held]))
    assert counts["tracks"] == 1 and not counts["too short"]
    starts = [window.start for window in windows]
    assert 40 in starts and all(later - earlier >= SPAN for earlier, later in pairwise(starts))
    movement = next(window for window in windows if window.start == 40)
    wrist = movement.path[:, JOINT_INDEX["right wrist"]]
    assert wrist[0, 1] > -0.3 and wrist[-1, 1] < -1.7 and movement.path.shape == (8, 13, 2)
    np.testing.assert_allclose(movement.path[:, JOINT_INDEX["left ankle"]], [[0.2, 1.7]] * 8, atol=1e-9)


def test_short_gaps_are_interpolated_and_long_ones_hide_the_joint():
    points = standing(SPAN)
    points[:, 10] += np.linspace(0, 32, SPAN)[:, None]  # right wrist
    confidence = np.full((SPAN, 17), 0.9)
    confidence[5:9, 10] = 0.1
    points[5:9, 10] = 7000.0  # where a network puts what it does not see
    confidence[3:10, 9] = 0.1  # left wrist: longer than a quarter of the window
    (window,), _ = windows_of(points, confidence)
    complete = standing(SPAN)
    complete[:, 10] += np.linspace(0, 32, SPAN)[:, None]
    (expected,), _ = windows_of(complete)
    np.testing.assert_allclose(window.path[:, JOINT_INDEX["right wrist"]], expected.path[:, JOINT_INDEX["right wrist"]])
    assert np.isnan(window.path[:, JOINT_INDEX["left wrist"]]).all()
    assert np.isnan(window.path[..., 0]).any(0).sum() == 1


def test_gaps_at_an_end_are_not_filled():
    positions = np.arange(6, dtype=float)[:, None, None].repeat(13, 1).repeat(2, -1)
    positions[[0, 2, 5], 0] = np.nan
    filled = fill_gaps(positions, 1)
    np.testing.assert_array_equal(filled[:, 0, 0], [np.nan, 1, 2, 3, 4, np.nan])
    np.testing.assert_array_equal(fill_gaps(positions, 0), positions)


def test_gaps_are_interpolated_relative_to_a_hip_since_the_camera_may_move():
    camera = np.array([0.0, 0.0, 40.0, 0.0, 0.0])
    positions = np.zeros((5, 13, 2)) + camera[:, None, None]
    positions[2, [0, JOINT_INDEX["left hip"]]] = np.nan
    assert (fill_gaps(positions, 1)[2] == 40).all()
    positions[2, JOINT_INDEX["right hip"]] = np.nan
    assert (fill_gaps(positions, 1)[2, 0] == 0).all()


def test_one_hip_and_one_shoulder_are_enough_and_losing_one_is_no_movement():
    points, confidence = standing(60), np.full((60, 17), 0.9)
    confidence[20:45, 12] = 0.0  # right hip
    windows, _ = windows_of(points, confidence)
    for window in windows:
        still = window.path - window.path.mean(0)
        assert np.nanmax(np.abs(still)) < 1e-9
    confidence[:, 11] = 0.0
    hidden, _ = windows_of(points, confidence)
    assert all(set(range(w.start, w.start + SPAN)).isdisjoint(range(20, 45)) for w in hidden)
    confidence[:, [11, 12]] = 0.0
    assert windows_of(points, confidence) == ([], {"tracks": 1, "without a visible torso": 1})


def test_tracks_that_are_too_short_or_too_small_or_hardly_visible_are_counted():
    assert windows_of(standing(SPAN - 1)) == ([], {"tracks": 1, "too short": 1})
    assert windows_of(pose("stand", 0.0)[None].repeat(SPAN, 0) * 6 + 50)[1]["without a visible torso"] == 1
    confidence = np.zeros((SPAN, 17))
    confidence[:, [5, 6, 11, 12, 13]] = 0.9
    assert not windows_of(standing(SPAN), confidence)[0]
    confidence[:, 14] = 0.9
    assert len(windows_of(standing(SPAN), confidence)[0]) == 1


def test_frames_and_points_that_are_unknown_are_nan():
    positions = joint_positions([(), (5.0, 6.0, 0.0) * 17, (5.0, 6.0, 0.4) * 17], 0.0)
    assert np.isnan(positions[:2]).all() and (positions[2] == [5, 6]).all()
    assert np.isnan(joint_positions([(5.0, 6.0, 0.4) * 17], 0.5)).all()


def test_a_short_clip_has_a_step_per_frame():
    path = relative_path(joint_positions([box.keypoints for box in track_boxes(standing(5))], 0.3))
    assert path is not None and path.shape == (5, 13, 2)


def test_joints_are_mirrored_to_the_other_side():
    assert [JOINTS[i] for i in MIRROR] == [
        name.replace("left", "X").replace("right", "left").replace("X", "right") for name in JOINTS
    ]
    assert len({frozenset(bone) for bone in BONES}) == len(BONES) == 12


@pytest.mark.parametrize("interval", [1, 2])
def test_windows_are_as_long_as_the_clips(interval):
    scans, _ = planted_videos(1, 0)
    config = OptionalMiningConfig(clip_frames=8, interval=interval)
    windows, _ = find_windows(scans, config, MOVEMENT_CONFIG)
    by_track: dict[int, list[int]] = {}
    for window in windows:
        by_track.setdefault(window.track.number, []).append(window.start)
    assert all(b - a >= config.clip_span for starts in by_track.values() for a, b in pairwise(starts))
