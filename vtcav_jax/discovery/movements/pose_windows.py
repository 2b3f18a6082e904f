"""Clip-long windows of tracked people: positions of their joints relative to the hips, in torso lengths.

Positions relative to the hips depend neither on the person's place in the picture nor on a moving camera, and torso
lengths not on the person's size. A window is placed where the person moves most, so that a movement is in its middle.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax.concepts.boxes import KEYPOINT_COUNT, Keypoints
from vtcav_jax.concepts.config import MiningConfig
from vtcav_jax.concepts.tracks import Track, build_tracks
from vtcav_jax.concepts.video_scan import VideoScan
from vtcav_jax.discovery.movements.config import MovementConfig
from vtcav_jax.discovery.movements.skeleton import HIPS, KEYPOINT_INDICES, SHOULDERS
from vtcav_jax.names import count_noun

MAX_STEPS = 8  # of a path; frames between are averaged
MIN_STEPS = 4
MIN_JOINTS = 6  # visible throughout a window
MAX_GAP_SHARE = 1 / 4  # of a window, up to which a joint that is lost and found again is interpolated
MIN_TORSO_PIXELS = 8

Positions = Float[np.ndarray, "n joints 2"]  # x to the right and y down; NaN where a joint is not visible


@dataclass(frozen=True)
class PoseWindow:
    """A person during one clip."""

    scan: int  # index of the video's scan
    source_video: str
    track: Track
    start: int  # first frame, counted in the track
    path: Float[np.ndarray, "steps joints 2"]  # relative to the hips, in torso lengths; NaN for invisible joints

    def first_frame(self) -> int:
        return self.track.first + self.start


def find_windows(
    scans: Sequence[VideoScan], config: MiningConfig, movement_config: MovementConfig
) -> tuple[list[PoseWindow], Counter[str]]:
    """Return the windows of all people, and the numbers of tracks, also of those without a window, by the reason."""
    windows: list[PoseWindow] = []
    counts: Counter[str] = Counter()
    for i, scan in enumerate(scans):
        for track in build_tracks(scan.boxes, scan.cuts):
            if not any(track.keypoints):
                continue
            counts["tracks"] += 1
            if len(track.boxes) < config.required_track_length:
                counts["too short"] += 1
                continue
            positions = joint_positions(track.keypoints, movement_config.min_keypoint_confidence)
            positions = fill_gaps(positions, int(config.clip_span * MAX_GAP_SHARE))
            new = [
                PoseWindow(i, scan.recording or scan.sha256, track, start, path)
                for start in window_starts(positions, config.clip_span)
                if (path := relative_path(positions[start : start + config.clip_span])) is not None
            ]
            counts["without a visible torso"] += not new
            windows += new
    return windows, counts


def track_counts(counts: Counter[str]) -> str:
    """Return how many tracks there are, and how many have no window for which reason."""
    return (
        f"of {count_noun(counts['tracks'], 'track')} with keypoints, {counts['too short']} are shorter than a clip, and"
        f" {counts['without a visible torso']} do not show a hip and a shoulder, {MIN_TORSO_PIXELS} or more pixels"
        f" apart, and {MIN_JOINTS} joints for that long"
    )


def joint_positions(keypoints: Sequence[Keypoints], min_confidence: float) -> Positions:
    """Return the joints in each frame, in pixels; NaN where the confidence is too low or the frame has no keypoints."""
    nothing = (0.0,) * (3 * KEYPOINT_COUNT)
    values = np.array([frame or nothing for frame in keypoints], float).reshape(len(keypoints), KEYPOINT_COUNT, 3)
    values = values[:, KEYPOINT_INDICES]
    # A confidence of 0 stands for an unknown point, whatever the minimum
    is_visible = (values[..., 2] >= min_confidence) & (values[..., 2] > 0)
    return np.where(is_visible[..., None], values[..., :2], np.nan)


def fill_gaps(positions: Positions, max_gap: int) -> Positions:
    """Interpolate joints that are invisible in at most `max_gap` consecutive frames, between frames that show them.

    Positions relative to a hip are interpolated, as long as one is visible, since the camera may move in the gap.
    """
    filled = positions.copy()
    for joint in sorted(range(positions.shape[1]), key=lambda joint: joint not in HIPS):
        known = np.flatnonzero(~np.isnan(positions[:, joint, 0]))
        for before, after in pairwise(known.tolist()):
            if 1 < after - before <= max_gap + 1:
                anchor = _visible_hip(filled[before : after + 1], joint)
                relative = filled[before : after + 1, joint] - anchor
                share = np.linspace(0, 1, after - before + 1)[:, None]
                filled[before : after + 1, joint] = (1 - share) * relative[0] + share * relative[-1] + anchor
    return filled


def _visible_hip(positions: Positions, joint: int) -> Float[np.ndarray, "n 2"]:
    """Return the positions of a hip, other than the joint, that is visible in all of these frames; 0 if none is."""
    hips = [hip for hip in HIPS if hip != joint and not np.isnan(positions[:, hip]).any()]
    return positions[:, hips[0]] if hips else np.zeros((len(positions), 2))


def window_starts(positions: Positions, span: int) -> list[int]:
    """Return the starts of windows that do not overlap, chosen by decreasing movement around their middle."""
    usable = _all_visible(positions, HIPS, span) & _all_visible(positions, SHOULDERS, span)
    # Movement at the middle counts most; the ends of the curve are above 0 so that every frame counts
    weights = np.hanning(span + 2)[1:-1]
    scores = np.correlate(_speeds(positions, span), weights, "valid")
    starts: list[int] = []
    is_free = usable.copy()
    for start in np.lexsort((np.arange(len(scores)), -scores)).tolist():
        if is_free[start]:
            starts.append(start)
            is_free[max(start - span + 1, 0) : start + span] = False
    return sorted(starts)


def _all_visible(positions: Positions, joints: Sequence[int], span: int) -> Bool[np.ndarray, " starts"]:
    """Return where a window shows at least one of the joints in all of its frames."""
    is_visible = ~np.isnan(positions[:, list(joints), 0])
    sums = np.concatenate([np.zeros((1, len(joints)), int), np.cumsum(is_visible, 0)])
    return (sums[span:] - sums[:-span] == span).any(1)


def _speeds(positions: Positions, span: int) -> Float[np.ndarray, " n"]:
    """Return the squared speed of all joints relative to the hips in each frame, over an eighth of a window each way.

    The speed of the hips is the mean of those that are visible, so that losing one of them is no movement.
    """
    frames, reach = np.arange(len(positions)), max(1, span // 8)
    later, earlier = np.minimum(frames + reach, len(positions) - 1), np.maximum(frames - reach, 0)
    moves = (positions[later] - positions[earlier]) / np.maximum(later - earlier, 1)[:, None, None]
    hip_moves = moves[:, list(HIPS)]
    n_hips = np.maximum((~np.isnan(hip_moves)).sum(1, keepdims=True), 1)
    moves = moves - np.nansum(hip_moves, 1, keepdims=True) / n_hips
    return np.nansum(moves**2, axis=(1, 2))


def relative_path(positions: Positions) -> Float[np.ndarray, "steps joints 2"] | None:
    """Return the path of each joint relative to the hips, in median torso lengths; None if too little is visible.

    Of hips and shoulders, those count that are visible throughout.
    """
    is_visible: Bool[np.ndarray, " joints"] = np.all(np.isfinite(positions[..., 0]), axis=0)
    hips, shoulders = ([joint for joint in pair if is_visible[joint]] for pair in (HIPS, SHOULDERS))
    if not (hips and shoulders) or is_visible.sum() < MIN_JOINTS:
        return None
    centre = positions[:, hips].mean(1, keepdims=True)
    torso = float(np.median(np.linalg.norm(positions[:, shoulders].mean(1) - centre[:, 0], axis=-1)))
    if torso < MIN_TORSO_PIXELS:
        return None
    relative = np.where(is_visible[None, :, None], (positions - centre) / torso, np.nan)
    return np.stack([part.mean(0) for part in np.array_split(relative, min(MAX_STEPS, len(relative)))])


def stack_paths(windows: Sequence[PoseWindow]) -> Float[np.ndarray, "w steps joints 2"]:
    return np.stack([window.path for window in windows])


def group_by_scan(windows: Sequence[PoseWindow]) -> Iterator[tuple[int, list[int]]]:
    """Yield each scan's index with the positions of its windows."""
    groups: dict[int, list[int]] = {}
    for position, window in enumerate(windows):
        groups.setdefault(window.scan, []).append(position)
    yield from groups.items()
