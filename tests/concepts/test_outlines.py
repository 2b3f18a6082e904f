"""Outlines of objects: grey surroundings of concept and random clips, tracks, tables and networks' masks."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.square_videos import SquareDetector, mining_config, write_square_videos
from vtcav_jax import concepts
from vtcav_jax.concepts import crops, detect
from vtcav_jax.concepts.boxes import Box, box_outline, move_outline, read_boxes, write_boxes
from vtcav_jax.concepts.tracks import build_tracks
from vtcav_jax.data.decode import decode_frames, probe


class TriangleDetector(SquareDetector):
    """Detector of squares whose outlines are their upper left halves."""

    identity, has_outlines = "triangles", True

    def boxes(self, frames, fps):
        for box in super().boxes(frames, fps):
            yield box._replace(outline=(box.x1, box.y1, box.x2, box.y1, box.x1, box.y2))


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outlines")
    (folder / "videos").mkdir()
    videos = write_square_videos(folder / "videos")
    config = mining_config("red", background="grey", min_confidence=0.3, min_pixels=0)
    report = concepts.mine(videos, config, folder / "grey", detector=TriangleDetector())
    concepts.mine(
        videos, mining_config("red", min_confidence=0.3, min_pixels=0), folder / "keep", detector=TriangleDetector()
    )
    return folder, report


def grey_share(clip):
    return (concepts.load_frames(clip) == crops.GREY).all(-1).mean()


def test_clips_are_grey_outside_of_the_outline(mined):
    folder, _ = mined
    sets = concepts.read_concepts(folder / "grey")
    clips = sets.clips_of("red", "dynamic")
    assert len(clips) >= 2
    for clip in clips:
        source = dict(decode_frames(probe(folder / "videos" / clip.source), list(clip.frames)))
        assert clip.window is not None
        for frame, number, (x1, y1, x2, y2) in zip(concepts.load_frames(clip), clip.frames, clip.boxes):
            rows, columns = np.mgrid[: source[number].shape[0], : source[number].shape[1]]
            position = (columns - x1) / (x2 - x1) + (rows - y1) / (y2 - y1)  # 1 on the diagonal of the box
            inside = (position < 0.9) & (columns >= x1) & (rows >= y1)
            outside = (position > 1.2) | (columns < x1 - 1) | (rows < y1 - 1)
            expected = np.where(inside[..., None], source[number], np.uint8(crops.GREY))
            is_sure = crops.crop_box((inside | outside)[..., None].repeat(3, -1).astype(np.uint8), clip.window) > 0
            assert is_sure.mean() > 0.5
            np.testing.assert_array_equal(frame[is_sure], crops.crop_box(expected, clip.window)[is_sure])
        assert 0.4 < grey_share(clip) < 0.99


def test_random_clips_and_controls_are_as_grey_as_the_concept(mined):
    folder, _ = mined
    sets = concepts.read_concepts(folder / "grey")
    for clip_type in ("dynamic", "static"):
        concept = [grey_share(clip) for clip in sets.clips_of("red", clip_type)]
        random = [grey_share(clip) for name in sets.negatives for clip in sets.clips_of(name, clip_type)]
        assert random and abs(np.mean(concept) - np.mean(random)) < 0.12, clip_type
    frozen = sets.clips_of("red", "frozen")[0]
    assert np.ptp(concepts.load_frames(frozen), axis=0).max() == 0 and grey_share(frozen) > 0.4


def test_both_backgrounds_have_files_of_their_own(mined):
    folder, _ = mined
    files = {name: {clip.file for clip in concepts.read_concepts(folder / name).clips} for name in ("grey", "keep")}
    assert not files["grey"] & files["keep"]
    assert max(grey_share(clip) for clip in concepts.read_concepts(folder / "keep").clips) < 0.01


def test_a_table_keeps_the_outlines(mined, tmp_path):
    folder, _ = mined
    table = folder / "grey" / "boxes.csv"
    with table.open() as file:
        row = next(csv.DictReader(file))
    corners = [float(row[name]) for name in ("x1", "y1", "x2", "y2")]
    x1, y1, x2, y2 = corners
    assert [float(value) for value in row["outline"].split()] == [x1, y1, x2, y1, x1, y2]
    config = mining_config("red", background="grey", min_confidence=0.3, min_pixels=0, boxes=table)
    concepts.mine(sorted((folder / "videos").iterdir()), config, tmp_path / "again")
    first, again = (concepts.read_concepts(path) for path in (folder / "grey", tmp_path / "again"))
    assert [clip.sha256 for clip in first.clips_of("red")] == [clip.sha256 for clip in again.clips_of("red")]


def test_without_outlines_grey_surroundings_are_refused(tmp_path):
    videos = write_square_videos(tmp_path, count=1)
    config = mining_config("red", background="grey")
    with pytest.raises(
        ValueError, match=r"squares has no outlines, which --background=grey needs; pass a segmentation"
    ):
        concepts.mine(videos, config, tmp_path / "out", detector=SquareDetector())


def test_boxes_without_outlines_have_no_such_column(tmp_path):
    boxes = {"a": (Box(0, 1, "x", 0, 0, 4, 4),), "b": (Box(0, 1, "x", 0, 0, 4, 4, 0.5, (0, 0, 4, 0, 0, 4)),)}
    write_boxes(tmp_path / "plain.csv", {"a": boxes["a"]})
    write_boxes(tmp_path / "all.csv", boxes)
    assert "outline" not in (tmp_path / "plain.csv").read_text()
    assert read_boxes(tmp_path / "all.csv") == boxes and read_boxes(tmp_path / "plain.csv") == {"a": boxes["a"]}
    (tmp_path / "bad.csv").write_text("frame,label,x1,y1,x2,y2,outline\n0,x,0,0,4,4,1 2 3 4\n0,x,0,0,4,4,a b\n")
    with pytest.raises(ValueError, match=r"2 faulty rows of 2.*\n.*line 2: expected an outline of at least three"):
        read_boxes(tmp_path / "bad.csv")


def test_outlines_of_a_track_follow_the_box_over_gaps():
    outline = (0, 0, 10, 0, 0, 10)
    boxes = [Box(0, 1, "x", 0, 0, 10, 10, 1.0, outline), Box(3, 1, "x", 30, 0, 50, 20)]
    (track,) = build_tracks(boxes)
    assert track.outlines[0] == outline and len(track.outlines) == 4
    np.testing.assert_allclose(track.outlines[3], (30, 0, 50, 0, 30, 20))
    assert build_tracks([box._replace(outline=()) for box in boxes])[0].outlines == ()
    assert move_outline(box_outline((0, 0, 2, 2)), (0, 0, 2, 2), (10, 20, 14, 24)) == box_outline((10, 20, 14, 24))


def test_masks_of_a_network_become_polygons():
    circle = np.stack([50 + 40 * np.cos(np.linspace(0, 6, 500)), 50 + 40 * np.sin(np.linspace(0, 6, 500))], 1)
    outlines = detect._outlines(SimpleNamespace(masks=SimpleNamespace(xy=[circle, circle[:2], np.zeros((0, 2))])))
    assert len(outlines[0]) == 200 and outlines[1:] == ((), ())
    assert np.abs(np.hypot(*(np.array(outlines[0]).reshape(-1, 2) - 50).T) - 40).max() < 1
    assert detect._outlines(SimpleNamespace(masks=None)) == () == detect._outlines(SimpleNamespace())
