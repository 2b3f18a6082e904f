"""Previews for a report page: looping sheets of concept clips, and target clips with extreme derivatives.

They are written to the run folder with the network's predictions for the target clips, so that the page can be rebuilt
without the videos.
"""

import glob
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax import atomic
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.concept_sets import (
    OVERVIEW_FOLDER,
    ConceptClip,
    ConceptSets,
    letterboxed,
    read_discovered,
)
from vtcav_jax.concepts.config import folder_name
from vtcav_jax.concepts.crops import CONTROLS, letterbox
from vtcav_jax.console import progress
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.encode import encode_jpeg, encode_mp4
from vtcav_jax.data.loader import stream
from vtcav_jax.data.source import Source
from vtcav_jax.models import Network
from vtcav_jax.runs.directory import ANIMATION_FOLDER
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_rows import ANIMATIONS_CSV, PREDICTIONS_CSV, Animation, DerivativeRow, PredictionRow, ScoreRow
from vtcav_jax.tcav.experiment.verdicts import is_finding
from vtcav_jax.training.evaluate import predict_clips

PREVIEW_SIDE = 96  # pixels
SHEET_COLUMNS, MAX_SHEET_CLIPS = 6, 12
EXTREME_CLIPS_PER_END = 3
MIN_PREVIEW_SECONDS = 1.6


def render_previews(
    folder: Path,
    network: Network,
    source: Source,
    sets: ConceptSets,
    rows: Sequence[ScoreRow],
    clips: Sequence[DerivativeRow],
) -> None:
    """Write previews and predictions of a run with the tables `rows` and `clips`, unless they exist."""
    if (folder / ANIMATIONS_CSV).exists() and (folder / PREDICTIONS_CSV).exists():
        return
    (folder / ANIMATION_FOLDER).mkdir(exist_ok=True)
    clip_spec = network.clip_spec
    animations = [*_copy_overviews(folder, sets.folder), *_render_concept_sheets(folder, sets, clip_spec)]
    extreme_names = {
        clip.clip for row in most_telling_tests(rows) for side in extreme_clips(row, clips) for clip in side
    }
    by_target: dict[str, list[str]] = {}
    for clip in clips:
        by_target.setdefault(clip.target, [])
        if clip.clip not in by_target[clip.target]:
            by_target[clip.target].append(clip.clip)
    predictions = _predict_targets(folder, network, source, clip_spec, by_target, extreme_names, animations)
    write_rows(folder / PREDICTIONS_CSV, PredictionRow, predictions)
    write_rows(folder / ANIMATIONS_CSV, Animation, animations)


