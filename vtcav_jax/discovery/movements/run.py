"""`mine_movements`: movements of people as a concept folder, from a pose network or boxes with keypoints.

People are tracked, the windows in which they move are clustered, and the clips of each cluster are cut out as those of
detected objects are. Random sets show the same people at other moments: still, between two clusters, or in the third of
the movements that is reserved for this.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from vtcav_jax.atomic import replacing, write_text
from vtcav_jax.concepts.concept_sets import OVERVIEW_FOLDER
from vtcav_jax.concepts.config import Concept, MiningConfig, OptionalMiningConfig, folder_name
from vtcav_jax.concepts.inputs import VideoInput
from vtcav_jax.concepts.mining import MiningReport, ProposedConcepts, mine
from vtcav_jax.concepts.video_scan import BoxTable, Detector, VideoScan
from vtcav_jax.discovery.movements.config import MovementConfig
from vtcav_jax.discovery.movements.movement_clusters import Movements, concept_names, find_movements
from vtcav_jax.discovery.movements.pose_windows import MIN_STEPS, find_windows, track_counts
from vtcav_jax.discovery.movements.relabelled_scans import relabel_scans
from vtcav_jax.names import escape_control_chars
from vtcav_jax.runs.movement_rows import (
    MOVEMENT_PATHS_NPZ,
    MOVEMENT_WINDOWS_CSV,
    MOVEMENTS_CSV,
    MOVEMENTS_JSON,
    MovementRow,
    MovementWindowRow,
)
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.stats.intervals import format_interval

DEFAULT_MOVEMENTS, DEFAULT_MINING = MovementConfig(), OptionalMiningConfig()


@dataclass(frozen=True, repr=False)
class MovementReport(Movements):
    """Movements that became concepts, and the result of cutting their clips; `text` is a summary for the terminal."""

    folder: Path
    mining: MiningReport

    @property
    def text(self) -> str:
        names = ["movement", *(row.movement for row in self.rows)]
        width = max(map(len, names))
        lines = [f"{names[0]:{width}}  windows  videos  silhouette (95 % CI)    stability (95 % of resamples)"]
        for row in self.rows:
            silhouette = format_interval(row.silhouette, row.silhouette_low, row.silhouette_high)
            stability = format_interval(row.stability, row.stability_low, row.stability_high)
            counts = f"{row.concept_windows:>7}  {row.source_videos:>6}" if row.concept else "dropped        "
            lines.append(f"{row.movement:{width}}  {counts}  {silhouette:<22}  {stability}")
        lines.append(
            "agreement with the clusters of resampled source videos (adjusted Rand index):"
            f" {format_interval(*self.rand_index)}"
        )
        return escape_control_chars("\n".join([*lines, ""])) + "\n" + self.mining.text


def mine_movements(
    videos: VideoInput,
    out: str | Path,
    config: MiningConfig = DEFAULT_MINING,
    movement_config: MovementConfig = DEFAULT_MOVEMENTS,
    *,
    detector: Detector | BoxTable | None = None,
    targets: VideoInput = (),
    negative_videos: VideoInput | None = None,
) -> MovementReport:
    """Write the movements of people in `videos` as concept sets to the folder `out`.

    `config` has the pose network (or boxes with keypoints) and the settings of clips, but no concepts; other arguments
    are those of `concepts.mine`. Movements of fewer source videos than `min_source_videos` are dropped.

    ```python
    config = OptionalMiningConfig(detector=Path("yolov8n-pose.pt"))
    print(mine_movements("videos", "movements", config, targets="eval_videos").text)
    ```
    """
    if config.concepts:
        raise ValueError("movements name themselves; expected a config without concepts")
    if config.clip_span < MIN_STEPS:
        raise ValueError(f"movements need clips of at least {MIN_STEPS} frames, got {config.clip_span}")
    found: list[Movements] = []

    def propose(scans: Sequence[VideoScan], config: MiningConfig, folder: Path) -> ProposedConcepts:
        windows, counts = find_windows(scans, config, movement_config)
        if not windows:
            raise ValueError(
                f"no person is visible for a clip of {config.clip_span} frames: {track_counts(counts)}; use longer"
                " videos of whole people, or lower --min_keypoint_confidence"
            )
        movements = find_movements(scans, windows, counts, config, movement_config)
        found.append(movements)
        _write_movements(folder, movements, movement_config)
        mining_config = replace(
            config,
            concepts=tuple(Concept(row.concept, row.concept) for row in movements.concepts),
            min_track_length=None,  # of whole tracks, which windows are parts of
        )
        relabelled = relabel_scans(scans, windows, concept_names(movements), config.clip_span)
        return ProposedConcepts(relabelled, mining_config, movements.notes)

    config = replace(config, movements=True)
    report = mine(
        videos, config, out, detector=detector, targets=targets, negative_videos=negative_videos, propose=propose
    )
    (movements,) = found
    parts = {field.name: getattr(movements, field.name) for field in fields(Movements)}
    return MovementReport(**parts, folder=Path(out), mining=report)


def _write_movements(out: Path, movements: Movements, movement_config: MovementConfig) -> None:
    """Write the tables, the mean paths, and a picture of each movement for the review page."""
    write_rows(out / MOVEMENTS_CSV, MovementRow, movements.rows)
    write_rows(out / MOVEMENT_WINDOWS_CSV, MovementWindowRow, movements.windows)
    mean, low, high = movements.rand_index
    record = {"asked": asdict(movement_config), "rand_index": {"mean": mean, "low": low, "high": high}}
    write_text(out / MOVEMENTS_JSON, json.dumps(record | {"notes": movements.notes}, indent=1) + "\n")
    with replacing(out / MOVEMENT_PATHS_NPZ) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{str(j): path for j, path in movements.mean_paths.items()})
    folder = out / OVERVIEW_FOLDER
    folder.mkdir(exist_ok=True)
    pictures = {folder / f"{folder_name(row.concept)}.svg": row.concept for row in movements.concepts}
    for path, name in pictures.items():
        movements.save(path, name)
    for path in folder.glob("*.svg"):
        if path not in pictures:
            path.unlink()
