"""Mining of videos of coloured squares with a deterministic detector: selection, negatives, resuming."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.square_videos import (
    COLOURS,
    FRAMES,
    SIZE,
    SquareDetector,
    file_hashes,
    mining_config,
    square_video,
    write_square_videos,
)
from vtcav_jax import atomic, concepts
from vtcav_jax.concepts import crops, mining
from vtcav_jax.concepts.boxes import intersection, iou
from vtcav_jax.data.encode import encode_lossless_mp4


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_square_videos(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def mined(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("mined") / "out"
    return concepts.mine(videos, mining_config(), out, detector=SquareDetector())


@pytest.fixture(scope="module")
def followed(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("followed") / "out"
    return concepts.mine(videos, mining_config(crop="follow"), out, detector=SquareDetector())


def read_source(clip):
    return square_video(int(clip.source[4]), confidence=0.6 + 0.05 * int(clip.source[4]))


def window_of(clip):
    assert clip.window is not None
    return clip.window


def test_a_window_contains_the_whole_track_and_does_not_move(mined):
    sets = concepts.read_concepts(mined.folder)
    assert {kind: len(sets.clips_of("red", kind)) for kind in crops.CLIP_TYPES if kind != "jitter"} == dict.fromkeys(
        ("static", "dynamic", "frozen", "shuffled", "reversed"), 12
    )
    assert not sets.clips_of("red", "jitter")  # equal to the frozen control
    by_file = {clip.file: clip for clip in sets.clips}
    for clip in sets.clips:
        x1, y1, x2, y2 = window = window_of(clip)
        source, picture = read_source(clip), concepts.load_frames(clip)
        assert x2 - x1 == y2 - y1 and len(picture) == 6 and x1 >= 0 and y1 >= 0
        assert all(x1 <= b[0] and y1 <= b[1] and b[2] <= x2 and b[3] <= y2 for b in clip.boxes)
        cut = np.stack([crops.crop_box(source[i], window) for i in clip.frames])
        if clip.clip_type == "static":
            np.testing.assert_array_equal(picture, cut.repeat(6, 0))
        elif clip.clip_type == "dynamic":
            np.testing.assert_array_equal(picture, cut)
        else:
            twin = by_file[clip.control_of]
            assert (twin.window, twin.frames, twin.concept) == (window, clip.frames, clip.concept)
            order = {"frozen": [3] * 6, "reversed": [5, 4, 3, 2, 1, 0]}.get(clip.clip_type)
            assert order is None or np.array_equal(picture, cut[order])
            assert sorted(p.tobytes() for p in picture) == sorted(p.tobytes() for p in cut[order or range(6)])
    for clip in sets.clips_of("red", "dynamic"):
        extent = max(clip.boxes[-1][2], clip.boxes[0][2]) - min(box[0] for box in clip.boxes)
        assert window_of(clip)[2] - window_of(clip)[0] >= min(1.5 * extent, SIZE[0])
        distance = np.abs(concepts.load_frames(clip).astype(int) - COLOURS["red"]).max(-1)
        first, last = (np.nonzero(distance[t] < 8)[1].mean() for t in (0, -1))
        assert last - first >= 4  # moves through the window


def test_static_clips_are_not_frozen_controls_of_the_same_track(mined):
    sets = concepts.read_concepts(mined.folder)
    frozen = {(clip.source, clip.frames[3]) for clip in sets.clips_of("red", "dynamic")}
    assert not frozen & {(clip.source, clip.frames[0]) for clip in sets.clips_of("red", "static")}


def test_random_dynamic_clips_have_controls(mined):
    sets = concepts.read_concepts(mined.folder)
    dynamic = {clip.file for name in sets.negatives for clip in sets.clips_of(name, "dynamic")}
    assert len(dynamic) > 4
    for kind in ("frozen", "shuffled", "reversed"):
        controls = [clip for name in sets.negatives for clip in sets.clips_of(name, kind)]
        assert {clip.control_of for clip in controls} == dynamic and len(controls) == len(dynamic)
        assert all(clip.is_negative and clip.file.startswith(f"{clip.concept}/{kind}/") for clip in controls)
    assert "36 controls of the concepts' dynamic clips" in mined.text
    n_static = sum(len(sets.clips_of(name, "static")) for name in sets.negatives)
    assert f"{n_static + len(dynamic)} clips in 2 random sets, with {3 * len(dynamic)} controls" in mined.text
    page = (mined.folder / "review.html").read_text()
    assert all(f"{kind}/film" in page for kind in ("static", "dynamic")) and "frozen/film" not in page


def test_clips_that_follow_an_object_are_not_to_be_read_as_motion(mined, followed):
    assert not any("follow an object" in note for note in concepts.read_concepts(mined.folder).notes)
    (note,) = (note for note in concepts.read_concepts(followed.folder).notes if "follow an object" in note)
    assert note.startswith("the dynamic clips of red") and note.endswith("mine with --crop=window")


def test_controls_can_be_omitted(videos, tmp_path):
    report = concepts.mine(videos, mining_config(controls=False), tmp_path / "out", detector=SquareDetector())
    assert {kind for _, kind in report.counts} == {"static", "dynamic"}


def test_following_clips_follow_the_boxes_and_have_controls(followed):
    sets = concepts.read_concepts(followed.folder)
    assert {kind: len(sets.clips_of("red", kind)) for kind in crops.CLIP_TYPES} == {"static": 12} | dict.fromkeys(
        ("dynamic", *crops.CONTROLS), 12
    )
    by_file = {clip.file: clip for clip in sets.clips}
    for clip in sets.clips_of("red"):
        picture = concepts.load_frames(clip)
        assert len(picture) == 6 and clip.label == "red" and clip.detector == "squares" and clip.window is None
        source = read_source(clip)
        if clip.clip_type == "static":
            np.testing.assert_array_equal(picture, crops.static_clip(source[clip.frames[0]], clip.boxes[0], 6))
        elif clip.clip_type == "dynamic":
            expected = crops.dynamic_clip([source[i] for i in clip.frames], clip.boxes)
            np.testing.assert_array_equal(picture, expected)
            assert (np.abs(picture[:, 5, 5].astype(int) - COLOURS["red"]) < 8).all()  # follows one object
        else:
            twin = by_file[clip.control_of]
            whole = concepts.load_frames(twin)
            assert (twin.clip_type, twin.frames, twin.boxes, whole.shape) == (
                "dynamic",
                clip.frames,
                clip.boxes,
                picture.shape,
            )
            if clip.clip_type == "jitter":
                np.testing.assert_array_equal(picture, crops.jitter_clip(source[clip.frames[3]], clip.boxes))
            else:
                order = {"frozen": [3] * 6, "reversed": [5, 4, 3, 2, 1, 0]}.get(clip.clip_type)
                same = [[bool((p == q).all()) for q in whole] for p in picture]
                assert all(same[t][i] for t, i in enumerate(order)) if order else np.any(same, axis=1).all()


@pytest.mark.parametrize("crop", ["window", "follow"])
def test_negatives_are_disjoint_and_overlap_no_concept(crop, mined, followed, videos):
    report = mined if crop == "window" else followed
    sets = concepts.read_concepts(report.folder)
    assert sets.negatives == ("random_000", "random_001")
    boxes = {path.name: list(SquareDetector().boxes(iter(square_video(i)), 25)) for i, path in enumerate(videos)}
    negatives = [clip for name in sets.negatives for clip in sets.clips_of(name) if not clip.control_of]
    assert sets.counts()["random_000", "static"] == 4 and 3 <= sets.counts()["random_001", "dynamic"] <= 4
    for clip in negatives:
        assert len(clip.frames) == (1 if clip.clip_type == "static" else 6)
        for frame, box in zip(clip.frames, shown(clip)):
            reds = [b.corners for b in boxes[clip.source] if b.frame == frame and b.label == "red"]
            assert not any(intersection(box, red) for red in reds)
    for a in negatives:
        for b in negatives:
            if a is not b and (a.source, a.clip_type, a.frames) == (b.source, b.clip_type, b.frames):
                assert max(iou(x, y) for x, y in zip(shown(a), shown(b))) <= 0.5
    assert {clip.label for clip in negatives} == {"blue", "anywhere"}


def shown(clip):
    return [clip.window] * len(clip.frames) if clip.window else clip.boxes


@pytest.mark.slow
def test_random_windows_have_the_places_and_sizes_of_the_concepts_windows(videos, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for i in range(12):
        (other / f"{i}.mp4").write_bytes(encode_lossless_mp4(square_video(50 + i, ("blue", "blue", "green"))))
    config = mining_config(random_set_size=8, min_pixels=0)
    report = concepts.mine(videos, config, tmp_path / "out", detector=SquareDetector(), negative_videos=other)
    assert not report.notes
    sets = concepts.read_concepts(report.folder)
    for kind in ("static", "dynamic"):
        windows = [window_of(clip) for clip in sets.clips_of("red", kind)]
        random = [clip for name in sets.negatives for clip in sets.clips_of(name, kind)]
        assert all(clip.window in windows for clip in random if clip.label == "anywhere")
        sides, random_sides = ([w[2] - w[0] for w in group] for group in (windows, list(map(window_of, random))))
        assert {*random_sides} <= {*sides} and abs(np.mean(random_sides) / np.mean(sides) - 1) < 0.1
    # In videos that show the concept at the place of its windows, other places of the same size are used, with a note.
    within = concepts.mine(videos, config, tmp_path / "within", detector=SquareDetector())
    assert any("windows are at random places, since" in note for note in within.notes)


def test_crops_below_the_pixel_floor_are_counted(videos, tmp_path):
    report = concepts.mine(videos[:2], mining_config(min_pixels=400), tmp_path / "out", detector=SquareDetector())
    for kind in ("static", "dynamic"):
        row = report.thresholds["red", kind]
        assert row["left"] == 0 and row["pixels"] == row["found"] - row["confidence"] > 0
    config = mining_config()
    assert config.min_crop_side((256, 340)) == 32 and 0 < config.min_crop_side((32, 32)) < 5


@pytest.mark.slow
def test_another_crop_replaces_the_clips(videos, tmp_path):
    detector = SquareDetector()
    for crop in ("window", "follow", "window"):
        config = mining_config(crop=crop, num_random_sets=1)
        concepts.mine(videos[:3], config, tmp_path / "a" / "out", detector=detector)
        sets = concepts.read_concepts(tmp_path / "a" / "out")
        assert {clip.window is None for clip in sets.clips} == {crop == "follow"}
        assert f'"crop": "{crop}"' in (tmp_path / "a" / "out" / "mining.json").read_text()
    assert detector.n_frames_seen == 3 * FRAMES
    concepts.mine(videos[:3], config, tmp_path / "b" / "out", detector=SquareDetector())
    assert file_hashes(tmp_path / "a") == file_hashes(tmp_path / "b")


def test_clips_removed_by_each_threshold_are_counted(videos, tmp_path):
    report = concepts.mine(
        videos, mining_config(min_confidence=0.69, max_clips=3), tmp_path / "out", detector=SquareDetector()
    )
    row = report.thresholds["red", "static"]
    assert row["found"] == 6 * FRAMES and row["confidence"] == 2 * FRAMES and row["in all"] == 5 and row["left"] == 3
    assert row["found"] == sum(row.values()) - row["found"]
    moving = report.thresholds["red", "dynamic"]
    assert moving["found"] == sum(moving.values()) - moving["found"] and moving["left"] == 3
    large = concepts.mine(videos, mining_config(min_area=0.1), tmp_path / "out", detector=SquareDetector())
    assert large.thresholds["red", "static"]["area"] == 6 * FRAMES and large.n_frames == 0
    assert "no clips of red, static" in large.notes and not (tmp_path / "out/red/static").exists()
    long = concepts.mine(
        videos, mining_config(min_track_length=FRAMES + 1), tmp_path / "out", detector=SquareDetector()
    )
    assert long.thresholds["red", "dynamic"]["left"] == 0


def test_order_and_names_of_videos_do_not_matter(mined, videos, tmp_path):
    links = []
    for i, path in enumerate(reversed(videos)):
        links.append(tmp_path / f"{i} other.mp4")
        links[-1].symlink_to(path)
    concepts.mine(links, mining_config(), tmp_path / "out", detector=SquareDetector())
    ours, theirs = ({p for p in file_hashes(f).items() if ".mp4" in p[0]} for f in (mined.folder, tmp_path / "out"))
    assert sorted(digest for _, digest in ours) == sorted(digest for _, digest in theirs)


@pytest.mark.slow
def test_other_thresholds_use_cached_scans_and_leave_no_old_clips(videos, tmp_path):
    first, again = SquareDetector(), SquareDetector()
    videos = videos[:3]
    concepts.mine(videos, mining_config("red", "blue"), tmp_path / "a" / "out", detector=first)
    concepts.mine(videos, mining_config(), tmp_path / "a" / "out", detector=again)
    assert (first.n_frames_seen, again.n_frames_seen) == (3 * FRAMES, 0)
    concepts.mine(videos, mining_config(), tmp_path / "b" / "out", detector=SquareDetector())
    assert file_hashes(tmp_path / "a") == file_hashes(tmp_path / "b")


KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
from tests.support import square_videos as t
from pathlib import Path
from vtcav_jax import atomic, concepts
write, left = atomic.write_bytes, [{files}]
def killed(path, data):
    left[0] -= 1
    if not left[0]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name("." + path.name + ".part").write_bytes(data[:100])
        os.kill(os.getpid(), 9)
    write(path, data)
atomic.write_bytes = killed
videos = sorted(Path({videos!r}).iterdir())
concepts.mine(videos, t.mining_config(), {out!r}, detector=t.SquareDetector({frames}))
"""


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_same_files(mined, videos, tmp_path):
    out = tmp_path / "out"
    for frames, files in ((2 * FRAMES + 5, 0), (0, 30), (0, 0)):
        code = KILLED.format(
            tests=str(Path(__file__).parents[2]), videos=str(videos[0].parent), out=str(out), frames=frames, files=files
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == (-9 if frames or files else 0), done.stderr
        assert (out / "concepts.csv").exists() == (done.returncode == 0)
        if done.returncode:
            with pytest.raises(ValueError, match="not finished"):
                concepts.read_concepts(out)
    assert file_hashes(out) == file_hashes(mined.folder)


@pytest.mark.slow
def test_a_corrupt_video_among_fifty_is_counted_and_one_without_boxes_is_named(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(50):
        (folder / f"{i:02d}.mp4").write_bytes(
            encode_lossless_mp4(square_video(i, () if i == 7 else ("red",), frames=7))
        )
    (folder / "30.mp4").write_bytes((folder / "30.mp4").read_bytes()[:900])
    report = concepts.mine(
        folder, mining_config(num_random_sets=0, max_clips_per_video=1), tmp_path / "out", detector=SquareDetector()
    )
    assert list(report.failures) == ["30.mp4"] and report.n_videos == 50
    assert "no box of any concept in 07.mp4" in report.notes
    assert report.counts["red", "static"] == 48 and "30.mp4" in (report.folder / "failures.csv").read_text()
    assert "not read: 30.mp4" in report.text


@pytest.mark.slow
def test_only_clips_of_killed_selections_are_deleted(videos, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mining, "write_outputs", killed)
        with pytest.raises(KeyboardInterrupt):
            concepts.mine(videos[:2], mining_config("blue"), tmp_path / "a" / "out", detector=SquareDetector())
    assert list((tmp_path / "a" / "out" / "blue").rglob("*.mp4"))
    concepts.mine(videos[:2], mining_config("red"), tmp_path / "a" / "out", detector=SquareDetector())
    concepts.mine(videos[:2], mining_config("red"), tmp_path / "b" / "out", detector=SquareDetector())
    assert file_hashes(tmp_path / "a") == file_hashes(tmp_path / "b")
    # Deletion does not trust the table, and other files in the folder are kept.
    outside, beside = tmp_path / "mine.mp4", tmp_path / "a" / "out" / "red" / "static" / "mine.mp4"
    table = tmp_path / "a" / "out" / "concepts.csv"
    lines = table.read_text().splitlines(keepends=True)
    for path in (outside, beside):
        path.write_bytes(b"mine")
        lines.append(lines[-1].replace(lines[-1].split(",")[2], str(path)))
    table.write_text("".join(lines))
    concepts.mine(videos[:2], mining_config("red", max_clips=2), tmp_path / "a" / "out", detector=SquareDetector())
    assert outside.exists() and beside.exists()


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_same_call_continues(videos, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_bytes", full)
        with pytest.raises(ValueError, match=r"disk of .* is full; free some space and run the command again"):
            concepts.mine(videos, mining_config(), tmp_path / "out", detector=SquareDetector())
    again = SquareDetector()
    concepts.mine(videos, mining_config(), tmp_path / "out", detector=again)
    assert again.n_frames_seen == 0


def test_one_error_lists_all_invalid_settings():
    with pytest.raises(ValueError, match="same folder") as error:
        mining_config("a b", "a_b", "random", "red", "red", clip_frames=0, min_area=2.0, tracker="sort")
    for part in ("same folder", "marks negatives", "named twice", "clip_frames", "min_area", "tracker"):
        assert part in str(error.value)
    for text in ("=red", "x=", "x=red@head", "x=red@:a"):
        with pytest.raises(ValueError, match="is not a concept"):
            concepts.parse_concept(text)
    assert concepts.parse_concept("key@shape:ring") == concepts.Concept("shape ring", "key", "shape", "ring")


def test_names_too_long_for_a_folder_are_an_error():
    with pytest.raises(ValueError, match="too long for a folder; rename it, as in x=LABEL"):
        mining_config("y" * 300)
    assert concepts.parse_concept(f"y={'y' * 300}").folder == "y"


def test_a_second_source_provides_all_negatives_and_shortfalls_are_noted(videos, tmp_path):
    other = tmp_path / "other.mp4"
    other.write_bytes(encode_lossless_mp4(square_video(99, ("green",))))
    report = concepts.mine(
        videos[:2],
        mining_config(num_random_sets=1),
        tmp_path / "out",
        detector=SquareDetector(),
        negative_videos=[other],
    )
    sets = concepts.read_concepts(report.folder)
    assert {clip.source for name in sets.negatives for clip in sets.clips_of(name)} == {"other.mp4"}
    assert any(
        "static random sets: one of 2 clips instead of 1, since a set needs 4 clips, at most 2 per video" in note
        for note in report.notes
    )


@pytest.mark.slow
def test_a_review_applies_to_reading_and_mining(videos, tmp_path):
    out = tmp_path / "out"
    concepts.mine(videos, mining_config(max_clips=4), out, detector=SquareDetector())
    before = concepts.read_concepts(out)
    bad, good = before.clips_of("red", "dynamic")[0], before.clips_of("red", "static")[1]
    rows = [(bad.file, bad.sha256, "reject"), (good.file, good.sha256, "keep")]
    (out / "review.csv").write_text("file,sha256,verdict\n" + "".join(f'"{f}","{s}",{v}\n' for f, s, v in rows))
    after = concepts.read_concepts(out)
    assert len(after.clips_of("red", "dynamic")) == len(after.clips_of("red", "frozen")) == 3
    with_controls = ("dynamic", "frozen", "shuffled", "reversed")
    assert {clip.clip_type for clip in after.rejected} == {*with_controls}
    report = concepts.mine(videos, mining_config(max_clips=4), out, detector=SquareDetector())
    again = concepts.read_concepts(out)
    assert len(again.clips_of("red", "dynamic")) == 4 and report.thresholds["red", "dynamic"]["rejected"] == 1
    assert bad.file not in {clip.file for clip in again.clips} and bad.file in {clip.file for clip in again.rejected}
    assert {clip.file for clip in after.clips_of("red", "dynamic")} < {
        clip.file for clip in again.clips_of("red", "dynamic")
    }
    assert [clip.review for clip in again.clips_of("red", "static") if clip.file == good.file] == ["keep"]
    # Without the rejected clip and its controls.
    assert {report.counts["red", kind] for kind in with_controls} == {4}
    (out / "review.csv").write_text(f'file,sha256,verdict\n"{bad.file}",,\n')
    assert bad.file in {clip.file for clip in concepts.read_concepts(out).clips_of("red", "dynamic")}
    concepts.mine(videos, mining_config(max_clips=4), out, detector=SquareDetector())
    assert len(concepts.read_concepts(out).clips) == len(before.clips) and not concepts.read_concepts(out).rejected


def test_pixel_identical_clips_are_used_once(tmp_path):
    flat = np.full((FRAMES, *SIZE, 3), 90, np.uint8)
    flat[:, 0, 0] = 200
    for i in range(2):
        for t in range(FRAMES):
            flat[t, 5:15, 2 + t : 12 + t] = COLOURS["red"]
        (tmp_path / f"{i}.mp4").write_bytes(encode_lossless_mp4(np.concatenate([flat, flat[:i]])))
    report = concepts.mine(sorted(tmp_path.glob("*.mp4")), mining_config(), tmp_path / "out", detector=SquareDetector())
    assert any("pixel-identical to another" in note for note in report.notes)
    sets = concepts.read_concepts(report.folder)
    assert len({clip.sha256 for clip in sets.clips if not clip.control_of}) == len(
        [c for c in sets.clips if not c.control_of]
    )
    files = {str(path.relative_to(report.folder)) for path in report.folder.rglob("*.mp4")}
    assert files == {clip.file for clip in sets.clips}


@pytest.mark.slow
def test_clips_of_other_code_are_not_continued_and_damaged_scans_are_repeated(videos, tmp_path, capsys, monkeypatch):
    config = mining_config("red")
    concepts.mine(videos, config, tmp_path / "out", detector=SquareDetector())
    before = file_hashes(tmp_path / "out")
    scans = sorted((tmp_path / "out/surveys").glob("*.json"))
    for scan, damage in zip(scans, ("", "{}", "[1", scans[0].read_text()[:50])):
        scan.write_text(damage)
    detector = SquareDetector()
    concepts.mine(videos, config, tmp_path / "out", detector=detector)
    assert file_hashes(tmp_path / "out") == before and detector.n_frames_seen > 0
    assert capsys.readouterr().out.count("is damaged; scanned again") == min(4, len(scans))
    monkeypatch.setattr(mining, "code_hash", lambda *patterns: "another")
    with pytest.raises(ValueError, match=r"clips that were cut by other code of vtcav-jax; choose another folder"):
        concepts.mine(videos, config, tmp_path / "out", detector=SquareDetector())
