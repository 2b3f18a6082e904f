"""`find_movements`: from the windows of people to named movements, and what each window is used for."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vtcav_jax.concepts.config import MiningConfig
from vtcav_jax.concepts.video_scan import VideoScan
from vtcav_jax.discovery.movements.clusters import cluster_features, measure_cluster_stability, silhouettes
from vtcav_jax.discovery.movements.config import MovementConfig
from vtcav_jax.discovery.movements.description import (
    Paths,
    describe_movements,
    mirror_paths,
    movement_sizes,
    moves_left_most,
)
from vtcav_jax.discovery.movements.movement_names import name_movements
from vtcav_jax.discovery.movements.pose_windows import PoseWindow, stack_paths, track_counts
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.names import count_noun
from vtcav_jax.runs.movement_rows import MovementRow, MovementWindowRow
from vtcav_jax.stats.intervals import mean_ci

RESERVED_SHARE = 1 / 3  # of the windows of each cluster, which random sets use
MIN_WINDOWS_PER_CLUSTER = 4  # on average
MIN_VISIBLE_SHARE = 0.5  # of the windows, from which a joint has a mean path
MIN_STABILITY = 0.6  # Hennig (2007): clusters below should not be trusted
STILL = -1
CONCEPT, RESERVED, STILL_USE, AMBIGUOUS, RARE = (
    *("concept", "random sets", "still"),
    *("between clusters", "too few source videos"),
)


@dataclass(frozen=True)
class Movements(DisplayedResult):
    """Clusters of movements, the windows of people in them, and the mean path of each cluster's joints.

    `rand_index` is the agreement with the clusters of resampled source videos (adjusted Rand index): the mean, and the
    values between which 95 % of the resamples are.
    """

    rows: tuple[MovementRow, ...]
    windows: tuple[MovementWindowRow, ...]
    mean_paths: dict[int, Float[np.ndarray, "steps joints 2"]]  # by cluster, relative to the hips, in torso lengths
    rand_index: tuple[float, float, float]
    notes: tuple[str, ...]
    mirrored: bool  # left and right count as the same; paths are those of the more active side as the right one

    @property
    def concepts(self) -> tuple[MovementRow, ...]:
        """Movements that became concepts."""
        return tuple(row for row in self.rows if row.concept)

    def __repr__(self) -> str:
        n_dropped = len(self.rows) - len(self.concepts)
        return (
            f"{type(self).__name__}({count_noun(len(self.concepts), 'movement')} in"
            f" {count_noun(len(self.windows), 'window')} of people, {n_dropped} dropped)"
        )


def find_movements(
    scans: Sequence[VideoScan],
    windows: Sequence[PoseWindow],
    counts: Counter[str],
    config: MiningConfig,
    movement_config: MovementConfig,
) -> Movements:
    """Cluster the windows in which a person moves, name the clusters, and drop those of too few source videos."""
    all_paths, is_mirrored = stack_paths(windows), movement_config.movement_sides == "mirrored"
    sizes = movement_sizes(all_paths)
    moving = np.flatnonzero(sizes >= movement_config.min_movement)
    k = min(movement_config.num_movements, len(moving) // MIN_WINDOWS_PER_CLUSTER)
    if not k:
        raise ValueError(
            f"people move by at least {movement_config.min_movement:g} torso lengths in {len(moving)} of"
            f" {count_noun(len(windows), 'window')}; expected at least {MIN_WINDOWS_PER_CLUSTER}: use more videos, or"
            " lower --min_movement"
        )
    notes = _window_notes(windows, moving, counts, k, movement_config)
    paths = all_paths[moving]
    if is_mirrored:
        paths = np.where(moves_left_most(paths)[:, None, None, None], mirror_paths(paths), paths)
    sources = [windows[i].source_video for i in moving.tolist()]
    features = describe_movements(paths)
    clusters = cluster_features(features, k, config.seed)
    values = silhouettes(features, clusters)
    uses = _assign_uses(clusters, values, sources, movement_config.min_source_videos, config.seed)
    stability = measure_cluster_stability(features, clusters, k, sources, config.seed)
    members = [[i for i in range(len(moving)) if clusters[i] == j and uses[i] == CONCEPT] for j in range(k)]
    shown = [rows or np.flatnonzero(clusters == j).tolist() for j, rows in enumerate(members)]
    present = [j for j in range(k) if shown[j]]
    order = sorted(present, key=lambda j: not members[j])  # of equal names, that of a concept has no number
    words = dict(zip(order, name_movements([paths[shown[j]] for j in order], mirrored=is_mirrored)))
    rows = []
    for j in present:
        in_cluster = np.flatnonzero(clusters == j)
        rows.append(
            MovementRow(
                words[j] if members[j] else "",
                j,
                words[j],
                len(in_cluster),
                len(members[j]),
                len({sources[i] for i in members[j]}),
                *mean_ci(values[in_cluster], units=[sources[i] for i in in_cluster]),
                *stability.overlaps[j].tolist(),
            )
        )
    if dropped := [row for row in rows if not row.concept]:
        notes.append(
            f"{count_noun(len(dropped), 'movement')} of {len(rows)} dropped, in fewer than"
            f" {count_noun(movement_config.min_source_videos, 'source video')}:"
            f" {_quote(row.movement for row in dropped)}"
        )
    if unstable := [row.movement for row in rows if row.concept and row.stability < MIN_STABILITY]:
        notes.append(
            f"{count_noun(len(unstable), 'movement')} with a stability under {MIN_STABILITY:g}: {_quote(unstable)};"
            " other videos would give other clusters, so judge by the clips, and use more videos or fewer movements"
        )
    if not any(row.concept for row in rows):
        raise ValueError(
            f"none of {count_noun(len(rows), 'movement')} is in at least"
            f" {count_noun(movement_config.min_source_videos, 'source video')} of {len(set(sources))}; use more videos,"
            " fewer movements (--num_movements), or lower --min_source_videos"
        )
    of_window = {int(i): (int(clusters[n]), float(values[n]), uses[n]) for n, i in enumerate(moving)}
    window_rows = tuple(
        _window_row(window, scans, config, float(sizes[i]), *of_window.get(i, (STILL, float("nan"), STILL_USE)))
        for i, window in enumerate(windows)
    )
    mean_paths = {j: mean_path(paths[shown[j]]) for j in present}
    return Movements(tuple(rows), window_rows, mean_paths, stability.rand_index, tuple(notes), is_mirrored)


def _quote(names: Iterable[str]) -> str:
    """Return the names in quotes, since a name can contain commas."""
    return ", ".join(f'"{name}"' for name in names)


def _window_notes(
    windows: Sequence[PoseWindow], moving: np.ndarray, counts: Counter[str], k: int, movement_config: MovementConfig
) -> list[str]:
    notes = [
        f"{count_noun(len(windows), 'window')} of people: {len(moving)} with movement, {len(windows) - len(moving)}"
        f" still; {track_counts(counts)}"
    ]
    if k < movement_config.num_movements:
        notes.append(
            f"{count_noun(k, 'cluster')} instead of {movement_config.num_movements}, since people move in only"
            f" {count_noun(len(moving), 'window')}"
        )
    return notes


def _assign_uses(
    clusters: np.ndarray, values: np.ndarray, sources: Sequence[str], min_source_videos: int, seed: int
) -> list[str]:
    """Return what each window is used for: its concept, random sets, or nothing as its cluster is unclear or rare.

    A third of each cluster is reserved for random sets, which else would lack all movements.
    """
    random = np.random.default_rng(seed)
    uses = np.full(len(clusters), AMBIGUOUS, dtype=object)
    for j in range(int(clusters.max()) + 1):
        clear = random.permutation(np.flatnonzero((clusters == j) & (values > 0)))
        n_reserved = int(len(clear) * RESERVED_SHARE)
        uses[clear[:n_reserved]], uses[clear[n_reserved:]] = RESERVED, CONCEPT
        if len({sources[i] for i in clear[n_reserved:]}) < min_source_videos:
            uses[clear] = RARE
    return uses.tolist()


def _window_row(
    window: PoseWindow,
    scans: Sequence[VideoScan],
    config: MiningConfig,
    size: float,
    cluster: int,
    value: float,
    use: str,
) -> MovementWindowRow:
    first = window.first_frame()
    place = (scans[window.scan].name, window.source_video, window.track.number, first, first + config.clip_span - 1)
    return MovementWindowRow(*place, size, cluster, value, use)


def mean_path(paths: Paths) -> Float[np.ndarray, "steps joints 2"]:
    """Return the mean position of each joint at each time; NaN for joints that most windows do not show."""
    is_visible = ~np.isnan(paths)
    counts = is_visible.sum(0)
    means = np.nansum(paths, 0) / np.maximum(counts, 1)
    return np.where(counts >= MIN_VISIBLE_SHARE * len(paths), means, np.nan)


def concept_names(movements: Movements) -> dict[int, str]:
    """Return the name of the movement of each window that can become a concept clip, by its position."""
    names = {row.cluster: row.concept for row in movements.concepts}
    return {i: names[row.cluster] for i, row in enumerate(movements.windows) if row.use == CONCEPT}
