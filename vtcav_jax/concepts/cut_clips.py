"""Writing of selected clips and their controls: crop them out of the source videos and encode them."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vtcav_jax import atomic
from vtcav_jax.concepts import crops
from vtcav_jax.concepts.candidates import Candidate
from vtcav_jax.concepts.concept_table import ConceptClip
from vtcav_jax.concepts.config import MiningConfig
from vtcav_jax.concepts.negatives import RANDOM_BOX
from vtcav_jax.concepts.video_scan import BoxTable, Detector, VideoScan, decode_in_order
from vtcav_jax.console import progress
from vtcav_jax.data.decode import MissingFramesError, VideoError, probe
from vtcav_jax.data.encode import encode_lossless_mp4


def write_concept_clips(
    candidates: Sequence[Candidate],
    scans: Mapping[str, VideoScan],
    config: MiningConfig,
    box_source: Detector | BoxTable,
    out: Path,
    failures: dict[str, str],
) -> list[ConceptClip]:
    """Write the clips and their controls and return them; `scans` are by the hashes of the videos.

    File names contain a hash of the content, so existing files are not written again. Videos that cannot be decoded are
    added to `failures`.
    """
    by_video: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_video[candidate.video].append(candidate)
    clips, sha256 = [], box_source.sha256

    def write(video: str) -> str:
        """Write the missing clips of a video; return the reason if it cannot be decoded."""
        scan = scans[video]
        missing = [
            candidate
            for candidate in by_video[video]
            if not all((out / file).exists() for file in _clip_files(candidate, scan, config).values())
        ]
        try:
            _write_missing(missing, scan, config, out)
        except VideoError as error:
            return str(error)
        return ""

    # Decoding and encoding release the interpreter's lock
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = zip(by_video.items(), pool.map(write, by_video), strict=True)
        for (video, video_candidates), failure in progress(
            results, len(candidates), "clips", size=lambda result: len(result[0][1])
        ):
            if failure:
                failures[scans[video].name] = failure
                continue
            for candidate in video_candidates:
                clips += _concept_clips(candidate, scans[video], config, box_source, sha256, out)
    return clips


def _clip_files(candidate: Candidate, scan: VideoScan, config: MiningConfig) -> dict[str, str]:
    """Return the file of the clip and of its controls by clip type, the clip itself first."""
    clip_types = [candidate.clip_type]
    if candidate.clip_type == "dynamic" and config.controls:
        # A fixed window does not shake, so its jitter control would equal the frozen one.
        clip_types += [control for control in crops.CONTROLS if control != "jitter" or candidate.window is None]
    return {clip_type: candidate.file(scan.path.stem, clip_type) for clip_type in clip_types}


def _write_missing(missing: Sequence[Candidate], scan: VideoScan, config: MiningConfig, out: Path) -> None:
    """Write the missing clips in one pass over the video; holds only crops in memory, never whole frames."""
    if not missing:
        return
    candidates_by_frame: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in missing:
        for frame in candidate.frames:
            candidates_by_frame[frame].append(candidate)

    def cut_frames(by_decoding: bool) -> None:
        crops_by_id: dict[str, list[np.ndarray]] = defaultdict(list)
        jitter_clips: dict[str, np.ndarray] = {}
        for number, frame in decode_in_order(probe(scan.path, by_decoding=by_decoding), candidates_by_frame):
            for candidate in candidates_by_frame[number]:
                position = len(crops_by_id[candidate.id])
                masked = frame
                if candidate.outlines:
                    masked = crops.grey_surroundings(frame, candidate.outlines[position])
                crops_by_id[candidate.id].append(crops.crop_box(masked, candidate.crops[position]))
                files = _clip_files(candidate, scan, config)
                if "jitter" in files and position == crops.middle_index(len(candidate.frames)):
                    jitter_clips[candidate.id] = crops.jitter_clip(masked, candidate.boxes)
                if position + 1 == len(candidate.frames):
                    clip_crops = crops_by_id.pop(candidate.id)
                    for clip_type, video in _clip_videos(
                        candidate, clip_crops, jitter_clips.pop(candidate.id, None)
                    ).items():
                        if clip_type in files:
                            data = encode_lossless_mp4(video, scan.fps / config.interval)
                            atomic.write_bytes(out / files[clip_type], data)

    try:
        cut_frames(by_decoding=False)
    except MissingFramesError:
        cut_frames(by_decoding=True)


def _clip_videos(
    candidate: Candidate, clip_crops: Sequence[np.ndarray], jitter: np.ndarray | None
) -> dict[str, np.ndarray]:
    if candidate.clip_type == "static":
        return {"static": np.repeat(clip_crops[0][None], candidate.n_frames, axis=0)}
    clip = crops.center_on_canvas(clip_crops)
    videos = {"dynamic": clip, "frozen": crops.freeze_middle_frame(clip), "reversed": crops.reverse_frames(clip)}
    videos["shuffled"] = crops.shuffle_frames(clip, int(candidate.id, 16))
    return videos if jitter is None else videos | {"jitter": jitter}


def _concept_clips(
    candidate: Candidate, scan: VideoScan, config: MiningConfig, box_source: Detector | BoxTable, sha256: str, out: Path
) -> Iterable[ConceptClip]:
    files = _clip_files(candidate, scan, config)
    for clip_type, file in files.items():
        yield ConceptClip(
            candidate.concept,
            clip_type,
            out / file,
            hashlib.sha256((out / file).read_bytes()).hexdigest(),
            file,
            source=scan.name,
            source_sha256=scan.sha256,
            frames=candidate.frames,
            boxes=candidate.boxes,
            window=candidate.window,
            label=candidate.label,
            confidence=candidate.confidence if candidate.label != RANDOM_BOX else None,
            detector=box_source.name,
            detector_sha256=sha256,
            control_of="" if clip_type == candidate.clip_type else files[candidate.clip_type],
            labels=scan.answers,
            recording=scan.recording,
        )
