"""Which clips an experiment looks at, found and checked before any of them goes through the network."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.concept_sets import ConceptClip, ConceptSets, forbid_leaks, letterboxed
from vtcav_jax.data.clip import Clip, SamplingConfig
from vtcav_jax.data.decode import VideoError, probe
from vtcav_jax.data.frame_sampling import select_frames
from vtcav_jax.data.open import Source, SourceItem, json_sha256
from vtcav_jax.models import Network
from vtcav_jax.names import unknown_name_message
from vtcav_jax.tcav.features.cache import key_of

T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """Concept clips as a source, letterboxed: what an object is cut out of must not be cut once more."""

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

    def read(self, i: int, geometry: ClipSpec, how: SamplingConfig) -> Clip:
        clip = self.clips[i]
        video = letterboxed(clip, geometry)[None]
        frames = np.arange(len(video[0]))[None]
        return Clip(geometry.normalise(video) if how.normalise else video, frames, frames / 25, False, clip.sha256)


@dataclass(frozen=True)
class Some:
    """Some items of a source: their numbers, names, and keys, which tell content and geometry."""

    source: Source
    items: tuple[int, ...]
    names: tuple[str, ...]
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.items)

    def only(self, rows: Sequence[int]) -> "Some":
        def of(part: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(part[i] for i in rows)

        return Some(self.source, of(self.items), of(self.names), of(self.keys))


@dataclass(frozen=True)
class Target:
    """A class and the clips, as rows of the targets, at which its score is followed."""

    name: str
    index: int  # of the logit
    rows: tuple[int, ...]
    labelled: bool


@dataclass(frozen=True)
class Preflight:
    """What was found out about the files."""

    unreadable: dict[str, str]
    short: tuple[str, ...]  # frames come twice
    twice: tuple[str, ...]  # targets that are the same clip as an earlier one
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looked:
    """The clips of an experiment."""

    concepts: Some
    clips: tuple[ConceptClip, ...]  # those of `concepts`
    targets: Some
    classes: tuple[Target, ...]
    preflight: Preflight

    @property
    def videos(self) -> Int[np.ndarray, " m"]:
        """A number for the video that each concept clip was cut out of; its own where that is not known."""
        return np.unique([clip.source_sha256 or clip.family for clip in self.clips], return_inverse=True)[1]


def look(
    loaded: Network,
    targets: Sequence[str],
    source: Source,
    sets: ConceptSets,
    geometry: ClipSpec,
    *,
    most: int | None,
    seed: int,
) -> Looked:
    """Chooses the targets' clips and checks all files; a clip in two places is refused, one that is broken left out."""
    wanted = {name: of_class(loaded, name, source, most, seed) for name in dict.fromkeys(targets)}
    if not wanted:
        raise ValueError(f"name at least one target; the network has {', '.join(loaded.labels)}")
    items = sorted({i for _, rows, _ in wanted.values() for i in rows})
    contents, unreadable, short = {}, {}, []
    for i in items:
        item = source.items[i]
        if item.path is None:
            contents[i] = key_of(source.identity, i)
            continue
        if (why := _probed(item.path, geometry, item.name, short)) is None:
            contents[i] = _sha256(item.path)
        else:
            unreadable[item.name] = why
    forbid_leaks(sets.clips, {source.items[i].name: sha for i, sha in contents.items() if source.items[i].path})
    good = []
    for clip in sets.clips:
        rule = replace(geometry, interval=1) if clip.frames else geometry
        why = _probed(clip.path, rule, clip.file, short)
        if why is None:
            good.append(clip)
        else:
            unreadable[clip.file] = why
    shape = asdict(geometry)
    first: dict[str, int] = {}
    for i in contents:
        item = source.items[i]
        first.setdefault(key_of("target", contents[i], item.start, item.end, shape), i)
    kept = {i: key for key, i in first.items()}
    twice = tuple(source.items[i].name for i in contents if i not in kept)
    some = Some(source, tuple(kept), tuple(source.items[i].name for i in kept), tuple(kept.values()))
    place = {i: row for row, i in enumerate(kept)}
    classes = tuple(
        Target(name, index, tuple(place[i] for i in rows if i in place), labelled)
        for name, (index, rows, labelled) in wanted.items()
    )
    if empty := [target.name for target in classes if not target.rows]:
        raise ValueError(
            f"none of the clips of {', '.join(empty)} in {source.spec} can be read; see them with a player"
        )
    notes = tuple(
        f"{source.spec} says nothing about {target.name}: all its clips are taken for it"
        for target in classes
        if not target.labelled
    )
    keys = tuple(key_of("concept", clip.sha256, bool(clip.frames), shape) for clip in good)
    shown = Some(Shown(tuple(good)), tuple(range(len(good))), tuple(clip.file for clip in good), keys)
    flight = Preflight(unreadable, tuple(short), twice, (*sets.notes, *notes))
    return Looked(shown, tuple(good), some, classes, flight)


def of_class(loaded: Network, name: str, source: Source, most: int | None, seed: int) -> tuple[int, list[int], bool]:
    """The class's logit, the items that are labelled with it, and whether they are labelled at all."""
    index = loaded.class_index(name)
    head, part = next((head, part) for head, part in loaded.head_slices.items() if part.start <= index < part.stop)
    answer = loaded.heads[head][index - part.start]
    labelled = head in source.heads
    if labelled and answer not in source.heads[head]:
        raise ValueError(f"{source.spec}: " + unknown_name_message(f"{head} label", [answer], source.heads[head]))
    number = source.heads[head].index(answer) if labelled else None
    rows = [i for i, item in enumerate(source.items) if not labelled or item.labels.get(head) == number]
    if not rows:
        raise ValueError(f"no clip of {source.spec} is labelled {head}:{answer}; give others, or more of them")
    if most is not None and len(rows) > most:
        chosen = np.random.default_rng([seed, index]).permutation(len(rows))[:most]
        rows = [rows[i] for i in sorted(chosen)]
    return index, rows, labelled


def _probed(path: Path, geometry: ClipSpec, name: str, short: list[str]) -> str | None:
    """Why a file cannot be read, if so; its name goes to `short` where frames must come twice."""
    try:
        index = probe(path)
        if select_frames(index.times, index.duration, geometry).padded:
            short.append(name)
    except (VideoError, OSError) as error:
        return str(error)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
