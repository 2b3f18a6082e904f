"""Conditional relevance of an `attribute` run: `--through` names channels and concepts of stages (layers)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vtcav_jax import atomic
from vtcav_jax.attribution.conditional.directions import Direction
from vtcav_jax.attribution.conditional.summary import (
    clips_by_answer,
    find_moment,
    share_rows,
    strongest_clips,
)
from vtcav_jax.attribution.conditional.videos import (
    StoredRelevance,
    load_conditional,
    save_conditional,
    stream_conditional,
)
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.videos import map_store
from vtcav_jax.attribution.videos.clip_windows import Window, stream_windows
from vtcav_jax.attribution.videos.stored_results import StoredResults, npz_content
from vtcav_jax.cli.commands import format_table
from vtcav_jax.cli.commands.attribution_job import AttributionJob
from vtcav_jax.console import info, progress
from vtcav_jax.data import ReadResult
from vtcav_jax.data.encode import encode_jpeg, write_with_poster
from vtcav_jax.names import safe_filename
from vtcav_jax.report.animation.maps import MIN_MAP_ANIMATION_SECONDS
from vtcav_jax.report.gallery_pictures import crop_moment, gallery_animation
from vtcav_jax.runs.conditional_rows import GALLERY_FOLDER, MOMENTS_CSV, SHARES_CSV, MomentRow, ShareRow
from vtcav_jax.runs.tables import write_rows

THROUGH_FOLDER = "through"
MAX_GALLERIES = 12  # pairs of a class and a channel or concept with pictures, those with the largest shares


def write_gallery(job: AttributionJob, folder: Path) -> None:
    """Write relevance through each direction, shares, and pictures of the clips in which it is largest."""
    clips = _write_relevance(job, folder / THROUGH_FOLDER)
    if job.conditional is None or not clips:
        return
    shares, members = [], {}
    for spec in job.target_specs:
        for answer, subset in clips_by_answer(clips, spec.name).items():
            shares += share_rows(subset, spec.name, answer, job.conditional.method, job.conditional.directions)
            members[spec.name, answer] = subset
    write_rows(folder / SHARES_CSV, ShareRow, shares)
    by_name = {direction.name: direction for direction in job.conditional.directions.chosen}
    pairs = sorted((row for row in shares if row.chosen), key=lambda row: -abs(np.nan_to_num(row.share)))
    moments = []
    for number, row in enumerate(
        progress(pairs[:MAX_GALLERIES], min(len(pairs), MAX_GALLERIES), "galleries", size=lambda _: 1)
    ):
        strongest = strongest_clips(members[row.target, row.answer], row.target, by_name[row.concept])
        moments += _write_pictures(job, folder, row, by_name[row.concept], strongest, number)
    write_rows(folder / MOMENTS_CSV, MomentRow, moments)
    info(f"\n{share_table(shares)}\n\nShares: {folder / SHARES_CSV}\nClips and moments: {folder / MOMENTS_CSV}")


def _write_relevance(job: AttributionJob, folder: Path) -> list[StoredRelevance]:
    """Compute and store the relevance of all videos without a file, and return that of all clips."""
    if job.conditional is None:
        return []
    folder.mkdir(exist_ok=True)
    stored = StoredResults(folder, ".npz", job.source, npz_content)
    todo, _ = stored.drop_invalid()
    results = stream_conditional(
        *(job.network, job.source, job.target_specs, job.conditional, job.args.sampling),
        slide_over_video=job.args.slide_over_video,
        batch_size=job.args.batch_size,
        num_workers=job.args.num_workers,
        indices=todo,
    )
    for result in progress(results, len(todo), "videos through channels and concepts", size=lambda _: 1):
        if not isinstance(result, ReadResult):  # maps have reported it
            save_conditional(folder / f"{map_store.video_stem(result.windows[0].read)}.npz", result)
    return [clip for path in stored.paths() for clip in load_conditional(path)]


def _write_pictures(
    job: AttributionJob,
    folder: Path,
    row: ShareRow,
    direction: Direction,
    clips: Sequence[StoredRelevance],
    number: int,
) -> list[MomentRow]:
    """Write a crop and an animation of each clip, and return their moments."""
    (folder / GALLERY_FOLDER).mkdir(exist_ok=True)
    windows = _read_windows(job, clips)
    moments = []
    for rank, clip in enumerate(clips, start=1):
        window = windows[clip.item_index, clip.clip_index]
        frames = window.clip.video[0]
        values, at_stage = clip.load_maps(row.target, direction.name)
        moment = find_moment(values)
        stem = f"{GALLERY_FOLDER}/{number:02d}_{rank}_{safe_filename(f'{row.answer}_{direction.name}')}"
        atomic.write_bytes(folder / f"{stem}_crop.jpg", encode_jpeg(crop_moment(frames, moment)))
        relevance = float(clip.arrays[f"total|{row.target}|{direction.name}"])
        total = float(clip.arrays[f"channels|{row.target}|{direction.stage}"].sum())
        animation = ""
        if job.args.animations != "none":
            animation = f"{stem}.{job.args.animations}"
            maps = _whole_map(folder, row, clip)
            maps |= {f"through {direction.name}": values, f"the same at {direction.stage}": at_stage}
            caption = f"{clip.clip}  {row.answer}  relevance through {direction.name} {relevance:.3g} of {total:.3g}"
            pictures = gallery_animation(frames, maps, caption)
            rate = max(len(frames) / MIN_MAP_ANIMATION_SECONDS, 1.0)
            write_with_poster(folder / animation, pictures, rate, moment.frame)
        moments.append(
            MomentRow(
                *(row.target, row.answer, row.method, direction.name, rank),
                *(clip.clip, clip.clip_index, clip.source_video, relevance, total),
                *(float(clip.times[moment.frame]), moment.frame, moment.x, moment.y),
                *(f"{stem}_crop.jpg", animation),
            )
        )
    return moments


def _read_windows(job: AttributionJob, clips: Sequence[StoredRelevance]) -> dict[tuple[int, int], Window]:
    """Read the frames of clips again, by video and clip of the video."""
    results = stream_windows(
        *(job.source, job.network.clip_spec, job.args.sampling),
        slide_over_video=job.args.slide_over_video,
        num_workers=0,
        indices=sorted({clip.item_index for clip in clips}),
    )
    return {(item.read.index, item.clip_index): item for item in results if isinstance(item, Window)}


def _whole_map(folder: Path, row: ShareRow, clip: StoredRelevance) -> dict[str, np.ndarray]:
    """Return the method's map of all relevance of a clip, if the run has it at the resolution of the video."""
    key = map_store.MAP_KEY_SEPARATOR.join(("map", row.target, row.method, VIDEO))
    with np.load(folder / "maps" / clip.path.name, allow_pickle=False) as stored:
        return {f"{row.method}, all": stored[key][clip.clip_index]} if key in stored else {}


def share_table(rows: Sequence[ShareRow]) -> str:
    """Format the shares of the chosen channels and concepts."""
    header = ("class", "through", "share (95 % CI)", "rank", "random directions", "clips", "videos")
    cells = [
        (
            row.answer,
            row.concept,
            "undefined" if np.isnan(row.share) else _percent_range(row.share, row.share_low, row.share_high),
            f"{row.rank} of {row.n_ranked}",
            "" if np.isnan(row.random_low) else _percent_range(row.random_share, row.random_low, row.random_high),
            row.n_clips,
            row.n_videos,
        )
        for row in rows
        if row.chosen
    ]
    return (
        f"{format_table(header, cells, left=2)}\n"
        "share of the relevance at the stage that passes along the channel or concept, in clips predicted as the\n"
        "class; intervals over source videos; rank among the channels of the stage, or the concepts of the folder;\n"
        "random directions: mean and central 95 %; undefined: the relevances at the stage cancel, or the interval of\n"
        "their sum contains 0"
    )


def _percent_range(share: float, low: float, high: float) -> str:
    share, low, high = (round(100 * value, 1) + 0.0 for value in (share, low, high))
    return f"{share:.1f}% ({low:.1f} to {high:.1f})"
