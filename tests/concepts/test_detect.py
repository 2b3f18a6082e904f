"""Detector: errors without the library, and, if library and videos are available, detection on real videos."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vtcav_jax import concepts
from vtcav_jax.concepts import detect

REAL = os.environ.get("VTCAV_REAL_DATA")
HERE = Path(__file__).parents[2]
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
