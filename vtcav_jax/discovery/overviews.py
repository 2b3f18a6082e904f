"""Overviews of discovered concepts: the clips in which each is strongest, dark grey where and when it is absent."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.concepts.concept_sets import OVERVIEW_FOLDER
from vtcav_jax.concepts.config import folder_name
from vtcav_jax.console import progress
from vtcav_jax.data.resize import resize
from vtcav_jax.discovery.concept_clips import StageConcepts
from vtcav_jax.discovery.passes import VideoPasses
from vtcav_jax.discovery.strongest_clips import StrongestClips
from vtcav_jax.tcav.previews import scale_to_preview, tile_clips, write_preview

CLIPS_PER_OVERVIEW, MAX_FRAMES = 6, 16
CACHED_CLIPS = 128  # half a megabyte each
BRIGHTNESS = 0.5  # of the grey where the concept is absent


def write_overviews(
    out: Path, passes: VideoPasses, named: Mapping[str, StageConcepts], strongest: Mapping[str, StrongestClips]
) -> None:
    """Write one overview per concept that is anywhere above 0: an mp4, and a jpg of its middle frame."""
    (out / OVERVIEW_FOLDER).mkdir(exist_ok=True)
    read = lru_cache(CACHED_CLIPS)(partial(_read_frames, passes))
    jobs = [(name, stage, j) for stage, concepts in named.items() for j, name in enumerate(concepts.names)]
    for ((name, stage, j),) in progress(([job] for job in sorted(jobs)), len(jobs), "overviews"):
        clips, cells = strongest[stage], []
        for row in clips.ranked(j)[:CLIPS_PER_OVERVIEW]:
            frames = read(int(clips.items[j, row]), tuple(clips.frames[j, row].tolist()))
            cells.append(shade(frames, clips.maps[j, row].astype(np.float32)))
        if cells:
            write_preview(out, f"{OVERVIEW_FOLDER}/{folder_name(name)}", tile_clips(cells))


def _read_frames(passes: VideoPasses, item: int, frames: tuple[int, ...]) -> UInt8[np.ndarray, "t h w 3"]:
    """Return at most `MAX_FRAMES` of the frames of a clip of a video, in the size of previews."""
    clip = passes.source.read(item, passes.reader.network.clip_spec, replace(passes.sampling, normalise=False))
    video = np.asarray(clip.video[int((clip.frames == frames).all(1).argmax())])
    return scale_to_preview(video[:: -(-len(video) // MAX_FRAMES)])


def shade(
    video: UInt8[np.ndarray, "t h w 3"], concept_map: Float[np.ndarray, "t2 h2 w2"]
) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the clip in colour where the map is at its maximum over the clip, dark grey where it is 0."""
    levels = np.rint(255 * np.clip(concept_map / max(float(concept_map.max()), 1e-12), 0, 1)).astype(np.uint8)
    grown = np.stack([resize(level[..., None].repeat(3, -1), video.shape[1:3]) for level in levels])
    steps = np.arange(len(video)) * len(levels) // len(video)
    colour = grown[steps].astype(np.float32) / 255
    grey = BRIGHTNESS * video.mean(-1, keepdims=True)
    return np.rint(colour * video + (1 - colour) * grey).astype(np.uint8)
