"""Attribution maps on disk: one `.npz` per video with maps and metadata, and the table rows computed from it."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vtcav_jax import atomic
from vtcav_jax.attribution.resample import frame_of_step
from vtcav_jax.attribution.videos.explain_videos import VideoMaps
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.source import SourceItem
from vtcav_jax.runs.attribution_rows import MapRow

MAP_KEY_SEPARATOR = "|"


def result_stem(index: int, item: SourceItem) -> str:
    """Return a file name for the results of a video, unique in its source."""
    return f"{index:06d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', item.name)[-60:]}"


def video_stem(read: ReadResult) -> str:
    """Return the file name for the results of a video that was read."""
    return result_stem(read.index, read.item)


def save_maps(
    path: Path, video_maps: VideoMaps, labels: Sequence[str], animations: Mapping[str, str] | None = None
) -> None:
    """Save raw maps `map|TARGET|METHOD|STAGE` `(windows, t, h, w)`, and the metadata that `map_rows` needs.

    Maps from random draws have standard errors of the same shape, `standard_error|TARGET|METHOD|STAGE`. `animations`
    are the hashes of the maps' animations.
    """
    arrays: dict[str, np.ndarray] = {
        "frames": np.concatenate([window.clip.frames for window in video_maps.windows]),
        "times": np.concatenate([window.clip.times for window in video_maps.windows]),
    }
    metadata = []
    for target, maps in video_maps.maps.items():
        arrays[f"score|{target}"] = video_maps.scores[target]
        answers = [labels[i] if i >= 0 else target for i in video_maps.answers[target]]
        for attribution in maps:
            key = MAP_KEY_SEPARATOR.join((target, attribution.method, attribution.stage))
            arrays[f"map|{key}"] = attribution.map
            if attribution.completeness_gap is not None:
                arrays[f"residual|{key}"] = attribution.completeness_gap
            if attribution.standard_error is not None:
                arrays[f"standard_error|{key}"] = attribution.standard_error
                arrays[f"noise|{key}"] = attribution.sampling_noise
            metadata.append(
                (target, attribution.method, attribution.stage, attribution.signed, attribution.forward_passes, answers)
            )
    content = video_maps.windows[0].clip.content
    about = {"clip": video_maps.read.item.name, "content": content, "maps": metadata, "animations": animations or {}}
    arrays["about"] = np.array(json.dumps(about))
    with atomic.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


@dataclass(frozen=True, eq=False)
class StoredMaps:
    """Stored maps of one target by one method, for all clips of a video."""

    clip: str
    target: str
    answers: list[str]
    method: str
    stage: str
    signed: bool
    forward_passes: int
    maps: Float[np.ndarray, "n t h w"]
    scores: Float[np.ndarray, " n"]
    completeness_gap: Float[np.ndarray, " n"]
    times: Float[np.ndarray, "n frames"]
    sampling_noise: Float[np.ndarray, " n"]


def load_maps(path: Path) -> Iterator[StoredMaps]:
    """Yield the maps in one file, by target and method."""
    with np.load(path, allow_pickle=False) as arrays:
        metadata, times = json.loads(str(arrays["about"])), arrays["times"]
        for target, method, stage, signed, forward_passes, answers in metadata["maps"]:
            key = MAP_KEY_SEPARATOR.join((target, method, stage))
            maps, scores = arrays[f"map|{key}"], arrays[f"score|{target}"]
            completeness_gap = arrays[f"residual|{key}"] if f"residual|{key}" in arrays else np.full(len(maps), np.nan)
            noise = arrays[f"noise|{key}"] if f"noise|{key}" in arrays else np.zeros(len(maps))
            yield StoredMaps(
                metadata["clip"],
                target,
                answers,
                method,
                stage,
                signed,
                forward_passes,
                maps,
                scores,
                completeness_gap,
                times,
                noise,
            )


def map_rows(path: Path) -> list[MapRow]:
    """Return the table rows of one file, one per clip, target and method."""
    rows_of_video = []
    for stored_maps in load_maps(path):
        for clip_index, (maps, frame_times) in enumerate(zip(stored_maps.maps, stored_maps.times)):
            profile = np.abs(maps).sum((1, 2))
            peak_step = int(profile.argmax())
            peak_share = float(profile[peak_step] / profile.sum()) if profile.any() else float("nan")
            peak_time = float(frame_times[frame_of_step(peak_step, len(profile), len(frame_times))])
            rows_of_video.append(
                MapRow(
                    *(
                        stored_maps.clip,
                        clip_index,
                        float(frame_times[0]),
                        float(frame_times[-1]),
                        stored_maps.target,
                        stored_maps.answers[clip_index],
                        float(stored_maps.scores[clip_index]),
                    ),
                    *(
                        stored_maps.method,
                        stored_maps.stage,
                        stored_maps.signed,
                        stored_maps.forward_passes,
                        float(maps.sum()),
                        float(stored_maps.completeness_gap[clip_index]),
                    ),
                    *(peak_time, peak_share, half_mass_fraction(profile), path.name, spatial_half_mass(maps)),
                    float(stored_maps.sampling_noise[clip_index]),
                )
            )
    return rows_of_video


def half_mass_fraction(profile: Float[np.ndarray, " t"]) -> float:
    """Return the smallest share of steps with half of the mass, counting the last step in part; NaN without mass."""
    if not profile.any():
        return float("nan")
    descending = -np.sort(-profile.astype(np.float64))
    cumulative = np.r_[0, np.cumsum(descending)]
    return float(np.interp(cumulative[-1] / 2, cumulative, np.arange(len(cumulative))) / len(profile))


def spatial_half_mass(maps: Float[np.ndarray, "t h w"]) -> float:
    """Return the smallest share of a frame with half of its mass, averaged over time with the mass as weight."""
    steps = np.abs(maps).reshape(len(maps), -1)
    profile = steps.sum(1, dtype=np.float64)
    if steps.shape[1] < 2 or not profile.any():
        return math.nan
    return float(np.average([half_mass_fraction(step) if step.any() else 0.0 for step in steps], weights=profile))
