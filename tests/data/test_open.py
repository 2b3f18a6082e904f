"""`open_source` for each kind of source, and its errors."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_decode import audio_only, number_in, write
from vtcav_jax import data, worlds
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, VideoError, folder, open_source
from vtcav_jax.data.source import disambiguate
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.data.world_source import WorldSource

SMALL = ClipSpec(frames=4, size=32, interval=2)
WORLD = ClipSpec(frames=8, size=32)
KEPT = SamplingConfig(normalise=False)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Write a video of 24 numbered frames at 25 per second."""
    return write(tmp_path_factory.mktemp("film") / "film.mp4", "libx264", total=24)


def place(film: Path, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(film)


def names(source):
    return [item.name for item in source.items]


def numbers(clip):
    return [number_in(picture) for picture in clip.video[0]]


def test_a_folder_of_class_folders(film, tmp_path):
    place(film, *(tmp_path / name for name in ("b/2.mp4", "b/1.mp4", "a/deep/er/x.MP4", "a/y", "b/.hidden.mp4")))
    for name in ("list.csv", "b/notes.txt", "a/thumb.jpg", "README", ".cache/z.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("beside")
    (tmp_path / "no videos").mkdir()
    source = open_source(tmp_path)
    assert source.heads == {"label": ("a", "b")} and source.spec == str(tmp_path)
    assert names(source) == ["a/deep/er/x.MP4", "a/y", "b/1.mp4", "b/2.mp4"]
    assert [item.labels for item in source.items] == [{"label": 0}] * 2 + [{"label": 1}] * 2
    direct = data.read_clip(film, SMALL)
    for i in range(4):
        clip = source.read(i, SMALL, SamplingConfig())
        np.testing.assert_array_equal(clip.video, direct.video)
        assert clip.identity == direct.identity


def test_a_flat_folder_and_a_single_file_have_no_labels(film, tmp_path):
    place(film, tmp_path / "2.mp4", tmp_path / "10.mkv")
    source = open_source(f"{tmp_path}/")
    assert source.heads == {} and names(source) == ["10.mkv", "2.mp4"] and source.items[0].labels == {}
    single = open_source(tmp_path / "2.mp4")
    assert (
        names(single) == ["2.mp4"]
        and single.read(0, SMALL, SamplingConfig()).identity == source.read(0, SMALL, SamplingConfig()).identity
    )


def test_names_are_unique_and_on_one_line(film, tmp_path):
    odd = ["-rf.mp4", "a b.mp4", "a\nb.mp4", "a\\nb.mp4", "colour:\x1b[31m.mp4", "ü%s{}'\".mp4", "concat:x.mp4"]
    odd.append(os.fsdecode(b"\xff.mp4"))
    place(film, *(tmp_path / "100 %" / name for name in odd))
    source = open_source(tmp_path)
    assert len(set(names(source))) == len(odd)
    for i, name in enumerate(names(source)):
        assert name.isprintable() and "\n" not in name
        assert source.read(i, SMALL, SamplingConfig()).video.shape == (1, *SMALL.shape), name


def test_link_cycles_and_unreadable_folders_are_handled(film, tmp_path, monkeypatch):
    place(film, tmp_path / "a" / "1.mp4", tmp_path / "b" / "2.mp4")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "self").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "b" / "closed").mkdir()
    listed = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(folder.os, "scandir", scandir)
    source = open_source(tmp_path)
    assert {"a/1.mp4", "b/2.mp4", "b/gone.mp4", "b/closed"} <= set(names(source)) and len(source.items) < 10
    for name, reason in (("b/closed", "permissions"), ("b/gone.mp4", "there is no file")):
        with pytest.raises(VideoError, match=reason):
            source.read(names(source).index(name), SMALL, SamplingConfig())


