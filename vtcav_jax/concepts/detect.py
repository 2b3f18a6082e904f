"""Detection and tracking of one video at a time; the only module that imports `ultralytics` (AGPL-3.0).

The detector reads each frame once. All its boxes can become static clips; a tracker numbers those that it confirms. The
library is configured not to access the network, install packages or write settings to the home directory.
"""

import atexit
import hashlib
import importlib.util
import logging
import math
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.concepts.boxes import Box, Keypoints, Outline
from vtcav_jax.concepts.config import MiningConfig, parse_concepts
from vtcav_jax.names import escape_control_chars

DETECTOR_INSTALL_HINT = "pip install -c constraints.txt -e '.[detect]' (ultralytics is under the AGPL-3.0)"
MAX_OUTLINE_CORNERS = 100
MIN_TRACKER_CONFIDENCE = 0.1  # of boxes passed to trackers; ByteTrack's second association step needs weak boxes
# Exceptions raised by reading a damaged pickle or a file of another program.
_DAMAGED = (
    *(RuntimeError, ValueError, TypeError, KeyError, AttributeError, ImportError, OSError, EOFError),
    *(AssertionError, IndexError, NotImplementedError, SyntaxError, pickle.UnpicklingError),
)
PICKLE_SUFFIXES, EXPORTED_SUFFIXES = (".pt", ".pth"), (".onnx",)
BOX_TASKS = ("detect", "segment", "pose")  # of networks with boxes


