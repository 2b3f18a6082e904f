"""Sensitivity to time over depth, as a part of the task motion."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vtcav_jax.attribution.motion.time_sensitivity import sensitivity_rows, time_sensitivity
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.attribution.videos.clip_windows import Window, stream_windows
from vtcav_jax.console import info
from vtcav_jax.data import SamplingConfig, Source
from vtcav_jax.models import Network
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.time_sensitivity_rows import TIME_SENSITIVITY_CSV, TimeSensitivityRow


def write_time_sensitivity(
    folder: Path,
    network: Network,
    source: Source,
    target_specs: Sequence[TargetSpec],
    n_videos: int,
    *,
    sampling: SamplingConfig,
    batch_size: int,
    num_workers: int,
    seed: int,
) -> None:
    """Measure the first clips of `n_videos` videos, spread over the source, and write their table if there is none."""
    file = folder / TIME_SENSITIVITY_CSV
    head_ranges = {spec.head_range for spec in target_specs if spec.custom is None}
    heads = [name for name, part in network.head_slices.items() if (part.start, part.stop) in head_ranges]
    if not n_videos or not heads or file.exists():
        return
    n_items = len(source.items)
    indices = np.unique(np.linspace(0, n_items - 1, min(n_videos, n_items)).round().astype(int)).tolist()
    windows = [
        window
        for window in stream_windows(source, network.clip_spec, sampling, num_workers=num_workers, indices=indices)
        if isinstance(window, Window) and window.clip_index == 0
    ]
    source_videos = [window.read.item.source_video for window in windows]
    if len(set(source_videos)) < 2:
        info("note: sensitivity to time over depth needs clips of at least two source videos, and is left out")
        return
    clips = np.concatenate([window.clip.video for window in windows])
    sensitivity = time_sensitivity(
        network, clips, heads, source_videos=source_videos, seed=seed, batch_size=min(batch_size, len(clips))
    )
    write_rows(file, TimeSensitivityRow, sensitivity_rows(sensitivity))
    info(f"Sensitivity to time by layer: {file}")
