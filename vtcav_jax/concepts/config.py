"""Settings of concept mining: the concepts, the source of boxes, and the thresholds for clips."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.settings import MAX_SEED, SEED_HELP, check_settings, required, setting

NEGATIVE_PREFIX = "random"  # sets whose names begin with it are negatives
TRACKERS = ("bytetrack", "botsort", "ocsort", "deepocsort", "fasttrack", "tracktrack")  # of ultralytics
MAX_FOLDER_BYTES = 200  # of a folder's name; file systems allow 255
FLOOR_FRAME_SIDE = 224  # input size of most video networks; smaller frames are enlarged as a whole


@dataclass(frozen=True)
class Concept:
    """A concept: the boxes with one label, in all videos or in those of one class of a head.

    Without a box label, the concept is that class of videos as a whole.
    """

    name: str
    label: str
    head: str | None = None
    answer: str | None = None

    @property
    def folder(self) -> str:
        return folder_name(self.name)


def parse_concept(text: str) -> Concept:
    """Parse `LABEL`, `NAME=LABEL` or `NAME=LABEL@HEAD:CLASS`; for whole clips `@HEAD:CLASS` or `NAME=@HEAD:CLASS`.

    `left=key@direction:left`, for example, is the boxes with the label `key` in videos whose direction is left.
    """
    name, equals, rest = text.partition("=") if "=" in text else ("", "", text)
    label, at_sign, condition = rest.partition("@")
    head, colon, answer = condition.partition(":")
    if not (label.strip() or at_sign) or (equals and not name.strip()) or (at_sign and not (head and colon and answer)):
        raise ValueError(
            f"{text!r} is not a concept; expected LABEL, NAME=LABEL or NAME=LABEL@HEAD:CLASS, or @HEAD:CLASS or"
            " NAME=@HEAD:CLASS for whole clips"
        )
    label, name = label.strip(), name.strip() or (f"{head} {answer}" if at_sign else label.strip())
    return Concept(name, label, head.strip() or None, answer.strip() or None)


def folder_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "_"


@dataclass(frozen=True)
class MiningConfig:
    """Settings of `mine` and `mine_labelled_clips`."""

    concepts: tuple[Concept, ...] = required(
        "NAME,...",
        "LABEL, NAME=LABEL or NAME=LABEL@HEAD:CLASS for detected objects; NAME=@HEAD:CLASS for whole labelled"
        " clips; separated by commas; quote entries that contain spaces",
        convert=lambda texts: parse_concepts(texts),
    )
    clip_frames: int = setting(
        16, "frames per clip; with --model, as many as the model reads", minimum=1, maximum=10**4
    )
    interval: int = 1  # between a clip's frames, in frames of the video
    crop: str = setting(
        "window",
        "window: one square per clip that contains the whole track, so that the trajectory stays visible; follow: crops"
        " that follow the box, as in Saha et al. (2024)",
        choices=("window", "follow"),
    )
    window_scale: float = setting(
        1.5, "side of a window (--crop=window) as a multiple of the track's longer side", minimum=1
    )
    background: str = setting(
        "keep",
        "what surrounds the object in a clip: keep, or grey (of a segmentation network, or a table of boxes with the"
        " column outline), also in random clips: there outside of other objects, or of a concept's outline elsewhere",
        choices=("keep", "grey"),
    )
    controls: bool = setting(
        True, "write frozen, shuffled, reversed and (with --crop=follow) jitter controls of dynamic and random clips"
    )

    detector: Path | None = setting(
        None,
        "weights of an ultralytics detector (a .pt file is a pickle: code in it is run) or .onnx; a text-prompted one"
        " (yolov8s-world.pt, yoloe-11s-seg.pt) finds any label of --concepts, such as 'tennis racket'; of"
        " pose networks (yolov8n-pose.pt) the boxes are used, and with --movements the keypoints",
    )
    # Neither is needed if the source's manifest names a table of boxes for each video.
    boxes: Path | None = setting(
        None, "instead of --detector: a .csv of boxes (file, frame, track, label, x1, y1, x2, y2)"
    )
    tracker: str = setting("bytetrack", "algorithm that links boxes to tracks", choices=TRACKERS)
    detector_size: int = setting(
        640, "longer side of the detector's input frames, in pixels", minimum=32, maximum=10**4
    )
    batch_size: int = 8  # frames per call of the detector
    device: str | None = None  # of the detector; None: the library's default

    min_confidence: float = setting(0.5, "minimum mean confidence of a clip's boxes", minimum=0, maximum=1)
    min_area: float = setting(0.001, "minimum mean area of a clip's boxes as share of the frame", minimum=0, maximum=1)
    min_pixels: int = setting(
        32,
        "minimum side of a clip's crop in pixels of the video; proportionally less in frames whose shorter side is"
        f" under {FLOOR_FRAME_SIDE}",
        minimum=0,
    )
    min_track_length: int | None = setting(None, "minimum frames of a track [default: a clip's span]", minimum=1)
    max_iou: float = setting(
        0.5, "maximum overlap (IoU) of the boxes of two clips that overlap in time", minimum=0, maximum=1
    )
    max_clips_per_video: int = setting(5, "maximum clips per video, concept and clip type", minimum=1)
    max_clips: int = setting(50, "maximum clips per concept and clip type", minimum=1)

    num_random_sets: int = setting(10, "disjoint random sets", minimum=0, maximum=10**4)
    random_set_size: int | None = None  # clips per clip type; None: as many as the largest concept has
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)
    # Set by `mine_movements`: boxes must have keypoints, and random clips show people as long as there are any.
    movements: bool = False

    def __post_init__(self):
        check_settings(self, *(("concepts", fault) for fault in self._concept_faults()), *self._source_faults())

    def _concept_faults(self) -> list[str]:
        faults = [] if self.concepts else ["expected at least one concept, got none"]
        names = [c.name for c in self.concepts]
        faults += [f"{name!r} is named twice" for name in sorted({n for n in names if names.count(n) > 1})]
        by_folder: dict[str, str] = {}
        for name in dict.fromkeys(names):
            if (other := by_folder.setdefault(folder_name(name).lower(), name)) != name:
                faults.append(f"{other!r} and {name!r} would have the same folder; rename one, as in x=LABEL")
            if len(folder_name(name).encode()) > MAX_FOLDER_BYTES:
                faults.append(f"{name[:40]!r}... is too long for a folder; rename it, as in x=LABEL")
            if name.lower().startswith(NEGATIVE_PREFIX):
                faults.append(
                    f"{name!r} begins with {NEGATIVE_PREFIX}, which marks negatives; rename it, as in x=LABEL"
                )
        if self.uses_whole_clips and (box_concepts := [c.name for c in self.concepts if c.label]):
            faults.append(f"{', '.join(box_concepts)} use boxes, the others whole clips; mine them into two folders")
        return faults

    def _source_faults(self) -> list[tuple[str, str]]:
        faults = []
        if min(self.interval, self.batch_size, 1 if self.random_set_size is None else self.random_set_size) < 1:
            faults.append(("interval", "interval, batch_size and random_set_size must be at least 1"))
        if self.detector and self.boxes:
            faults.append(("boxes", "expected --detector or --boxes, got both"))
        if self.uses_whole_clips and (self.detector or self.boxes):
            name = "detector" if self.detector else "boxes"
            faults.append((name, "concepts of whole clips (@HEAD:CLASS) use neither a detector nor boxes; omit it"))
        if self.uses_whole_clips and self.crop == "follow":
            faults.append(("crop", "concepts of whole clips (@HEAD:CLASS) are not cropped; omit it"))
        return faults

    @property
    def uses_whole_clips(self) -> bool:
        """True if any concept is a class of whole clips."""
        return any(not concept.label for concept in self.concepts)

    @property
    def clip_span(self) -> int:
        """Number of video frames from a clip's first to its last, inclusive."""
        return (self.clip_frames - 1) * self.interval + 1

    @property
    def required_track_length(self) -> int:
        return max(self.min_track_length or 0, self.clip_span)

    def min_crop_side(self, frame_size: tuple[int, int]) -> float:
        """Return the minimum side of a crop from frames of this height and width, in pixels.

        A network enlarges a crop by its input size over the crop's side: at 224, crops of 32 pixels by 7. Frames
        smaller than that are enlarged as a whole, so the same factor relative to the frame allows smaller crops.
        """
        return self.min_pixels * min(1.0, min(frame_size) / FLOOR_FRAME_SIDE)


def parse_concepts(texts: Iterable[str]) -> tuple[Concept, ...]:
    return tuple(parse_concept(text) for text in texts if text.strip())


@dataclass(frozen=True)
class OptionalMiningConfig(MiningConfig):
    """Settings of mining that can also do without concepts that have names, such as that of movements."""

    concepts: tuple[Concept, ...] = setting(
        (), "concepts to mine: NAME=LABEL and so on; or --movements", convert=parse_concepts
    )

    def _concept_faults(self) -> list[str]:
        return super()._concept_faults() if self.concepts else []
