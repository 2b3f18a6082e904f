"""Source videos of concept clips: clips of one video are not independent observations."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from vtcav_jax.concepts.concept_table import ConceptClip
from vtcav_jax.concepts.near_duplicates import near_duplicate_groups, near_duplicate_pairs
from vtcav_jax.names import count_noun, escape_control_chars

SOURCE_SEPARATOR = "__"  # a clip made by hand and named SOURCE__anything.mp4 is from the video SOURCE
MAX_NAMED_CLIPS = 5


def source_video_ids(clips: Sequence[ConceptClip]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the id of each clip's source video, and notes on clips whose source is unknown.

    The id is the recording that the source video was cut from, as a manifest names it, else the hash of the source
    video, else its name in `concepts.csv` or `sources.csv`, else the part of the file name before `__`. Of the
    remaining clips, those that show the same recording share an id (see `near_duplicates`); each other one, with its
    controls, is its own source video.
    """
    by_file = {clip.file: clip for clip in clips}
    hash_of = _hashes_by_name(clips)
    ids = []
    for clip in clips:
        known = _known_source(clip, hash_of)
        if not known and clip.control_of in by_file:
            known = _known_source(by_file[clip.control_of], hash_of)
        ids.append(known)
    unknown = [clip for clip, source in zip(clips, ids) if not source]
    families, notes = _group_by_content(unknown)
    if unknown:
        n_families = len({clip.family for clip in unknown})
        notes.append(
            f"the source video of {count_noun(n_families, 'clip')} is unknown; each counts as a source video of its own"
            " unless it shows the same recording as another; name the videos in sources.csv (file,source), or rename"
            f" the clips to SOURCE{SOURCE_SEPARATOR}NAME"
        )
    return tuple(source or families[clip.family] for clip, source in zip(clips, ids)), tuple(notes)


def _hashes_by_name(clips: Iterable[ConceptClip]) -> dict[str, str]:
    """Return the hash of each source name, with and without its suffix, that belongs to one video."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.source and clip.source_sha256:
            for name in (clip.source, PurePosixPath(clip.source).stem):
                hashes[name].add(clip.source_sha256)
    return {name: next(iter(values)) for name, values in hashes.items() if len(values) == 1}


def _known_source(clip: ConceptClip, hash_of: Mapping[str, str]) -> str:
    name = clip.source
    if not name and SOURCE_SEPARATOR in clip.path.stem.lstrip("_"):
        name = clip.path.stem.lstrip("_").partition(SOURCE_SEPARATOR)[0]
    return clip.recording or clip.source_sha256 or hash_of.get(name, name)


def _group_by_content(clips: Sequence[ConceptClip]) -> tuple[dict[str, str], list[str]]:
    """Return the id of each family of clips, and a note on each group of families that show the same recording."""
    family_of_path = {clip.path: clip.family for clip in clips if clip.file == clip.family}
    ids = {clip.family: clip.family for clip in clips}
    notes = []
    for group in near_duplicate_groups(list(family_of_path)):
        families = [family_of_path[path] for path in group]
        ids |= dict.fromkeys(families, families[0])
        names = ", ".join(map(escape_control_chars, families[:MAX_NAMED_CLIPS]))
        more = f" and {len(families) - MAX_NAMED_CLIPS} more" if len(families) > MAX_NAMED_CLIPS else ""
        notes.append(
            f"{len(families)} clips show the same recording and count as one source video: {names}{more}; if they do"
            " not, name their videos in sources.csv"
        )
    return ids, notes


def clips_of_target_recordings(
    clips: Sequence[ConceptClip], targets: Mapping[str, Path]
) -> tuple[tuple[ConceptClip, str], ...]:
    """Return the clips that show the same recording as a target video, each with the target's name.

    Compares whole pictures: a crop of a target video is not recognised. Controls are left out.
    """
    by_path = {clip.path: clip for clip in clips if clip.file == clip.family}
    name_of = {path: name for name, path in targets.items()}
    pairs = near_duplicate_pairs(list(by_path), list(name_of))
    return tuple((by_path[clip_path], name_of[target_path]) for clip_path, target_path in pairs)
