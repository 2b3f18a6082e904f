"""Segments of a clip, the parts that are removed: a grid, supervoxels, or tubes that follow the optical flow.

Supervoxels follow edges, so that a segment is (part of) an object: simple linear iterative clustering (Achanta et al.,
2012) with time as a third axis, k-means over colour and position in which a voxel can only join nearby centres. They
need not be connected.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from vtcav_jax.attribution.motion.optical_flow import flow, import_cv2
from vtcav_jax.attribution.resample import area_resize

Counts = tuple[int, int, int]  # along time, height and width
SegmentKind = Literal["grid", "supervoxels", "flow"]
SEGMENT_KINDS: tuple[SegmentKind, ...] = ("grid", "supervoxels", "flow")
COMPACTNESS, KMEANS_SWEEPS = 0.5, 8
MAX_CLUSTERED_VOXELS = 1 << 16  # larger clips are clustered at a lower resolution

Video = Float[np.ndarray, "b t h w c"]
SegmentIds = Int[np.ndarray, "b t h w"]  # segment of each voxel; b is 1 if all clips share the segments


def make_segments(clips: ArrayLike, kind: str | Int[np.ndarray, "*b t h w"], counts: Counts) -> SegmentIds:
    """Return segments of `kind`, as many as a grid of `counts` has cells; an array of segment numbers is checked."""
    clip_shape = np.shape(clips)[:4]
    if not isinstance(kind, str):
        ids = np.asarray(kind)
        ids = ids[None] if ids.ndim == 3 else ids
        if ids.shape[1:] != clip_shape[1:] or len(ids) not in (1, clip_shape[0]) or not _has_all_numbers(ids):
            raise ValueError(
                f"expected a segment number for each voxel, {clip_shape[1:]}, from 0 without gaps; "
                f"got {ids.shape}, {ids.min()} to {ids.max()}"
            )
        return ids
    if kind == "grid":
        return grid(clip_shape[1:], counts)[None]
    return supervoxels(clips, counts) if kind == "supervoxels" else flow_tubes(clips, counts)


def _has_all_numbers(ids: SegmentIds) -> bool:
    numbers = np.arange(int(ids.max()) + 1)
    return all(np.array_equal(np.unique(of_clip), numbers) for of_clip in ids)


def check_counts(clip_shape: tuple[int, ...], counts: Counts) -> None:
    """Raise a ValueError if a clip has too few voxels for `counts` cells along an axis."""
    if any(not 1 <= c <= n for c, n in zip(counts, clip_shape, strict=True)):
        raise ValueError(f"a clip of {tuple(clip_shape)} cannot be cut into {counts} cells; use 1 to that many")


def grid(clip_shape: tuple[int, ...], counts: Counts) -> Int[np.ndarray, "t h w"]:
    """Return the cell number of each voxel in a grid with `counts` cells."""
    check_counts(clip_shape, counts)
    t, h, w = np.ix_(*(np.arange(n) * c // n for n, c in zip(clip_shape, counts)))
    return (t * counts[1] + h) * counts[2] + w


def supervoxels(
    clips: ArrayLike, counts: Counts, *, compactness: float = COMPACTNESS, sweeps: int = KMEANS_SWEEPS
) -> SegmentIds:
    """Return as many supervoxels of each clip as a grid of `counts` has cells.

    `compactness` is the weight of one cell side, in standard deviations of the clip's colours: the higher, the closer
    the supervoxels are to the grid.
    """
    video = np.asarray(clips, np.float32)
    if video.ndim != 5 or compactness <= 0 or sweeps < 1:
        raise ValueError(
            f"expected clips (b, t, h, w, c), a compactness above 0 and at least one sweep; got {video.shape}, "
            f"{compactness}, {sweeps}"
        )
    t, h, w = video.shape[1:4]
    check_counts((t, h, w), counts)
    factor = math.ceil(math.sqrt(t * h * w / MAX_CLUSTERED_VOXELS))
    small = (t, max(h // factor, counts[1]), max(w // factor, counts[2]))
    ids = np.stack(
        [_cluster(clip, grid(small, counts), counts, compactness, sweeps) for clip in area_resize(video, small)]
    )
    rows, columns = (np.arange(n) * m // n for n, m in zip((h, w), small[1:]))
    return ids[:, :, rows][..., columns]


def _cluster(
    clip: Float[np.ndarray, "t h w c"],
    initial: Int[np.ndarray, "t h w"],
    counts: Counts,
    compactness: float,
    sweeps: int,
) -> Int[np.ndarray, "t h w"]:
    sides = np.array(initial.shape) / np.array(counts)
    places = np.indices(initial.shape).reshape(3, -1).T / sides * compactness
    spread = max(float(clip.std()), np.finfo(np.float32).eps)
    points = np.concatenate([clip.reshape(places.shape[0], -1) / spread, places], -1)
    home, assignment = np.indices(counts).reshape(3, -1).T[initial.ravel()], initial.ravel()
    near = np.indices((3, 3, 3)).reshape(3, -1).T - 1
    n = int(np.prod(counts))
    for _ in range(sweeps):
        volumes = np.bincount(assignment, minlength=n)
        sums = np.stack([np.bincount(assignment, weights=column, minlength=n) for column in points.T], -1)
        centres = sums / volumes[:, None]
        best = np.full(len(assignment), np.inf)
        for step in near:
            other = home + step
            inside = ((other >= 0) & (other < counts)).all(-1)
            number = np.ravel_multi_index(tuple(np.clip(other, 0, np.array(counts) - 1).T), counts)
            distance = np.where(inside, ((points - centres[number]) ** 2).sum(-1), np.inf)
            assignment, best = np.where(distance < best, number, assignment), np.minimum(distance, best)
        assignment = _fill_empty_cells(assignment, centres, points, n)
    return assignment.reshape(initial.shape)


def _fill_empty_cells(
    assignment: Int[np.ndarray, " v"], centres: Float[np.ndarray, "n d"], points: Float[np.ndarray, "v d"], n: int
) -> Int[np.ndarray, " v"]:
    """Assign to each empty cell the nearest voxel of a cell that has several."""
    volumes = np.bincount(assignment, minlength=n)
    for empty in np.flatnonzero(volumes == 0):
        distance = np.where(volumes[assignment] > 1, ((points - centres[empty]) ** 2).sum(-1), np.inf)
        voxel = int(distance.argmin())
        volumes[assignment[voxel]] -= 1
        assignment[voxel], volumes[empty] = empty, 1
    return assignment


def flow_tubes(clips: ArrayLike, counts: Counts) -> SegmentIds:
    """Return tubes that follow the optical flow: `counts[0]` parts of the clip, each with a grid in its first frame.

    A voxel has the number of the cell that its content came from. Needs OpenCV.
    """
    check_counts(np.shape(clips)[1:4], counts)
    return np.stack([_tubes_of_clip(clip, counts) for clip in np.asarray(clips, np.float32)])


def _tubes_of_clip(clip: Float[np.ndarray, "t h w c"], counts: Counts) -> Int[np.ndarray, "t h w"]:
    t, h, w = clip.shape[:3]
    cv2, ids = import_cv2(), grid((t, h, w), counts)
    low, high = clip.min(), clip.max()
    motion = flow(((clip - low) * (255 / max(high - low, np.finfo(np.float32).eps))).astype(np.uint8), backwards=True)
    here = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
    part_of_frame, start = np.arange(t) * counts[0] // t, 0
    origin = here  # the place (x, y) in the part's first frame from which each pixel's content came
    for i in range(1, t):
        if part_of_frame[i] != part_of_frame[start]:
            start, origin = i, here
            continue
        before = here - motion[i - 1]
        origin = cv2.remap(origin, before[..., 0], before[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        x, y = (np.clip(np.rint(origin[..., axis]).astype(int), 0, n - 1) for axis, n in ((0, w), (1, h)))
        ids[i] = ids[start][y, x]
    return ids
