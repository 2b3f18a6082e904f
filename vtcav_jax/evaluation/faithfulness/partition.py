"""Partition of a clip into cells, the units that metrics remove, and pooling of maps over cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from vtcav_jax.attribution.removal import segments
from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.evaluation.trivial_maps import clip_seeds

CELL_PATCH = (2, 4, 4)  # voxels of a cell along time, height and width: a token of a small Swin

NamedMaps = Mapping[str, ArrayLike | Attribution] | Sequence[Attribution]


@dataclass(frozen=True, eq=False)
class Partition:
    """Index of each voxel's cell; `b` is 1 if all clips share a partition.

    `grid_shape` are the numbers of cells along time, height and width, if they form a grid.
    """

    cell_ids: Int[np.ndarray, "b t h w"]
    grid_shape: tuple[int, int, int] | None = None

    @property
    def n_cells(self) -> int:
        return int(self.cell_ids.max()) + 1

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """Frames, height and width of the clip."""
        t, h, w = self.cell_ids.shape[1:]
        return t, h, w

    @property
    def volumes(self) -> Int[np.ndarray, "b n"]:
        return np.stack([np.bincount(ids.ravel(), minlength=self.n_cells) for ids in self.cell_ids])


def grid_partition(clip_shape: tuple[int, int, int], grid_shape: tuple[int, int, int]) -> Partition:
    """Return a grid with `grid_shape` cells along time, height and width."""
    return Partition(segments.grid(clip_shape, grid_shape)[None], grid_shape)


def supervoxel_partition(clips: ArrayLike, counts: tuple[int, int, int], **options: Any) -> Partition:
    """Return a partition of each clip into supervoxels; `options` are those of `segments.supervoxels`.

    Cells follow edges, so that removal takes away (parts of) objects (IROF, Rieger and Hansen).
    """
    return Partition(segments.supervoxels(clips, counts, **options))


def token_partition(clip_shape: tuple[int, int, int], patch: tuple[int, int, int] = CELL_PATCH) -> Partition:
    """Return cells of `patch` voxels, or slightly larger where that does not divide the clip."""
    t, h, w = (max(n // p, 1) for n, p in zip(clip_shape, patch))
    return grid_partition(clip_shape, (t, h, w))


def frame_partition(clip_shape: tuple[int, int, int]) -> Partition:
    """Return one cell per frame, for metrics over time."""
    return grid_partition(clip_shape, (clip_shape[0], 1, 1))


def partition_for_maps(
    clip_shape: tuple[int, int, int], maps: Sequence[Attribution], patch: tuple[int, int, int] = CELL_PATCH
) -> Partition:
    """Return cells of `patch` voxels, but along each axis no finer than the coarsest of `maps`."""
    t, h, w = (max(n // p, 1) for n, p in zip(clip_shape, patch))
    shapes = [(t, h, w), *(attribution.map.shape[1:] for attribution in maps)]
    t, h, w = (min(axis) for axis in zip(*shapes))
    return grid_partition(clip_shape, (t, h, w))


def name_maps(maps: NamedMaps) -> dict[str, ArrayLike | Attribution]:
    """Return maps by name: the method for maps of the video, else method and stage."""
    if isinstance(maps, Mapping):
        return dict(maps)
    names = [a.method if a.stage == VIDEO else f"{a.method} {a.stage}" for a in maps]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several maps are named {', '.join(twice)}; pass a dictionary with unique names")
    return dict(zip(names, maps))


def pool_to_cells(maps: NamedMaps, partition: Partition, n_clips: int) -> Float[np.ndarray, "m b n"]:
    """Return the signed mean of each map in each cell; maps with one value per cell are returned as they are."""
    values_by_map, faults = [], []
    for name, item in name_maps(maps).items():
        values = np.asarray(item.map if isinstance(item, Attribution) else item, np.float32)
        if (
            len(values) != n_clips
            or values.ndim not in (2, 4)
            or (values.ndim == 2 and values.shape[1] != partition.n_cells)
        ):
            faults.append(f"{name} is {values.shape}")
        elif wrong := np.flatnonzero(~np.isfinite(values).reshape(n_clips, -1).all(1)).tolist():
            faults.append(f"{name} is not finite for clips {', '.join(map(str, wrong[:10]))}")
        else:
            values_by_map.append(values if values.ndim == 2 else cell_means(values, partition))
    if faults or not values_by_map:
        raise ValueError(
            f"expected at least one map, each finite, of {n_clips} clips, with {partition.n_cells} cells or with time,"
            f" height and width; {'; '.join(faults) or 'got none'}"
        )
    return np.stack(values_by_map)


def pool_to_frames(
    maps: NamedMaps, pooled_maps: Mapping[str, np.ndarray], partition: Partition, n_clips: int
) -> Float[np.ndarray, "m b t"]:
    """Return the mean of each map in each frame; maps given by cells are expanded to voxels first."""
    frame_maps = {}
    for name, item in name_maps(maps).items():
        values = np.asarray(item.map if isinstance(item, Attribution) else item, np.float32)
        if values.ndim == 2:
            cell_ids = np.broadcast_to(
                partition.cell_ids.reshape(len(partition.cell_ids), -1), (n_clips, partition.cell_ids[0].size)
            )
            values = np.take_along_axis(pooled_maps[name], cell_ids, 1).reshape(n_clips, *partition.clip_shape)
        frame_maps[name] = values
    return pool_to_cells(frame_maps, frame_partition(partition.clip_shape), n_clips)


def cell_means(values: Float[np.ndarray, "b t2 h2 w2"], partition: Partition) -> Float[np.ndarray, "b n"]:
    """Return the mean over each cell's voxels; a coarser map is constant over the voxels of each of its places."""
    if partition.grid_shape is not None and all(n % c == 0 for n, c in zip(partition.clip_shape, partition.grid_shape)):
        return area_resize(values, partition.grid_shape).reshape(
            len(values), -1
        )  # same result without resizing to the clip
    voxels = area_resize(values, partition.clip_shape).reshape(len(values), -1)
    cell_ids = np.broadcast_to(partition.cell_ids.reshape(len(partition.cell_ids), -1), voxels.shape)
    sums = [np.bincount(n, weights=v, minlength=partition.n_cells) for n, v in zip(cell_ids, voxels)]
    return (np.stack(sums) / np.maximum(partition.volumes, 1)).astype(np.float32)


def rank_cells(values: Float[np.ndarray, "m b n"], clips: ArrayLike, seed: int) -> Int[np.ndarray, "m b n"]:
    """Return the rank of each cell by decreasing value; ties are broken at random, the same way for all maps."""
    n = values.shape[-1]
    noise = np.stack([np.random.default_rng(s).permutation(n) for s in clip_seeds(clips, seed)])
    order = np.lexsort((np.broadcast_to(noise, values.shape), -values))
    place = np.empty(values.shape, np.int32)
    np.put_along_axis(place, order, np.broadcast_to(np.arange(n, dtype=np.int32), values.shape), -1)
    return place
