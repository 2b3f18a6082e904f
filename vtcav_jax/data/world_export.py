"""Export of synthetic clips to video files, with tables of boxes and labels, to be read like any other videos."""

import os
from pathlib import Path

import numpy as np

from vtcav_jax import atomic
from vtcav_jax.console import progress
from vtcav_jax.data.encode import encode_yuv444_mp4
from vtcav_jax.runs.tables import write_table
from vtcav_jax.worlds.render import WorldClips

WORLD_FPS = 25  # of exported files, and nominal for clips in memory
WORLD_BOX_COLUMNS = ("file", "frame", "track", "label", "x1", "y1", "x2", "y2")


def clip_name(seed: int, index: int) -> str:
    return f"clip_{seed}_{index:06d}.mp4"


def write_clips(clips: WorldClips, folder: str | os.PathLike, *, fps: int = WORLD_FPS) -> list[Path]:
    """Write `clip_<seed>_<index>.mp4` for each clip, `boxes.csv` and `manifest.csv`; return the videos' paths.

    The encoding is lossless YUV 4:4:4 H.264; the rounding to 8 bits and to YUV changes pixels by at most 2 of 255
    levels. Boxes are in pixels, lower right corner excluded; an object that crosses the border has one row per piece.
    `manifest.csv` lists the file and the class of each question, for `open_source`. The tables are written last, so
    their presence means that the videos are complete.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / clip_name(clips.seed, i) for i in clips.index.tolist()]
    jobs = ([job] for job in zip(paths, clips.video))
    for ((path, video),) in progress(jobs, len(clips), "clips"):
        write_video(path, video, fps)

    names = dict(zip(clips.index.tolist(), [path.name for path in paths]))
    tracks, heads = clips.world.tracks, clips.world.heads
    boxes = ([names[clip], frame, track, tracks[track], *box] for clip, frame, track, *box in clips.boxes.tolist())
    write_table(folder / "boxes.csv", WORLD_BOX_COLUMNS, boxes)
    answers = zip(*([heads[q][value] for value in values] for q, values in clips.labels.items()))
    columns = ("path", *(f"label:{question}" for question in heads))
    write_table(folder / "manifest.csv", columns, ([p.name, *a] for p, a in zip(paths, answers)))
    return paths


def write_video(path: Path, video: np.ndarray, fps: int = WORLD_FPS) -> None:
    """Write one clip with values in 0..1 atomically."""
    atomic.write_bytes(path, encode_yuv444_mp4(np.rint(255 * video).astype(np.uint8), fps))
