"""Clusters of planted movements: recovered, named, independent of the camera, and honest about few or noisy videos."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.planted_movements import SPAN, planted_label, planted_videos
from vtcav_jax.concepts.config import OptionalMiningConfig
from vtcav_jax.discovery.movements import clusters as clusters_module
from vtcav_jax.discovery.movements.clusters import cluster_features, measure_cluster_stability, silhouettes
from vtcav_jax.discovery.movements.config import MovementConfig
from vtcav_jax.discovery.movements.description import describe_movements, mirror_paths, movement_sizes
from vtcav_jax.discovery.movements.movement_clusters import CONCEPT, RESERVED, Movements, concept_names, find_movements
from vtcav_jax.discovery.movements.pose_windows import PoseWindow, find_windows, stack_paths
from vtcav_jax.settings import SettingError
from vtcav_jax.stats.partitions import adjusted_rand_ci

CONFIG = OptionalMiningConfig(clip_frames=SPAN)
NAMES = {
    "right arm up": "right wrist up",
    "right arm down": "right wrist down",
    "left arm up": "left wrist up",
    "left arm down": "left wrist down",
    "squat": "both knees bend",
    "stand up": "both knees straighten",
    "walk": "both feet from side to side in turn",
}


def movements_of(videos: tuple, **settings: Any) -> tuple[list[PoseWindow], Movements, list[str]]:
    """Return the windows, the clusters, and what is planted in each window."""
    scans, segments = videos
    movement_config = MovementConfig(**dict[str, Any](num_movements=7, min_source_videos=3) | settings)
    windows, counts = find_windows(scans, CONFIG, movement_config)
    movements = find_movements(scans, windows, counts, CONFIG, movement_config)
    planted = [
        planted_label(segments, w.scan, w.track.number, range(w.first_frame(), w.first_frame() + SPAN)) for w in windows
    ]
    return windows, movements, planted


@pytest.fixture(scope="module")
def videos():
    return planted_videos(8, 0)


@pytest.fixture(scope="module")
def planted(videos):
    return movements_of(videos)


def agreement(windows, movements, labels) -> tuple[float, float, float]:
    names = sorted(set(labels))
    known = np.array([names.index(label) for label in labels])
    clusters = np.array([row.cluster + 1 for row in movements.windows])
    return adjusted_rand_ci(known, clusters, [window.source_video for window in windows])


def test_planted_movements_are_recovered(planted):
    estimate, low, _ = agreement(*planted)
    assert estimate > 0.95 and low > 0.9


def test_clusters_have_the_names_of_what_is_planted(planted):
    _, movements, labels = planted
    for row in movements.rows:
        members = Counter(label for label, window in zip(labels, movements.windows) if window.cluster == row.cluster)
        label, n = members.most_common(1)[0]
        assert row.movement == row.concept == NAMES[label] and n >= 0.9 * row.windows
        assert row.silhouette_low <= row.silhouette <= row.silhouette_high
        assert row.stability > 0.8 and row.stability_low <= row.stability <= row.stability_high
    assert len(movements.concepts) == 7 and movements.rand_index[0] > 0.8
    still = Counter(label for label, window in zip(labels, movements.windows) if window.cluster == -1)
    assert still["still"] > 0.95 * still.total()


def test_place_size_and_camera_do_not_matter(planted):
    _, expected, _ = planted
    windows, movements, labels = movements_of(planted_videos(8, 0, camera=False))
    assert {row.movement for row in movements.rows} == {row.movement for row in expected.rows}
    assert agreement(windows, movements, labels)[0] > 0.95


def test_a_mirrored_video_has_the_movements_of_the_other_side(planted):
    windows, expected, _ = planted
    mirrored = [replace(w, path=mirror_paths(w.path[None])[0]) for w in windows]
    movements = find_movements(
        [fake_scan(w.scan) for w in windows], mirrored, Counter(), CONFIG, MovementConfig(num_movements=7)
    )
    swapped = {
        name.replace("left", "X").replace("right", "left").replace("X", "right")
        for name in (row.movement for row in expected.rows)
    }
    assert {row.movement for row in movements.rows} == swapped == set(NAMES.values())


def fake_scan(i: int):
    return planted_videos(1, i, people=0)[0][0]


def test_mirrored_sides_are_one_movement(videos):
    _, movements, labels = movements_of(videos, movement_sides="mirrored", num_movements=5)
    names = {row.movement for row in movements.rows}
    assert {"one wrist up", "one wrist down", "both knees bend", "both knees straighten"} < names
    up = next(row.cluster for row in movements.rows if row.movement == "one wrist up")
    members = Counter(label for label, window in zip(labels, movements.windows) if window.cluster == up)
    assert set(members) == {"left arm up", "right arm up"} and movements.mirrored


def test_a_movement_in_few_videos_is_dropped_and_counted():
    scans, segments = planted_videos(6, 1, actions=("right arm",))
    more, further = planted_videos(2, 2, actions=("squat",))
    scans += [replace(scan, name=f"more {scan.name}", sha256=f"more {scan.sha256}") for scan in more]
    segments += [replace(segment, video=segment.video + 6) for segment in further]
    _, movements, _ = movements_of((scans, segments), num_movements=4, min_source_videos=4)
    assert {row.concept for row in movements.concepts} == {"right wrist up", "right wrist down"}
    assert {row.movement for row in movements.rows if not row.concept} == {"both knees bend", "both knees straighten"}
    (note,) = (note for note in movements.notes if "dropped" in note)
    assert note.startswith("2 movements of 4 dropped, in fewer than 4 source videos: ") and "both knees bend" in note
    assert {row.use for row in movements.windows if row.source_video.startswith("more")} <= {
        "still",
        "between clusters",
        "too few source videos",
    }


def test_recordings_count_as_source_videos(videos):
    scans, segments = videos
    cuts = [replace(scan, recording=f"match {i // 4}") for i, scan in enumerate(scans)]
    _, movements, _ = movements_of((cuts, segments), min_source_videos=1)
    assert {row.source_videos for row in movements.rows} == {2}
    with pytest.raises(ValueError, match=r"none of 7 movements is in at least 3 source videos of 2; use more videos"):
        movements_of((cuts, segments))


def test_a_third_of_each_movement_is_reserved_for_random_sets(planted):
    _, movements, _ = planted
    for row in movements.concepts:
        uses = Counter(window.use for window in movements.windows if window.cluster == row.cluster)
        assert uses[CONCEPT] == row.concept_windows and uses[RESERVED] == (uses[CONCEPT] + uses[RESERVED]) // 3
    names = concept_names(movements)
    assert all(movements.windows[i].use == CONCEPT and movements.windows[i].silhouette > 0 for i in names)


def test_noise_and_unrelated_movements_are_not_stable(planted):
    windows, _, _ = planted
    random = np.random.default_rng(0)
    noise = [replace(w, path=w.path + random.normal(0, 1, w.path.shape)) for w in windows]
    movements = find_movements([fake_scan(0)] * len(windows), noise, Counter(), CONFIG, MovementConfig(num_movements=7))
    assert movements.rand_index[0] < 0.3 and max(row.stability for row in movements.rows) < 0.6
    assert {row.movement.rstrip(" 0123456789") for row in movements.rows if row.concept} != set(NAMES.values())
    (note,) = (note for note in movements.notes if "stability under 0.6" in note)
    assert note.startswith("7 movements with a stability under 0.6")


def test_few_windows_give_fewer_clusters_and_none_is_an_error(videos):
    scans, segments = videos
    _, movements, _ = movements_of((scans[:1], segments), min_source_videos=1, num_movements=20)
    assert len(movements.rows) == 3 and "3 clusters instead of 20" in " ".join(movements.notes)
    assert all(np.isnan(row.silhouette_low) for row in movements.rows)
    assert all(np.isnan(row.stability) for row in movements.rows) and np.isnan(movements.rand_index).all()
    with pytest.raises(ValueError, match=r"people move by at least 5 torso lengths in 0 of \d+ windows; expected"):
        movements_of(videos, min_movement=5.0)


def test_clusters_do_not_depend_on_the_run(videos, planted):
    _, again, _ = movements_of(videos)
    assert str(again.windows) == str(planted[1].windows) and again.rows == planted[1].rows and len(again.rows) == 7


def test_silhouettes_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="the reference needs scikit-learn")
    random = np.random.default_rng(0)
    features, clusters = random.normal(size=(40, 6)), np.repeat([0, 1, 2, 3], [20, 10, 9, 1])
    features[:20] += 2
    expected = metrics.silhouette_samples(features, clusters, metric="cosine")
    np.testing.assert_allclose(silhouettes(features, clusters), expected, atol=1e-9)
    assert not silhouettes(features, np.zeros(40, int)).any()


def test_stability_is_over_source_videos(monkeypatch):
    """Clusters of one video each are clear within any resample of windows, but not of videos."""
    monkeypatch.setattr(clusters_module, "RESAMPLES", 12)
    random = np.random.default_rng(0)
    centres = np.eye(4, 8) * 5
    videos = np.repeat(np.arange(4), 25)
    features = centres[videos] + random.normal(0, 0.2, (100, 8))
    clusters = cluster_features(features, 4, 0)
    assert len({(int(c), int(v)) for c, v in zip(clusters, videos)}) == 4
    by_video = measure_cluster_stability(features, clusters, 4, [f"video {v}" for v in videos], 0)
    by_window = measure_cluster_stability(features, clusters, 4, [f"video {i}" for i in range(100)], 0)
    assert by_window.rand_index[0] > 0.95 > by_video.rand_index[0]
    assert by_window.overlaps[:, 0].min() > 0.95 > by_video.overlaps[:, 0].max()


def test_the_phase_of_a_repeated_movement_does_not_matter():
    times = np.arange(8) / 8
    phases = np.linspace(0, 1, 12, endpoint=False)[:, None]
    paths = np.zeros((12, 8, 13, 2))
    paths[:, :, 9, 0] = np.cos(2 * np.pi * (2 * times + phases))
    features = describe_movements(paths)
    signed, fast = features[:, : 2 * 26], features[:, 2 * 26 :]
    assert np.abs(signed).max() < 0.4 and np.abs(fast).max() < 0.1  # relative to the mean of all windows
    larger = describe_movements(3 * paths)
    np.testing.assert_allclose(larger, features, atol=1e-12)
    np.testing.assert_allclose(movement_sizes(paths), np.sqrt(0.5), atol=0.01)


def test_invisible_joints_count_as_at_rest(planted):
    paths = stack_paths(planted[0])
    hidden = paths.copy()
    hidden[:, :, 3] = np.nan
    hidden_features = describe_movements(hidden)
    assert np.isfinite(hidden_features).all() and not hidden_features.reshape(len(paths), 3, 13, 2)[:, :, 3].any()


def test_settings_are_checked():
    with pytest.raises(SettingError, match="num_movements: expected at least 1"):
        MovementConfig(num_movements=0)
    with pytest.raises(SettingError, match="movement_sides: expected one of separate, mirrored"):
        MovementConfig(movement_sides="both")
