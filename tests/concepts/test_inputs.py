"""Inputs of mining: tables of boxes, worlds, parts of videos, targets and labels."""

import tarfile
from dataclasses import replace

import numpy as np
import pytest

from tests.support.square_videos import FRAMES, SquareDetector, mining_config, write_square_videos
from vtcav_jax import concepts
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts import crops, inputs, mining
from vtcav_jax.concepts.config import MiningConfig
from vtcav_jax.data import SamplingConfig, open_source, prepare_dataset, world_export
from vtcav_jax.data.decode import decode_frames, probe
from vtcav_jax.data.encode import encode_webm
from vtcav_jax.worlds import GLYPH_QUESTIONS, render


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_square_videos(tmp_path_factory.mktemp("films"))


def test_a_table_of_boxes_replaces_the_detector(videos, tmp_path):
    videos = videos[:2]
    mined = concepts.mine(videos, mining_config(), tmp_path / "first", detector=SquareDetector())
    table = mined.folder / "boxes.csv"
    report = concepts.mine(videos, replace(mining_config(), boxes=table), tmp_path / "out")
    assert report.thresholds == mined.thresholds
    with pytest.raises(ValueError, match="no source of boxes"):
        concepts.mine(videos, mining_config(), tmp_path / "none")
    (tmp_path / "other.csv").write_text("file,frame,label,x1,y1,x2,y2\nelse.mp4,0,red,0,0,4,4\n")
    with pytest.raises(ValueError, match="no box for any of the 2 videos"):
        concepts.mine(videos, replace(mining_config(), boxes=tmp_path / "other.csv"), tmp_path / "none")
    with pytest.raises(ValueError, match="is not empty and not a folder written by mining"):
        concepts.mine(videos, mining_config(), tmp_path, detector=SquareDetector())


def test_ambiguous_file_names_in_a_table_of_boxes_are_an_error(videos, tmp_path):
    folder = tmp_path / "films"
    for i, name in enumerate(("a", "b")):
        (folder / name).mkdir(parents=True)
        (folder / name / "film.mp4").write_bytes(videos[i].read_bytes())
    rows = [f"film.mp4,{i},1,red,1,2,11,12\n" for i in range(FRAMES)]
    table = tmp_path / "boxes.csv"
    config = replace(mining_config(num_random_sets=0), boxes=table)
    table.write_text("file,frame,track,label,x1,y1,x2,y2\n" + "".join(rows))
    with pytest.raises(ValueError, match=r"match several videos, such as film.mp4; write a/film.mp4 in the column"):
        concepts.mine(folder, config, tmp_path / "out")
    rows = [f"{name}/{row}" for name in ("a", "c") for row in rows]
    table.write_text("file,frame,track,label,x1,y1,x2,y2\n" + "".join(rows))
    report = concepts.mine(folder, config, tmp_path / "out")
    assert {clip.source for clip in concepts.read_concepts(tmp_path / "out").clips} == {"a/film.mp4"}
    assert "boxes.csv has boxes for files that are not among the videos: 'c/film.mp4'" in report.notes


def test_a_table_of_a_manifest_is_read_once(videos, tmp_path, monkeypatch):
    rows = [f"{v.name},{i},1,red,1,2,11,12\n" for v in videos for i in range(FRAMES)]
    (tmp_path / "boxes.csv").write_text("file,frame,track,label,x1,y1,x2,y2\n" + "".join(rows))
    (tmp_path / "films.csv").write_text("path,boxes\n" + "".join(f"{path},boxes.csv\n" for path in videos))
    read, times = inputs.read_boxes, []
    monkeypatch.setattr(inputs, "read_boxes", lambda path: times.append(path) or read(path))
    report = concepts.mine(tmp_path / "films.csv", mining_config(num_random_sets=0), tmp_path / "out")
    assert len(times) == 1 and report.counts["red", "dynamic"] < 12  # identical clips count once


@pytest.mark.slow
def test_worlds_are_mined_with_their_ground_truth_boxes(tmp_path):
    world_export.write_clips(render.make_clips(render.GlyphWorld(), 24, 3), tmp_path / "world")
    parsed = concepts.parse_concepts(
        ["ring=key@shape:ring", "x=key@shape:x", "left=key@direction:left", "up=key@direction:up"]
    )
    config = MiningConfig(parsed, clip_frames=5, boxes=tmp_path / "world" / "boxes.csv", num_random_sets=1)
    report = concepts.mine(tmp_path / "world" / "manifest.csv", config, tmp_path / "out")
    sets = concepts.read_concepts(report.folder)
    assert report.counts["ring", "static"] and report.counts["left", "dynamic"] == report.counts["left", "frozen"]
    factors = render.sample_factors(render.GlyphWorld(), 3, np.arange(24))
    for clip in sets.clips_of("left", "dynamic"):
        assert factors["direction"][int(clip.source[-6:-4])] == GLYPH_QUESTIONS["direction"].index("left")
        lefts = [box[0] for box in clip.boxes]
        assert np.all(np.diff(lefts) == -2) and {box[2] - box[0] for box in clip.boxes} == {7}  # never across a border


