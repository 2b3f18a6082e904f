"""Detector: errors without the library, and, if library and videos are available, detection on real videos."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vtcav_jax import concepts
from vtcav_jax.concepts import detect
from vtcav_jax.concepts.config import TRACKERS

REAL = os.environ.get("VTCAV_REAL_DATA")
HERE = Path(__file__).parents[2]
NAMES = {0: "person", 1: "ball"}
library = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ultralytics", "lap")),
    reason="needs ultralytics and lap (pip install -c constraints.txt -e '.[detect]')",
)
real = pytest.mark.skipif(
    not REAL or importlib.util.find_spec("ultralytics") is None,
    reason="needs VTCAV_REAL_DATA and ultralytics (pip install -c constraints.txt -e '.[detect]')",
)


def test_an_invalid_detector_is_an_error_before_the_library_is_imported(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*; expected a detector's weights"):
        detect.load_detector(tmp_path / "yolov8n.pt")
    for name, content, message in (
        ("weights.bin", b"x", "expected .pt, .pth, .onnx"),
        ("text.pt", b"hello", "does not contain weights"),
        ("pointer.pt", b"version https://git-lfs", "a Git LFS pointer"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            detect.load_detector(tmp_path / name)


def test_without_the_library_the_remedy_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(detect.importlib.util, "find_spec", lambda name: None)
    remedy = r"needs ultralytics and lap: pip install .*\[detect\].*AGPL-3.0.*CSV of boxes"
    with pytest.raises(ValueError, match=remedy):
        detect.load_detector(tmp_path / "x.pt")


def test_only_one_module_imports_the_library():
    code = (
        "import sys, vtcav_jax.concepts as c; print(sorted({'ultralytics', 'torch', 'jax', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE, check=True)
    assert done.stdout.strip() == "[]"
    naming = [p.name for p in (HERE / "vtcav_jax").rglob("*.py") if "import ultralytics" in p.read_text()]
    assert naming == ["detect.py"]


class FakeModel:
    """Detector of the library as far as it is loaded here; `names` are a list once they were prompted."""

    task = "detect"

    def __init__(self, path, task=None):
        self.names = {0: "person", 1: "car"}


class FakePromptedModel(FakeModel):
    def set_classes(self, classes):
        if "unknown" in classes:
            raise ModuleNotFoundError("No module named 'clip'")
        self.names = list(classes)


class FakeLibrary:
    __version__ = "8"

    def __init__(self, model):
        self.YOLO = model


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a file as the given class of models, for concepts with these labels."""
    (tmp_path / "weights.pt").write_bytes(b"PK\x03\x04")

    def load_as(model, *labels):
        monkeypatch.setattr(detect, "_import_ultralytics", lambda: FakeLibrary(model))
        config = concepts.MiningConfig(concepts.parse_concepts(labels)) if labels else None
        return detect.load_detector(tmp_path / "weights.pt", config)

    return load_as


def test_the_labels_of_concepts_become_the_classes_of_a_prompted_detector(load):
    detector = load(FakePromptedModel, "tennis racket", "line=white line", "court=tennis racket")
    assert detector.labels == ("tennis racket", "white line") and detector.model.names == list(detector.labels)
    known = load(FakePromptedModel, "car")
    assert known.labels == ("person", "car")  # all labels are classes already, as in a file saved with its prompts
    identities = {d.identity for d in (detector, known, load(FakePromptedModel, "white line"))}
    assert len(identities) == 3 and known.identity == load(FakePromptedModel).identity
    assert load(FakeModel, "tennis racket").labels == ("person", "car")  # refused later, with similar labels


def test_prompts_without_a_text_encoder_are_an_error_with_a_remedy(load):
    remedy = r"the labels unknown cannot be set in weights.pt \(No module named 'clip'\).*model.save\(FILE.pt\)"
    with pytest.raises(ValueError, match=remedy):
        load(FakePromptedModel, "unknown")


def test_a_network_without_boxes_is_refused(load):
    class Classifier(FakeModel):
        task = "classify"

    with pytest.raises(ValueError, match="is for the task classify, which has no boxes; expected weights for detect"):
        load(Classifier)


