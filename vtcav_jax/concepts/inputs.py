"""What is mined: videos, what is known of them, and who says where things are; all checked before one is watched."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.concepts.boxes import Box, read_boxes
from vtcav_jax.concepts.config import Mining, folder_name
from vtcav_jax.concepts.video_scan import Detector, Drawn
from vtcav_jax.console import progress
from vtcav_jax.data.decoded_dataset import Prepared
from vtcav_jax.data.open import Files, Item, Source, one_line, open_source, unique
from vtcav_jax.data.world_source import Synthetic
from vtcav_jax.names import printable, unknown
from vtcav_jax.worlds.export import write_video

AT_ONCE = 64  # synthetic clips
SHOWN = 3

Videos = Source | str | Path | Sequence[str | Path]  # what `open_source` takes, a source, or files
Answered = tuple[Item, dict[str, str]]  # a video and what is known of it, by head


@dataclass(frozen=True)
class Films:
    """The clips of a synthetic world as files: mined like any video, with the boxes that the world itself knows."""

    source: Synthetic
    above: Path

    @property
    def folder(self) -> Path:
        return self.above / folder_name(f"{self.source.name}_{self.source.count}_{self.source.seed}")

    def path(self, item: Item) -> Path:
        return self.folder / f"{item.name}.mp4"

    def boxes(self) -> dict[str, tuple[Box, ...]]:
        """By the item's name."""
        found: dict[str, list[Box]] = {item.name: [] for item in self.source.items}
        names = list(found)
        for first, count in progress(self._parts(), self.source.count, "clips", size=lambda part: part[1]):
            clips = self.source.rendered(first, count)
            for clip, frame, track, *corners in clips.boxes.tolist():
                found[names[clip]].append(Box(frame, track, clips.world.tracks[track], *corners))
        return {name: tuple(some) for name, some in found.items()}

    def write(self) -> None:
        """Those that are not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for first, count in progress(self._parts(), self.source.count, "films", size=lambda part: part[1]):
            paths = [self.path(item) for item in self.source.items[first : first + count]]
            if not all(path.exists() for path in paths):
                clips = self.source.rendered(first, count)
                for path, video in zip(paths, clips.video):
                    if not path.exists():
                        write_video(path, video)

    def _parts(self) -> Iterator[tuple[int, int]]:
        for first in range(0, self.source.count, AT_ONCE):
            yield first, min(AT_ONCE, self.source.count - first)


def opened(videos: Videos) -> Source:
    if isinstance(videos, str | Path):
        return open_source(videos)
    if isinstance(videos, Sequence):
        paths = [Path(path) for path in videos]
        names = unique(one_line(path.name) for path in paths)
        return Files("files", {}, tuple(Item(name, {}, path) for name, path in zip(names, paths)))
    return videos


def answered(source: Source, above: Path) -> list[Answered]:
    """The videos, and what is known of them; `above` is where those of a world are going to be."""
    items = list(source.items)
    if isinstance(source, Synthetic):
        films = Films(source, above)
        items = [Item(item.name, item.labels, films.path(item)) for item in items]
    elif not all(item.path for item in items):
        raise ValueError(
            f"{source.spec} has clips but no videos, of which boxes could be cut out; give the videos themselves"
        )
    return [(item, {head: source.heads[head][value] for head, value in item.labels.items()}) for item in items]


def finder(settings: Mining, items: Sequence[Answered], films: Sequence[Films]) -> Detector | Drawn:
    """Who says where things are."""
    if settings.detector:
        from vtcav_jax.concepts import detect

        return detect.load(settings.detector, settings)
    if settings.boxes:
        return _of_table(settings.boxes, [item for item, _ in items])
    tables: dict[Path, dict[str, tuple[Box, ...]]] = {}
    by_file = {}
    for item, _ in items:
        if item.boxes and item.path:
            if item.boxes not in tables:
                tables[item.boxes] = read_boxes(item.boxes)
            by_file[item.name] = Drawn("", tables[item.boxes]).of(item) or tables[item.boxes].get("", ())
    for some in films:
        by_file |= some.boxes()
    if not by_file:
        raise ValueError("nobody says where things are; give a detector's weights, or a CSV of boxes")
    return Drawn("boxes", by_file)


def _of_table(path: Path, items: Sequence[Item]) -> Drawn:
    """Boxes by the videos' names, as far as those are beyond doubt."""
    by_file = read_boxes(path)
    if "" in by_file and len(items) == 1:
        by_file = {items[0].name: by_file[""]}
    drawn = Drawn(path.name, by_file)
    of_name: dict[str, set[Path]] = defaultdict(set)
    for item in items:
        if item.path and item.name not in by_file and item.path.name in by_file:
            of_name[item.path.name].add(item.path)
    if twice := [name for name, paths in of_name.items() if len(paths) > 1]:
        longer = next(item.name for item in items if item.path and item.path.name == twice[0])
        raise ValueError(
            f"{path.name}: {len(twice)} names are those of several videos, such as {printable(twice[0])}; write them"
            f" as {longer} in its column file"
        )
    if not any(drawn.of(item) for item in items if item.path):
        raise ValueError(
            f"{path.name} has no box of any of the {len(items)} videos; expected names such as {items[0].name!r} in its"
            f" column file, got {next(iter(by_file), '')!r}"
        )
    return drawn