@pytest.mark.slow
def test_a_world_specification_is_mined(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "WORLD_CLIPS_PER_BATCH", 7)
    parsed = concepts.parse_concepts(["ring=key@shape:ring", "left=key@direction:left"])
    config = MiningConfig(parsed, clip_frames=5, num_random_sets=0, max_clips_per_video=1, max_clips=4, crop="follow")
    report = concepts.mine("worlds:small:40:3", config, tmp_path / "out", targets="worlds:small:70:4")
    assert report.n_videos == 40 and not report.failures and not report.notes
    sets = concepts.read_concepts(tmp_path / "out")
    factors = render.sample_factors(render.GlyphWorld(), 3, np.arange(40))
    for kind in ("dynamic", *crops.CONTROLS):
        assert len(sets.clips_of("left", kind)) == report.counts["left", kind] > 1
    for clip in sets.clips_of("left", "dynamic"):
        i = int(clip.source.rpartition("_")[2])
        assert factors["direction"][i] == GLYPH_QUESTIONS["direction"].index("left")
        # Crops equal the world's pixels, up to the rounding of H.264's colours.
        rendered = render.make_clips("small", 1, 3, first=i).video[0][list(clip.frames)]
        expected = crops.dynamic_clip(list(np.rint(255 * rendered).astype(np.uint8)), clip.boxes)
        assert np.abs(concepts.load_frames(clip).astype(int) - expected).max() <= 2
    films = list((tmp_path / "out" / "videos").rglob("*.mp4"))
    films[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in films[1:]}
    again = concepts.mine("worlds:small:40:3", config, tmp_path / "out")
    assert again.n_frames == 0 and films[0].exists()
    assert before == {path: path.stat().st_mtime_ns for path in films[1:]}
    with pytest.raises(ValueError, match="the same clips as the targets, worlds:small:9:3; change the seed of one"):
        concepts.mine("worlds:small:40:3", config, tmp_path / "none", targets="worlds:small:9:3")
    with pytest.raises(ValueError, match=r"no label named 'kee' .did you mean key"):
        concepts.mine("worlds:small:7:3", MiningConfig(concepts.parse_concepts(["kee"])), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_part_of_a_video_is_mined_as_a_part(videos, tmp_path):
    (tmp_path / "parts.csv").write_text(f"path,start,end\n{videos[0]},0.2,0.6\n{videos[0]},0.6,0.9\n")
    report = concepts.mine(
        tmp_path / "parts.csv", mining_config(num_random_sets=0), tmp_path / "out", detector=SquareDetector()
    )
    clips = concepts.read_concepts(tmp_path / "out").clips_of("red")
    assert report.n_frames == 17 or report.n_frames == 18
    assert min(f for clip in clips for f in clip.frames) >= 5 and max(f for clip in clips for f in clip.frames) < 23


def test_repeated_videos_are_noted_and_used_once(videos, tmp_path):
    (tmp_path / "copy.mp4").write_bytes(videos[0].read_bytes())
    report = concepts.mine(
        [videos[0], tmp_path / "copy.mp4"],
        mining_config(num_random_sets=0),
        tmp_path / "out",
        detector=SquareDetector(),
    )
    assert any("is the same video as" in note for note in report.notes)
    assert mining.FILTER_STAGES[-1] == "left" and report.counts["red", "static"] == 2


@pytest.mark.slow
def test_targets_and_their_copies_are_left_out(videos, tmp_path):
    copy, other = tmp_path / "target.mp4", tmp_path / "other.webm"
    copy.write_bytes(videos[2].read_bytes())
    frames = np.stack([frame for _, frame in decode_frames(probe(videos[4]), range(FRAMES))])
    other.write_bytes(encode_webm(frames, 25))
    report = concepts.mine(videos, mining_config(), tmp_path / "out", detector=SquareDetector(), targets=[copy, other])
    assert "2 of 6 videos of --videos are targets and are left out: film2.mp4 (target.mp4), film4.mp4 (other.webm)" in (
        report.notes
    )
    sources = {clip.source for clip in concepts.read_concepts(tmp_path / "out").clips}
    assert sources and not sources & {"film2.mp4", "film4.mp4"}
    with pytest.raises(ValueError, match="all 6 videos of --videos are target videos"):
        concepts.mine(videos, mining_config(), tmp_path / "none", detector=SquareDetector(), targets=videos)


@pytest.mark.slow
def test_prepared_targets_are_recognised_by_their_source_videos(videos, tmp_path):
    target_folder = tmp_path / "one"
    target_folder.mkdir()
    (target_folder / "x.mp4").write_bytes(videos[1].read_bytes())
    prepare_dataset(
        open_source(target_folder), ClipSpec(frames=4, size=32), SamplingConfig(), tmp_path / "ready", num_workers=0
    )
    targets = tmp_path / "ready"
    report = concepts.mine(videos, mining_config(), tmp_path / "out", detector=SquareDetector(), targets=targets)
    assert any("are left out: film1.mp4 (x.mp4)" in note for note in report.notes)
    with pytest.raises(ValueError, match="has decoded clips but no video files"):
        concepts.mine(tmp_path / "ready", mining_config(), tmp_path / "out", detector=SquareDetector())


def test_unknown_labels_suggest_similar_ones_before_scanning(videos, tmp_path):
    detector = SquareDetector()
    with pytest.raises(ValueError, match=r"no label named 'rad' .did you mean red"):
        concepts.mine(videos, mining_config("rad"), tmp_path / "out", detector=detector)
    with pytest.raises(ValueError, match="no HEAD:CLASS of the videos named 'a:b'"):
        concepts.mine(videos, mining_config("x=red@a:b"), tmp_path / "out", detector=detector)
    assert not detector.n_frames_seen and not (tmp_path / "out").exists()


def test_boxes_are_not_cropped_from_videos_in_tar_files(videos, tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for path in videos[:2]:
            archive.add(path, path.name)
    with pytest.raises(ValueError, match=r"2 videos of .*shard\.tar are at addresses or in tar files, .* copy them"):
        concepts.mine(tmp_path / "shard.tar", mining_config(), tmp_path / "out", detector=SquareDetector())
