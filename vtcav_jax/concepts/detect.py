"""The one file that touches `ultralytics` (AGPL-3.0): detection and tracking of one video at a time.

Each frame goes through the network once. What it finds makes static crops; the same goes on to a tracker, which keeps
less (what it has not confirmed it drops) and gives it numbers. At our hands the library reaches for no network,
installs nothing and writes no settings into the home directory.
"""

import atexit
import hashlib
import importlib.util
import logging
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.concepts.boxes import Box
from vtcav_jax.concepts.config import MiningConfig, parse_concepts
from vtcav_jax.names import escape_control_chars

DETECTOR_INSTALL_HINT = "pip install -c constraints.txt -e '.[detect]' (ultralytics is under the AGPL-3.0)"
MIN_TRACKER_CONFIDENCE = (
    0.1  # confidence of what trackers are shown; the second pass of ByteTrack lives from unsure boxes
)
# What reading a damaged pickle, or the file of another program, runs into.
_DAMAGED = (
    *(RuntimeError, ValueError, TypeError, KeyError, AttributeError, ImportError, OSError, EOFError),
    *(AssertionError, IndexError, NotImplementedError, SyntaxError, pickle.UnpicklingError),
)
PICKLE_SUFFIXES, EXPORTED_SUFFIXES = (".pt", ".pth"), (".onnx",)


@dataclass(frozen=True)
class UltralyticsDetector:
    """A detector whose weights are loaded."""

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

    def boxes(self, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> Iterator[Box]:
        tracker = _make_tracker(self.tracker)
        names = self.model.names
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
                    yield from _boxes_with_tracks(result.boxes.cpu().numpy(), frame, number, tracker, names)
                    number += 1


def _boxes_with_tracks(
    detections: Any, frame: np.ndarray, number: int, tracker: Any, names: dict[int, str]
) -> Iterator[Box]:
    """Where a tracker knows a thing, the detector's own box with the track's number: the tracker's is smoothed."""
    tracks = tracker.update(detections, frame)
    track_of = {int(row[-1]): int(row[4]) for row in tracks}
    for i in range(len(detections)):
        x1, y1, x2, y2 = (round(float(value), 2) for value in detections.xyxy[i])
        if x1 < x2 and y1 < y2:
            confidence = min(round(float(detections.conf[i]), 4), 1.0)
            yield Box(number, track_of.get(i), names[int(detections.cls[i])], x1, y1, x2, y2, confidence)


def load_detector(path: str | Path, config: MiningConfig | None = None) -> UltralyticsDetector:
    """The detector with these weights; all that is wrong with the file is said before the library sees it."""
    path = Path(path)
    config = config or MiningConfig(concepts=parse_concepts(["anything"]))
    _check_file(path)
    library = _import_ultralytics()
    if path.suffix.lower() in PICKLE_SUFFIXES:
        # A pickle can run any code: it is read only because somebody named this very file.
        sys.stderr.write(f"loading {path}: it is a pickle, which can run code; only load files that you trust\n")
    elif importlib.util.find_spec("onnxruntime") is None:
        raise ValueError(f"{path.name} needs onnxruntime; pip install onnxruntime, or give the weights as .pt")
    with path.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        model = library.YOLO(str(path), task="detect")
        names = dict(model.names)
    except _DAMAGED as error:
        reason = escape_control_chars(str(error).partition("\n")[0])[:160]
        raise ValueError(
            f"{path.name} cannot be loaded as a detector ({reason}); expected weights of the ultralytics library,"
            f" such as"
            " yolov8n.pt"
        ) from error
    if path.suffix.lower() in PICKLE_SUFFIXES and model.task != "detect":
        raise ValueError(f"{path.name} is for the task {model.task}; expected a detector, such as yolov8n.pt")
    identity_parts = [weights, library.__version__, config.tracker, config.detector_size, MIN_TRACKER_CONFIDENCE]
    identity = hashlib.sha256(repr(identity_parts).encode()).hexdigest()
    return UltralyticsDetector(
        path,
        tuple(names[i] for i in sorted(names)),
        weights,
        identity,
        config.tracker,
        config.detector_size,
        config.batch_size,
        config.device,
        model,
    )


def list_labels(path: str | Path) -> tuple[str, ...]:
    """What a detector can find."""
    return load_detector(path).labels


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(
            f"there is no file {path}; expected a detector's weights, which we do not download: fetch yolov8n.pt from"
            " Ultralytics, or give a CSV of boxes instead"
        )
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(8)
    if suffix not in PICKLE_SUFFIXES + EXPORTED_SUFFIXES:
        raise ValueError(
            f"{path.name} is no detector that can be read; expected {', '.join(PICKLE_SUFFIXES + EXPORTED_SUFFIXES)}"
        )
    if suffix in PICKLE_SUFFIXES and not start.startswith((b"PK\x03\x04", b"\x80")):
        raise ValueError(
            f"{path.name} does not hold weights (it begins with {start!r}); expected a file that torch.save wrote"
            + ("; this is a pointer of Git LFS, fetch the file itself" if start.startswith(b"version") else "")
        )


def _import_ultralytics() -> Any:
    """`ultralytics`, told to leave the network, pip and the home directory alone."""
    if missing := [name for name in ("ultralytics", "lap") if importlib.util.find_spec(name) is None]:
        needs = " and ".join(missing)
        raise ValueError(
            f"finding things in videos needs {needs}: {DETECTOR_INSTALL_HINT}; or give a CSV of boxes instead"
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
    """torchvision of another build than torch (CUDA beside CPU) lacks its compiled operators and fails when imported.

    At import it looks for two of them by name only: declared first, all of it works that is not compiled. The one that
    the detector calls is put in its place.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports] (an optional extra)
    except ImportError as error:
        raise ValueError(f"finding things in videos needs torch: {DETECTOR_INSTALL_HINT}") from error
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
            continue  # it is declared
    import torchvision  # pyright: ignore[reportMissingImports] (an optional extra)

    torchvision.ops.nms = _non_maximum_suppression


def _non_maximum_suppression(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """The indices of boxes that no surer one covers too much of, surest first."""
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
    """A fresh one: with that of another video, its numbers would run on."""
    from ultralytics.trackers.track import TRACKER_MAP  # pyright: ignore[reportMissingImports] (an optional extra)
    from ultralytics.utils import YAML, IterableSimpleNamespace  # pyright: ignore[reportMissingImports] (an optional extra)
    from ultralytics.utils.checks import check_yaml  # pyright: ignore[reportMissingImports] (an optional extra)

    options = IterableSimpleNamespace(**YAML.load(check_yaml(f"{name}.yaml")))
    return TRACKER_MAP[name](args=options)