def unmatched(finder: Detector | Drawn, items: Sequence[Answered]) -> list[str]:
    """What a table of boxes names that is not there: more often a slip than on purpose."""
    if not isinstance(finder, Drawn):
        return []
    known = {name for item, _ in items if item.path for name in (item.name, item.path.name)}
    strange = [name for name in finder.by_file if name not in known]
    more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
    named = ", ".join(map(repr, strange[:SHOWN]))
    return [f"{finder.name} has boxes of what is not among the videos: {named}{more}"] if strange else []


def check_labels(settings: Mining, finder: Detector | Drawn, items: Sequence[Answered]) -> None:
    """What is asked for must be there before anything is watched."""
    faults = []
    if strange := sorted({c.label for c in settings.concepts} - set(finder.labels)):
        faults.append(f"{finder.name}: {unknown('label', strange, finder.labels)}")
    known = {f"{head}:{answer}" for _, answers in items for head, answer in answers.items()}
    asked = {f"{c.head}:{c.answer}" for c in settings.concepts if c.head}
    if strange := sorted(asked - known):
        faults.append(unknown("HEAD:ANSWER of the videos", strange, sorted(known) or ["none"]))
    if faults:
        raise ValueError("\n".join(map(printable, faults)))


def refuse_same_world(films: Sequence[Films], targets: Source) -> None:
    """Clips of one world and seed are the same ones, however many there are."""
    if not isinstance(targets, Synthetic):
        return
    for some in films:
        if (some.source.world, some.source.seed) == (targets.world, targets.seed):
            raise ValueError(
                f"{some.source.spec} has the same clips as the targets, {targets.spec}; give one of both another seed"
            )


def refuse_targets(names: Mapping[str, str], targets: Source) -> None:
    """`names` are those of the videos by their hash."""
    faults = []
    for ((name, sha256),) in progress(([pair] for pair in _contents(targets)), len(targets.items), "targets"):
        if sha256 and sha256 in names:
            faults.append(f"{names[sha256]} = target {name}")
    if faults:
        told = "; ".join(faults[:10]) + (f"; and {len(faults) - 10} more" if len(faults) > 10 else "")
        raise ValueError(f"a target cannot give concepts or negatives as well; take out of one of both: {told}")


def _contents(targets: Source) -> Iterator[tuple[str, str | None]]:
    """Names, and hashes of the files that they are or were made of."""
    for i, item in enumerate(targets.items):
        sha256 = None
        if item.path is not None and item.path.is_file():
            with item.path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        elif isinstance(targets, Prepared):
            sha256 = targets.content(i)
        yield item.name, sha256
