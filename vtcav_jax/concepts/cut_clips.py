"""Chosen clips cut out of their videos and written as files, with their controls."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vtcav_jax.concepts import crops
from vtcav_jax.concepts.candidates import Candidate
from vtcav_jax.concepts.concept_sets import ConceptClip, encoded
from vtcav_jax.concepts.config import NEGATIVE, Mining
from vtcav_jax.concepts.negatives import ANYWHERE
from vtcav_jax.concepts.video_scan import Detector, Drawn, Survey, in_order
from vtcav_jax.console import progress
from vtcav_jax.data.decode import FramesMissing, VideoError, probe


def written(
    candidates: Sequence[Candidate],
    surveys: Mapping[str, Survey],
    settings: Mining,
    finder: Detector | Drawn,
    out: Path,
    failures: dict[str, str],
) -> list[ConceptClip]:
    """The clips with their controls, once their files are there; `surveys` by the videos' hashes.

    A file's name holds a hash of what is in it, so that one which is there already need not be made again.
    """
    by_video: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_video[candidate.video].append(candidate)
    clips, sha256 = [], finder.sha256
    for video, some in progress(by_video.items(), len(candidates), "clips", size=lambda entry: len(entry[1])):
        source = surveys[video]
        missing = [
            candidate
            for candidate in some
            if not all((out / file).exists() for file in _files(candidate, source, settings).values())
        ]
        try:
            _write_missing(missing, source, settings, out)
        except VideoError as error:
            failures[source.name] = str(error)
            continue
        for candidate in some:
            clips += _clips(candidate, source, settings, finder, sha256, out)
    return clips


def _files(candidate: Candidate, source: Survey, settings: Mining) -> dict[str, str]:
    """By kind, the clip itself first."""
    kinds = [candidate.kind]
    if candidate.kind == "dynamic" and settings.controls and not candidate.concept.startswith(NEGATIVE):
        kinds += crops.CONTROLS
    return {kind: candidate.file(source.path.stem, kind) for kind in kinds}


def _write_missing(missing: Sequence[Candidate], source: Survey, settings: Mining, out: Path) -> None:
    """One pass over the video. Only crops are kept, never whole frames."""
    if not missing:
        return
    wanted: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in missing:
        for frame in candidate.frames:
            wanted[frame].append(candidate)

    def cut(by_decoding: bool) -> None:
        found: dict[str, list[np.ndarray]] = defaultdict(list)
        jitter: dict[str, np.ndarray] = {}
        for number, frame in in_order(probe(source.path, by_decoding=by_decoding), wanted):
            for candidate in wanted[number]:
                place = len(found[candidate.id])
                found[candidate.id].append(crops.cut_out(frame, candidate.boxes[place]))
                files = _files(candidate, source, settings)
                if "jitter" in files and place == crops.middle(len(candidate.frames)):
                    jitter[candidate.id] = crops.jitter(frame, candidate.boxes)
                if place + 1 == len(candidate.frames):
                    pictures = found.pop(candidate.id)
                    for kind, video in _videos(candidate, pictures, jitter.pop(candidate.id, None)).items():
                        if kind in files:
                            write_file(out / files[kind], encoded(video, source.fps / settings.interval))

    try:
        cut(by_decoding=False)
    except FramesMissing:
        cut(by_decoding=True)


def _videos(candidate: Candidate, pictures: Sequence[np.ndarray], jitter: np.ndarray | None) -> dict[str, np.ndarray]:
    if candidate.kind == "static":
        return {"static": np.repeat(pictures[0][None], candidate.t, axis=0)}
    clip = crops.centred(pictures)
    videos = {"dynamic": clip, "frozen": crops.frozen(clip), "reversed": crops.backwards(clip)}
    videos["shuffled"] = crops.shuffled(clip, int(candidate.id, 16))
    return videos if jitter is None else videos | {"jitter": jitter}


def write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)


def _clips(
    candidate: Candidate, source: Survey, settings: Mining, finder: Detector | Drawn, sha256: str, out: Path
) -> Iterable[ConceptClip]:
    files = _files(candidate, source, settings)
    for kind, file in files.items():
        yield ConceptClip(
            candidate.concept,
            kind,
            out / file,
            hashlib.sha256((out / file).read_bytes()).hexdigest(),
            file,
            source.name,
            source.sha256,
            candidate.frames,
            candidate.boxes,
            candidate.label,
            candidate.confidence if candidate.label != ANYWHERE else None,
            finder.name,
            sha256,
            "" if kind == candidate.kind else files[candidate.kind],
        )
