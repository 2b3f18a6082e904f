"""Keypoints of people: from a pose network, in tables of boxes and in scans, and along tracks."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vtcav_jax.concepts import detect
from vtcav_jax.concepts.boxes import Box, read_boxes, write_boxes
from vtcav_jax.concepts.tracks import build_tracks
from vtcav_jax.concepts.video_scan import BoxTable, _restore_box

HERE = Path(__file__).parents[2]
POINTS = tuple(float(value) for i in range(17) for value in (10 + i, 20.5 + i, 0.25))


def result_of(data: np.ndarray) -> SimpleNamespace:
    """Return a result as the detector library has it."""
    values = SimpleNamespace(data=data)
    return SimpleNamespace(keypoints=SimpleNamespace(cpu=lambda: SimpleNamespace(numpy=lambda: values)))


def test_keypoints_of_a_result_are_rounded_and_unknown_ones_have_no_confidence():
    data = np.tile(np.array([12.34567, 6.0, 0.98765], np.float32), (2, 17, 1))
    data[0, 3] = 0, 0, 0.7
    data[1, 4, 0] = np.nan
    first, second = detect._keypoints(result_of(data))
    assert first[:3] == (12.3, 6.0, 0.988) and first[9:12] == (0.0, 0.0, 0.0) and len(first) == 51
    assert second[12:15] == (0.0, 0.0, 0.0) and second[9:12] == (12.3, 6.0, 0.988)
    without_confidence = detect._keypoints(result_of(data[..., :2]))
    assert without_confidence[0][:3] == (12.3, 6.0, 1.0) and without_confidence[0][9:12] == (0.0, 0.0, 0.0)
    assert detect._keypoints(SimpleNamespace(keypoints=None)) == detect._keypoints(SimpleNamespace()) == ()
    assert detect._keypoints(result_of(data[:0])) == ()


def test_a_table_keeps_keypoints_and_has_no_such_column_without_them(tmp_path):
    boxes = (Box(0, 1, "person", 0, 0, 30, 60, 0.5, (), POINTS), Box(1, 1, "person", 0, 0, 30, 60, 0.5))
    write_boxes(tmp_path / "boxes.csv", {"a.mp4": boxes})
    assert read_boxes(tmp_path / "boxes.csv") == {"a.mp4": boxes}
    assert (
        BoxTable("t", {"a.mp4": boxes}).keypoint_count == 17 and BoxTable("t", {"a.mp4": boxes[1:]}).keypoint_count == 0
    )
    header = (tmp_path / "boxes.csv").read_text().splitlines()[0]
    assert header.endswith(",confidence,keypoints")
    write_boxes(tmp_path / "plain.csv", {"a.mp4": boxes[1:]})
    assert "keypoints" not in (tmp_path / "plain.csv").read_text()


@pytest.mark.parametrize("text", ["1 2", "1 2 1.5", "1 nan 0.5", "1 2 -0.1"])
def test_faulty_keypoints_are_reported_with_their_line(tmp_path, text):
    (tmp_path / "bad.csv").write_text(f"frame,label,x1,y1,x2,y2,keypoints\n0,person,0,0,4,4,{text}\n")
    with pytest.raises(ValueError, match=r"1 faulty row of 1.*\n.*line 2: expected keypoints x y confidence x y conf"):
        read_boxes(tmp_path / "bad.csv")


def test_a_scan_restores_keypoints():
    box = Box(3, None, "person", 0.0, 0.0, 4.0, 4.0, 1.0, (), POINTS)
    assert _restore_box([*box[:8], [], list(POINTS)]) == box


def test_a_track_has_the_keypoints_of_each_frame_and_none_in_gaps():
    boxes = [Box(0, 1, "person", 0, 0, 9, 9, 1.0, (), POINTS), Box(3, 1, "person", 0, 0, 9, 9, 1.0, (), POINTS)]
    (track,) = build_tracks(boxes)
    assert track.keypoints == (POINTS, (), (), POINTS)
    assert build_tracks([box._replace(keypoints=()) for box in boxes])[0].keypoints == ()


MINE_PEOPLE = """
import sys
import numpy as np
from pathlib import Path
from vtcav_jax.concepts import detect, read_boxes, write_boxes
library, out = detect._import_ultralytics(), Path(sys.argv[1])
network = library.YOLO("yolov8n-pose.yaml")
for branch in network.model.model[-1].cv3:
    branch[-1].bias.data.fill_(0.5)
network.save(out / "pose.pt")
detector = detect.load_detector(out / "pose.pt")
frames = [np.random.default_rng(i).integers(0, 255, (96, 128, 3), np.uint8) for i in range(2)]
boxes = tuple(detector.boxes(frames, 25.0))
assert boxes and {len(box.keypoints) for box in boxes} == {51}, boxes
points = np.array([box.keypoints for box in boxes]).reshape(-1, 17, 3)
assert np.isfinite(points).all() and (points[..., 2] >= 0).all() and (points[..., 2] <= 1).all()
assert points[..., :2].std() > 1
write_boxes(out / "boxes.csv", {"a.mp4": boxes})
assert [b.keypoints for b in read_boxes(out / "boxes.csv")["a.mp4"]] == [b.keypoints for b in boxes]
library.YOLO("yolov8n.yaml").save(out / "boxes_only.pt")
print(detector.keypoint_count, detect.load_detector(out / "boxes_only.pt").keypoint_count)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ultralytics", "lap")),
    reason="needs ultralytics and lap (pip install -c constraints.txt -e '.[detect]')",
)
def test_a_pose_network_gives_keypoints(tmp_path):
    """A network with random weights, since trained ones are not downloaded: shapes and values, not accuracy."""
    done = subprocess.run([sys.executable, "-c", MINE_PEOPLE, str(tmp_path)], capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "17 0"
