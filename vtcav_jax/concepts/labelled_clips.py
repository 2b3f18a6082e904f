"""Whole clips as concepts, defined by the videos' labels instead of detected boxes.

Crops that follow a box keep an object's appearance but remove its trajectory; whole clips keep both. If labels are
independent of each other, concept clips differ from random clips in their label only. Random clips are drawn from all
labels, including the concepts': otherwise they would lack anything correlated with the excluded labels.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vtcav_jax.atomic import explain_disk_full, write_bytes
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts import crops, inputs
from vtcav_jax.concepts.concept_sets import apply_review, drop_duplicates, duplicates_note, read_verdicts
from vtcav_jax.concepts.concept_table import ConceptClip
from vtcav_jax.concepts.config import NEGATIVE_PREFIX, Concept, MiningConfig, folder_name
from vtcav_jax.concepts.mining import open_mining_folder, write_outputs
from vtcav_jax.console import progress
from vtcav_jax.data.clip import Clip, SamplingConfig
from vtcav_jax.data.encode import encode_lossless_mp4
from vtcav_jax.data.loader import stream
from vtcav_jax.data.overlap import shared_note
from vtcav_jax.data.source import Source, SourceItem
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.names import count_noun, escape_control_chars, unknown_name_message


@dataclass(frozen=True)
class LabelledClipReport:
    """Number of clips by set and clip type, and problems; `text` is a summary for the terminal."""

    counts: dict[tuple[str, str], int]
    failures: dict[str, str]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        counts = Counter()
        for (name, clip_type), n in self.counts.items():
            is_random_control = name == NEGATIVE_PREFIX and clip_type in crops.CONTROLS
            counts[f"{name}, {'controls' if is_random_control else clip_type}"] += n
        width = max(map(len, counts))
        lines = [f"{'set, type':{width}}  clips", *(f"{name:{width}}  {n:>5}" for name, n in counts.items())]
        lines += [f"not read: {name}: {reason}" for name, reason in self.failures.items()]
        return escape_control_chars("\n".join([*lines, *(f"note: {note}" for note in self.notes)]))


BASE_CLIP_TYPES = ("static", "dynamic")
SetPlace = tuple[str, str, str]  # set, clip type (static or dynamic), and the label of its clips


def mine_labelled_clips(
    source: Source,
    config: MiningConfig,
    clip_spec: ClipSpec,
    out: str | Path,
    *,
    targets: Source | None = None,
    num_workers: int = 0,
) -> LabelledClipReport:
    """Write concept sets of the source's labelled clips to `out`; each video is in one set, as one clip type.

    Half of the videos of each set become static clips (the middle frame, repeated), half become dynamic clips with
    their controls. Videos that are among the `targets`, or show the recording of one, are
    left out with a note.
    """
    out = Path(out)
    shared: dict[int, str] = {}
    if targets is not None:
        world_videos = [inputs.WorldVideos(source, out)] if isinstance(source, WorldSource) else []
        inputs.forbid_same_world(world_videos, targets)
        shared = inputs.target_items(source, targets)
        inputs.require_other_than_targets(source, shared)
    places, notes = assign_clips(source, config, shared)
    notes += [shared_note(source, shared, "targets")] if shared else []
    clips, failures = [], {}
    with explain_disk_full(out):
        open_mining_folder(out, config, "labels", source.identity)
        reads = stream(
            source, clip_spec, SamplingConfig(normalise=False), positions=sorted(places), num_workers=num_workers
        )
        for read in progress(reads, len(places), "clips", size=lambda _: 1):
            if read.clip is None:
                failures[read.item.name] = read.failure or ""
            else:
                labels = {head: source.heads[head][i] for head, i in read.item.labels.items()}
                clips += _write_clip(read.item, labels, read.clip, places[read.index], config, out)
        verdicts, _ = read_verdicts(out)
        clips, duplicates = drop_duplicates(replace(clip, review=verdicts.get(clip.file, "")) for clip in clips)
        if duplicates:
            notes.append(duplicates_note([clip.file for clip in duplicates]))
        if not clips:
            raise ValueError(f"none of the {len(places)} clips can be read; first: {next(iter(failures.values()))}")
        write_outputs(out, clips, {}, failures)
    clips = [clip for clip in apply_review(clips, verdicts) if clip.review != "reject"]
    counts = Counter((NEGATIVE_PREFIX if clip.is_negative else clip.concept, clip.clip_type) for clip in clips)
    return LabelledClipReport(dict(counts), failures, tuple(notes))


def assign_clips(
    source: Source, config: MiningConfig, excluded: Collection[int] = ()
) -> tuple[dict[int, SetPlace], list[str]]:
    """Assign clips other than the `excluded` to sets, by index, and return notes on shortfalls.

    Random sets are filled first, from all clips: those left over by the concepts would have too few of their labels.
    """
    if faults := [fault for concept in config.concepts if (fault := _concept_fault(concept, source))]:
        raise ValueError("; ".join(faults))
    order = [int(i) for i in np.random.default_rng(config.seed).permutation(len(source.items)) if i not in excluded]
    clips_of_concept = {concept: _labelled_indices(concept, source, order) for concept in config.concepts}
    sizes = {concept: min(config.max_clips, len(rows) // 3) for concept, rows in clips_of_concept.items()}
    notes = [
        f"{concept.name}: {count_noun(size, 'clip')} of each type instead of {config.max_clips};"
        f" {len(clips_of_concept[concept])} clips have this label"
        for concept, size in sizes.items()
        if size < config.max_clips
    ]
    size = max(1, *sizes.values())
    for n_sets in range(config.num_random_sets, -1, -1):
        random = order[: 2 * size * n_sets]
        places = {
            i: (f"{NEGATIVE_PREFIX}_{n // (2 * size):03d}", BASE_CLIP_TYPES[n % 2], "") for n, i in enumerate(random)
        }
        if len(random) == 2 * size * n_sets and all(
            _assign_concept(places, clips_of_concept[c], c, n) for c, n in sizes.items()
        ):
            break
    else:
        raise ValueError(
            f"{', '.join(c.name for c in sizes)} are labels of the same clips, but a clip can be in one set only; use"
            " more videos, or mine the concepts into several folders"
        )
    if n_sets < config.num_random_sets:
        notes.append(
            f"{count_noun(n_sets, 'random set')} instead of {config.num_random_sets}: each needs {2 * size} of"
            f" {count_noun(len(order), 'clip')},"
            " in addition to the concepts' clips; use more videos, or lower --max_clips"
        )
    return places, notes


def _labelled_indices(concept: Concept, source: Source, order: Sequence[int]) -> list[int]:
    assert concept.head is not None and concept.answer is not None
    class_index = source.heads[concept.head].index(concept.answer)
    return [i for i in order if source.items[i].labels.get(concept.head) == class_index]


def _assign_concept(places: dict[int, SetPlace], labelled: Sequence[int], concept: Concept, size: int) -> bool:
    """Assign unassigned clips of each type to the concept; return False if there are too few."""
    available = [i for i in labelled if i not in places][: 2 * size]
    label = f"{concept.head}:{concept.answer}"
    places.update({i: (concept.name, BASE_CLIP_TYPES[n % 2], label) for n, i in enumerate(available)})
    return len(available) == 2 * size


def _concept_fault(concept: Concept, source: Source) -> str | None:
    definition = f"{concept.name}=@{concept.head}:{concept.answer}"
    if concept.head not in source.heads:
        message = unknown_name_message("head of the videos", [str(concept.head)], source.heads or ["none"])
        return f"{definition}: {message}"
    if concept.answer not in source.heads[concept.head]:
        subject = f"class of {concept.head}"
        return f"{definition}: {unknown_name_message(subject, [str(concept.answer)], source.heads[concept.head])}"
    return None


def _write_clip(
    item: SourceItem, labels: dict[str, str], clip: Clip, place: SetPlace, config: MiningConfig, out: Path
) -> Iterator[ConceptClip]:
    """Write the clip and its controls and yield their entries; file names contain a hash of the content."""
    name, clip_type, label = place
    video = np.asarray(clip.video[0], np.uint8)
    stem = f"{folder_name(Path(item.name).stem)[:60]}_{clip.identity[:12]}.mp4"
    videos = {clip_type: crops.freeze_middle_frame(video) if clip_type == "static" else video}
    if clip_type == "dynamic" and config.controls:
        videos |= {"frozen": crops.freeze_middle_frame(video), "reversed": crops.reverse_frames(video)}
        videos["shuffled"] = crops.shuffle_frames(video, int(clip.identity[:12], 16))
    for variant, variant_frames in videos.items():
        file = f"{folder_name(name)}/{variant}/{stem}"
        path = out / file
        if not path.exists():
            write_bytes(path, encode_lossless_mp4(variant_frames))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        frames = tuple(int(i) for i in clip.frames[0])
        control_of = "" if variant == clip_type else f"{folder_name(name)}/{clip_type}/{stem}"
        yield ConceptClip(
            name,
            variant,
            path,
            digest,
            file,
            source=item.name,
            source_sha256=clip.content,
            frames=frames,
            label=label,
            detector="labels",
            control_of=control_of,
            labels=labels,
            recording=item.recording,
        )
