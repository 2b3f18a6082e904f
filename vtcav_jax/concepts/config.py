"""What is to be mined, and what is good enough to be a clip."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NEGATIVE_PREFIX = "random"  # a set whose name begins with it is a negative one, mined or made by hand
MAX_FOLDER_BYTES = 200  # bytes of a folder's name; file systems take 255


@dataclass(frozen=True)
class Concept:
    """A name for the boxes with one label, in all videos or in those with one answer to one question; without a label
    for those videos as a whole."""

    name: str
    label: str
    head: str | None = None
    answer: str | None = None

    @property
    def folder(self) -> str:
        return folder_name(self.name)


def parse_concept(text: str) -> Concept:
    """`LABEL`, `NAME=LABEL`, or `NAME=LABEL@HEAD:ANSWER`, as in `left=key@direction:left` of the worlds; of whole clips
    `@HEAD:ANSWER` or `NAME=@HEAD:ANSWER`."""
    name, equals, rest = text.partition("=") if "=" in text else ("", "", text)
    label, at_sign, condition = rest.partition("@")
    head, colon, answer = condition.partition(":")
    if not (label.strip() or at_sign) or (equals and not name.strip()) or (at_sign and not (head and colon and answer)):
        raise ValueError(
            f"{text!r} is no concept; expected LABEL, NAME=LABEL or NAME=LABEL@HEAD:ANSWER, or @HEAD:ANSWER or"
            " NAME=@HEAD:ANSWER for whole clips"
        )
    label, name = label.strip(), name.strip() or (f"{head} {answer}" if at_sign else label.strip())
    return Concept(name, label, head.strip() or None, answer.strip() or None)


def folder_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "_"


@dataclass(frozen=True)
class MiningConfig:
    """The settings of `mine`; the clip's length is that of the network that will see it."""

    concepts: tuple[Concept, ...]
    clip_frames: int = 16  # of a clip
    interval: int = 1  # between them, in frames of the video
    controls: bool = True  # of each dynamic clip: frozen, shuffled, reversed, jitter

    detector: Path | None = None  # weights of the detector library, or
    boxes: Path | None = None  # a CSV of boxes; or neither, where the source's manifest names one for each video
    tracker: str = "bytetrack"  # or botsort
    detector_size: int = 640  # at which the detector looks
    batch_size: int = 8  # frames at once
    device: str | None = None  # of the detector; None leaves it the choice

    min_confidence: float = 0.5  # of a static crop; of a dynamic clip on average
    min_area: float = 0.001  # of a box, as a part of the frame's; on average
    min_track_length: int | None = None  # of a track, in frames; None: as long as a clip
    max_iou: float = 0.5  # of two clips' boxes at about the same time, as a part of what either covers
    max_clips_per_video: int = 5  # clips of one concept and kind, so that one video does not become the concept
    max_clips: int = 50  # in all

    num_random_sets: int = 10
    random_set_size: int | None = None  # clips of a kind in each; None: as many as the largest concept has
    seed: int = 0

    def __post_init__(self):
        faults = []
        if not self.concepts:
            faults.append("there is no concept; name one or more")
        names = [c.name for c in self.concepts]
        faults += [f"{name!r} is named twice" for name in sorted({n for n in names if names.count(n) > 1})]
        by_folder: dict[str, str] = {}
        for name in dict.fromkeys(names):
            if (other := by_folder.setdefault(folder_name(name).lower(), name)) != name:
                faults.append(
                    f"{other!r} and {name!r} would have the same folder; give one another name, as in x=LABEL"
                )
            if len(folder_name(name).encode()) > MAX_FOLDER_BYTES:
                faults.append(f"{name[:40]!r}... is too long for a folder; give it another name, as in x=LABEL")
            if name.lower().startswith(NEGATIVE_PREFIX):
                faults.append(
                    f"{name!r} begins like the negative sets, {NEGATIVE_PREFIX}; give it another name, as in x=LABEL"
                )
        for name, minimum in (
            *(("clip_frames", 1), ("interval", 1), ("batch_size", 1), ("max_clips_per_video", 1)),
            ("max_clips", 1),
        ):
            if getattr(self, name) < minimum:
                faults.append(f"{name} must be at least {minimum}, not {getattr(self, name)}")
        for name in ("min_confidence", "min_area", "max_iou"):
            if not 0 <= getattr(self, name) <= 1:
                faults.append(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        if self.num_random_sets < 0 or (self.random_set_size is not None and self.random_set_size < 1) or self.seed < 0:
            faults.append("num_random_sets and seed must be at least 0, random_set_size at least 1")
        if self.detector and self.boxes:
            faults.append("detector and boxes are two answers to one question; give one")
        if self.tracker not in TRACKERS:
            faults.append(f"there is no tracker {self.tracker!r}; expected {' or '.join(TRACKERS)}")
        if self.uses_whole_clips and (box_concepts := [c.name for c in self.concepts if c.label]):
            faults.append(
                f"{', '.join(box_concepts)} are of boxes, the others of whole clips; mine them into two folders"
            )
        if self.uses_whole_clips and (self.detector or self.boxes):
            faults.append("concepts of whole clips (@HEAD:ANSWER) need no detector and no boxes; leave them out")
        if faults:
            raise ValueError("these settings cannot be mined with: " + "; ".join(faults))

    @property
    def uses_whole_clips(self) -> bool:
        """Whether concepts are whole clips, by their labels."""
        return any(not concept.label for concept in self.concepts)

    @property
    def clip_span(self) -> int:
        """Frames of the video from a clip's first to its last."""
        return (self.clip_frames - 1) * self.interval + 1

    @property
    def required_track_length(self) -> int:
        return max(self.min_track_length or 0, self.clip_span)


TRACKERS = ("bytetrack", "botsort")


def parse_concepts(texts: Iterable[str]) -> tuple[Concept, ...]:
    return tuple(parse_concept(text) for text in texts if text.strip())
