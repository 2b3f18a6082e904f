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

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts import crops, inputs
from vtcav_jax.concepts.concept_sets import ConceptClip, encoded, once, read_verdicts, reviewed
from vtcav_jax.concepts.config import NEGATIVE, Concept, Mining, folder_name
from vtcav_jax.concepts.cut_clips import write_file
from vtcav_jax.concepts.mining import finish, open_folder
from vtcav_jax.console import progress
from vtcav_jax.data.clip import Clip, How
from vtcav_jax.data.loader import stream
from vtcav_jax.data.open import Item, Source
from vtcav_jax.data.world_source import Synthetic
from vtcav_jax.names import printable, unknown
from vtcav_jax.runs.directory import told_when_full


@dataclass(frozen=True)
class Gathered:
    """What came out, by set and kind; `text` is for the terminal."""

    counts: dict[tuple[str, str], int]
    failures: dict[str, str]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        wide = max(len(f"{name}, {kind}") for name, kind in self.counts)
        lines = [f"{'set, kind':{wide}}  clips"]
        lines += [f"{f'{name}, {kind}':{wide}}  {count:>5}" for (name, kind), count in self.counts.items()]
        lines += [f"not read: {name}: {why}" for name, why in self.failures.items()]
        return printable("\n".join([*lines, *(f"note: {note}" for note in self.notes)]))


KINDS = ("static", "dynamic")
Place = tuple[str, str, str]  # the set, static or dynamic, and the label that its clips have


def whole_clips(
    source: Source,
    settings: Mining,
    geometry: ClipSpec,
    out: Path,
    *,
    targets: Source | None = None,
    workers: int = 0,
) -> Gathered:
    """Writes concept sets of the source's labelled clips to `out`: each video is in one set, as one kind.

    Half of a concept's videos stand still (their middle frame, for as long), half move and have controls beside them.
    Videos that are among the `targets` are refused.
    """
    places, notes = dealt(source, settings)
    if targets is not None:
        films = [inputs.Films(source, out)] if isinstance(source, Synthetic) else []
        inputs.refuse_same_world(films, targets)
        inputs.refuse_targets(_hashes(source.items[i] for i in places), targets)
    clips, failures = [], {}
    with told_when_full(out):
        open_folder(out, settings, "labels", source.identity)
        reads = stream(source, geometry, How(normalise=False), wanted=sorted(places), workers=workers)
        for read in progress(reads, len(places), "clips", size=lambda _: 1):
            if read.clip is None:
                failures[read.item.name] = read.failure or ""
            else:
                clips += _written(read.item, read.clip, places[read.index], settings, out)
        verdicts, _ = read_verdicts(out)
        clips, again = once(replace(clip, review=verdicts.get(clip.file, "")) for clip in clips)
        if again:
            notes.append(f"{len(again)} clips equal another to the pixel and are left out, such as {again[0].file}")
        if not clips:
            raise ValueError(f"none of the {len(places)} clips can be read; the first: {next(iter(failures.values()))}")
        finish(out, clips, {}, failures)
    clips = [clip for clip in reviewed(clips, verdicts) if clip.review != "reject"]
    counts = Counter((NEGATIVE if clip.negative else clip.concept, clip.kind) for clip in clips)
    return Gathered(dict(counts), failures, tuple(notes))


def dealt(source: Source, settings: Mining) -> tuple[dict[int, Place], list[str]]:
    """Which clip goes where, and what could not be had, in words.

    Random sets are dealt first, out of all clips: what concepts leave over would have too few of their labels.
    """
    if faults := [fault for concept in settings.concepts if (fault := _fault(concept, source))]:
        raise ValueError("; ".join(faults))
    order = [int(i) for i in np.random.default_rng(settings.seed).permutation(len(source.items))]
    own = {concept: _labelled(concept, source, order) for concept in settings.concepts}
    sizes = {concept: min(settings.most, len(rows) // 3) for concept, rows in own.items()}
    notes = [
        f"{concept.name}: {size} clips of each kind instead of {settings.most}; {len(own[concept])} are labelled so"
        for concept, size in sizes.items()
        if size < settings.most
    ]
    size = max(1, *sizes.values())
    for sets in range(settings.random_sets, -1, -1):
        random = order[: 2 * size * sets]
        places = {i: (f"{NEGATIVE}_{n // (2 * size):03d}", KINDS[n % 2], "") for n, i in enumerate(random)}
        if len(random) == 2 * size * sets and all(_taken(places, own[c], c, n) for c, n in sizes.items()):
            break
    else:
        raise ValueError(
            f"{', '.join(c.name for c in sizes)} are labels of the same clips, and a clip is in one set only; give more"
            " videos, or mine them into several folders"
        )
    if sets < settings.random_sets:
        notes.append(
            f"{sets} random sets instead of {settings.random_sets}: a set takes {2 * size} of {len(order)} clips, and"
            " the concepts need theirs; give more videos, or take --most down"
        )
    return places, notes


def _labelled(concept: Concept, source: Source, order: Sequence[int]) -> list[int]:
    assert concept.head is not None and concept.answer is not None
    number = source.heads[concept.head].index(concept.answer)
    return [i for i in order if source.items[i].labels.get(concept.head) == number]


def _taken(places: dict[int, Place], own: Sequence[int], concept: Concept, size: int) -> bool:
    """Gives the concept its clips of each kind, out of those that have no place; False if there are too few."""
    free = [i for i in own if i not in places][: 2 * size]
    label = f"{concept.head}:{concept.answer}"
    places.update({i: (concept.name, KINDS[n % 2], label) for n, i in enumerate(free)})
    return len(free) == 2 * size


def _hashes(items: Iterable[Item]) -> dict[str, str]:
    """The names of items that are files, by what is in them."""
    found = {}
    for item in items:
        if item.path is not None and item.path.is_file():
            with item.path.open("rb") as file:
                found[hashlib.file_digest(file, "sha256").hexdigest()] = item.name
    return found


def _fault(concept: Concept, source: Source) -> str | None:
    asked = f"{concept.name}=@{concept.head}:{concept.answer}"
    if concept.head not in source.heads:
        return f"{asked}: {unknown('question of the videos', [str(concept.head)], source.heads or ['none'])}"
    if concept.answer not in source.heads[concept.head]:
        what = f"answer to {concept.head}"
        return f"{asked}: {unknown(what, [str(concept.answer)], source.heads[concept.head])}"
    return None


def _written(item: Item, clip: Clip, place: Place, settings: Mining, out: Path) -> Iterator[ConceptClip]:
    """The clip with its controls, once their files are there; a name holds a hash of what is in the file."""
    name, kind, label = place
    video = np.asarray(clip.video[0], np.uint8)
    stem = f"{folder_name(Path(item.name).stem)[:60]}_{clip.identity[:12]}.mp4"
    videos = {kind: crops.frozen(video) if kind == "static" else video}
    if kind == "dynamic" and settings.controls and not name.startswith(NEGATIVE):
        videos |= {"frozen": crops.frozen(video), "reversed": crops.backwards(video)}
        videos["shuffled"] = crops.shuffled(video, int(clip.identity[:12], 16))
    for each, pixels in videos.items():
        file = f"{folder_name(name)}/{each}/{stem}"
        path = out / file
        if not path.exists():
            write_file(path, encoded(pixels))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        frames = tuple(int(i) for i in clip.frames[0])
        twin = "" if each == kind else f"{folder_name(name)}/{kind}/{stem}"
        yield ConceptClip(
            name, each, path, digest, file, item.name, clip.content, frames, (), label, None, "labels", "", twin
        )
