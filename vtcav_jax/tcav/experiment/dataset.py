"""Selection and checks of an experiment's clips before any of them is encoded."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from vtcav_jax.checksums import json_sha256
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.concept_sets import ConceptClip, ConceptSets, forbid_leaks, letterboxed
from vtcav_jax.concepts.source_videos import clips_of_target_recordings, source_video_ids
from vtcav_jax.data.clip import Clip, SamplingConfig
from vtcav_jax.data.decode import VideoError, probe
from vtcav_jax.data.frame_sampling import select_frames
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.remote.object_store import ObjectError
from vtcav_jax.data.remote.stored_video import CHECKSUM_PREFIX
from vtcav_jax.data.source import Source, SourceItem, item_content
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.models import Network
from vtcav_jax.names import abridged_list
from vtcav_jax.settings import concerning
from vtcav_jax.tcav.features.cache import content_key
from vtcav_jax.training.label_join import match_heads

T = TypeVar("T")


@dataclass(frozen=True)
class ConceptClipSource:
    """Concept clips as a source; they are letterboxed, since a crop of an object must not be cropped again."""

    clips: tuple[ConceptClip, ...]
    spec: str = "concepts"

    @property
    def heads(self) -> dict[str, tuple[str, ...]]:
        return {}

    @property
    def items(self) -> Sequence[SourceItem]:
        return tuple(SourceItem(clip.file, path=clip.path) for clip in self.clips)

    @property
    def identity(self) -> str:
        return json_sha256([clip.sha256 for clip in self.clips])

    def read(self, i: int, clip_spec: ClipSpec, sampling: SamplingConfig) -> Clip:
        clip = self.clips[i]
        video = letterboxed(clip, clip_spec)[None]
        frames = np.arange(len(video[0]))[None]
        return Clip(
            clip_spec.normalise(video) if sampling.normalise else video, frames, frames / 25, False, clip.sha256
        )


@dataclass(frozen=True)
class ClipSelection:
    """Some items of a source: indices, names, and cache keys that depend on content and clip geometry."""

    source: Source
    items: tuple[int, ...]
    names: tuple[str, ...]
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: Sequence[int]) -> "ClipSelection":
        def pick(values: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(values[i] for i in rows)

        return ClipSelection(self.source, pick(self.items), pick(self.names), pick(self.keys))


@dataclass(frozen=True)
class TargetClass:
    """A target class and its target clips, as rows of the target selection."""

    name: str
    index: int  # of the logit
    rows: tuple[int, ...]
    is_labelled: bool


@dataclass(frozen=True)
class Preflight:
    """Results of checking the files."""

    failures: tuple[ReadResult, ...]  # files that cannot be read
    short_clips: tuple[str, ...]  # shorter than a clip: frames are repeated
    duplicate_targets: tuple[str, ...]  # targets with the same content as an earlier one
    notes: tuple[str, ...] = ()

    @property
    def unreadable(self) -> dict[str, str]:
        """The reason of each failure by file name."""
        return {read.item.name: str(read.failure) for read in self.failures}


@dataclass(frozen=True)
class ExperimentClips:
    """The clips of an experiment."""

    concepts: ClipSelection
    concept_clips: tuple[ConceptClip, ...]  # in the order of `concepts`
    source_videos: tuple[str, ...]  # of each concept clip
    targets: ClipSelection
    classes: tuple[TargetClass, ...]
    preflight: Preflight

    @property
    def video_ids(self) -> Int[np.ndarray, " m"]:
        """Source video index of each concept clip."""
        return np.unique(self.source_videos, return_inverse=True)[1]

    @property
    def target_videos(self) -> list[Int[np.ndarray, " n"]]:
        """Source video index of each target clip, by class."""
        names = [self.targets.source.items[i].source_video for i in self.targets.items]
        index = np.unique(names, return_inverse=True)[1]
        return [index[list(target.rows)] for target in self.classes]


def select_clips(
    network: Network,
    targets: Sequence[str],
    source: Source,
    sets: ConceptSets,
    clip_spec: ClipSpec,
    *,
    max_clips: int | None,
    seed: int,
) -> ExperimentClips:
    """Select the target clips and check all files; unreadable ones are left out.

    Raises ValueError if a concept clip is also a target clip, or if a class has no readable clip.
    """
    with concerning("targets"):
        class_clips, class_notes = clips_by_class(network, targets, source, max_clips, seed)
    items = sorted({i for target in class_clips for i in target.rows})
    content_keys, contents, failures, short_clips = {}, {}, [], []
    for i in items:
        item = source.items[i]
        if item.path and (problem := _read_problem(item.path, clip_spec, item.name, short_clips)) is not None:
            failures.append(ReadResult(i, item, None, problem))
            continue
        try:
            contents[i] = item_content(source, i)
        except ObjectError as error:
            failures.append(ReadResult(i, item, None, str(error)))
            continue
        has_file = item.path is not None or item.stored_video is not None
        content_keys[i] = contents[i] if has_file else content_key(source.identity, i, contents[i])
    forbid_leaks(sets.clips, {source.items[i].name: content for i, content in contents.items() if content})
    stored_notes = _unchecked_note(source, contents)
    _forbid_world_targets(sets.clips, source, items)
    readable = []
    for n, clip in enumerate(sets.clips):
        reading_spec = replace(clip_spec, interval=1) if clip.frames else clip_spec
        problem = _read_problem(clip.path, reading_spec, clip.file, short_clips)
        if problem is None:
            readable.append(clip)
        else:
            failures.append(ReadResult(n, SourceItem(clip.file, path=clip.path), None, problem))
    readable, recording_notes = _without_target_recordings(readable, source, items)
    shape = asdict(clip_spec)
    first_of_key: dict[str, int] = {}
    for i in content_keys:
        item = source.items[i]
        first_of_key.setdefault(content_key("target", content_keys[i], item.start, item.end, shape), i)
    key_of_item = {i: key for key, i in first_of_key.items()}
    duplicate_targets = tuple(source.items[i].name for i in content_keys if i not in key_of_item)
    target_selection = ClipSelection(
        source, tuple(key_of_item), tuple(source.items[i].name for i in key_of_item), tuple(key_of_item.values())
    )
    row_of_item = {i: row for row, i in enumerate(key_of_item)}
    classes = tuple(
        replace(target, rows=tuple(row_of_item[i] for i in target.rows if i in row_of_item)) for target in class_clips
    )
    if empty := [target.name for target in classes if not target.rows]:
        raise ValueError(
            f"none of the clips of {', '.join(empty)} in {source.spec} can be decoded; check that they play in a media"
            " player"
        )
    keys = tuple(content_key("concept", clip.sha256, bool(clip.frames), shape) for clip in readable)
    concept_selection = ClipSelection(
        ConceptClipSource(tuple(readable)), tuple(range(len(readable))), tuple(clip.file for clip in readable), keys
    )
    source_videos, source_notes = source_video_ids(readable)
    preflight = Preflight(
        tuple(failures),
        tuple(short_clips),
        duplicate_targets,
        (*sets.notes, *class_notes, *recording_notes, *source_notes, *stored_notes),
    )
    return ExperimentClips(concept_selection, tuple(readable), source_videos, target_selection, classes, preflight)


def _unchecked_note(source: Source, contents: Mapping[int, str | None]) -> list[str]:
    """Return a note on targets that are identified by a checksum of their store, which no file can be compared with."""
    unchecked = [i for i, content in contents.items() if content and content.startswith(CHECKSUM_PREFIX)]
    if not unchecked:
        return []
    return [
        f"{len(unchecked)} target videos of {source.spec} are identified by their store's checksums: concept clips that"
        " are the same videos, or were cut from them, cannot be recognised; make sure that there are none"
    ]


def _forbid_world_targets(clips: Sequence[ConceptClip], source: Source, items: Sequence[int]) -> None:
    """Raise ValueError if concept clips come from the target clips of a world, whose names have its seed and number."""
    names = {source.items[i].name for i in items} if isinstance(source, WorldSource) else set()
    if leaks := [clip for clip in clips if clip.source in names]:
        raise ValueError(
            f"{len(leaks)} concept clips come from the target clips of {source.spec}, such as {leaks[0].file}"
            f" ({leaks[0].source}); use targets with another seed"
        )


def _without_target_recordings(
    clips: Sequence[ConceptClip], source: Source, items: Sequence[int]
) -> tuple[list[ConceptClip], list[str]]:
    """Leave out whole clips of known videos that show the recording of a target video, with a note.

    Raises ValueError if clips of unknown origin do, such as re-encoded cuts.
    """
    whole = [clip for clip in clips if not clip.source_sha256 or not (clip.boxes or clip.window)]
    paths = {source.items[i].name: path for i in items if (path := source.items[i].path) is not None}
    matches = clips_of_target_recordings(whole, paths) if whole and paths else ()
    if not matches:
        return list(clips), []
    names = abridged_list([f"{clip.file} ({target})" for clip, target in matches])
    if not all(clip.source_sha256 for clip, _ in matches):
        raise ValueError(
            f"concept clips show the same recording as a target video: {names}; remove them, or use other targets"
        )
    families = {clip.family for clip, _ in matches}
    note = f"{len(families)} concept clips show the same recording as a target video and are left out: {names}"
    return [clip for clip in clips if clip.family not in families], [note]


def clips_by_class(
    network: Network, targets: Sequence[str], source: Source, max_clips: int | None, seed: int
) -> tuple[list[TargetClass], list[str]]:
    """Return the classes that `targets` name, with the items of their clips as rows, and notes about them.

    Classes are joined with the labels of the clips as in `match_heads`. Without labels of its head, a class has all
    clips. A class without clips is left out if a head or a glob names it;
    one error lists those that are named themselves.
    """
    if not targets:
        raise ValueError(f"pass at least one target; the network has {abridged_list(network.labels)}")
    is_named = network.expand_classes(targets)
    labels_of_source = _source_labels(network, source)
    classes, unlabelled, without_clips = [], [], []
    for label in is_named:
        index = network.labels.index(label)
        source_label = labels_of_source[index]
        rows = [i for i, item in enumerate(source.items) if source_label is None or source_label.is_of(item)]
        if not rows:
            without_clips.append(label)
            continue
        if source_label is None:
            unlabelled.append(label)
        if max_clips is not None and len(rows) > max_clips:
            subset = np.random.default_rng([seed, index]).permutation(len(rows))[:max_clips]
            rows = [rows[i] for i in sorted(subset)]
        classes.append(TargetClass(label, index, tuple(rows), source_label is not None))
    if missing := [label for label in without_clips if is_named[label] or not classes]:
        known = [f"{head}:{name}" for head in network.heads for name in source.heads.get(head, ())]
        labels = f", or targets with labels such as {abridged_list(known)}" if known else ""
        raise ValueError(
            f"no clip of {source.spec} has the label {abridged_list(missing)}; use other or more clips{labels}"
        )
    notes = []
    if unlabelled:
        notes.append(f"{source.spec} has no labels for {abridged_list(unlabelled)}: all its clips are used")
    if without_clips:
        notes.append(f"no clip of {source.spec} has the label {abridged_list(without_clips)}: not tested")
    return classes, notes


@dataclass(frozen=True)
class _SourceLabel:
    """A class of a head of the source; -1 if the source does not have the class."""

    head: str
    index: int

    def is_of(self, item: SourceItem) -> bool:
        return self.index >= 0 and item.labels.get(self.head) == self.index


def _source_labels(network: Network, source: Source) -> list[_SourceLabel | None]:
    """Return the source's label of each logit of the network; None if the source has no labels of its head."""
    try:
        joins = {join.head: join for join in match_heads(network.heads, source.heads)}
    except ValueError:  # labels of something else
        joins = {}
    labels: list[_SourceLabel | None] = []
    for head, names in network.heads.items():
        if head in joins:
            labels += [_SourceLabel(joins[head].source_head, index) for index in joins[head].source_index]
        else:
            labels += [_SourceLabel(head, -1) if head in source.heads else None] * len(names)
    return labels


def _read_problem(path: Path, clip_spec: ClipSpec, name: str, short_clips: list[str]) -> str | None:
    """Return why a file cannot be read, or None; append its name to `short_clips` if frames must be repeated."""
    try:
        index = probe(path)
        if select_frames(index.times, index.duration, clip_spec).padded:
            short_clips.append(name)
    except (VideoError, OSError) as error:
        return str(error)
    return None