def most_telling_tests(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Return each concept's strongest finding for each class, or the test with the smallest p if a class has none."""
    out = []
    for target in dict.fromkeys(row.target for row in rows):
        subset = [row for row in rows if row.target == target]
        findings = sorted(filter(is_finding, subset), key=lambda row: (row.p_adjusted, -abs(row.relative_derivative)))
        best: dict[str, ScoreRow] = {}
        for row in findings:
            best.setdefault(row.concept, row)
        with_p = [row for row in subset if row.p == row.p]
        out += list(best.values()) or sorted(with_p, key=lambda row: row.p)[:1]
    return out


def extreme_clips(row: ScoreRow, clips: Sequence[DerivativeRow]) -> tuple[list[DerivativeRow], list[DerivativeRow]]:
    """Return the clips with the highest and those with the lowest derivatives along the row's vector."""
    key = (row.target, row.stage, row.concept, row.clip_type, row.negatives)
    matching = [c for c in clips if (c.target, c.stage, c.concept, c.clip_type, c.negatives) == key]
    matching.sort(key=lambda clip: -clip.derivative)
    n_per_end = min(EXTREME_CLIPS_PER_END, len(matching) // 2)
    return matching[:n_per_end], matching[len(matching) - n_per_end :]


def _copy_overviews(folder: Path, concept_folder: Path) -> list[Animation]:
    """Copy the overviews of discovered concepts to the run folder."""
    animations = []
    for row in read_discovered(concept_folder):
        files = sorted((concept_folder / OVERVIEW_FOLDER).glob(f"{glob.escape(folder_name(row.concept))}.*"))
        name = f"{ANIMATION_FOLDER}/{_hashed_name('discovered', row.concept)}"
        for path in files:
            atomic.write_bytes(folder / f"{name}{path.suffix}", path.read_bytes())
        if files:
            animations.append(Animation("discovered", row.concept, "", f"{name}{files[-1].suffix}", 1, 1))
    return animations


def _render_concept_sheets(folder: Path, sets: ConceptSets, clip_spec: ClipSpec) -> list[Animation]:
    """Write one sheet for each concept and clip type; all random sets of a type share one."""
    groups: dict[tuple[str, str], list[ConceptClip]] = {}
    for clip in sets.clips:
        if clip.is_negative and clip.clip_type in CONTROLS:
            continue
        groups.setdefault(("random" if clip.is_negative else clip.concept, clip.clip_type), []).append(clip)
    animations = []
    for (name, clip_type), members in progress(groups.items(), len(groups), "sheets", size=lambda _: 1):
        step = max(1, len(members) // MAX_SHEET_CLIPS)
        sampled = members[::step][:MAX_SHEET_CLIPS]
        cells = [scale_to_preview(letterboxed(clip, clip_spec)) for clip in sampled]
        file = f"{ANIMATION_FOLDER}/{_hashed_name(name, clip_type)}"
        animations.append(
            Animation(
                "concept", name, clip_type, write_preview(folder, file, tile_clips(cells)), len(sampled), len(members)
            )
        )
    return animations


def _predict_targets(
    folder: Path,
    network: Network,
    source: Source,
    clip_spec: ClipSpec,
    by_target: dict[str, list[str]],
    extreme_names: set[str],
    animations: list[Animation],
) -> list[PredictionRow]:
    """Return predictions for all target clips; append previews of the extreme clips to `animations`."""
    names = {name for clip_names in by_target.values() for name in clip_names}
    indices = [i for i, item in enumerate(source.items) if item.name in names]
    read_names: list[str] = []

    def videos():
        for result in stream(source, clip_spec, SamplingConfig(normalise=False), positions=indices, num_workers=0):
            if result.clip is None:
                continue
            read_names.append(result.item.name)
            if result.item.name in extreme_names:
                file = f"{ANIMATION_FOLDER}/{_hashed_name('target', result.item.name)}"
                written_file = write_preview(folder, file, scale_to_preview(np.asarray(result.clip.video[0])))
                animations.append(Animation("target", result.item.name, "", written_file, 1, 1))
            yield result.clip.video[:1]

    class_probabilities = list(
        progress(predict_clips(network, videos(), 8), len(indices), "predictions", size=lambda _: 1)
    )
    probabilities_by_clip = dict(zip(read_names, class_probabilities))
    predictions = []
    for target, clip_names in by_target.items():
        index = network.class_index(target)
        head, head_slice = next(
            (head, head_slice)
            for head, head_slice in network.head_slices.items()
            if head_slice.start <= index < head_slice.stop
        )
        for name in clip_names:
            if name in probabilities_by_clip:
                of_head = probabilities_by_clip[name][head_slice]
                top_class, position = int(of_head.argmax()), index - head_slice.start
                predictions.append(
                    PredictionRow(
                        target=target,
                        clip=name,
                        answer=network.heads[head][top_class],
                        probability=float(of_head[position]),
                        correct=top_class == position,
                        lead=_log_odds(of_head, position),
                    )
                )
    return predictions


def _log_odds(probabilities: Float[np.ndarray, " k"], position: int) -> float:
    """Return the log odds of one class against the others (NaN without others), with 0 as the smallest number."""
    if len(probabilities) < 2:
        return math.nan
    others = np.delete(probabilities, position).sum()
    smallest = np.finfo(np.float64).tiny
    return float(np.log(max(probabilities[position], smallest)) - np.log(max(others, smallest)))


def scale_to_preview(video: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t side side 3"]:
    """Scale a clip to the preview size, small frames by pixel repetition so that they stay sharp."""
    height = video.shape[1]
    if height <= PREVIEW_SIDE and PREVIEW_SIDE % height == 0:
        return video.repeat(PREVIEW_SIDE // height, 1).repeat(PREVIEW_SIDE // height, 2)
    return letterbox(video, PREVIEW_SIDE, antialias=True)


def tile_clips(cells: Sequence[UInt8[np.ndarray, "_ side side 3"]], gap: int = 4) -> UInt8[np.ndarray, "t h w 3"]:
    """Tile clips into one animation; shorter clips repeat their last frame."""
    across, length, pitch = min(SHEET_COLUMNS, len(cells)), max(map(len, cells)), PREVIEW_SIDE + gap
    down = math.ceil(len(cells) / across)
    out = np.full((length, down * pitch - gap, across * pitch - gap, 3), 127, np.uint8)
    for i, cell in enumerate(cells):
        row, column = divmod(i, across)
        padded = np.concatenate([cell, cell[-1:].repeat(length - len(cell), 0)])
        out[:, row * pitch : row * pitch + PREVIEW_SIDE, column * pitch : column * pitch + PREVIEW_SIDE] = padded
    return out


def write_preview(folder: Path, file: str, video: UInt8[np.ndarray, "t h w 3"]) -> str:
    """Write an mp4 and a jpg of its middle frame, for static clips only the jpg; return the main file's name."""
    static = bool((video == video[0]).all())
    atomic.write_bytes(folder / f"{file}.jpg", encode_jpeg(video[0 if static else len(video) // 2]))
    if static:
        return f"{file}.jpg"
    fps = max(4, min(12, round(len(video) / MIN_PREVIEW_SECONDS)))
    atomic.write_bytes(folder / f"{file}.mp4", encode_mp4(video, fps))
    return f"{file}.mp4"


def _hashed_name(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
