"""Concept sets on disk: a folder of short videos, `CONCEPT/CLIP_TYPE/*.mp4`, and their origins in `concepts.csv`.

A folder made by hand (`CONCEPT/CLIP_TYPE/*.mp4` or `CONCEPT/*.mp4`, without a table) is read too; a `sources.csv` in
it (file, source) names the videos that its clips come from. Sets whose names
begin with `random` are negatives. Reading raises an error that lists all clips that changed since they were mined, are
in two sets, or come from a target's video.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.concept_table import (
    CONCEPTS_CSV,
    MAX_SET_FAULTS,
    REVIEW_VERDICTS,
    SOURCES_CSV,
    ConceptClip,
    further_labels,
    hash_file,
    read_csv_rows,
    read_table,
    sort_key,
)
from vtcav_jax.concepts.config import NEGATIVE_PREFIX, folder_name
from vtcav_jax.concepts.crops import CLIP_TYPES, CONTROLS, letterbox
from vtcav_jax.data.decode import MissingFramesError, decode_frames, probe
from vtcav_jax.data.folder import NON_VIDEO_SUFFIXES
from vtcav_jax.data.frame_sampling import select_frames
from vtcav_jax.names import count_noun, escape_control_chars, unknown_name_message
from vtcav_jax.runs.discovery_rows import DISCOVERED_CSV, DiscoveredRow
from vtcav_jax.runs.tables import read_rows

REVIEW_CSV, MINING_JSON = "review.csv", "mining.json"
OVERVIEW_FOLDER = "overviews"  # of discovered concepts and movements: a picture of each, by name of its folder
NEGATIVE_WORDS = ("neg", "negs", "negative", "negatives", "negativeset", "negativesets")  # questioned as concepts
REVIEW_COLUMNS = ("file", "sha256", "verdict")


@dataclass(frozen=True)
class ConceptSets:
    """Clips of a folder that were not rejected, ordered by concept, clip type and file; negatives come last."""

    folder: Path
    clips: tuple[ConceptClip, ...]
    rejected: tuple[ConceptClip, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ConceptSets({self.folder}, {count_noun(len(self.clips), 'clip')} of {', '.join(self.concepts)})"

    def clips_of(self, concept: str, clip_type: str | None = None) -> tuple[ConceptClip, ...]:
        if concept not in self.concepts:
            raise ValueError(unknown_name_message("concept", [concept], self.concepts))
        return tuple(clip for clip in self.clips if clip.concept == concept and clip_type in (None, clip.clip_type))

    @property
    def concepts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(clip.concept for clip in self.clips))

    @property
    def negatives(self) -> tuple[str, ...]:
        return tuple(name for name in self.concepts if name.lower().startswith(NEGATIVE_PREFIX))

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of clips by concept and clip type."""
        count_of: dict[tuple[str, str], int] = defaultdict(int)
        for clip in self.clips:
            count_of[clip.concept, clip.clip_type] += 1
        return dict(count_of)


def load_frames(clip: ConceptClip, clip_spec: ClipSpec | None = None) -> UInt8[np.ndarray, "t h w 3"]:
    """Decode the clip: all stored frames, or with `clip_spec` the frames that the network reads.

    Mined clips of the network's length are read whole; those of another length are sampled with interval 1. Other files
    are sampled like any video.
    """

    def read(by_decoding: bool) -> np.ndarray:
        index = probe(clip.path, by_decoding=by_decoding)
        total = len(index.times)
        if clip_spec is None or (clip.frames and total == clip_spec.frames):
            numbers = np.arange(total)
        else:
            read_spec = replace(clip_spec, interval=1) if clip.frames else clip_spec
            numbers = select_frames(index.times, index.duration, read_spec).frames[0]
        frames_by_number = dict(decode_frames(index, numbers.tolist()))
        return np.stack([frames_by_number[int(i)] for i in numbers])

    try:
        return read(by_decoding=False)
    except MissingFramesError:
        return read(by_decoding=True)


def letterboxed(clip: ConceptClip, clip_spec: ClipSpec) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the network's input before normalisation: the clip padded to a black square and resized."""
    return letterbox(load_frames(clip, clip_spec), clip_spec.size)