@dataclass(frozen=True)
class UltralyticsDetector:
    """Ultralytics detector with loaded weights."""

    path: Path
    labels: tuple[str, ...]
    sha256: str
    identity: str
    tracker: str
    detector_size: int
    batch_size: int
    device: str | None
    model: Any

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def has_outlines(self) -> bool:
        return self.model.task == "segment"

    @property
    def keypoint_count(self) -> int:
        """Number of keypoints of a person; 0 for a network without any."""
        return int(self.model.model.kpt_shape[0]) if self.model.task == "pose" else 0

    def boxes(self, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> Iterator[Box]:
        tracker = _make_tracker(self.tracker)
        names = dict(enumerate(self.labels))
        frames = iter(frames)
        number = 0
        while batch := [np.ascontiguousarray(frame[..., ::-1]) for frame in islice(frames, self.batch_size)]:
            # Exported networks may have a fixed batch of one.
            groups = [batch] if self.path.suffix in PICKLE_SUFFIXES else [[frame] for frame in batch]
            for group in groups:
                detections = self.model.predict(
                    group,
                    conf=MIN_TRACKER_CONFIDENCE,
                    imgsz=self.detector_size,
                    device=self.device,
                    verbose=False,
                    save=False,
                )
                for frame, result in zip(group, detections):
                    boxes = result.boxes.cpu().numpy()
                    details = (_outlines(result), _keypoints(result))
                    yield from _boxes_with_tracks(boxes, frame, number, tracker, names, *details)
                    number += 1


def _outlines(result: Any) -> tuple[Outline, ...]:
    """Return the outline of each box of a segmentation network's result; none of another network's."""
    masks = getattr(result, "masks", None)
    return () if masks is None else tuple(map(_simplify_outline, masks.xy))


def _keypoints(result: Any) -> tuple[Keypoints, ...]:
    """Return the keypoints of each box of a pose network's result; none of another network's.

    A point at (0, 0) stands for an unknown one; its confidence becomes 0. Networks without confidences get 1.
    """
    points = getattr(result, "keypoints", None)
    if points is None:
        return ()
    data = points.cpu().numpy().data
    if data.shape[-1] == 2:
        data = np.concatenate([data, np.ones_like(data[..., :1])], -1)
    known = (data[..., :2] != 0).any(-1) & np.isfinite(data).all(-1)
    values = np.stack([*np.moveaxis(np.round(data[..., :2], 1), -1, 0), np.clip(np.round(data[..., 2], 3), 0, 1)], -1)
    values = np.where(known[..., None], values, 0.0).reshape(len(data), data.shape[1] * 3)
    return tuple(tuple(row) for row in np.round(values.astype(float), 3).tolist())


def _simplify_outline(points: Any) -> Outline:
    """Return a polygon in whole pixels with at most `MAX_OUTLINE_CORNERS` corners; empty if it has fewer than three."""
    corners = np.rint(np.asarray(points, float)[:: math.ceil(max(len(points), 1) / MAX_OUTLINE_CORNERS)]).astype(int)
    return tuple(corners.ravel().tolist()) if len(corners) >= 3 else ()


def _boxes_with_tracks(
    detections: Any,
    frame: np.ndarray,
    number: int,
    tracker: Any,
    names: dict[int, str],
    outlines: Sequence[Outline] = (),
    keypoints: Sequence[Keypoints] = (),
) -> Iterator[Box]:
    """Yield the detector's boxes with the tracker's numbers; the tracker's own boxes are smoothed and not used."""
    tracks = tracker.update(detections, frame)
    track_of = {int(row[-1]): int(row[4]) for row in tracks}
    for i in range(len(detections)):
        x1, y1, x2, y2 = (round(float(value), 2) for value in detections.xyxy[i])
        if x1 < x2 and y1 < y2:
            confidence = min(round(float(detections.conf[i]), 4), 1.0)
            details = (outlines[i] if outlines else (), keypoints[i] if keypoints else ())
            yield Box(number, track_of.get(i), names[int(detections.cls[i])], x1, y1, x2, y2, confidence, *details)


def load_detector(path: str | Path, config: MiningConfig | None = None) -> UltralyticsDetector:
    """Load a detector; checks the file before the library opens it.

    If any label of the concepts is not among the classes of a text-prompted detector, the labels become its classes.
    """
    path = Path(path)
    _check_file(path)
    library = _import_ultralytics()
    if path.suffix.lower() in PICKLE_SUFFIXES:
        # A pickle can run any code, so only the file that the user passed is loaded.
        sys.stderr.write(f"loading {path}: this is a pickle, which can run code; load only files that you trust\n")
    elif importlib.util.find_spec("onnxruntime") is None:
        raise ValueError(f"{path.name} needs onnxruntime; pip install onnxruntime, or pass the weights as .pt")
    settings = config or MiningConfig(concepts=parse_concepts(["anything"]))
    with path.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        # The file of an exported network does not say what it is for
        model = library.YOLO(str(path), task=None if path.suffix.lower() in PICKLE_SUFFIXES else "detect")
        names = _class_names(model)
    except _DAMAGED as error:
        reason = escape_control_chars(str(error).partition("\n")[0])[:160]
        raise ValueError(
            f"{path.name} cannot be loaded as a detector ({reason}); expected weights of the ultralytics library, such"
            " as yolov8n.pt"
        ) from error
    if model.task not in BOX_TASKS:
        raise ValueError(
            f"{path.name} is for the task {model.task}, which has no boxes; expected weights for"
            f" {', '.join(BOX_TASKS)}, such as yolov8n.pt"
        )
    prompts = _missing_labels(config, names) if hasattr(model, "set_classes") else ()
    if prompts:
        _set_prompts(model, prompts, path)
        names = _class_names(model)
    identity_parts = [weights, library.__version__, settings.tracker, settings.detector_size, MIN_TRACKER_CONFIDENCE]
    identity = hashlib.sha256(repr([*identity_parts, *([prompts] if prompts else [])]).encode()).hexdigest()
    return UltralyticsDetector(
        path,
        names,
        weights,
        identity,
        settings.tracker,
        settings.detector_size,
        settings.batch_size,
        settings.device,
        model,
    )


def _missing_labels(config: MiningConfig | None, names: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of the concepts if the detector does not have all of them."""
    labels = tuple(dict.fromkeys(concept.label for concept in config.concepts if concept.label)) if config else ()
    return () if set(labels) <= set(names) else labels


def _set_prompts(model: Any, prompts: Sequence[str], path: Path) -> None:
    """Make the labels the classes of a text-prompted detector; its text encoder must be on this machine."""
    try:
        model.set_classes(list(prompts))
    except (*_DAMAGED, ModuleNotFoundError) as error:
        reason = escape_control_chars(str(error).partition("\n")[0])[:160]
        raise ValueError(
            f"the labels {', '.join(map(escape_control_chars, prompts))} cannot be set in {path.name} ({reason}): this"
            " needs the text encoder of the detector, which is not downloaded automatically. Install it with its"
            " weights as Ultralytics describes, or set the classes once where it is installed"
            " (model.set_classes([...]); model.save(FILE.pt)) and pass that file"
        ) from error


def _class_names(model: Any) -> tuple[str, ...]:
    """Return the classes in their order; the library has them as a dictionary or, after prompts, as a list."""
    names = model.names
    return tuple(names[i] for i in sorted(names)) if isinstance(names, dict) else tuple(names)


def list_labels(path: str | Path) -> tuple[str, ...]:
    """Return the labels that a detector can assign."""
    return load_detector(path).labels


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(
            f"there is no file {path}; expected a detector's weights, which are not downloaded automatically: get"
            " yolov8n.pt from Ultralytics, or pass a CSV of boxes instead"
        )
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(8)
    if suffix not in PICKLE_SUFFIXES + EXPORTED_SUFFIXES:
        raise ValueError(
            f"{path.name} is not a readable detector; expected {', '.join(PICKLE_SUFFIXES + EXPORTED_SUFFIXES)}"
        )
    if suffix in PICKLE_SUFFIXES and not start.startswith((b"PK\x03\x04", b"\x80")):
        raise ValueError(
            f"{path.name} does not contain weights (it begins with {start!r}); expected a file written by torch.save"
            + ("; this is a Git LFS pointer, fetch the file itself" if start.startswith(b"version") else "")
        )


def _import_ultralytics() -> Any:
    """Import `ultralytics`, configured not to use the network, pip or the home directory."""
    if missing := [name for name in ("ultralytics", "lap") if importlib.util.find_spec(name) is None]:
        needs = " and ".join(missing)
        raise ValueError(
            f"detecting objects in videos needs {needs}: {DETECTOR_INSTALL_HINT}; or pass a CSV of boxes instead"
        )
    if "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="vtcav_ultralytics_")
        atexit.register(shutil.rmtree, os.environ["YOLO_CONFIG_DIR"], ignore_errors=True)
    os.environ.setdefault("MPLCONFIGDIR", os.environ["YOLO_CONFIG_DIR"])
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
    _repair_torchvision()
    import ultralytics  # pyright: ignore[reportMissingImports] (an optional extra)

    ultralytics.settings.update({"sync": False})
    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    return ultralytics


def _repair_torchvision() -> None:
    """Make torchvision importable if its build differs from torch's (CUDA and CPU), which disables its operators.

    Its import requires two of them to be declared; declaring them makes everything else work. The one that the detector
    calls is replaced by a Python implementation.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports] (an optional extra)
    except ImportError as error:
        raise ValueError(f"detecting objects in videos needs torch: {DETECTOR_INSTALL_HINT}") from error
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # pyright: ignore[reportMissingImports] (an optional extra)

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
        return
    except (ImportError, OSError, RuntimeError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    for name in ("nms", "qnms"):
        try:
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            continue  # already declared
    import torchvision  # pyright: ignore[reportMissingImports] (an optional extra)

    torchvision.ops.nms = _non_maximum_suppression


def _non_maximum_suppression(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """Return the indices of boxes after greedy non-maximum suppression, by decreasing score."""
    import torch  # pyright: ignore[reportMissingImports] (an optional extra)

    order = scores.argsort(descending=True, stable=True)
    x1, y1, x2, y2 = boxes[order].unbind(-1)
    areas = (x2 - x1) * (y2 - y1)
    remaining = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    selected = []
    for i in range(len(order)):
        if remaining[i]:
            selected.append(i)
            width = (torch.minimum(x2, x2[i]) - torch.maximum(x1, x1[i])).clamp(min=0)
            height = (torch.minimum(y2, y2[i]) - torch.maximum(y1, y1[i])).clamp(min=0)
            intersection = width * height
            remaining &= intersection / (areas + areas[i] - intersection) <= iou_threshold
    return order[torch.tensor(selected, dtype=torch.long, device=boxes.device)]


def _make_tracker(name: str) -> Any:
    """Make a new tracker; one reused for another video would continue its tracks."""
    from ultralytics.trackers.track import TRACKER_MAP  # pyright: ignore[reportMissingImports] (an optional extra)
    from ultralytics.utils import YAML, IterableSimpleNamespace  # pyright: ignore[reportMissingImports] (an optional extra)
    from ultralytics.utils.checks import check_yaml  # pyright: ignore[reportMissingImports] (an optional extra)

    if name not in TRACKER_MAP:
        raise ValueError(f"this version of ultralytics has no tracker {name}; expected {', '.join(TRACKER_MAP)}")
    options = IterableSimpleNamespace(**YAML.load(str(check_yaml(f"{name}.yaml"))))
    return TRACKER_MAP[name](args=options)