def test_bad_entries_beside_class_folders_are_items_that_cannot_be_read(film, tmp_path, monkeypatch):
    place(film, tmp_path / "a" / "1.mp4", tmp_path / "b" / "2.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "c").mkdir()
    listed = os.scandir

    def scandir(path):
        if Path(path).name == "c":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(folder.os, "scandir", scandir)
    source = open_source(tmp_path)
    assert source.heads == {"label": ("a", "b", "c")}
    labels = dict(zip(names(source), (item.labels for item in source.items)))
    assert labels == {
        **{"a/1.mp4": {"label": 0}, "b/2.mp4": {"label": 1}, "c": {"label": 2}},
        **{"gone.mp4": {}, "loop.mp4": {}},
    }
    for name, reason in (("c", "permissions"), ("loop.mp4", "there is no file"), ("gone.mp4", "there is no file")):
        with pytest.raises(VideoError, match=reason):
            source.read(names(source).index(name), SMALL, SamplingConfig())
    with pytest.raises(ValueError, match=r"/c cannot be listed; check its permissions"):
        open_source(tmp_path / "c")


@pytest.mark.slow
def test_many_equal_rows_of_a_manifest_have_different_names(film, tmp_path):
    place(film, tmp_path / "film.mp4")
    count = 100_000
    (tmp_path / "many.csv").write_text("path,label\n" + "film.mp4,a\n" * count)
    items = open_source(tmp_path / "many.csv").items  # quadratic time would be more than ten minutes
    assert [items[i].name for i in (0, 1, count - 1)] == ["film.mp4", "film.mp4 (2)", f"film.mp4 ({count})"]
    assert disambiguate(["a", "a (2)", "a", "a", "a (2)"]) == ["a", "a (2)", "a (3)", "a (4)", "a (2) (2)"]


def test_an_invalid_source_lists_the_valid_formats(film, tmp_path):
    with pytest.raises(ValueError, match="no video in"):
        open_source(tmp_path)
    place(film, tmp_path / "a" / "1.mp4", tmp_path / "loose.mp4")
    with pytest.raises(ValueError, match=r"1 videos without a class \(loose.mp4\)"):
        open_source(tmp_path)
    for spec, reason in {
        "nowhere": "there is no file or folder nowhere; a source is one of FOLDER, FILE, FILE.csv, tfds:NAME:SPLIT",
        "wrlds:small": "no kind of source named 'wrlds' .did you mean worlds",
        "worlds:smal": "no world named 'smal' .did you mean small",
        "worlds:small:0": "such as worlds:small:100",
        "worlds:small:x": "such as worlds:small:100",
        "worlds:small:1:2:3": "such as worlds:small:100",
        "worlds:small:9:1?with=key:0.5": "such as .without=distractor:0.2, got .with=key",
        "worlds:small:9:1?without=key:2": "such as .without=distractor:0.2",
        "worlds:small:9:1?without=keys:0.5": "no entity named 'keys' .did you mean key",
        "tfds:ucf101": "expected tfds:NAME:SPLIT",
        f"tfds:ucf101:train?data_dir={tmp_path}": "tfds build ucf101 --file_format=array_record",
    }.items():
        with pytest.raises(ValueError, match=reason):
            open_source(spec)


def manifest(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_folder_of_tar_files_says_how_they_are_named(tmp_path):
    for name in ("b.tar", "a.tar", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match=r"no video in .*; for tar files of videos pass their names, such as .*/a\.tar or"
    ):
        open_source(f"{tmp_path}/")


def test_a_manifest_has_parts_labels_and_boxes(film, tmp_path):
    place(film, tmp_path / "sub" / "film.mp4")
    text = """path,label,label:speed,start,end,boxes
sub/film.mp4,walk,slow,,,
"sub/film.mp4",run,,0.2,0.6,boxes/film.csv

sub/film.mp4,"a, b",fast,0.4,,
sub/film.mp4,,fast,0.4,,
"""
    source = open_source(manifest(tmp_path, text, "utf-8-sig"))
    assert source.heads == {"label": ("a, b", "run", "walk"), "speed": ("fast", "slow")}
    assert [item.labels for item in source.items] == [
        {"label": 2, "speed": 1},
        {"label": 1},
        {"label": 0, "speed": 0},
        {"speed": 0},
    ]
    assert names(source)[1:] == ["sub/film.mp4 [0.2-0.6 s]", "sub/film.mp4 [0.4- s]", "sub/film.mp4 [0.4- s] (2)"]
    assert source.items[1].boxes == tmp_path / "boxes" / "film.csv" and source.items[0].boxes is None
    # The part has frames 5 to 14, the clip needs 8 of them; the reference's centre is one of 3 possible starts.
    assert numbers(source.read(1, SMALL, KEPT)) == [6, 8, 10, 12]
    assert numbers(source.read(2, SMALL, KEPT)) == [13, 15, 17, 19]
    assert source.read(1, SMALL, KEPT).identity == data.read_clip(film, SMALL, KEPT, start=6).identity


def test_parts_of_a_file_and_files_with_the_same_source_come_from_one_video(film, tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        place(film, tmp_path / name)
    rows = "a.mp4,0,0.4,\na.mp4,0.4,0.8,\nb.mp4,,,match 1\nc.mp4,,,match 1\n"
    source = open_source(manifest(tmp_path, f"path,start,end,source\n{rows}"))
    assert [item.source_video for item in source.items] == ["a.mp4", "a.mp4", "match 1", "match 1"]
    assert [item.source_video for item in open_source(tmp_path).items] == ["a.mp4", "b.mp4", "c.mp4"]


def test_a_part_is_padded_within_itself(film, tmp_path):
    place(film, tmp_path / "film.mp4")
    source = open_source(manifest(tmp_path, "path,start,end\nfilm.mp4,0.2,0.36\nfilm.mp4,0.9,5\nfilm.mp4,3,4\n"))
    clip = source.read(0, SMALL, KEPT)
    assert clip.padded and numbers(clip) == [5, 7, 5, 7]  # from frames 5 to 8
    assert set(numbers(source.read(1, SMALL, KEPT))) == {22}  # from frames 22 and 23, every second frame
    with pytest.raises(VideoError, match=r"lasts 0.960 s; it has no frames from 3.0 s on"):
        source.read(2, SMALL, KEPT)
    by_clock = source.read(0, SMALL, SamplingConfig(normalise=False, interval_seconds=0.04))
    assert numbers(by_clock) == [5, 6, 7, 8] and not by_clock.padded


def test_random_starts_depend_on_seed_and_item(film, tmp_path):
    place(film, *(tmp_path / f"{i}.mp4" for i in range(30)))
    source = open_source(tmp_path)
    starts = [int(source.read(i, SMALL, SamplingConfig(random_start=7)).frames[0, 0]) for i in range(30)]
    assert starts == [int(source.read(i, SMALL, SamplingConfig(random_start=7)).frames[0, 0]) for i in range(30)]
    assert min(starts) >= 0 and max(starts) <= 16 and len(set(starts)) > 8  # 17 possible starts of a clip of 8 frames
    assert starts != [int(source.read(i, SMALL, SamplingConfig(random_start=8)).frames[0, 0]) for i in range(30)]
    with pytest.raises(ValueError, match="omit one"):
        source.read(0, SMALL, SamplingConfig(random_start=7, start=3))


def test_one_error_lists_all_faulty_rows_of_a_manifest(film, tmp_path):
    place(film, tmp_path / "film.mp4")
    rows = ["film.mp4,a,1,2", ",a,,", 'film.mp4,"two\nlines",x,', "film.mp4,a,2,1", "film.mp4,a,-1,", "film.mp4"]
    text = "\n".join(["path,label,start,end", *rows])
    with pytest.raises(ValueError, match="5 faulty rows of 6") as caught:
        open_source(manifest(tmp_path, text))
    message = str(caught.value).splitlines()
    assert message[0].startswith("manifest.csv has 5 faulty rows of 6")
    assert [line.split(":")[0].strip() for line in message[1:]] == ["line 3", "line 5", "line 6", "line 7", "line 8"]
    for line, reason in zip(
        message[1:], ("path is empty", "'x' is not a number", "after start 2", "0 s or", "1 cells for 4")
    ):
        assert reason in line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,lable,strat\nx,1,2\n", r"no column named 'lable' \(did you mean label.*'strat' \(did you mean start"),
        ("path;label\nx;1\n", "no column named 'path;label'"),
        ("file,label\nx,1\n", "no column named 'file'"),
        ("label\n1\n", "no column path"),
        ("path,label,label\nx,1,2\n", "the column label twice"),
        ("path\n", "has no rows"),
        ("", "no column path"),
        ('path,label\n"x,1\n', "not a CSV file"),
        ("path\nmissing.mp4\n", "none of the 1 videos in manifest.csv exists"),
        ("path,end\nx,inf\n", "end inf must be"),
        ("path,end\nx,nan\n", "end nan must be"),
    ],
)
def test_an_invalid_manifest_is_an_error(tmp_path, text, reason):
    with pytest.raises(ValueError, match=reason):
        open_source(manifest(tmp_path, text))


def test_a_manifest_in_another_encoding(tmp_path):
    with pytest.raises(ValueError, match="save it as UTF-8"):
        open_source(manifest(tmp_path, "path\nmüll.mp4\n", "latin-1"))


def test_worlds_are_read_as_rendered():
    source = open_source("worlds:small:40:3")
    clips = worlds.make_clips("small", 40, 3)
    assert len(source.items) == 40 and source.heads == worlds.GLYPH_QUESTIONS
    for i in (0, 39, 7):
        assert source.items[i].labels == {question: labels[i] for question, labels in clips.labels.items()}
        np.testing.assert_array_equal(source.read(i, WORLD, KEPT).video[0], np.rint(255 * clips.video[i]))
    assert source.items[-1].name == source.items[39].name and len(source.items[3:5]) == 2
    with pytest.raises(IndexError):
        source.items[40]
    assert len(open_source("worlds:large").items) == 1000
    assert source.read(0, SMALL, KEPT).frames.tolist() == [[0, 2, 4, 6]]
    identities = {source.read(i, WORLD, KEPT).identity for i in range(4)}
    assert len(identities | {open_source("worlds:small:4:4").read(0, WORLD, KEPT).identity}) == 5


def test_exported_worlds_are_read_like_real_videos(tmp_path):
    clips = worlds.make_clips("small", 12, 5)
    write_clips(clips, tmp_path)
    world, written = open_source("worlds:small:12:5"), open_source(tmp_path / "manifest.csv")
    assert set(written.heads) == set(world.heads)
    for i in range(12):
        ours, theirs = world.read(i, WORLD, KEPT), written.read(i, WORLD, KEPT)
        assert np.abs(ours.video.astype(int) - theirs.video).max() <= 2
        np.testing.assert_array_equal(ours.frames, theirs.frames)
        np.testing.assert_allclose(ours.times, theirs.times, atol=1e-6)
        for head, label in world.items[i].labels.items():
            assert written.heads[head][written.items[i].labels[head]] == world.heads[head][label]


def test_the_identity_of_a_source_depends_on_clips_and_labels(film, tmp_path):
    place(film, tmp_path / "1" / "a" / "x.mp4", tmp_path / "2" / "a" / "x.mp4", tmp_path / "3" / "b" / "x.mp4")
    first, second, third = (open_source(tmp_path / name) for name in "123")
    assert first.identity == second.identity != third.identity
    identities = {open_source(f"worlds:small:{n}").identity for n in ("10", "20", "10:1")}
    assert len(identities) == 3 and open_source("worlds:small:10:0").identity in identities


def test_broken_files_give_the_reason(film, tmp_path):
    place(film, tmp_path / "good.mp4")
    content = film.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    audio_only(tmp_path / "audio.mp4")
    source = open_source(tmp_path)
    assert names(source) == ["audio.mp4", "cut.mp4", "good.mp4"]
    for i in (0, 1):
        with pytest.raises(VideoError, match=names(source)[i]):
            source.read(i, SMALL, SamplingConfig())


@pytest.mark.slow
def test_sources_are_picklable_and_import_little(film, tmp_path):
    place(film, tmp_path / "a" / "x.mp4")
    path = manifest(tmp_path, "path\na/x.mp4\n")
    for spec in (tmp_path, tmp_path / "a" / "x.mp4", path, "worlds:small:3"):
        source = open_source(spec)
        assert isinstance(source, data.Source)
        again = pickle.loads(pickle.dumps(source))
        assert again == source and again.read(0, SMALL, KEPT).identity == source.read(0, SMALL, KEPT).identity
        program = (
            "import sys; from vtcav_jax.clip_spec import ClipSpec\n"
            "from vtcav_jax.data import SamplingConfig, open_source\n"
            "open_source(sys.argv[1]).read(0, ClipSpec(frames=4, size=32), SamplingConfig())\n"
            "print([name for name in ('jax', 'jaxlib', 'torch', 'tensorflow') if name in sys.modules])"
        )
        child = subprocess.run([sys.executable, "-c", program, str(spec)], capture_output=True, text=True, check=True)
        assert child.stdout == "[]\n"


def test_removal_from_a_share_of_clips_keeps_the_defined_labels():
    lacking_some, whole = open_source("worlds:events:60:3?without=distractor:0.3"), open_source("worlds:events:60:3")
    assert isinstance(lacking_some, WorldSource)
    assert lacking_some.identity != whole.identity and len(lacking_some.items) == 60
    clips, geometry = worlds.make_clips("events", 60, 3), WORLD
    gone = worlds.remove(clips, "distractor")
    lacking = [i for i, item in enumerate(lacking_some.items) if "other" not in item.labels]
    assert 8 <= len(lacking) <= 28
    np.testing.assert_array_equal(lacking_some.render(lacking[0]).masks["dis"], gone[lacking[:1]].masks["dis"])
    with pytest.raises(ValueError, match="clips with and without an entity"):
        lacking_some.render(0, 60)
    for i, (item, intact) in enumerate(zip(lacking_some.items, whole.items, strict=True)):
        rendered = (gone if i in lacking else clips).video[i]
        np.testing.assert_array_equal(
            lacking_some.read(i, geometry, KEPT).video[0], np.rint(255 * rendered).astype(np.uint8)
        )
        shape = clips.factors["shape"][i]
        left = dict(either=int(shape == 1), both=int(shape != 3)) if i in lacking else {"other": intact.labels["other"]}
        assert item.labels == {
            name: left.get(name, value) for name, value in intact.labels.items() if name in item.labels
        }
        assert set(intact.labels) - set(item.labels) <= {"other"}
