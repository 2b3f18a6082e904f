"""Annotations of one data set, and the source made of them and a folder of videos."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vtcav_jax.data.folder import NON_VIDEO_SUFFIXES
from vtcav_jax.data.source import FileSource, SourceItem, disambiguate, one_line

MAX_PLACES_IN_MESSAGE = 4


@dataclass(frozen=True)
class Annotation:
    """One line of an annotation file.

    `places` are the paths at which the video may be, relative to the folder and without suffix, the usual one first. At
    `recording_places` is the whole recording instead, of which the seconds from `start` to `end` are the video.
    """

    name: str
    labels: Mapping[str, str]  # class name by head
    places: tuple[str, ...]
    replacement_places: tuple[str, ...] = ()  # of repaired copies, which are preferred
    recording_places: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    recording: str = ""  # name of what other videos may be cut from too
    further_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # other classes of the head


@dataclass(frozen=True)
class AnnotatedVideos:
    """Content of an annotation file: `classes` are the class names of each head in the order of the data set."""

    file: Path
    classes: dict[str, tuple[str, ...]]
    annotations: tuple[Annotation, ...]
    suffix: str  # of the published videos; others are found too


def make_annotated_source(spec: str, folder: Path, videos: AnnotatedVideos) -> FileSource:
    """Return the source of the annotated videos in a folder, whose notes count those that are missing."""
    listings = FolderListings(folder)
    indices = {head: {name: i for i, name in enumerate(names)} for head, names in videos.classes.items()}
    items, missing = [], []
    for name, annotation in zip(disambiguate(one_line(a.name) for a in videos.annotations), videos.annotations):
        path = listings.find((*annotation.replacement_places, *annotation.places))
        is_part = path is None and bool(annotation.recording_places)
        if is_part:
            path = listings.find(annotation.recording_places)
        if path is None:
            missing.append(name)
            path = folder / f"{(annotation.recording_places or annotation.places)[0]}{videos.suffix}"
        further = {
            head: tuple(indices[head][label] for label in labels) for head, labels in annotation.further_labels.items()
        }
        items.append(
            SourceItem(
                name,
                {head: indices[head][label] for head, label in annotation.labels.items()},
                path,
                annotation.start if is_part else None,
                annotation.end if is_part else None,
                source=one_line(annotation.recording),
                further_labels={head: labels for head, labels in further.items() if labels},
            )
        )
    if len(missing) == len(items):
        raise ValueError(_all_missing_message(folder, videos))
    notes = ()
    if missing:
        verb, consequence = ("is", "it counts") if len(missing) == 1 else ("are", "they count")
        notes = (
            f"{len(missing)} of the {len(items)} videos of {videos.file.name} {verb} not in {folder}, such as"
            f" {missing[0]}; {consequence} as unreadable",
        )
    heads = {head: tuple(map(one_line, names)) for head, names in videos.classes.items() if names}
    return FileSource(spec, heads, tuple(items), notes)


def _all_missing_message(folder: Path, videos: AnnotatedVideos) -> str:
    first = videos.annotations[0]
    places = [*first.places[:MAX_PLACES_IN_MESSAGE], *first.recording_places[:MAX_PLACES_IN_MESSAGE]]
    examples = ", ".join(str(folder / f"{place}{videos.suffix}") for place in places)
    n = len(videos.annotations)
    subject = f"none of the {n} videos of {videos.file.name} is" if n > 1 else f"the video of {videos.file.name} is not"
    return (
        f"{subject} in {folder}; looked for {first.name} at {examples} (or with another suffix); pass the folder that"
        " contains these paths"
    )


class FolderListings:
    """Videos in a folder and in those below it; each folder is listed once, when it is first needed."""

    def __init__(self, root: Path):
        self.root = root
        self.videos_of_folder: dict[str, dict[str, str]] = {}  # file name by stem

    def find(self, places: Iterable[str]) -> Path | None:
        """Return the first existing video at one of the places, which are paths without a suffix."""
        for place in places:
            folder, _, stem = place.rpartition("/")
            if name := self._videos(folder).get(stem):
                return self.root / folder / name
        return None

    def _videos(self, folder: str) -> dict[str, str]:
        if folder not in self.videos_of_folder:
            try:
                names = sorted(os.listdir(self.root / folder))
            except (FileNotFoundError, NotADirectoryError):
                names = []
            except OSError as error:
                raise ValueError(
                    f"{self.root / folder} cannot be listed ({error.strerror}); check its permissions"
                ) from error
            videos = [name for name in names if PurePosixPath(name).suffix.lower() not in NON_VIDEO_SUFFIXES]
            self.videos_of_folder[folder] = {PurePosixPath(name).stem: name for name in reversed(videos)}
        return self.videos_of_folder[folder]


def inside_folder(places: Iterable[str]) -> tuple[str, ...]:
    """Return the places that lie within the folder of videos, without repetitions."""
    relative = (place for place in places if not place.startswith("/") and ".." not in place.split("/"))
    return tuple(dict.fromkeys(relative))


def sorted_classes(annotations: Sequence[Annotation], heads: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the class names that occur, sorted, for data sets without a file of class names."""
    return {
        head: tuple(sorted({label for a in annotations for label in (a.labels.get(head), *_further(a, head)) if label}))
        for head in heads
    }


def _further(annotation: Annotation, head: str) -> tuple[str, ...]:
    return annotation.further_labels.get(head, ())
