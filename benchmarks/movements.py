"""Compare the clusters of movements with planted ones (docs/guides/concepts.md).

  python -m benchmarks.movements

The people are those of tests/support/planted_movements.py: seven movements, and standing still. Writes
benchmarks/results/movements_BACKEND.jsonl and its table.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from absl import app

from benchmarks import timing, write_tables
from benchmarks.publish_evaluation import round_value
from tests.support.planted_movements import SPAN, planted_label, planted_videos
from vtcav_jax.concepts.config import OptionalMiningConfig
from vtcav_jax.discovery.movements.config import MovementConfig
from vtcav_jax.discovery.movements.movement_clusters import find_movements
from vtcav_jax.discovery.movements.pose_windows import find_windows
from vtcav_jax.stats.partitions import adjusted_rand_ci

SEED = 20
NAMES = {
    **{"right arm up": "right wrist up", "right arm down": "right wrist down"},
    **{"left arm up": "left wrist up", "left arm down": "left wrist down"},
    **{"squat": "both knees bend", "stand up": "both knees straighten", "walk": "both feet from side to side in turn"},
}


@dataclass(frozen=True)
class Condition:
    videos: int = 12
    noise: float = 0.03  # torso lengths
    lost: float = 0.03  # share of frames in which each keypoint gets lost
    num_movements: int = 7
    min_movement: float = 0.1


CONDITIONS = (
    *(Condition(noise=noise) for noise in (0.0, 0.03, 0.06)),
    *(Condition(noise=noise, min_movement=0.15) for noise in (0.06, 0.1)),
    Condition(lost=0.08),
    Condition(videos=6),
    *(Condition(num_movements=k) for k in (4, 12)),
)


def main(argv: list[str]) -> None:
    del argv
    results = [{key: round_value(value) for key, value in measure(condition).items()} for condition in CONDITIONS]
    path = timing.write_results("movements", results)
    print(f"wrote {path} and the tables of {write_tables.update_pages()}", file=sys.stderr)


def measure(condition: Condition) -> dict[str, Any]:
    """Return the agreement with what is planted, over all windows and over those with a planted movement."""
    scans, segments = planted_videos(condition.videos, SEED, noise=condition.noise, missing_share=condition.lost)
    config = OptionalMiningConfig(clip_frames=SPAN)
    movement_config = MovementConfig(num_movements=condition.num_movements, min_movement=condition.min_movement)
    windows, counts = find_windows(scans, config, movement_config)
    movements = find_movements(scans, windows, counts, config, movement_config)
    frames = [range(window.first_frame(), window.first_frame() + SPAN) for window in windows]
    labels = [planted_label(segments, w.scan, w.track.number, part) for w, part in zip(windows, frames)]
    names = sorted({*labels})
    planted = np.array([names.index(label) for label in labels])
    clusters = np.array([row.cluster + 1 for row in movements.windows])
    sources = [window.source_video for window in windows]
    moving = np.flatnonzero(planted != names.index("still"))
    estimate, low, high = adjusted_rand_ci(planted, clusters, sources)
    moving_index = adjusted_rand_ci(planted[moving], clusters[moving], [sources[i] for i in moving.tolist()])
    return {
        **vars(condition),
        "windows": len(windows),
        **{"rand_index": estimate, "low": low, "high": high},
        **dict(zip(("moving_index", "moving_low", "moving_high"), moving_index)),
        "named": len(set(NAMES.values()) & {row.movement for row in movements.rows}),
        "stability": movements.rand_index[0],
    }


if __name__ == "__main__":
    app.run(main)