def read_concepts(folder: str | Path, targets: Mapping[str, str] | None = None) -> ConceptSets:
    """Read the concept sets in a folder, without the clips rejected in the review.

    `targets` maps the names of the target videos to their SHA-256 hashes; a concept clip from one of them is an error.

    ```python
    sets = read_concepts("concepts")
    clips = sets.clips_of("ball", "dynamic")
    ```
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; expected a folder of concept sets, mined or made by hand")
    if (folder / CONCEPTS_CSV).exists():
        clips, notes = read_table(folder), ()
    elif (folder / MINING_JSON).exists():
        raise ValueError(f"mining into {folder} is not finished; repeat the command to continue it")
    else:
        clips, notes = read_hand_made_folder(folder)
    clips, source_notes = _add_sources(folder, clips)
    notes += source_notes
    verdicts, stale = read_verdicts(folder, {clip.file: clip.sha256 for clip in clips})
    clips = apply_names(apply_review(clips, verdicts), read_names(folder))
    accepted = sorted((clip for clip in clips if clip.review != "reject"), key=sort_key)
    if not accepted:
        raise ValueError(f"no clip left in {folder}; expected CONCEPT/CLIP_TYPE/*.mp4, not all rejected in the review")
    forbid_leaks(accepted, targets or {})
    if following := list(dict.fromkeys(c.concept for c in accepted if _follows_object(c))):
        notes = (
            *notes,
            f"the dynamic clips of {', '.join(map(escape_control_chars, following))} follow an object (--crop=follow)"
            " and do not show its path; in synthetic videos such clips of objects that move left lowered the score of"
            " moving left, so do not read them as motion: mine with --crop=window",
        )
    if stale:
        verb = "refers" if stale == 1 else "refer"
        text = f"{count_noun(stale, 'verdict')} in {REVIEW_CSV} {verb} to clips that are missing or have changed"
        notes = (*notes, text)
    return ConceptSets(folder, tuple(accepted), tuple(clip for clip in clips if clip.review == "reject"), notes)


def _follows_object(clip: ConceptClip) -> bool:
    return clip.clip_type == "dynamic" and not clip.is_negative and bool(clip.boxes) and clip.window is None


def apply_review(clips: Iterable[ConceptClip], verdicts: Mapping[str, str]) -> list[ConceptClip]:
    """Return the clips with their verdicts; rejecting a dynamic clip rejects its controls."""
    clips = [replace(clip, review=verdicts.get(clip.file, clip.review)) for clip in clips]
    rejected = {clip.file for clip in clips if clip.review == "reject"}
    return [replace(clip, review="reject") if clip.control_of in rejected else clip for clip in clips]


def read_hand_made_folder(folder: Path) -> tuple[list[ConceptClip], tuple[str, ...]]:
    """Read a folder without a table; `CONCEPT/*` are dynamic clips, controls are matched to them by file name."""
    clips, unexpected = [], []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if (
            not path.is_file()
            or path.suffix.lower() in NON_VIDEO_SUFFIXES
            or any(part.startswith(".") for part in parts)
        ):
            continue
        if len(parts) in (2, 3):
            clip_type = parts[1] if len(parts) == 3 else "dynamic"
            clips.append(ConceptClip(parts[0], clip_type, path, hash_file(path), "/".join(parts)))
        else:
            unexpected.append("/".join(parts))
    if unexpected:
        raise ValueError(
            f"{folder} has {count_noun(len(unexpected), 'video')} outside of any concept"
            f" ({escape_control_chars(unexpected[0])}); expected CONCEPT/CLIP_TYPE/*.mp4 or CONCEPT/*.mp4"
        )
    _question_negatives(folder, clips)
    dynamic_files = {(clip.concept, clip.path.name): clip.file for clip in clips if clip.clip_type == "dynamic"}
    clips = [
        replace(clip, control_of=dynamic_files.get((clip.concept, clip.path.name), ""))
        if clip.clip_type in CONTROLS
        else clip
        for clip in clips
    ]
    unknown_types = sorted({clip.clip_type for clip in clips} - set(CLIP_TYPES))
    return clips, tuple(
        f"the clip type {escape_control_chars(clip_type)} is not one that mining writes ({', '.join(CLIP_TYPES)})"
        for clip_type in unknown_types
    )


def _question_negatives(folder: Path, clips: Iterable[ConceptClip]) -> None:
    """Raise ValueError for a concept whose name says that its clips are negatives, which only `random` in it means."""
    names = {clip.concept for clip in clips}
    if questionable := sorted(name for name in names if re.sub(r"[\W\d_]", "", name).lower() in NEGATIVE_WORDS):
        listed = ", ".join(f"{escape_control_chars(name)}/" for name in questionable)
        raise ValueError(
            f"{folder} has {listed}: is this a concept, or are these the clips that concepts are compared with?"
            f" Negatives are in folders whose names begin with {NEGATIVE_PREFIX}, such as {NEGATIVE_PREFIX}_000; rename"
            " the folder, or give a concept another name"
        )


def _add_sources(folder: Path, clips: Sequence[ConceptClip]) -> tuple[list[ConceptClip], tuple[str, ...]]:
    """Return the clips with the source videos and labels of `sources.csv`, and a note on other files.

    The table does not replace a known source video; its further columns are labels.
    """
    if not (path := folder / SOURCES_CSV).exists():
        return list(clips), ()
    rows = [row for _, row in read_csv_rows(path, ("file", "source"))]
    source_of = {row["file"]: row["source"] for row in rows}
    labels_of = {row["file"]: further_labels(row, ("file", "source")) for row in rows}
    files = {clip.file for clip in clips}
    notes = ()
    if unexpected := [file for file in source_of if file not in files]:
        notes = (
            f"{SOURCES_CSV} names {count_noun(len(unexpected), 'file')} not among the clips of {folder}, such as"
            f" {escape_control_chars(unexpected[0])}; expected paths such as CONCEPT/CLIP_TYPE/NAME.mp4",
        )
    return [
        replace(
            clip,
            source=clip.source or source_of.get(clip.file, ""),
            labels={**labels_of.get(clip.file, {}), **clip.labels},
        )
        for clip in clips
    ], notes


def read_verdicts(folder: Path, clips: Mapping[str, str] | None = None) -> tuple[dict[str, str], int]:
    """Read the review: the verdict of each file, and the number of stale verdicts.

    An empty verdict revokes the one in `concepts.csv`. A verdict is stale if `clips` (files and their hashes) does not
    contain its clip.
    """
    path = folder / REVIEW_CSV
    if not path.exists():
        return {}, 0
    verdicts, stale = {}, 0
    for line, row in read_csv_rows(path, ("file", "verdict")):
        if row["verdict"] not in ("", *REVIEW_VERDICTS):
            raise ValueError(
                f"{path}, line {line}: {escape_control_chars(row['verdict'])!r} is not a verdict; expected keep, reject"
                " or nothing"
            )
        if clips is None or (row["file"] in clips and row.get("sha256", "") in ("", clips[row["file"]])):
            verdicts[row["file"]] = row["verdict"]
        else:
            stale += 1
    return verdicts, stale


def read_names(folder: Path) -> dict[str, str]:
    """Read the review: the new name of the concept of each file that has one."""
    path = folder / REVIEW_CSV
    if not path.exists():
        return {}
    names = {}
    for line, row in read_csv_rows(path, ("file", "verdict")):
        name = (row.get("name") or "").strip()
        if name.lower().startswith(NEGATIVE_PREFIX):
            raise ValueError(
                f"{path}, line {line}: {escape_control_chars(name)!r} begins with {NEGATIVE_PREFIX}, which marks"
                " negatives; give the concept another name"
            )
        if name:
            names[row["file"]] = name
    return names


def read_discovered(folder: Path) -> list[DiscoveredRow]:
    """Read the table of discovered concepts with the names of the review; none if the folder has no such table."""
    names = read_names(folder)
    return [
        replace(row, name=next((n for file, n in names.items() if file.startswith(f"{folder_name(row.concept)}/")), ""))
        for row in read_rows(folder / DISCOVERED_CSV, DiscoveredRow)
    ]


def apply_names(clips: Iterable[ConceptClip], names: Mapping[str, str]) -> list[ConceptClip]:
    """Return the clips with the new names of their concepts; controls follow their dynamic clip."""
    return [clip if clip.is_negative else replace(clip, concept=names.get(clip.family, clip.concept)) for clip in clips]


def forbid_leaks(clips: Iterable[ConceptClip], targets: Mapping[str, str]) -> None:
    """Raise ValueError if a clip is in two sets, or if a clip or its source video is a target; compares hashes.

    A control may equal its dynamic clip: the frozen control of an object at rest is identical to it.
    """
    faults = []
    by_hash: dict[str, list[ConceptClip]] = defaultdict(list)
    target_of = {sha256: name for name, sha256 in targets.items()}
    for clip in clips:
        by_hash[clip.sha256].append(clip)
        for sha256, relation in ((clip.sha256, "is"), (clip.source_sha256, "was cut from")):
            if sha256 and sha256 in target_of:
                faults.append(f"{clip.file} {relation} the target {target_of[sha256]}")
    for identical in by_hash.values():
        if len({clip.family for clip in identical}) > 1:
            faults.append(" = ".join(f"{clip.file} ({clip.concept}, {clip.clip_type})" for clip in identical))
    if faults:
        more = f"\n  and {len(faults) - MAX_SET_FAULTS} more" if len(faults) > MAX_SET_FAULTS else ""
        fault_lines = "\n  ".join(map(escape_control_chars, faults[:MAX_SET_FAULTS]))
        raise ValueError(
            f"a clip must be in one set only and not from a target video; remove these:\n  {fault_lines}{more}"
        )


def duplicates_note(files: Sequence[str]) -> str:
    """Return the note on clips that are omitted because another has the same pixels."""
    verb = "is" if len(files) == 1 else "are"
    return f"{count_noun(len(files), 'clip')} {verb} pixel-identical to another and {verb} omitted, such as {files[0]}"


def drop_duplicates(clips: Iterable[ConceptClip]) -> tuple[list[ConceptClip], list[ConceptClip]]:
    """Split the clips into unique ones and pixel-identical repeats of another, each with its controls.

    Of a static clip and a dynamic one with an equal frozen control, as of an object at rest, the static is the repeat.
    """
    first_family: dict[str, str] = {}
    duplicates = set()
    ordered = sorted(clips, key=sort_key)
    for clip in sorted(ordered, key=lambda clip: (clip.is_negative, clip.clip_type == "static")):
        if first_family.setdefault(clip.sha256, clip.family) != clip.family:
            duplicates.add(clip.family)
    return [c for c in ordered if c.family not in duplicates], [c for c in ordered if c.family in duplicates]
