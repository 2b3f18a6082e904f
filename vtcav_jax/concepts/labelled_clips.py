"""Whole clips as concepts: what videos are labelled with, as the network sees them, without a detector and boxes.

A box that follows a thing takes its path away, so that crops show what a thing looks like and hardly where it goes;
whole clips keep everything. Concept clips differ from the random ones in their label and, as far as labels are drawn
independently, in nothing else. Random sets are clips of any label: without the concepts' own they would lack whatever
goes along with the others.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vtcav_jax.atomic import explain_disk_full, write_bytes
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts import crops, inputs
from vtcav_jax.concepts.concept_sets import ConceptClip, apply_review, drop_duplicates, read_verdicts
from vtcav_jax.concepts.config import NEGATIVE_PREFIX, Concept, MiningConfig, folder_name
from vtcav_jax.concepts.mining import open_mining_folder, write_outputs
from vtcav_jax.console import progress
from vtcav_jax.data.clip import Clip, SamplingConfig
from vtcav_jax.data.encode import encode_lossless_mp4
from vtcav_jax.data.loader import stream
from vtcav_jax.data.source import Source, SourceItem
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.names import escape_control_chars, unknown_name_message


@dataclass(frozen=True)
class LabelledClipReport:
    """What came out, by set and kind; `text` is for the terminal."""

    counts: dict[tuple[str, str], int]
    failures: dict[str, str]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        width = max(len(f"{name}, {clip_type}") for name, clip_type in self.counts)
        lines = [f"{'set, kind':{width}}  clips"]
        lines += [f"{f'{name}, {clip_type}':{width}}  {count:>5}" for (name, clip_type), count in self.counts.items()]
        lines += [f"not read: {name}: {reason}" for name, reason in self.failures.items()]
        return escape_control_chars("\n".join([*lines, *(f"note: {note}" for note in self.notes)]))


BASE_CLIP_TYPES = ("static", "dynamic")
SetPlace = tuple[str, str, str]  # the set, static or dynamic, and the label that its clips have


def mine_labelled_clips(
    source: Source,
    config: MiningConfig,
    clip_spec: ClipSpec,
    out: Path,
    *,
    targets: Source | None = None,
    num_workers: int = 0,
) -> LabelledClipReport:
    """Writes concept sets of the source's labelled clips to `out`: each video is in one set, as one kind.

    Half of a concept's videos stand still (their middle frame, for as long), half move and have controls beside them.
    Videos that are among the `targets` are refused.
    """
    places, notes = assign_clips(source, config)
    if targets is not None:
        world_videos = [inputs.WorldVideos(source, out)] if isinstance(source, WorldSource) else []
        inputs.forbid_same_world(world_videos, targets)
        inputs.forbid_targets(_file_hashes(source.items[i] for i in places), targets)
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
                clips += _write_clip(read.item, read.clip, places[read.index], config, out)
        verdicts, _ = read_verdicts(out)
        clips, duplicates = drop_duplicates(replace(clip, review=verdicts.get(clip.file, "")) for clip in clips)
        if duplicates:
            notes.append(
                f"{len(duplicates)} clips equal another to the pixel and are left out, such as {duplicates[0].file}"
            )
        if not clips:
            raise ValueError(f"none of the {len(places)} clips can be read; the first: {next(iter(failures.values()))}")
        write_outputs(out, clips, {}, failures)
    clips = [clip for clip in apply_review(clips, verdicts) if clip.review != "reject"]
    counts = Counter((NEGATIVE_PREFIX if clip.is_negative else clip.concept, clip.clip_type) for clip in clips)
    return LabelledClipReport(dict(counts), failures, tuple(notes))


def assign_clips(source: Source, config: MiningConfig) -> tuple[dict[int, SetPlace], list[str]]:
    """Which clip goes where, and what could not be had, in words.

    Random sets are dealt first, out of all clips: what concepts leave over would have too few of their labels.
    """
    if faults := [fault for concept in config.concepts if (fault := _concept_fault(concept, source))]:
        raise ValueError("; ".join(faults))
    order = [int(i) for i in np.random.default_rng(config.seed).permutation(len(source.items))]
    clips_of_concept = {concept: _labelled_indices(concept, source, order) for concept in config.concepts}
    sizes = {concept: min(config.max_clips, len(rows) // 3) for concept, rows in clips_of_concept.items()}
    notes = [
        f"{concept.name}: {size} clips of each kind instead of {config.max_clips};"
        f" {len(clips_of_concept[concept])} are labelled so"
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
            f"{', '.join(c.name for c in sizes)} are labels of the same clips, and a clip is in one set only; give more"
            " videos, or mine them into several folders"
        )
    if n_sets < config.num_random_sets:
        notes.append(
            f"{n_sets} random sets instead of {config.num_random_sets}: a set takes {2 * size} of {len(order)}"
            f" clips, and"
            " the concepts need theirs; give more videos, or take --max_clips down"
        )
    return places, notes


def _labelled_indices(concept: Concept, source: Source, order: Sequence[int]) -> list[int]:
    assert concept.head is not None and concept.answer is not None
    class_index = source.heads[concept.head].index(concept.answer)
    return [i for i in order if source.items[i].labels.get(concept.head) == class_index]


def _assign_concept(places: dict[int, SetPlace], labelled: Sequence[int], concept: Concept, size: int) -> bool:
    """Gives the concept its clips of each kind, out of those that have no place; False if there are too few."""
    available = [i for i in labelled if i not in places][: 2 * size]
    label = f"{concept.head}:{concept.answer}"
    places.update({i: (concept.name, BASE_CLIP_TYPES[n % 2], label) for n, i in enumerate(available)})
    return len(available) == 2 * size


def _file_hashes(items: Iterable[SourceItem]) -> dict[str, str]:
    """The names of items that are files, by what is in them."""
    names_by_hash = {}
    for item in items:
        if item.path is not None and item.path.is_file():
            with item.path.open("rb") as file:
                names_by_hash[hashlib.file_digest(file, "sha256").hexdigest()] = item.name
    return names_by_hash


def _concept_fault(concept: Concept, source: Source) -> str | None:
    definition = f"{concept.name}=@{concept.head}:{concept.answer}"
    if concept.head not in source.heads:
        message = unknown_name_message("question of the videos", [str(concept.head)], source.heads or ["none"])
        return f"{definition}: {message}"
    if concept.answer not in source.heads[concept.head]:
        subject = f"answer to {concept.head}"
        return f"{definition}: {unknown_name_message(subject, [str(concept.answer)], source.heads[concept.head])}"
    return None


def _write_clip(
    item: SourceItem, clip: Clip, place: SetPlace, config: MiningConfig, out: Path
) -> Iterator[ConceptClip]:
    """The clip with its controls, once their files are there; a name holds a hash of what is in the file."""
    name, clip_type, label = place
    video = np.asarray(clip.video[0], np.uint8)
    stem = f"{folder_name(Path(item.name).stem)[:60]}_{clip.identity[:12]}.mp4"
    videos = {clip_type: crops.freeze_middle_frame(video) if clip_type == "static" else video}
    if clip_type == "dynamic" and config.controls and not name.startswith(NEGATIVE_PREFIX):
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
            item.name,
            clip.content,
            frames,
            (),
            label,
            None,
            "labels",
            "",
            control_of,
        )