@library
@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_follows_two_moving_objects(name):
    detect._import_ultralytics()
    from ultralytics.engine.results import Boxes  # pyright: ignore[reportMissingImports] (an optional extra)

    tracker, frame = detect._make_tracker(name), np.zeros((120, 160, 3), np.uint8)
    numbers = []
    for i in range(12):
        rows = [[10 + 3 * i, 20, 40 + 3 * i, 60, 0.9, 0], [120 - 2 * i, 70, 150 - 2 * i, 110, 0.85, 1]]
        boxes = list(detect._boxes_with_tracks(Boxes(np.array(rows, np.float32), (120, 160)), frame, i, tracker, NAMES))
        assert [(box.label, box.x1) for box in boxes] == [("person", rows[0][0]), ("ball", rows[1][0])]
        numbers.append([box.track for box in boxes])
    last = numbers[-1]
    assert None not in last and len(set(last)) == 2 and numbers[5:] == [last] * 7


MAKE_NETWORKS = """
import sys
import numpy as np
from vtcav_jax.concepts import detect
library = detect._import_ultralytics()
for config, name in (("yolov8n-seg.yaml", "segment"), ("yolov8n-pose.yaml", "pose"), ("yolov8s-world.yaml", "world")):
    library.YOLO(config).save(f"{sys.argv[1]}/{name}.pt")
for name in ("segment", "pose", "world"):
    detector = detect.load_detector(f"{sys.argv[1]}/{name}.pt")
    assert list(detector.boxes([], 25.0)) == [] and detector.labels[0] == "0", name
    print(name, detector.model.task, type(detector.model).__name__, hasattr(detector.model, "set_classes"))
confident = library.YOLO("yolov8n-seg.yaml")
for branch in confident.model.model[-1].cv3:
    branch[-1].bias.data.fill_(0.5)
confident.save(f"{sys.argv[1]}/confident.pt")
detector = detect.load_detector(f"{sys.argv[1]}/confident.pt")
frames = [np.random.default_rng(i).integers(0, 255, (96, 128, 3), np.uint8) for i in range(2)]
boxes = list(detector.boxes(frames, 25.0))
outlines = [np.array(box.outline).reshape(-1, 2) for box in boxes if box.outline]
assert all((corners >= -1).all() and (corners <= (129, 97)).all() for corners in outlines)
print(detector.has_outlines, {box.frame for box in boxes} == {0, 1}, len(outlines) > len(boxes) / 2)
"""


@library
@pytest.mark.slow
def test_networks_of_other_kinds_with_boxes_are_loaded(tmp_path):
    """Segmentation, pose and text-prompted networks with random weights, from the library's own configurations."""
    command = [sys.executable, "-c", MAKE_NETWORKS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-4:] == [
        "segment segment YOLO False",
        "pose pose YOLO False",
        "world detect YOLOWorld True",
        "True True True",
    ]


RUN = """
import socket, sys
def refused(*_): raise OSError("no network")
socket.socket.connect = refused
from pathlib import Path
from vtcav_jax import concepts
from vtcav_jax.concepts import detect
real, out = Path(sys.argv[1]), Path(sys.argv[2])
assert len(detect.list_labels(real / "yolov8n.pt")) == 80
wanted = concepts.parse_concepts(["person", "sports ball"])
config = concepts.MiningConfig(wanted, clip_frames=4, detector=real / "yolov8n.pt", detector_size=320,
                               num_random_sets=1, random_set_size=1, min_confidence=0.3)
print(concepts.mine([real / "five_frames.mp4", real / "horse_riding.gif"], config, out).text)
"""


@real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["bytetrack"])
def test_real_videos_are_mined_without_writing_to_the_home_directory(tmp_path, name):
    assert REAL
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("YOLO_")} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, REAL, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=HERE,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "this is a pickle, which can run code" in done.stderr
    assert not list(home.rglob("*"))
    sets = concepts.read_concepts(tmp_path / "out")
    assert sets.clips_of("person", "static") and {c.source for c in sets.clips} <= {
        "five_frames.mp4",
        "horse_riding.gif",
    }


@real
@pytest.mark.slow
def test_an_unknown_label_of_the_detector_suggests_similar_ones(tmp_path):
    assert REAL
    settings = concepts.MiningConfig(concepts.parse_concepts(["persn"]), detector=Path(REAL) / "yolov8n.pt")
    with pytest.raises(ValueError, match=r"no label named 'persn' .did you mean person"):
        concepts.mine([Path(REAL) / "five_frames.mp4"], settings, tmp_path / "out")
