"""Mining films of coloured squares with a detector that is a function of the frame: selection, negatives, resuming."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vtcav_jax import concepts
from vtcav_jax.concepts import crops, mining, writing
from vtcav_jax.concepts.boxes import Box, overlap, shared
from vtcav_jax.concepts.sets import encoded
from vtcav_jax.concepts.settings import Mining

SIZE, FRAMES = (48, 64), 24
COLOURS = {"red": (250, 20, 20), "blue": (20, 20, 250), "green": (20, 250, 20)}


class Squares:
    """Finds squares by their colour, one of each; the confidence is the brightness of the pixel in the corner."""

    name, sha256, identity, labels = "squares", "0", "0", tuple(COLOURS)

    def __init__(self, stop=None):
        self.stop, self.looked = stop, 0

    def boxes(self, frames, fps: float) -> Iterator[Box]:
        for number, frame in enumerate(frames):
            self.looked += 1
            if self.stop == self.looked:
                os.kill(os.getpid(), 9)
            for track, (label, colour) in enumerate(COLOURS.items()):
                rows, columns = np.nonzero((np.abs(frame.astype(int) - colour) < 8).all(-1))
                if len(rows):
                    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                    yield Box(number, track, label, *map(int, corners), frame[0, 0, 0] / 255)


def film(seed, colours=("red", "blue"), frames=FRAMES, confidence=0.9):
    """Squares of 10 pixels that move to the right over noise, `red` above `blue`, above `green`."""
    random = np.random.default_rng(seed)
    video = random.integers(60, 180, (1, *SIZE, 3), np.uint8).repeat(frames, 0)
    speed = random.integers(1, 3)
    for i, colour in enumerate(colours):
        for t in range(frames):
            left = 1 + int(speed * t + random.integers(0, 2)) % (SIZE[1] - 12)
            video[t, 2 + 15 * i : 12 + 15 * i, left : left + 10] = COLOURS[colour] + random.integers(-5, 6, (10, 10, 3))
    video[:, 0, 0] = round(255 * confidence)
    return video


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for i in range(6):
        (folder / f"film{i}.mp4").write_bytes(encoded(film(i, confidence=0.6 + 0.05 * i)))
    return sorted(folder.iterdir())


def settings(*names, **given):
    usual = dict(frames=6, random_sets=2, random_size=4, most_per_video=2)
    return Mining(concepts.concepts(names or ("red",)), **usual | given)


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def mined(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("mined") / "out"
    return concepts.mine(videos, settings(), out, detector=Squares())


def test_clips_are_those_of_the_boxes_and_controls_go_with_them(mined, videos):
    sets = concepts.read_sets(mined.folder)
    assert {kind: len(sets.of("red", kind)) for kind in crops.KINDS} == {"static": 12} | dict.fromkeys(
        ("dynamic", *crops.CONTROLS), 12
    )
    by_file = {clip.file: clip for clip in sets.clips}
    for clip in sets.of("red"):
        picture = concepts.pictures(clip)
        assert len(picture) == 6 and clip.label == "red" and clip.detector == "squares"
        source = film(int(clip.source[4]), confidence=0.6 + 0.05 * int(clip.source[4]))
        if clip.kind == "static":
            np.testing.assert_array_equal(picture, crops.static(source[clip.frames[0]], clip.boxes[0], 6))
        elif clip.kind == "dynamic":
            expected = crops.dynamic([source[i] for i in clip.frames], clip.boxes)
            np.testing.assert_array_equal(picture, expected)
            assert (np.abs(picture[:, 5, 5].astype(int) - COLOURS["red"]) < 8).all()  # it follows one thing
        else:
            twin = by_file[clip.twin]
            whole = concepts.pictures(twin)
            assert (twin.kind, twin.frames, twin.boxes, whole.shape) == (
                "dynamic",
                clip.frames,
                clip.boxes,
                picture.shape,
            )
            if clip.kind == "jitter":
                np.testing.assert_array_equal(picture, crops.jitter(source[clip.frames[3]], clip.boxes))
            else:
                order = {"frozen": [3] * 6, "reversed": [5, 4, 3, 2, 1, 0]}.get(clip.kind)
                same = [[bool((p == q).all()) for q in whole] for p in picture]
                assert all(same[t][i] for t, i in enumerate(order)) if order else np.any(same, axis=1).all()


def test_negatives_are_disjoint_and_touch_no_concept(mined, videos):
    sets = concepts.read_sets(mined.folder)
    assert sets.negatives == ("random_000", "random_001")
    boxes = {path.name: list(Squares().boxes(iter(film(i)), 25)) for i, path in enumerate(videos)}
    some = [clip for name in sets.negatives for clip in sets.of(name)]
    assert sets.counts()["random_000", "static"] == sets.counts()["random_001", "dynamic"] == 4
    for clip in some:
        assert len(clip.frames) == (1 if clip.kind == "static" else 6)
        for frame, box in zip(clip.frames, clip.boxes):
            reds = [b.corners for b in boxes[clip.source] if b.frame == frame and b.label == "red"]
            assert not any(shared(box, red) for red in reds)
    for a in some:
        for b in some:
            if a is not b and (a.source, a.kind, a.frames) == (b.source, b.kind, b.frames):
                assert max(overlap(x, y) for x, y in zip(a.boxes, b.boxes)) <= 0.5
    assert {clip.label for clip in some} == {"blue", "anywhere"}


def test_what_each_threshold_removes_is_told(videos, tmp_path):
    report = concepts.mine(videos, settings(least_confidence=0.69, most=3), tmp_path / "out", detector=Squares())
    row = report.thresholds["red", "static"]
    assert row["found"] == 6 * FRAMES and row["confidence"] == 2 * FRAMES and row["in all"] == 5 and row["left"] == 3
    assert row["found"] == sum(row.values()) - row["found"]
    moving = report.thresholds["red", "dynamic"]
    assert moving["found"] == sum(moving.values()) - moving["found"] and moving["left"] == 3
    large = concepts.mine(videos, settings(least_area=0.1), tmp_path / "out", detector=Squares())
    assert large.thresholds["red", "static"]["area"] == 6 * FRAMES and large.frames == 0
    assert "there is no clip of red, static" in large.notes and not (tmp_path / "out/red/static").exists()
    long = concepts.mine(videos, settings(least_length=FRAMES + 1), tmp_path / "out", detector=Squares())
    assert long.thresholds["red", "dynamic"]["left"] == 0


def test_order_and_names_of_videos_do_not_matter(mined, videos, tmp_path):
    links = []
    for i, path in enumerate(reversed(videos)):
        links.append(tmp_path / f"{i} other.mp4")
        links[-1].symlink_to(path)
    concepts.mine(links, settings(), tmp_path / "out", detector=Squares())
    one, other = ({p for p in contents(f).items() if ".mp4" in p[0]} for f in (mined.folder, tmp_path / "out"))
    assert sorted(digest for _, digest in one) == sorted(digest for _, digest in other)


def test_other_thresholds_need_no_second_look_and_leave_nothing_behind(videos, tmp_path):
    first, again = Squares(), Squares()
    videos = videos[:3]
    concepts.mine(videos, settings("red", "blue"), tmp_path / "a" / "out", detector=first)
    concepts.mine(videos, settings(), tmp_path / "a" / "out", detector=again)
    assert (first.looked, again.looked) == (3 * FRAMES, 0)
    concepts.mine(videos, settings(), tmp_path / "b" / "out", detector=Squares())
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
import test_mining as t
from pathlib import Path
from vtcav_jax import concepts
from vtcav_jax.concepts import writing
write, left = writing._write, [{files}]
def killed(path, data):
    left[0] -= 1
    if not left[0]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name("." + path.name + ".part").write_bytes(data[:100])
        os.kill(os.getpid(), 9)
    write(path, data)
writing._write = killed
videos = sorted(Path({videos!r}).iterdir())
concepts.mine(videos, t.settings(), {out!r}, detector=t.Squares({frames}))
"""


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_files(mined, videos, tmp_path):
    out = tmp_path / "out"
    for frames, files in ((2 * FRAMES + 5, 0), (0, 30), (0, 0)):
        code = KILLED.format(
            tests=str(Path(__file__).parent), videos=str(videos[0].parent), out=str(out), frames=frames, files=files
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == (-9 if frames or files else 0), done.stderr
        assert (out / "concepts.csv").exists() == (done.returncode == 0)
        if done.returncode:
            with pytest.raises(ValueError, match="not finished"):
                concepts.read_sets(out)
    assert contents(out) == contents(mined.folder)


@pytest.mark.slow
def test_a_corrupt_video_among_fifty_is_counted_and_one_without_boxes_is_named(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(50):
        (folder / f"{i:02d}.mp4").write_bytes(encoded(film(i, () if i == 7 else ("red",), frames=7)))
    (folder / "30.mp4").write_bytes((folder / "30.mp4").read_bytes()[:900])
    report = concepts.mine(folder, settings(random_sets=0, most_per_video=1), tmp_path / "out", detector=Squares())
    assert list(report.failures) == ["30.mp4"] and report.videos == 50
    assert "no box of any concept: 07.mp4" in report.notes
    assert report.counts["red", "static"] == 48 and "30.mp4" in (report.folder / "failures.csv").read_text()
    assert "not read: 30.mp4" in report.text


def test_a_full_disk_is_told_and_the_same_call_goes_on(videos, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_write", full)
        with pytest.raises(ValueError, match="disk of .* is full; free some space and give the same command again"):
            concepts.mine(videos, settings(), tmp_path / "out", detector=Squares())
    again = Squares()
    concepts.mine(videos, settings(), tmp_path / "out", detector=again)
    assert again.looked == 0


def test_unknown_labels_suggest_the_nearest_before_anything_is_watched(videos, tmp_path):
    finder = Squares()
    with pytest.raises(ValueError, match="no label named 'rad' .did you mean red"):
        concepts.mine(videos, settings("rad"), tmp_path / "out", detector=finder)
    with pytest.raises(ValueError, match="no HEAD:ANSWER of the videos named 'a:b'"):
        concepts.mine(videos, settings("x=red@a:b"), tmp_path / "out", detector=finder)
    assert not finder.looked and not (tmp_path / "out").exists()


def test_settings_tell_all_faults_at_once():
    with pytest.raises(ValueError) as error:
        settings("a b", "a_b", "random", "red", "red", frames=0, least_area=2.0, tracker="sort")
    for part in ("same folder", "negative sets", "named twice", "frames", "least_area", "tracker"):
        assert part in str(error.value)
    for text in ("=red", "x=", "x=red@head", "x=red@:a"):
        with pytest.raises(ValueError, match="is no concept"):
            concepts.concept(text)
    assert concepts.concept("key@shape:ring") == concepts.Concept("shape ring", "key", "shape", "ring")


def test_targets_are_refused_with_both_names(videos, tmp_path):
    copy = tmp_path / "target.mp4"
    copy.write_bytes(videos[2].read_bytes())
    with pytest.raises(ValueError, match=r"film2.mp4 = target target.mp4"):
        concepts.mine(videos, settings(), tmp_path / "out", detector=Squares(), targets=[copy])


def test_a_second_source_gives_all_negatives_and_too_few_are_said_plainly(videos, tmp_path):
    other = tmp_path / "other.mp4"
    other.write_bytes(encoded(film(99, ("green",))))
    report = concepts.mine(
        videos[:2], settings(random_sets=50), tmp_path / "out", detector=Squares(), negatives=[other]
    )
    sets = concepts.read_sets(report.folder)
    assert {clip.source for name in sets.negatives for clip in sets.of(name)} == {"other.mp4"}
    assert any("touch no concept" in note for note in report.notes)


def test_a_review_is_honoured_by_reading_and_by_mining(videos, tmp_path):
    out = tmp_path / "out"
    concepts.mine(videos, settings(most=4), out, detector=Squares())
    before = concepts.read_sets(out)
    bad, good = before.of("red", "dynamic")[0], before.of("red", "static")[1]
    rows = [(bad.file, bad.sha256, "reject"), (good.file, good.sha256, "keep")]
    (out / "review.csv").write_text("file,sha256,verdict\n" + "".join(f'"{f}","{s}",{v}\n' for f, s, v in rows))
    after = concepts.read_sets(out)
    assert len(after.of("red", "dynamic")) == len(after.of("red", "jitter")) == 3
    assert {clip.kind for clip in after.rejected} == {"dynamic", *crops.CONTROLS}
    report = concepts.mine(videos, settings(most=4), out, detector=Squares())
    again = concepts.read_sets(out)
    assert len(again.of("red", "dynamic")) == 4 and report.thresholds["red", "dynamic"]["rejected"] == 1
    assert bad.file not in {clip.file for clip in again.clips} and bad.file in {clip.file for clip in again.rejected}
    assert {clip.file for clip in after.of("red", "dynamic")} < {clip.file for clip in again.of("red", "dynamic")}
    assert [clip.review for clip in again.of("red", "static") if clip.file == good.file] == ["keep"]


def test_boxes_of_a_table_do_without_a_detector(mined, videos, tmp_path):
    table = mined.folder / "boxes.csv"
    report = concepts.mine(videos, replace(settings(), boxes=table), tmp_path / "out")
    assert report.thresholds == mined.thresholds
    with pytest.raises(ValueError, match="nobody says where things are"):
        concepts.mine(videos, settings(), tmp_path / "none")
    (tmp_path / "other.csv").write_text("file,frame,label,x1,y1,x2,y2\nelse.mp4,0,red,0,0,4,4\n")
    with pytest.raises(ValueError, match="no box of any of the 6 videos"):
        concepts.mine(videos, replace(settings(), boxes=tmp_path / "other.csv"), tmp_path / "none")
    with pytest.raises(ValueError, match="is not empty and was not mined into"):
        concepts.mine(videos, settings(), tmp_path, detector=Squares())


@pytest.mark.slow
def test_worlds_are_mined_by_their_boxes(tmp_path):
    from vtcav_jax.worlds import export, generator

    export.write_clips(generator.make_clips(generator.World(), 24, 3), tmp_path / "world")
    asked = concepts.concepts(
        ["ring=key@shape:ring", "x=key@shape:x", "left=key@direction:left", "up=key@direction:up"]
    )
    wanted = Mining(asked, frames=5, boxes=tmp_path / "world" / "boxes.csv", random_sets=1)
    report = concepts.mine(tmp_path / "world" / "manifest.csv", wanted, tmp_path / "out")
    sets = concepts.read_sets(report.folder)
    assert report.counts["ring", "static"] and report.counts["left", "dynamic"] == report.counts["left", "jitter"]
    factors = generator.drawn_factors(generator.World(), 3, np.arange(24))
    for clip in sets.of("left", "dynamic"):
        assert factors["direction"][int(clip.source[-6:-4])] == generator.QUESTIONS["direction"].index("left")
        lefts = [box[0] for box in clip.boxes]
        assert np.all(np.diff(lefts) == -2) and {box[2] - box[0] for box in clip.boxes} == {
            7
        }  # never across the border


def test_a_part_of_a_video_is_mined_as_a_part(videos, tmp_path):
    (tmp_path / "parts.csv").write_text(f"path,start,end\n{videos[0]},0.2,0.6\n{videos[0]},0.6,0.9\n")
    report = concepts.mine(tmp_path / "parts.csv", settings(random_sets=0), tmp_path / "out", detector=Squares())
    clips = concepts.read_sets(tmp_path / "out").of("red")
    assert report.frames == 17 or report.frames == 18
    assert min(f for clip in clips for f in clip.frames) >= 5 and max(f for clip in clips for f in clip.frames) < 23


def test_mining_says_which_videos_count_once(videos, tmp_path):
    (tmp_path / "copy.mp4").write_bytes(videos[0].read_bytes())
    report = concepts.mine(
        [videos[0], tmp_path / "copy.mp4"], settings(random_sets=0), tmp_path / "out", detector=Squares()
    )
    assert any("is the same video as" in note for note in report.notes)
    assert mining.STEPS[-1] == "left" and report.counts["red", "static"] == 2


def test_clips_that_are_equal_to_the_pixel_are_kept_once(tmp_path):
    flat = np.full((FRAMES, *SIZE, 3), 90, np.uint8)
    flat[:, 0, 0] = 200
    for i in range(2):
        for t in range(FRAMES):
            flat[t, 5:15, 2 + t : 12 + t] = COLOURS["red"]
        (tmp_path / f"{i}.mp4").write_bytes(encoded(np.concatenate([flat, flat[:i]])))
    report = concepts.mine(sorted(tmp_path.glob("*.mp4")), settings(), tmp_path / "out", detector=Squares())
    assert any("equal another to the pixel" in note for note in report.notes)
    sets = concepts.read_sets(report.folder)
    assert len({clip.sha256 for clip in sets.clips if not clip.twin}) == len([c for c in sets.clips if not c.twin])
    files = {str(path.relative_to(report.folder)) for path in report.folder.rglob("*.mp4")}
    assert files == {clip.file for clip in sets.clips}
