"""Names of clusters in plain words, by rules: which part of the body moves most, and where to.

Left and right arms and legs are the person's own. Arms are described relative to the shoulder of their side, feet
relative to the hip, the upper body relative to the hips. A part counts if its windows agree: the length of their mean
movement is most of their root mean square movement. If no part stands out, or more than two do, the movement is mixed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vtcav_jax.discovery.movements.skeleton import JOINT_INDEX, SHOULDERS

MIXED = "mixed movement"
MIN_STRENGTH = 0.25  # torso lengths
COMPARABLE_SHARE = 0.6  # of the strongest part's movement, from which another part is named too
MAX_PARTS = 2
MIN_COHERENCE = 0.7  # length of the mean movement over the root mean square movement
MIN_VISIBLE_SHARE = 0.5  # of the windows
DIAGONAL_SHARE = 0.6  # of the larger component, from which the smaller one is named too
PEAK_TO_PEAK = 2 * np.sqrt(2)  # of a sinusoid, over its root mean square
OUT_OF_PHASE = -0.3  # correlation of two limbs that move in turn

Way = Float[np.ndarray, "w steps 2"]  # of a part of the body; NaN where it is not visible


@dataclass(frozen=True)
class PartMovement:
    """What a part of the body does in a cluster, and by how many torso lengths."""

    part: str
    action: str
    strength: float
    side: str = ""  # left or right, of an arm or a leg

    @property
    def phrase(self) -> str:
        return f"{self.side} {self.part} {self.action}".strip()


def name_movements(groups: Sequence[Float[np.ndarray, "_ steps joints 2"]], *, mirrored: bool = False) -> list[str]:
    """Return a name for the windows of each cluster; equal names are numbered."""
    names, uses = [], Counter[str]()
    for paths in groups:
        name = name_movement(paths, mirrored=mirrored)
        uses[name] += 1
        names.append(name if uses[name] == 1 else f"{name} {uses[name]}")
    return names


def name_movement(paths: Float[np.ndarray, "w steps joints 2"], *, mirrored: bool = False) -> str:
    """Return what moves most and where to, or `MIXED`."""
    movements = sorted(part_movements(paths), key=lambda movement: -movement.strength)
    if not movements or movements[0].strength < MIN_STRENGTH:
        return MIXED
    named = [m for m in movements if m.strength >= COMPARABLE_SHARE * movements[0].strength]
    if len(named) > MAX_PARTS:
        return MIXED
    text = ", ".join(movement.phrase for movement in named)
    return _without_sides(text) if mirrored else text


def _without_sides(text: str) -> str:
    """Return the name of a movement that counts on both sides of the body."""
    for picture_side in ("left", "right"):
        text = text.replace(f"to the picture's {picture_side}", "sideways")
    if "right " in text and "left " in text:
        return text.replace("right ", "one ").replace("left ", "other ")
    return text.replace("right ", "one ").replace("left ", "one ")


def part_movements(paths: Float[np.ndarray, "w steps joints 2"]) -> Iterator[PartMovement]:
    """Yield what each part of the body does; the two arms, or legs, are one part if they do the same."""

    def way(joint: str, origin: str) -> Way:
        return paths[:, :, JOINT_INDEX[joint]] - paths[:, :, JOINT_INDEX[origin]]

    wrists = {side: way(f"{side} wrist", f"{side} shoulder") for side in ("left", "right")}
    feet = {side: way(f"{side} ankle", f"{side} hip") for side in ("left", "right")}
    yield from _merge_sides([_limb_movement("wrist", side, wrists[side]) for side in wrists], "wrists", wrists)
    yield from _merge_sides([_leg_movement(side, feet[side]) for side in feet], "", feet)
    # With both hips visible their middle is the origin of all positions
    upper = _visible_mean(paths[:, :, list(SHOULDERS)])
    if (movement := _directed_movement("upper body", "", upper)) is not None:
        bends = {"down": "bends down", "up": "straightens up"}
        action = bends.get(movement.action, f"leans {movement.action}")
        yield PartMovement("upper body", action, movement.strength)


def _visible_mean(positions: Float[np.ndarray, "w steps n 2"]) -> Way:
    """Return the mean of the joints that are visible; NaN where none is."""
    is_visible = ~np.isnan(positions)
    counts = is_visible.sum(2)
    return np.where(counts > 0, np.nansum(positions, 2) / np.maximum(counts, 1), np.nan)


def _leg_movement(side: str, way: Way) -> PartMovement | None:
    """Return how the knee bends if the foot comes nearer to the hip or leaves it, else where the foot moves."""
    foot, visible = _limb_movement("foot", side, way), _visible(way)
    if visible is None:
        return None
    change, coherence = _change(np.linalg.norm(visible, axis=-1)[..., None])
    shortening = float(-change[0])
    if coherence >= MIN_COHERENCE and foot is not None and abs(shortening) >= 0.5 * foot.strength:
        return PartMovement("knee", "bends" if shortening > 0 else "straightens", abs(shortening), side)
    return foot


def _limb_movement(part: str, side: str, way: Way) -> PartMovement | None:
    """Return the larger of the movement from start to end and the one to and fro."""
    directed, repeated = _directed_movement(part, side, way), _repeated_movement(part, side, way)
    if directed is None or (repeated is not None and repeated.strength > directed.strength):
        return repeated
    return directed


def _directed_movement(part: str, side: str, way: Way) -> PartMovement | None:
    """Return where the part is at the end compared with the start; None if the windows do not agree."""
    visible = _visible(way)
    if visible is None:
        return None
    change, coherence = _change(visible)
    if coherence < MIN_COHERENCE:
        return None
    return PartMovement(part, _direction(change), float(np.linalg.norm(change)), side)


def _repeated_movement(part: str, side: str, way: Way) -> PartMovement | None:
    """Return how far the part moves to and fro in the median window, beside its movement from start to end."""
    visible = _visible(way)
    if visible is None:
        return None
    sizes = np.median(np.sqrt((_without_trend(visible) ** 2).mean(1)), 0)
    action = "up and down" if sizes[1] >= sizes[0] else "from side to side"
    return PartMovement(part, action, float(PEAK_TO_PEAK * np.linalg.norm(sizes)), side)


def _visible(way: Way) -> Float[np.ndarray, "v steps 2"] | None:
    """Return the windows that show the part; None if too few do."""
    is_visible = ~np.isnan(way).any((1, 2))
    return way[is_visible] if len(way) and is_visible.mean() >= MIN_VISIBLE_SHARE else None


def _change(values: Float[np.ndarray, "w steps c"]) -> tuple[Float[np.ndarray, " c"], float]:
    """Return the mean difference of the last and the first quarter, and how far the windows agree on it."""
    n = max(1, values.shape[1] // 4)
    changes = values[:, -n:].mean(1) - values[:, :n].mean(1)
    mean = changes.mean(0)
    return mean, float(np.linalg.norm(mean) / max(np.sqrt((changes**2).sum(-1).mean()), 1e-12))


def _without_trend(way: Way) -> Way:
    """Return the positions minus the straight line fitted over time."""
    times = np.linspace(-1, 1, way.shape[1])[None, :, None]
    centred = way - way.mean(1, keepdims=True)
    return centred - times * (times * centred).sum(1, keepdims=True) / (times**2).sum()


def _direction(change: Float[np.ndarray, " 2"]) -> str:
    across, down = change.tolist()
    vertical = "down" if down > 0 else "up"
    horizontal = f"to the picture's {'right' if across > 0 else 'left'}"
    if min(abs(across), abs(down)) >= DIAGONAL_SHARE * max(abs(across), abs(down)):
        return f"{vertical} and {horizontal}"
    return vertical if abs(down) >= abs(across) else horizontal


def _merge_sides(sides: Sequence[PartMovement | None], plural: str, ways: dict[str, Way]) -> Iterator[PartMovement]:
    """Yield the movements of the left and the right side; one for both if they are the same and comparable."""
    present = [movement for movement in sides if movement is not None]
    if len(present) == 2 and len({(m.part, m.action) for m in present}) == 1:
        strengths = [movement.strength for movement in present]
        if min(strengths) >= COMPARABLE_SHARE * max(strengths):
            first = present[0]
            names = {"foot": "feet", "knee": "knees", "wrist": "wrists"}
            action = first.action.replace("bends", "bend").replace("straightens", "straighten")
            if action in ("up and down", "from side to side") and _in_turn(ways, int(action == "up and down")):
                action += " in turn"
            yield PartMovement(plural or names[first.part], action, sum(strengths) / 2, "both")
            return
    yield from present


def _in_turn(ways: dict[str, Way], axis: int) -> bool:
    """Return whether left and right move in opposite directions of one axis, beside their trends."""
    is_visible = ~(np.isnan(ways["left"]).any((1, 2)) | np.isnan(ways["right"]).any((1, 2)))
    if not is_visible.any():
        return False
    left, right = (_without_trend(ways[side][is_visible])[..., axis].ravel() for side in ("left", "right"))
    return float(left @ right) < OUT_OF_PHASE * float(np.sqrt((left @ left) * (right @ right)))
