"""Plans of removal methods: segments and masks for a clip size, with at most 500 forward passes by default."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike, Bool, Int

from vtcav_jax.attribution.motion.optical_flow import import_cv2
from vtcav_jax.attribution.removal import designs
from vtcav_jax.attribution.removal.designs import Design
from vtcav_jax.attribution.removal.segments import (
    SEGMENT_KINDS,
    Counts,
    SegmentIds,
    check_counts,
    make_segments,
)
from vtcav_jax.attribution.removal.soft_masks import SoftMasks, draw_soft_masks
from vtcav_jax.names import unknown_name_message

DEFAULT_BUDGET = 500  # maximum number of forward passes per clip of a default, whatever the clip's size
DEFAULT_FRAME_GROUPS = 8
MASKS_PER_SEGMENT = 6  # in the default grid of a regression
RISE_CELLS, SHAPLEY_CELLS = (4, 4, 4), (4, 2, 2)
SOS_PARTS = (4, 7, 7)  # of the clip along each axis: a window of REVEX
MAX_EXACT_PLAYERS = 10  # with more players, coalitions are sampled

ClipShape = tuple[int, ...]  # frames, height and width
Segments = str | Int[np.ndarray, "*b t h w"]


@dataclass(frozen=True, eq=False)
class Plan:
    """Segments of clips, as a function of the clips, and which of them are removed together."""

    make_segments: Callable[[ArrayLike], SegmentIds]
    design: Design

    @property
    def passes(self) -> int:
        return len(self.design.distinct[0])


def occlusion_plan(clip_shape: ClipShape, window: Counts | None, stride: Counts | None, budget: int | None) -> Plan:
    """Return windows of a quarter of the clip (of a smaller share, if `budget` suffices) as unions of segments."""
    limit = budget or DEFAULT_BUDGET
    if window is None:
        parts = itertools.takewhile(
            lambda k: _count_windows(clip_shape, _window(clip_shape, k)) < limit, itertools.count(2)
        )
        window = _window(clip_shape, max(itertools.islice(parts, max(clip_shape)), default=2))
    if stride is None:
        stride = _half(window) if _count_windows(clip_shape, window) < limit else window
    if any(not 1 <= w <= n for w, n in zip(window, clip_shape)) or any(not 1 <= s <= w for s, w in zip(stride, window)):
        raise ValueError(
            f"window must fit the clip, {tuple(clip_shape)}, and stride be at most the window so that no voxel is "
            f"skipped; got window {window}, stride {stride}"
        )
    starts = [_window_starts(n, w, s) for n, w, s in zip(clip_shape, window, stride)]
    return _plan_windows(starts, window, budget)


def sos_plan(clip_shape: ClipShape, window: Counts | None, stride: Counts | None, budget: int | None) -> Plan:
    """Return windows of a share of the clip, as close to that of SOS as `budget` allows, that overlap by half."""
    if window is not None or stride is not None:
        window = window or _sos_window(clip_shape, SOS_PARTS)
        return occlusion_plan(clip_shape, window, stride, budget)
    scales = ([max(round(k * size / max(SOS_PARTS)), 1) for k in SOS_PARTS] for size in range(max(SOS_PARTS), 1, -1))
    fits = (p for p in scales if math.prod(map(len, _sos_starts(clip_shape, p))) < (budget or DEFAULT_BUDGET))
    parts = next(fits, [1, 1, 1])
    return _plan_windows(_sos_starts(clip_shape, parts), _sos_window(clip_shape, parts), budget)


def _sos_window(clip_shape: ClipShape, parts: Sequence[int]) -> Counts:
    t, h, w = (-(-n // k) for n, k in zip(clip_shape, parts))
    return t, h, w


def _sos_starts(clip_shape: ClipShape, parts: Sequence[int]) -> list[list[int]]:
    """Return evenly spaced starts of windows, of each part and halfway between, so that rounding adds no window."""
    ends = [n - w for n, w in zip(clip_shape, _sos_window(clip_shape, parts))]
    return [np.unique(np.rint(np.linspace(0, end, 2 * k - 1)).astype(int)).tolist() for end, k in zip(ends, parts)]


def _plan_windows(starts: Sequence[Sequence[int]], window: Counts, budget: int | None) -> Plan:
    # The edges of all windows cut the clip into segments
    edges = [np.unique([*axis, *(a + w for a in axis)]) for axis, w in zip(starts, window)]
    counts, n_windows = [len(axis) - 1 for axis in edges], math.prod(map(len, starts))
    _check_budget(f"a window of {window}", n_windows + 1, budget)
    if n_windows * math.prod(counts) > designs.MAX_DESIGN_SIZE:
        raise ValueError(f"{n_windows} windows of {window} voxels need too much memory; use a larger window or stride")
    inside = [
        (axis_edges[:-1] >= np.array(axis)[:, None]) & (axis_edges[:-1] < np.array(axis)[:, None] + w)
        for axis, axis_edges, w in zip(starts, edges, window)
    ]
    places = np.ix_(*(np.repeat(np.arange(c), np.diff(axis)) for c, axis in zip(counts, edges)))
    ids = np.ravel_multi_index(np.broadcast_arrays(*places), counts)
    removed: Bool[np.ndarray, "windows segments"] = np.einsum("ia,jb,kc->ijkabc", *inside).reshape(n_windows, -1)
    return Plan(lambda clips: ids[None], designs.windows(removed))


def _window(clip_shape: ClipShape, parts: int) -> Counts:
    t, h, w = (max(n // parts, 1) for n in clip_shape)
    return t, h, w


def fit_cells(clip_shape: ClipShape, cells: Counts) -> Counts:
    """Return `cells`, fewer along axes that are shorter."""
    t, h, w = (min(n, c) for n, c in zip(clip_shape, cells))
    return t, h, w


def _half(window: Counts) -> Counts:
    t, h, w = (max(n // 2, 1) for n in window)
    return t, h, w


def _count_windows(clip_shape: ClipShape, window: Counts) -> int:
    """Return the number of windows with a stride of half a window."""
    return math.prod(len(_window_starts(*sizes)) for sizes in zip(clip_shape, window, _half(window)))


def _window_starts(size: int, window: int, stride: int) -> list[int]:
    """Return the starts of windows; the last one ends with the axis, so that every voxel is covered."""
    return sorted({*range(0, size - window, stride), size - window})


def loco_plan(clip_shape: ClipShape, segments: Segments, cells: Counts | None, budget: int | None) -> Plan:
    segment_clips, players = _plan_segments(clip_shape, segments, cells, (budget or DEFAULT_BUDGET) - 1)
    _check_budget("loco", players + 1, budget)
    return Plan(segment_clips, designs.leave_one_out(players))


def up_plan(clip_shape: ClipShape, segments: Segments, cells: Counts | None, budget: int | None) -> Plan:
    segment_clips, players = _plan_segments(clip_shape, segments, cells, (budget or DEFAULT_BUDGET) - 1)
    _check_budget("up", players + 1, budget)
    return Plan(segment_clips, designs.one_at_a_time(players))


def lime_plan(
    clip_shape: ClipShape,
    segments: Segments,
    cells: Counts | None,
    masks: int | None,
    width: float,
    ridge: float,
    budget: int | None,
    seed: int,
) -> Plan:
    if width <= 0 or ridge <= 0:
        raise ValueError(f"expected width and ridge above 0, got {width} and {ridge}")
    n_masks = _number_of_masks("lime", masks, budget)
    segment_clips, players = _plan_segments(clip_shape, segments, cells, n_masks // MASKS_PER_SEGMENT)
    return Plan(segment_clips, designs.lime(players, n_masks, width, ridge, seed))


def kernel_shap_plan(
    clip_shape: ClipShape, segments: Segments, cells: Counts | None, masks: int | None, budget: int | None, seed: int
) -> Plan:
    n_masks = _number_of_masks("kernel_shap", masks, budget)
    segment_clips, players = _plan_segments(clip_shape, segments, cells, n_masks // MASKS_PER_SEGMENT)
    return Plan(segment_clips, designs.kernel_shap(players, n_masks, seed))


def shapley_plan(
    clip_shape: ClipShape, segments: Segments, cells: Counts | None, orders: int | None, budget: int | None, seed: int
) -> Plan:
    segment_clips, players = _plan_segments(clip_shape, segments, cells or fit_cells(clip_shape, SHAPLEY_CELLS), 0)
    if orders is not None and orders < 2:
        raise ValueError(f"expected at least 2 orders (one and its reversal), got {orders}")
    if _is_exact(players, budget):
        return Plan(segment_clips, designs.exact_shapley(players))
    if orders is None:  # all orders share the first and the last of their players + 1 coalitions
        orders = max(((budget or DEFAULT_BUDGET) - 2) // (players - 1) // 2 * 2, 2)
    _check_budget("shapley", orders * (players - 1) + 2, budget)
    return Plan(segment_clips, designs.sampled_shapley(players, orders, seed))


def frame_shapley_plan(clip_shape: ClipShape, groups: int | None, budget: int | None, seed: int) -> Plan:
    n_groups = groups
    if n_groups is None:  # as many as are exact within the budget
        n_groups = min(DEFAULT_FRAME_GROUPS, clip_shape[0], int(math.log2(budget or DEFAULT_BUDGET)))
    return shapley_plan(clip_shape, "grid", (n_groups, 1, 1), None, budget, seed)


def rise_plan(
    clip_shape: ClipShape, masks: int | None, cells: Counts | None, keep: float, budget: int | None, seed: int
) -> SoftMasks:
    t, h, w = clip_shape
    n_masks = _number_of_masks("rise", masks, budget)
    return draw_soft_masks((t, h, w), cells or fit_cells(clip_shape, RISE_CELLS), n_masks, keep, seed)


PLANS: dict[str, Callable[..., Plan | SoftMasks]] = {
    "occlusion": occlusion_plan,
    "sos": sos_plan,
    "loco": loco_plan,
    "up": up_plan,
    "lime": lime_plan,
    "kernel_shap": kernel_shap_plan,
    "rise": rise_plan,
    "shapley": shapley_plan,
    "frame_shapley": frame_shapley_plan,
}


def _plan_segments(
    clip_shape: ClipShape, segments: Segments, cells: Counts | None, max_players: int
) -> tuple[Callable[[ArrayLike], SegmentIds], int]:
    """Return a function from clips to segments, and the number of segments."""
    if not isinstance(segments, str):
        return lambda clips: make_segments(clips, segments, (1, 1, 1)), int(np.max(segments)) + 1
    if segments not in SEGMENT_KINDS:
        raise ValueError(unknown_name_message("segments", [segments], SEGMENT_KINDS))
    if segments == "flow":
        import_cv2()
    counts = default_cells(clip_shape, max_players) if cells is None else cells
    check_counts(clip_shape, counts)
    return lambda clips: make_segments(clips, segments, counts), math.prod(counts)


def default_cells(clip_shape: ClipShape, max_players: int) -> Counts:
    """Return the finest grid with at most `max_players` cells, of those that halve space and time in turns."""
    t, h, w = clip_shape
    grids = [(1, 1, 1)]
    while grids[-1] != (t, h, w):
        time, space = 2 ** (len(grids) // 2), 2 ** ((len(grids) + 1) // 2)
        grids.append((min(time, t), min(space, h), min(space, w)))
    return max((cells for cells in grids if math.prod(cells) <= max_players), key=math.prod, default=(1, 1, 1))


def _is_exact(players: int, budget: int | None) -> bool:
    return players <= MAX_EXACT_PLAYERS and (budget is None or 1 << players <= budget)


def _number_of_masks(method: str, masks: int | None, budget: int | None) -> int:
    n_masks = masks or budget or DEFAULT_BUDGET
    _check_budget(method, n_masks, budget)
    return n_masks


def _check_budget(method: str, passes: int, budget: int | None) -> None:
    if budget is not None and passes > budget:
        raise ValueError(
            f"{method} takes {passes} forward passes with these settings, more than the budget of {budget}; use fewer"
            " or larger parts, or a larger budget"
        )
