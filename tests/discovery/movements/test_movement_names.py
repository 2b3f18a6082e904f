"""Names of planted movements, on the right side and in the right direction, and no name where nothing stands out."""

import numpy as np
import pytest

from tests.support.planted_movements import SPAN, pose
from vtcav_jax.discovery.movements.description import mirror_paths
from vtcav_jax.discovery.movements.movement_names import MIXED, name_movement, name_movements
from vtcav_jax.discovery.movements.skeleton import JOINT_INDEX, KEYPOINT_INDICES

STEPS, WINDOWS = 8, 12


def paths_of(movement: str, noise: float = 0.03, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    windows = []
    for _ in range(WINDOWS):
        phase = float(random.random())
        poses = np.stack([pose(movement, i / (SPAN - 1), phase) for i in range(SPAN)])[:, list(KEYPOINT_INDICES)]
        windows.append(poses.reshape(STEPS, -1, len(KEYPOINT_INDICES), 2).mean(1))
    paths = np.stack(windows)
    return paths + random.normal(0, noise, paths.shape)


def move(joints: dict[str, tuple[float, float]], noise: float = 0.02) -> np.ndarray:
    """Return windows in which these joints move evenly by so much, to the right and down."""
    paths = paths_of("stand", noise)
    for joint, change in joints.items():
        paths[:, :, JOINT_INDEX[joint]] += np.linspace(-0.5, 0.5, STEPS)[:, None] * np.array(change)
    return paths


@pytest.mark.parametrize(
    ("movement", "name"),
    [
        ("right arm up", "right wrist up"),
        ("left arm up", "left wrist up"),
        ("right arm down", "right wrist down"),
        ("left arm down", "left wrist down"),
        ("squat", "both knees bend"),
        ("stand up", "both knees straighten"),
        ("walk", "both feet from side to side in turn"),
        ("stand", MIXED),
    ],
)
def test_planted_movements_have_their_names(movement, name):
    assert name_movement(paths_of(movement)) == name


@pytest.mark.parametrize("movement", ["right arm up", "left arm down"])
def test_a_mirrored_movement_is_that_of_the_other_side(movement):
    name = name_movement(paths_of(movement))
    other = name.replace("left", "X").replace("right", "left").replace("X", "right")
    assert name_movement(mirror_paths(paths_of(movement))) == other
    assert name_movement(paths_of(movement), mirrored=True) == f"one wrist {name.split()[-1]}"


@pytest.mark.parametrize(
    ("joints", "name"),
    [
        ({"left wrist": (1.2, 0)}, "left wrist to the picture's right"),
        ({"left wrist": (-1.2, -1.0)}, "left wrist up and to the picture's left"),
        ({"left wrist": (0, -1.0), "right wrist": (0, -0.9)}, "both wrists up"),
        ({"left wrist": (0, -1.0), "right wrist": (0, 0.9)}, "left wrist up, right wrist down"),
        ({"left wrist": (0, -1.0), "right wrist": (0, -0.3)}, "left wrist up"),
        ({"right ankle": (0.1, -0.8)}, "right knee bends"),
        ({"right ankle": (-0.9, 0)}, "right foot to the picture's left"),
        (
            dict.fromkeys(("nose", "left shoulder", "right shoulder", "left wrist", "right wrist"), (0.0, 0.7)),
            "upper body bends down",
        ),
        (
            dict.fromkeys(("nose", "left shoulder", "right shoulder", "left wrist", "right wrist"), (-0.6, 0.0)),
            "upper body leans to the picture's left",
        ),
        ({"left wrist": (0, -1), "right wrist": (1, 0), "left ankle": (1, 0), "right ankle": (0, -1)}, MIXED),
        ({"left elbow": (0.2, 0)}, MIXED),
    ],
)
def test_what_moves_most_is_named(joints, name):
    assert name_movement(move(joints)) == name


def test_windows_that_disagree_have_no_name():
    paths = paths_of("stand")
    angles = np.linspace(0, 2 * np.pi, WINDOWS, endpoint=False)
    ways = np.stack([np.cos(angles), np.sin(angles)], -1)[:, None] * np.linspace(-0.5, 0.5, STEPS)[:, None]
    paths[:, :, JOINT_INDEX["right wrist"]] += ways
    assert name_movement(paths) == MIXED


def test_a_joint_that_few_windows_show_is_not_named():
    paths = paths_of("right arm up")
    paths[:5, :, JOINT_INDEX["right wrist"]] = np.nan
    assert name_movement(paths) == "right wrist up"  # the other windows still agree
    paths[:7, :, JOINT_INDEX["right wrist"]] = np.nan
    assert name_movement(paths) == MIXED


def test_mirrored_names_do_not_say_which_side():
    assert name_movement(move({"right wrist": (-1.0, 0)}), mirrored=True) == "one wrist sideways"
    opposite = move({"left wrist": (0, -1.0), "right wrist": (0, 0.9)})
    assert name_movement(opposite, mirrored=True) == "other wrist up, one wrist down"


def test_equal_names_are_numbered():
    groups = [paths_of("right arm up", seed=seed) for seed in (0, 1)]
    assert name_movements([*groups, paths_of("squat")]) == ["right wrist up", "right wrist up 2", "both knees bend"]
