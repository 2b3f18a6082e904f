"""What is to be mined, and what is good enough to be a clip."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.settings import MAX_SEED, SEED_HELP, check_settings, required, setting

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

    concepts: tuple[Concept, ...] = required(
        "NAME,...",
        "LABEL, NAME=LABEL or NAME=LABEL@HEAD:CLASS for what a detector finds; NAME=@HEAD:CLASS for whole labelled"
        " clips; separated by commas, with quotes around blanks",
        convert=lambda texts: parse_concepts(texts),
    )
    clip_frames: int = setting(16, "frames of a clip; with --model, as many as it reads", minimum=1)
    interval: int = 1  # between them, in frames of the video
    controls: bool = setting(True, "frozen, shuffled, reversed and jitter controls of dynamic clips")

    detector: Path | None = setting(
        None, "weights of an ultralytics detector (a .pt file is a pickle: code in it is run) or .onnx"
    )
    boxes: Path | None = setting(
        None, "instead of --detector: a .csv (file, frame, track, label, x1, y1, x2, y2)"
    )  # or neither, where the source's manifest names one for each video
    tracker: str = setting("bytetrack", "how boxes become tracks", choices=("bytetrack", "botsort"))
    detector_size: int = setting(640, "longer side of the frames that the detector reads", minimum=32)
    batch_size: int = 8  # frames of a video that the detector reads at once
    device: str | None = None  # of the detector; None leaves it the choice

    min_confidence: float = setting(0.5, "mean confidence of a clip, at least", minimum=0, maximum=1)
    min_area: float = setting(0.001, "mean area of a box as a share of the frame, at least", minimum=0, maximum=1)
    min_track_length: int | None = setting(None, "frames of a track, at least [default: a clip's]", minimum=1)
    max_iou: float = setting(
        0.5, "overlap (IoU) of two chosen clips' boxes at about the same time", minimum=0, maximum=1
    )
    max_clips_per_video: int = setting(5, "clips of a concept and clip type from one video, at most", minimum=1)
    max_clips: int = setting(50, "clips of a concept and clip type, at most", minimum=1)

    num_random_sets: int = setting(10, "disjoint random sets", minimum=0)
    random_set_size: int | None = None  # clips of a type in each; None: as many as the largest concept has
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)

    def __post_init__(self):
        check_settings(self, *(("concepts", fault) for fault in self._concept_faults()), *self._source_faults())

    def _concept_faults(self) -> list[str]:
        faults = [] if self.concepts else ["expected one or more, got none"]
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
        if self.uses_whole_clips and (box_concepts := [c.name for c in self.concepts if c.label]):
            faults.append(
                f"{', '.join(box_concepts)} are of boxes, the others of whole clips; mine them into two folders"
            )
        return faults

    def _source_faults(self) -> list[tuple[str, str]]:
        faults = []
        if min(self.interval, self.batch_size, 1 if self.random_set_size is None else self.random_set_size) < 1:
            faults.append(("interval", "interval, batch_size and random_set_size must be at least 1"))
        if self.detector and self.boxes:
            faults.append(("boxes", "expected --detector or --boxes, got both; give one"))
        if self.uses_whole_clips and (self.detector or self.boxes):
            name = "detector" if self.detector else "boxes"
            faults.append((name, "concepts of whole clips (@HEAD:CLASS) need no detector and no boxes; leave them out"))
        return faults

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


def parse_concepts(texts: Iterable[str]) -> tuple[Concept, ...]:
    return tuple(parse_concept(text) for text in texts if text.strip())
