"""Examples of the task motion: maps of a few clips with their motion and static parts, as arrays and animations."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vtcav_jax import atomic, tap
from vtcav_jax.attribution.motion.reliance import MotionConfig, explain_motion
from vtcav_jax.attribution.motion.selective_relevance import SelectiveRelevance
from vtcav_jax.attribution.motion.summary import interleave_classes
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.attribution.videos.clip_windows import Window, stream_windows
from vtcav_jax.attribution.videos.explain_videos import MethodStages
from vtcav_jax.attribution.videos.stored_results import animation_hashes, note_recomputed, npz_content
from vtcav_jax.data import SamplingConfig, Source
from vtcav_jax.data.encode import write_with_poster
from vtcav_jax.models import Network
from vtcav_jax.names import safe_filename
from vtcav_jax.report.animation.maps import animation_rate, map_caption
from vtcav_jax.report.animation.motion_parts import render_motion_parts
from vtcav_jax.runs.attribution_rows import MOTION_PARTS_FOLDER, ClipMotionRow

VideoRow = tuple[int, ClipMotionRow]  # index of the video in its source


def select_examples(rows: Sequence[VideoRow], count: int) -> list[VideoRow]:
    """Return the first clips of `count` videos, those of each predicted class once before any class has two."""
    first_clips = {id(row): (index, row) for index, row in rows if row.clip_index == 0}
    return [first_clips[id(row)] for row in interleave_classes([row for _, row in first_clips.values()])[:count]]


def parts_file(video_stem: str, target: str) -> str:
    """Return the path in the run folder of the arrays of a clip and target."""
    return f"{MOTION_PARTS_FOLDER}/{video_stem}--{safe_filename(target)}.npz"


def write_examples(
    folder: Path,
    network: Network,
    source: Source,
    target_spec: TargetSpec,
    method_stages: MethodStages,
    config: MotionConfig,
    examples: Sequence[VideoRow],
    *,
    contents: Mapping[int, str],
    sampling: SamplingConfig,
    batch_size: int,
    num_workers: int,
    animations: str,
) -> None:
    """Write the arrays and animations of the first clips of the `examples` that have none of the video's content."""
    files = {i: folder / row.parts_file for i, row in examples}
    invalid = [path for i, path in files.items() if path.is_file() and not _is_of_content(path, contents[i])]
    note_recomputed(invalid, "damaged, incomplete, or of videos whose files have changed since")
    rows = {i: row for i, row in examples if files[i] in invalid or not files[i].is_file()}
    results = stream_windows(source, network.clip_spec, sampling, num_workers=num_workers, indices=list(rows))
    windows = [result for result in results if isinstance(result, Window) and result.clip_index == 0]
    batch_size = min(batch_size, len(source.items) * sampling.clips_per_video)
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size]
        padded = batch + batch[-1:] * (batch_size - len(batch))  # as in the measurement, so that nothing compiles
        clips = jnp.asarray(network.clip_spec.normalise(np.stack([window.clip.video[0] for window in padded])))
        target = target_spec.target(np.asarray(tap.compute_logits(network.model, clips)))
        (parts_by_method,) = explain_motion(network, clips, [target], method_stages, config)
        for i, window in enumerate(batch):
            row = rows[window.read.index]
            path, files = folder / row.parts_file, []
            if animations != "none":
                files = _write_animation(path, animations, window, parts_by_method, i, row)
            arrays = dict(_arrays(window, parts_by_method, i, row, animation_hashes(files, path.parent)))
            with atomic.replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)


def _is_of_content(path: Path, content: str) -> bool:
    """Return whether a file of arrays and its animation are intact and of the video with this content."""
    try:
        return npz_content(path) == content
    except Exception:  # a damaged file can raise anything
        return False


def _write_animation(
    arrays_path: Path,
    extension: str,
    window: Window,
    parts_by_method: Sequence[SelectiveRelevance],
    clip: int,
    row: ClipMotionRow,
) -> list[Path]:
    caption = map_caption(row.clip, row.target, row.prediction or row.answer, row.score)
    animation = render_motion_parts(window.clip.video[0], parts_by_method, clip, caption)
    rate = animation_rate(window.clip.times[0])
    return write_with_poster(arrays_path.with_suffix(f".{extension}"), animation, rate)


def _arrays(
    window: Window,
    parts_by_method: Sequence[SelectiveRelevance],
    clip: int,
    row: ClipMotionRow,
    animations: Mapping[str, str],
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield `map`, `motion` and `static` of each method, the frames, their times, and what they are, as JSON."""
    maps = []
    for parts in parts_by_method:
        split, attribution = parts.clip_split, parts.attribution
        name = safe_filename(f"{attribution.method}-{attribution.stage}")
        yield f"map-{name}", parts.clip_change.maps[clip]
        yield f"motion-{name}", split.motion[clip]
        yield f"static-{name}", split.static[clip]
        maps.append({"name": name, "method": attribution.method, "stage": attribution.stage})
    yield "frames", window.clip.frames[0]
    yield "times", window.clip.times[0]
    about = {
        "clip": row.clip,
        "content": window.clip.content,
        "target": row.target,
        "answer": row.answer,
        "prediction": row.prediction,
        "score": row.score,
        "maps": maps,
        "animations": animations,
    }
    split = parts_by_method[0].clip_split
    yield "about", np.array(json.dumps(about | {"variant": split.variant, "threshold_sd": split.threshold_sd}))
