"""Clips of discovered concepts: the regions of their strongest clips, cut out as mined concepts are."""

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts import inputs
from vtcav_jax.concepts.boxes import Box
from vtcav_jax.concepts.config import Concept, MiningConfig
from vtcav_jax.concepts.inputs import WorldVideos
from vtcav_jax.concepts.mining import VIDEOS_FOLDER, MiningReport, mine
from vtcav_jax.concepts.video_scan import BoxTable
from vtcav_jax.data.decode import VideoError, probe
from vtcav_jax.data.source import FileSource, Source
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.discovery.concept_boxes import boxes_of_map
from vtcav_jax.discovery.config import DiscoveryConfig
from vtcav_jax.discovery.dictionaries import Dictionary
from vtcav_jax.discovery.strongest_clips import StrongestClips


@dataclass(frozen=True)
class StageConcepts:
    """Dictionary of one stage, the mean activation that it is relative to, and the names of its concepts."""

    dictionary: Dictionary
    mean: Float[np.ndarray, "t h w c"]
    names: tuple[str, ...]


def deal_clips(
    files: FileSource,
    clip_spec: ClipSpec,
    concepts: Mapping[str, StageConcepts],
    strongest: Mapping[str, StrongestClips],
    clips_per_concept: int,
) -> tuple[dict[str, tuple[Box, ...]], Counter[str]]:
    """Return the boxes of the concepts' clips by video, and the number of clips of each concept.

    A clip is in one set only, so concepts take turns, the most important first, to take their strongest region that no
    other concept has.
    """
    queues = {
        name: deque((stage, j, row) for row in strongest[stage].ranked(j))
        for stage, stage_concepts in concepts.items()
        for j, name in enumerate(stage_concepts.names)
    }
    boxes: dict[str, list[Box]] = {}
    taken: set[tuple[int, ...]] = set()
    tracks: Counter[int] = Counter()
    n_clips: Counter[str] = Counter()
    sizes: dict[int, tuple[int, int] | None] = {}
    for _ in range(clips_per_concept):
        for name in sorted(queues):
            while queues[name]:
                stage, j, row = queues[name].popleft()
                clips = strongest[stage]
                i = int(clips.items[j, row])
                if i not in sizes:
                    sizes[i] = _frame_size(files.items[i].path)
                if (size := sizes[i]) is None:
                    continue
                confidence = round(float(clips.scores[j, row] / clips.scores[j].max()), 4)
                region = boxes_of_map(
                    clips.maps[j, row], clips.frames[j, row], size, clip_spec, name, tracks[i], confidence
                )
                place = (i, region[0].frame, *_extent(region))
                if place not in taken:
                    taken.add(place)
                    boxes.setdefault(files.items[i].name, []).extend(region)
                    tracks[i] += 1
                    n_clips[name] += 1
                    break
    return {name: tuple(region) for name, region in boxes.items()}, n_clips


def cut_concept_clips(
    files: FileSource,
    halves: tuple[Sequence[int], Sequence[int]],
    boxes: dict[str, tuple[Box, ...]],
    names: Sequence[str],
    clip_spec: ClipSpec,
    config: DiscoveryConfig,
    targets: Source,
    out: Path,
) -> MiningReport:
    """Cut the clips of the second half, their controls, and random sets of the first half."""
    mining_config = MiningConfig(
        concepts=tuple(Concept(name, name) for name in names),
        clip_frames=clip_spec.frames,
        interval=clip_spec.interval,
        window_scale=1.0,
        min_confidence=0.0,
        min_area=0.0,
        max_iou=1.0,
        max_clips_per_video=1,
        max_clips=config.clips_per_concept,
        num_random_sets=config.num_random_sets,
        seed=config.seed,
    )
    fit_videos, clip_videos = (replace(files, items=tuple(files.items[i] for i in sorted(half))) for half in halves)
    table = BoxTable("discovered concepts", boxes)
    return mine(clip_videos, mining_config, out, detector=table, targets=targets, negative_videos=fit_videos)


def as_files(source: Source, out: Path) -> FileSource:
    """Return the videos as files; clips of a synthetic world are written."""
    if isinstance(source, WorldSource):
        WorldVideos(source, out / VIDEOS_FOLDER).write()
    items = tuple(item for item, _ in inputs.items_with_labels(source, out / VIDEOS_FOLDER))
    return FileSource(source.spec, source.heads, items)


def _frame_size(path: Path | None) -> tuple[int, int] | None:
    """Return height and width of a video, None if it cannot be read, which mining reports."""
    assert path is not None
    try:
        index = probe(path)
    except VideoError:
        return None
    return (index.height, index.width)


def _extent(region: Sequence[Box]) -> tuple[int, int, int, int]:
    """Return the union of the boxes in whole pixels."""
    x1, y1 = math.floor(min(box.x1 for box in region)), math.floor(min(box.y1 for box in region))
    x2, y2 = math.ceil(max(box.x2 for box in region)), math.ceil(max(box.y2 for box in region))
    return (x1, y1, x2, y2)
