"""People with planted movements: keypoints with noise, gaps, places, sizes and moving cameras, in several videos.

Each person does several things in random order, goes back, and holds still between. All face the camera, so that their
own left is at the picture's right.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtcav_jax.concepts.boxes import KEYPOINT_COUNT, Box
from vtcav_jax.concepts.video_scan import VideoScan

SPAN, REST = 16, 20  # frames of a movement, and of holding still between two
HEIGHT, WIDTH = 480, 640
ACTIONS = {  # what people do, and how they go back
    "right arm": ("right arm up", "right arm down"),
    "left arm": ("left arm up", "left arm down"),
    "squat": ("squat", "stand up"),
    "walk": ("walk",),
}
MOVEMENTS = tuple(movement for ways in ACTIONS.values() for movement in ways)
KEYPOINTS = (
    *("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow"),
    *("right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle"),
    "right ankle",
)
STANDING = {  # of the left side, x to the right and y down, in lengths of the torso; the hips' middle is at (0, 0)
    **{"nose": (0.0, -1.4), "eye": (0.06, -1.47), "ear": (0.12, -1.45), "shoulder": (0.33, -1.0)},
    **{"hip": (0.18, 0.0), "knee": (0.2, 0.85), "ankle": (0.2, 1.7)},
}
UPPER_ARM, LOWER_ARM = 0.55, 0.5


@dataclass(frozen=True)
class PlantedSegment:
    """What the person with this track does in these frames of a video."""

    video: int
    track: int
    frames: range
    movement: str


def pose(movement: str, share: float, phase: float = 0.0) -> np.ndarray:
    """Return the 17 keypoints at this share of a movement, from 0 to 1, in torso lengths."""
    eased = share * share * (3 - 2 * share)
    raised = {"left": 0.0, "right": 0.0}  # share of a half turn of each arm
    if " arm " in movement:
        side, _, way = movement.partition(" arm ")
        raised[side] = eased if way == "up" else 1 - eased
    swing = 0.45 * np.sin(2 * np.pi * (2 * share + phase)) if movement == "walk" else 0.0
    crouch = {"squat": eased, "stand up": 1 - eased}.get(movement, 0.0)
    points = {}
    for sign, side in ((1, "left"), (-1, "right")):
        mirror = np.array([sign, 1.0])
        body = {name: np.array(place) * mirror for name, place in STANDING.items()}
        angle = 0.1 + raised[side] * 0.9 * np.pi
        reach = np.array([sign * np.sin(angle), np.cos(angle)])
        arm_swing = np.array([-sign * swing * 0.4, 0.0])
        body["elbow"] = body["shoulder"] + UPPER_ARM * reach + arm_swing / 2
        body["wrist"] = body["elbow"] + LOWER_ARM * reach + arm_swing / 2
        leg_swing = np.array([sign * swing, 0.0])
        body["knee"] = body["knee"] + leg_swing / 2 + np.array([sign * 0.25, -0.25]) * crouch
        body["ankle"] = body["ankle"] + leg_swing + np.array([0.0, -0.8]) * crouch
        points |= {f"{side} {name}": place for name, place in body.items()}
    points["nose"] = np.array(STANDING["nose"])
    return np.stack([points[name] for name in KEYPOINTS])


def planted_videos(
    n_videos: int,
    seed: int,
    *,
    noise: float = 0.03,
    missing_share: float = 0.03,
    people: int = 2,
    actions: tuple[str, ...] = tuple(ACTIONS),
    camera: bool = True,
    lose_hips: bool = True,
) -> tuple[list[VideoScan], list[PlantedSegment]]:
    """Return scans of videos with people who do the actions in random order, and what they do when.

    `noise` is the standard deviation of a keypoint in torso lengths. Keypoints are lost for 1 to 3 frames, starting in
    `missing_share` of the frames, and then have a place far away and a low confidence.
    """
    random = np.random.default_rng(seed)
    scans, segments = [], []
    for video in range(n_videos):
        boxes: list[Box] = []
        n_frames = 0
        for track in range(people):
            order = [movement for action in random.permutation(actions) for movement in ACTIONS[str(action)]]
            poses, place = _perform(order, random), REST
            for movement in order:
                segments.append(PlantedSegment(video, track, range(place, place + SPAN), movement))
                place += SPAN + REST
            boxes += _observe(poses, track, random, noise, missing_share, camera, lose_hips)
            n_frames = max(n_frames, len(poses))
        boxes.sort(key=lambda box: box.frame)
        name = f"video{video}.mp4"
        scans.append(VideoScan(name, Path(name), f"{seed}-{video}", 0, n_frames, HEIGHT, WIDTH, 25.0, (), tuple(boxes)))
    return scans, segments


def _perform(order: list[str], random: np.random.Generator) -> np.ndarray:
    """Return the poses of all frames; between two movements the pose is held, after walking that of standing."""
    poses = [pose("stand", 0.0)] * REST
    for movement in order:
        phase = float(random.random())
        poses += [pose(movement, i / (SPAN - 1), phase) for i in range(SPAN)]
        poses += [pose(movement, 1.0, phase) if movement != "walk" else pose("stand", 0.0)] * REST
    return np.stack(poses)


def _observe(
    poses: np.ndarray,
    track: int,
    random: np.random.Generator,
    noise: float,
    missing_share: float,
    camera: bool,
    lose_hips: bool,
) -> list[Box]:
    n = len(poses)
    size = float(random.uniform(25, 70))
    centre = np.array([random.uniform(120, WIDTH - 120), random.uniform(180, HEIGHT - 180)])
    speed = random.uniform(-0.6, 0.6, 2) if camera else np.zeros(2)
    shake = np.cumsum(random.normal(0, 0.5 if camera else 0.0, (n, 2)), 0)
    points = size * (poses + random.normal(0, noise, poses.shape)) + centre
    points = points + speed * np.arange(n)[:, None, None] + shake[:, None]
    confidence = random.uniform(0.6, 1.0, (n, KEYPOINT_COUNT))
    shares = np.where([lose_hips or "hip" not in name for name in KEYPOINTS], missing_share, 0.0)
    for frame, joint in np.argwhere(random.random((n, KEYPOINT_COUNT)) < shares):
        lost = slice(frame, frame + int(random.integers(1, 4)))
        confidence[lost, joint] = 0.1
        points[lost, joint] += random.normal(0, 3 * size, points[lost, joint].shape)
    boxes = []
    for frame in range(n):
        known = points[frame][confidence[frame] > 0.3]
        (x1, y1), (x2, y2) = np.clip(known.min(0), 0, None).tolist(), known.max(0).tolist()
        keypoints = np.concatenate([points[frame], confidence[frame][:, None]], 1).ravel()
        corners = (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))
        boxes.append(Box(frame, track, "person", *corners, 0.9, keypoints=tuple(np.round(keypoints, 3).tolist())))
    return boxes


def planted_label(segments: list[PlantedSegment], video: int, track: int, frames: range) -> str:
    """Return the movement that fills most of the frames, `still` if there is none in half of them."""
    best, label = len(frames) / 2, "still"
    for segment in segments:
        if (segment.video, segment.track) == (video, track):
            shared = len(range(max(segment.frames.start, frames.start), min(segment.frames.stop, frames.stop)))
            if shared >= best:
                best, label = shared, segment.movement
    return label
