"""A clip cut into cells, which are what metrics remove and keep, and any map as one number for each cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from vtcav_jax.attribution import perturbation
from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.evaluation.trivial_maps import clip_seeds

PATCH = (2, 4, 4)  # voxels of a cell along time, height and width: a token of a small Swin

Maps = Mapping[str, ArrayLike | Attribution] | Sequence[Attribution]


@dataclass(frozen=True, eq=False)
class Cells:
    """The number of each voxel's cell, from 0; `b` is 1 where all clips are cut alike.

    `counts` are the cells along time, height and width, where these are a grid.
    """

    numbers: Int[np.ndarray, "b t h w"]
    counts: tuple[int, int, int] | None = None

    @property
    def count(self) -> int:
        return int(self.numbers.max()) + 1

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Of the clip."""
        t, h, w = self.numbers.shape[1:]
        return t, h, w

    @property
    def volumes(self) -> Int[np.ndarray, "b n"]:
        return np.stack([np.bincount(one.ravel(), minlength=self.count) for one in self.numbers])


def grid(sizes: tuple[int, int, int], counts: tuple[int, int, int]) -> Cells:
    """So many cells along time, height and width."""
    return Cells(perturbation._cells(sizes, counts)[None], counts)


def tokens(sizes: tuple[int, int, int], patch: tuple[int, int, int] = PATCH) -> Cells:
    """Cells of `patch` voxels; where that does not divide the clip, a little larger ones."""
    t, h, w = (max(n // p, 1) for n, p in zip(sizes, patch))
    return grid(sizes, (t, h, w))


def frames(sizes: tuple[int, int, int]) -> Cells:
    """Whole frames: for what is asked about time alone."""
    return grid(sizes, (sizes[0], 1, 1))


def coarsest(sizes: tuple[int, int, int], maps: Sequence[Attribution], patch: tuple[int, int, int] = PATCH) -> Cells:
    """Tokens, or cells as coarse as the coarsest of `maps`: none is then asked for more than it says."""
    t, h, w = (max(n // p, 1) for n, p in zip(sizes, patch))
    shapes = [(t, h, w), *(one.map.shape[1:] for one in maps)]
    t, h, w = (min(axis) for axis in zip(*shapes))
    return grid(sizes, (t, h, w))


def named(maps: Maps) -> dict[str, ArrayLike | Attribution]:
    """By name: maps of the video by their method, others by method and stage."""
    if isinstance(maps, Mapping):
        return dict(maps)
    names = [one.method if one.stage == VIDEO else f"{one.method} {one.stage}" for one in maps]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several maps are called {', '.join(twice)}; give a dictionary with a name for each")
    return dict(zip(names, maps))


def on_cells(maps: Maps, cells: Cells, clips: int) -> Float[np.ndarray, "m b n"]:
    """The mean of each map in each cell, signs kept; what has one value per cell already stays as it is."""
    found, faults = [], []
    for name, one in named(maps).items():
        values = np.asarray(one.map if isinstance(one, Attribution) else one, np.float32)
        if len(values) != clips or values.ndim not in (2, 4) or (values.ndim == 2 and values.shape[1] != cells.count):
            faults.append(f"{name} is {values.shape}")
        elif wrong := np.flatnonzero(~np.isfinite(values).reshape(clips, -1).all(1)).tolist():
            faults.append(f"{name} is not finite for clips {', '.join(map(str, wrong[:10]))}")
        else:
            found.append(values if values.ndim == 2 else pooled(values, cells))
    if faults or not found:
        raise ValueError(
            f"expected at least one map, each of {clips} clips, finite, with {cells.count} cells or with time, height "
            f"and width; {'; '.join(faults) or 'there are none'}"
        )
    return np.stack(found)


def on_frames(
    maps: Maps, pooled_maps: Mapping[str, np.ndarray], cells: Cells, clips: int
) -> Float[np.ndarray, "m b t"]:
    """The mean of each map in each frame; of maps that have cells only, of what these say of it."""
    found = {}
    for name, one in named(maps).items():
        values = np.asarray(one.map if isinstance(one, Attribution) else one, np.float32)
        if values.ndim == 2:
            numbers = np.broadcast_to(cells.numbers.reshape(len(cells.numbers), -1), (clips, cells.numbers[0].size))
            values = np.take_along_axis(pooled_maps[name], numbers, 1).reshape(clips, *cells.sizes)
        found[name] = values
    return on_cells(found, frames(cells.sizes), clips)


def pooled(values: Float[np.ndarray, "b t2 h2 w2"], cells: Cells) -> Float[np.ndarray, "b n"]:
    """The mean over each cell's voxels; a map coarser than the clip has the same value in all voxels of its places."""
    if cells.counts is not None and all(n % c == 0 for n, c in zip(cells.sizes, cells.counts)):
        return area_resize(values, cells.counts).reshape(
            len(values), -1
        )  # the same, without the clip's size in between
    voxels = area_resize(values, cells.sizes).reshape(len(values), -1)
    numbers = np.broadcast_to(cells.numbers.reshape(len(cells.numbers), -1), voxels.shape)
    sums = [np.bincount(n, weights=v, minlength=cells.count) for n, v in zip(numbers, voxels)]
    return (np.stack(sums) / np.maximum(cells.volumes, 1)).astype(np.float32)


def ranks(values: Float[np.ndarray, "m b n"], clips: ArrayLike, seed: int) -> Int[np.ndarray, "m b n"]:
    """The place of each cell when the largest come first; among equal ones chance decides, the same for all maps."""
    n = values.shape[-1]
    noise = np.stack([np.random.default_rng(s).permutation(n) for s in clip_seeds(clips, seed)])
    order = np.lexsort((np.broadcast_to(noise, values.shape), -values))
    place = np.empty(values.shape, np.int32)
    np.put_along_axis(place, order, np.broadcast_to(np.arange(n, dtype=np.int32), values.shape), -1)
    return place
