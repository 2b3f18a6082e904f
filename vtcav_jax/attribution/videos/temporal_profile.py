"""Temporal profiles: share of the absolute map in each time step, averaged over clips."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.videos import map_store
from vtcav_jax.runs.attribution_rows import ProfileRow
from vtcav_jax.stats import intervals


def step_mass(maps: Float[np.ndarray, "n t h w"]) -> Float[np.ndarray, "n t"]:
    """Return the share of each time step; NaN for a map that is 0 everywhere."""
    profile = np.abs(maps).sum((2, 3), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return profile / profile.sum(1, keepdims=True)


def temporal_profiles(paths: Iterable[Path]) -> list[ProfileRow]:
    """Return profiles by target, method and stage, averaged over all clips in the map files `paths`."""
    masses_by_map: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for path in paths:
        for entry in map_store.load_maps(path):
            masses_by_map.setdefault((entry.target, entry.method, entry.stage), []).append(step_mass(entry.maps))
    profile_rows = []
    for key, parts in masses_by_map.items():
        masses = np.concatenate(parts)
        n_clips, n_time_steps = int((~np.isnan(masses[:, 0])).sum()), masses.shape[1]
        mean_intervals = [intervals.mean_ci(masses[:, time_step]) for time_step in range(n_time_steps)]
        profile_rows += [
            ProfileRow(*key, time_step, n_time_steps, *entry, n_clips) for time_step, entry in enumerate(mean_intervals)
        ]
    return profile_rows
