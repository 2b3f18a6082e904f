"""Scans in which the boxes of a window have the name of its movement as their label, so that mining cuts its clips.

Each window becomes a track of its own. Those that show no movement keep the person's label, and can be random clips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vtcav_jax.concepts.boxes import Box
from vtcav_jax.concepts.video_scan import VideoScan
from vtcav_jax.discovery.movements.pose_windows import PoseWindow, group_by_scan


def relabel_scans(
    scans: Sequence[VideoScan], windows: Sequence[PoseWindow], names: Mapping[int, str], span: int
) -> list[VideoScan]:
    """Return the scans with the windows as tracks; `names` are those of the windows that show a movement."""
    relabelled = list(scans)
    for i, positions in group_by_scan(windows):
        boxes = scans[i].boxes
        in_windows = {
            (windows[p].track.number, frame)
            for p in positions
            for frame in range(windows[p].first_frame(), windows[p].first_frame() + span)
        }
        others = [box for box in boxes if (box.track, box.frame) not in in_windows]
        number = max((box.track for box in boxes if box.track is not None), default=0) + 1
        tracks = [
            box
            for j, p in enumerate(positions)
            for box in _window_boxes(windows[p], names.get(p, windows[p].track.label), number + j, span)
        ]
        relabelled[i] = replace(scans[i], boxes=tuple(sorted([*others, *tracks], key=lambda box: box.frame)))
    return relabelled


def _window_boxes(window: PoseWindow, label: str, number: int, span: int) -> list[Box]:
    """Return one box per frame of a window, also where the detector missed the person."""
    track, boxes = window.track, []
    for i in range(window.start, window.start + span):
        x1, y1, x2, y2 = track.boxes[i].tolist()
        outline = track.outlines[i] if track.outlines else ()
        boxes.append(Box(track.first + i, number, label, x1, y1, x2, y2, float(track.confidence[i]), outline))
    return boxes
