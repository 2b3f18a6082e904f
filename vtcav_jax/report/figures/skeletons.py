"""Mean skeletons of a movement over time: one stick figure per step, the person's right side in another colour."""

import numpy as np
from jaxtyping import Float

from vtcav_jax.discovery.movements.skeleton import BONES, JOINT_INDEX, JOINTS, SHOULDERS
from vtcav_jax.report.figures.svg import Canvas, Figure

TORSO = 42  # pixels
MARGIN, LEGEND_HEIGHT, TIME_HEIGHT = 14, 24, 22
MIN_CELL_WIDTH = 62
MARKED_JOINTS = ("left wrist", "right wrist", "left ankle", "right ankle")
SIDE_CLASSES = {"left": "one", "right": "two"}


def skeleton_figure(name: str, path: Float[np.ndarray, "steps joints 2"], caption: str, *, mirrored: bool) -> Figure:
    """Draw the mean position of each joint at each step, with the ways of hands and feet up to then."""
    visible = path[:, ~np.isnan(path).any((0, 2))]
    low, high = (visible.min((0, 1)), visible.max((0, 1))) if visible.size else (np.zeros(2), np.ones(2))
    width, height = ((high - low) * TORSO).tolist()
    cell = max(width + MARGIN, MIN_CELL_WIDTH)
    total = round(2 * MARGIN + cell * len(path))
    bottom = LEGEND_HEIGHT + MARGIN + height
    canvas = Canvas(max(total, 430), round(bottom + TIME_HEIGHT))
    sides = ("less active side", "more active side") if mirrored else ("the person's left", "the person's right")
    for x, (side_class, text) in zip((MARGIN, 170), zip(SIDE_CLASSES.values(), sides)):
        canvas.line(x, 12, x + 18, 12, f"bar {side_class}")
        canvas.text(x + 24, 16, text, "soft")
    for step in range(len(path)):
        offset = np.array([MARGIN + cell * step + (cell - width) / 2, LEGEND_HEIGHT]) - low * TORSO
        _draw_ways(canvas, path[: step + 1] * TORSO + offset)
        _draw_person(canvas, path[step] * TORSO + offset)
    baseline = bottom + 14
    canvas.text(MARGIN, baseline, "start", "soft")
    canvas.text(MARGIN + cell * len(path), baseline, "end", "soft", anchor="end")
    return canvas.figure(name, f"{name}: {caption}")


def _side_class(joint: int) -> str:
    return next((css for side, css in SIDE_CLASSES.items() if JOINTS[joint].startswith(side)), "ink")


def _draw_ways(canvas: Canvas, positions: Float[np.ndarray, "steps joints 2"]) -> None:
    for name in MARKED_JOINTS:
        way = positions[:, JOINT_INDEX[name]]
        if len(way) > 1 and not np.isnan(way).any():
            canvas.path([(x, y) for x, y in way.tolist()], f"thin unsure {_side_class(JOINT_INDEX[name])}")


def _draw_person(canvas: Canvas, points: Float[np.ndarray, "joints 2"]) -> None:
    places = [(x, y) if np.isfinite([x, y]).all() else None for x, y in points.tolist()]
    for a, b in BONES:
        if (start := places[a]) and (end := places[b]):
            same_side = _side_class(a) == _side_class(b)
            canvas.line(*start, *end, f"bar {_side_class(a) if same_side else 'ink'}")
    if nose := places[JOINT_INDEX["nose"]]:
        shoulders = [place for joint in SHOULDERS if (place := places[joint])]
        if shoulders:
            neck_x, neck_y = (sum(values) / len(shoulders) for values in zip(*shoulders))
            canvas.line(neck_x, neck_y, *nose, "thin ink")
        canvas.dot(*nose, "ink", "head", r=5)
