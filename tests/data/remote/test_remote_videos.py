"""Videos at addresses: the same clips as from files, of which only the needed bytes are transferred."""

import csv
import dataclasses
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="addresses need fsspec and aiohttp (pip install 'vtcav-jax[urls]')")
import fsspec

from tests.data.test_decode import FORMATS, write
from tests.support.cli_runner import run_cli
from tests.support.range_server import RangeServer, serve
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, failure_table, open_source, probe, read_clip, stream, write_failures
from vtcav_jax.data.remote import object_store
from vtcav_jax.data.remote.object_store import ObjectError
from vtcav_jax.data.remote.stored_video import StoredVideo
from vtcav_jax.data.source import is_unchanged, item_content

SMALL = ClipSpec(frames=4, size=32, interval=2)
SAMPLING = SamplingConfig(normalise=False)


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """Write a video of several megabytes whose table of frames is at its end."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write(path, "libx264", total=240, size=(240, 320), options={"crf": "10", "preset": "ultrafast"})


@pytest.fixture(scope="module")
def short_videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    return [
        write(folder / f"{first}.mp4", "libx264", total=12, numbers=lambda i, first=first: first + i).read_bytes()
        for first in (10, 50)
    ]


@pytest.fixture
def server(monkeypatch) -> Iterator[RangeServer]:
    monkeypatch.setattr(object_store, "RETRY_PAUSE", 0.01)
    with serve() as state:
        yield state


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    file_system = fsspec.filesystem("memory")
    file_system.store.clear()
    yield file_system
    file_system.store.clear()


def clip_of(source, i=0):
    return source.read(i, SMALL, SAMPLING)


def test_a_clip_of_a_long_video_needs_a_part_of_its_bytes(server, long_video):
    server.files["long.mp4"] = long_video.read_bytes()
    source = open_source(server.url("long.mp4"))
    clip, direct = clip_of(source), read_clip(long_video, SMALL, SAMPLING)
    np.testing.assert_array_equal(clip.video, direct.video)
    np.testing.assert_array_equal(clip.frames, direct.frames)
    assert server.sent < 0.5 * long_video.stat().st_size
    before = server.sent
    np.testing.assert_array_equal(clip_of(source).video, direct.video)
    assert server.sent - before < 100  # the same bytes are not transferred again
    assert item_content(source, 0) == clip.content != direct.content
    assert server.sent - before < 200


@pytest.mark.parametrize("name", FORMATS)
def test_the_index_equals_that_of_the_file(server, tmp_path, name):
    path = write(tmp_path / name, **FORMATS[name])
    server.files[name] = path.read_bytes()
    index, direct = probe(StoredVideo(server.url(name)).resolve()), probe(path)
    for field in dataclasses.fields(index):
        if field.name != "path":
            np.testing.assert_array_equal(getattr(index, field.name), getattr(direct, field.name), err_msg=field.name)


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "libaom-av1", "mpeg4", "mjpeg"])
def test_tables_of_other_codecs_say_what_their_packets_do(server, tmp_path, codec):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    try:
        path = write(tmp_path / "video.mp4", codec, total=30, size=(64, 64), pixels=pixels)
    except ValueError:
        pytest.skip(f"this FFmpeg does not encode {codec}")
    server.files["video.mp4"] = path.read_bytes()
    index, direct = probe(StoredVideo(server.url("video.mp4")).resolve()), probe(path)
    assert (index.timestamps, index.key_timestamps, index.duration) == (
        *(direct.timestamps, direct.key_timestamps, direct.duration),
    )


def test_rotated_edited_and_fragmented_files_have_the_same_index(server, tmp_path):
    rotated = write(tmp_path / "rotated.mp4", "libx264", rotation=90)
    fragments = write(tmp_path / "parts.mp4", "libx264", container={"movflags": "frag_keyframe+empty_moov"})
    for path in (rotated, fragments):
        server.files[path.name] = path.read_bytes()
        index, direct = probe(StoredVideo(server.url(path.name)).resolve()), probe(path)
        assert (index.timestamps, index.key_timestamps, index.rotation, index.width) == (
            *(direct.timestamps, direct.key_timestamps, direct.rotation, direct.width),
        )


@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
def test_a_truncated_object_is_reported_as_one(server, tmp_path, part):
    data = write(tmp_path / "whole.mp4", "libx264", container={"movflags": "faststart"}).read_bytes()
    server.files["cut.mp4"] = data[: int(len(data) * part)]
    (read,) = stream(open_source(server.url("cut.mp4")), SMALL, SAMPLING, num_workers=0)
    assert read.failure and "cut.mp4" in read.failure and "truncated" in read.failure


def test_a_server_without_ranges_sends_everything_once(server, long_video):
    server.files["long.mp4"], server.has_ranges = long_video.read_bytes(), False
    source = open_source(server.url("long.mp4"))
    clip = clip_of(source)
    np.testing.assert_array_equal(clip.video, read_clip(long_video, SMALL, SAMPLING).video)
    downloads = [byte_range for _, _, byte_range in server.requests if byte_range is None]
    assert len(downloads) == 1
    assert item_content(source, 0) == clip.content


@pytest.mark.parametrize("tags", ["strong", "weak", "none"])
@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_replaced_object_never_gives_old_results(server, short_videos, tags, has_ranges):
    old, new = short_videos
    size = max(map(len, short_videos))
    old, new = (video + b"\0" * (size - len(video)) for video in short_videos)  # of one size, changed in one second
    server.tags, server.has_ranges, server.changed = tags, has_ranges, time.time()
    server.files["v.mp4"] = old
    source = open_source(server.url("v.mp4"))
    first = clip_of(source)
    assert is_unchanged(source, 0, first.content)
    server.changed += 0 if tags == "none" else 2
    server.files["v.mp4"] = new
    assert not is_unchanged(source, 0, first.content)
    second = clip_of(source)
    assert second.content != first.content and (second.video != first.video).any()
    del server.files["v.mp4"]
    assert not is_unchanged(source, 0, second.content)


def test_a_tag_of_an_object_that_has_just_changed_is_not_trusted(server, short_videos):
    server.files["v.mp4"] = short_videos[0]
    settled = StoredVideo(server.url("v.mp4")).resolve()
    server.changed = time.time()
    fresh = StoredVideo(server.url("v.mp4")).resolve()
    assert settled.content().startswith("object:") and settled.reads_ranges
    assert len(fresh.content()) == 64 and not fresh.reads_ranges


def test_an_object_that_is_replaced_while_it_is_read_is_a_failure(server, long_video, monkeypatch):
    server.files["long.mp4"] = long_video.read_bytes()
    source = open_source(server.url("long.mp4"))
    read_range = object_store.ObjectStore.read_range

    def replace_and_read(self, address, start, stop):
        server.files["long.mp4"] = long_video.read_bytes()[:-1] + b"\7"
        return read_range(self, address, start, stop)

    monkeypatch.setattr(object_store.ObjectStore, "read_range", replace_and_read)
    with pytest.raises(ObjectError, match=r"long\.mp4 was replaced while it was read; run again"):
        clip_of(source)


def test_manifests_at_addresses(server, short_videos):
    server.files |= {"sets/a b #1.mp4": short_videos[0], "sets/deep/100%?.mp4": short_videos[1]}
    rows = ["path,label,start,end", "a b #1.mp4,left,,", "deep/100%?.mp4,right,0.1,0.4", "gone.mp4,left,,"]
    server.files["sets/list.csv"] = "\n".join(rows).encode()
    source = open_source(server.url("sets/list.csv?version=2"))
    assert source.heads == {"label": ("left", "right")}
    assert [item.name for item in source.items] == ["a b #1.mp4", "deep/100%?.mp4 [0.1-0.4 s]", "gone.mp4"]
    assert [item.recording for item in source.items] == ["", "", ""]
    reads = list(stream(source, SMALL, SAMPLING, num_workers=1))
    assert [read.failure is None for read in reads] == [True, True, False]
    assert "gone.mp4 answered 404 Not Found; check the address" in str(reads[2].failure)
    assert all(target.startswith("/sets/") for _, target, _ in server.requests)


def test_a_local_manifest_with_addresses_and_files(server, short_videos, tmp_path):
    (tmp_path / "here.mp4").write_bytes(short_videos[0])
    server.files["there.mp4"] = short_videos[1]
    signed = server.url("there.mp4?X-Amz-Signature=abc")
    (tmp_path / "list.csv").write_text(f"path,label\nhere.mp4,a\n{signed},b\n")
    source = open_source(tmp_path / "list.csv")
    assert [item.name for item in source.items] == ["here.mp4", server.url("there.mp4")]
    here, there = (clip_of(source, i) for i in range(2))
    assert here.video.shape == there.video.shape and here.identity != there.identity
    (tmp_path / "list.csv").write_text(f"path,label\nhere.mp4,a\n{signed.replace('abc', 'renewed')},b\n")
    renewed = open_source(tmp_path / "list.csv")
    assert renewed.identity == source.identity and item_content(renewed, 1) == there.content
    del server.files["there.mp4"]
    reads = list(stream(source, SMALL, SAMPLING, num_workers=0))
    write_failures(tmp_path / "failures.csv", reads)
    for text in (failure_table(reads), (tmp_path / "failures.csv").read_text()):
        assert "there.mp4" in text and "404" in text and "abc" not in text


def test_faulty_manifests_at_addresses(server, short_videos):
    server.files["v.mp4"] = short_videos[0]
    for rows, reason in {
        "path\nfile:///etc/hosts\nhttp://a:b@h/x.mp4\n": r"2 faulty rows of 2(?s:.*)local file(?s:.*)a password",
        "path\nno.mp4\n": r"none of the first 5 of 1 videos in list\.csv can be reached, such as http.*/no\.mp4",
        "path,boxes\nv.mp4,b.csv\n": "names files of boxes, which only a local manifest can",
        "path\nnone://x/y.mp4\n": "no store is named none://",
    }.items():
        server.files["list.csv"] = rows.encode()
        with pytest.raises(ValueError, match=reason):
            open_source(server.url("list.csv"))
    with pytest.raises(ValueError, match=r"/missing\.csv answered 404 Not Found"):
        open_source(server.url("missing.csv"))


def test_a_row_that_no_store_reads_is_one_failure(short_videos, tmp_path):
    (tmp_path / "here.mp4").write_bytes(short_videos[0])
    rows = ["here.mp4", "ftp://h/x.mp4", "none://h/y.mp4", "https://[bad/z.mp4", "zip://a.mp4::https://h/x.zip"]
    (tmp_path / "list.csv").write_text("\n".join(["path", *rows]))
    reads = list(stream(open_source(tmp_path / "list.csv"), SMALL, SAMPLING, num_workers=0))
    assert [read.item.name for read in reads] == rows
    reasons = (None, "needs host", "no store is named none", "no valid address", "within another")
    for read, reason in zip(reads, reasons):
        assert reason in str(read.failure) if reason else read.failure is None
    table = failure_table(reads)
    assert table.startswith("4 files could not be read:") and all(reason in table for reason in reasons if reason)


def test_redirects_queries_and_spaces(server, short_videos):
    server.files["real name.mp4"] = short_videos[0]
    server.redirects["old.mp4"] = "/real%20name.mp4?from=old"
    for target in ("old.mp4", "real name.mp4", "real%20name.mp4?size=big&x=a b"):
        source = open_source(server.url(target))
        assert clip_of(source).video.shape == (1, *SMALL.shape)
        assert source.items[0].name in ("old.mp4", "real name.mp4")


def test_temporary_failures_are_retried_a_few_times(server, short_videos):
    server.files["v.mp4"] = short_videos[0]
    server.failures["v.mp4"] = 2
    source = open_source(server.url("v.mp4"))
    server.failures["v.mp4"] = 99
    (read,) = stream(source, SMALL, SAMPLING, num_workers=0)
    assert read.failure and "v.mp4 answered 503 Service Unavailable; try again later" in read.failure
    assert server.failures["v.mp4"] == 99 - object_store.ATTEMPTS


def test_a_slow_answer_is_counted_and_others_are_read(server, short_videos, monkeypatch):
    monkeypatch.setattr(object_store, "READ_TIMEOUT", 0.2)
    object_store.open_store.cache_clear()
    try:
        server.files |= {f"{name}.mp4": short_videos[0] for name in "abc"}
        server.files["list.csv"] = b"path\na.mp4\nb.mp4\nc.mp4\n"
        source = open_source(server.url("list.csv"))
        server.delays["b.mp4"] = 1.0
        reads = list(stream(source, SMALL, SAMPLING, num_workers=0))
    finally:
        object_store.open_store.cache_clear()
    assert [read.failure is None for read in reads] == [True, False, True]
    assert "b.mp4 did not answer in time, 3 times" in str(reads[1].failure)


def test_a_server_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(object_store, "RETRY_PAUSE", 0.01)
    with serve() as state:
        address = state.url("v.mp4")
    with pytest.raises(ValueError, match=r"/v\.mp4 cannot be read \(Client.*\); check the address"):
        open_source(address)


def test_a_list_of_files_opens_nothing(server, short_videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.mp4").write_bytes(short_videos[0])
    server.files["secret.mp4"] = short_videos[0]
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n{server.url('secret.mp4')}\n#EXT-X-ENDLIST\n"
    for text in ("ffconcat version 1.0\nfile secret.mp4\n", playlist):
        server.files["list.mp4"] = text.encode()
        (read,) = stream(open_source(server.url("list.mp4")), SMALL, SAMPLING, num_workers=0)
        assert read.failure and "list.mp4 is not a video that FFmpeg reads" in read.failure
    assert not any("secret" in target for _, target, _ in server.requests)


def test_empty_objects_and_other_files_are_reported(server):
    server.files |= {"empty.mp4": b"", "text.mp4": b"a letter\n" * 1000}
    for name, reason in (("empty.mp4", "is empty; expected a video"), ("text.mp4", "is not a video")):
        (read,) = stream(open_source(server.url(name)), SMALL, SAMPLING, num_workers=0)
        assert read.failure and reason in read.failure


def test_sources_are_small_and_clips_do_not_depend_on_workers(server, short_videos):
    server.files |= {f"{i}.mp4": short_videos[i % 2] for i in range(6)} | {"3.mp4": b"broken"}
    server.files["list.csv"] = b"path\n" + b"".join(b"%d.mp4\n" % i for i in range(6))
    source = open_source(server.url("list.csv"))
    assert len(pickle.dumps(source)) < 3000 and pickle.loads(pickle.dumps(source)) == source
    results = [
        [(r.failure, r.clip and r.clip.identity) for r in stream(source, SMALL, SAMPLING, num_workers=n)]
        for n in (0, 2)
    ]
    assert results[0] == results[1] and sum(failure is not None for failure, _ in results[0]) == 1


def test_folders_of_a_store(memory, short_videos):
    for path in ("set/left/1.mp4", "set/left/deep/2.mp4", "set/right/1.mp4"):
        memory.pipe_file(f"/{path}", short_videos[0])
    for path in ("set/readme", "set/left/notes.txt", "set/right/.hidden.mp4"):
        memory.pipe_file(f"/{path}", b"beside")
    source = open_source("memory://set/")
    assert source.heads == {"label": ("left", "right")}
    assert [item.name for item in source.items] == ["left/1.mp4", "left/deep/2.mp4", "right/1.mp4"]
    assert [item.labels["label"] for item in source.items] == [0, 0, 1]
    assert clip_of(source, 1).video.shape == (1, *SMALL.shape)
    assert open_source("memory://set/right").heads == {}
    memory.pipe_file("/set/loose.mp4", b"x")
    with pytest.raises(ValueError, match=r"1 videos without a class \(loose\.mp4\)"):
        open_source("memory://set")
    with pytest.raises(ValueError, match="there is no object memory://set/left/deep/none; check the address"):
        open_source("memory://set/left/deep/none")


def test_a_replaced_object_of_a_store_never_gives_old_results(memory, short_videos):
    size = max(map(len, short_videos))
    old, new = (video + b"\0" * (size - len(video)) for video in short_videos)
    memory.pipe_file("/v.mp4", old)
    source = open_source("memory://v.mp4")
    first = clip_of(source)
    memory.pipe_file("/v.mp4", new)
    assert not is_unchanged(source, 0, first.content)
    assert clip_of(source).content == item_content(source, 0) != first.content


def test_a_folder_of_tar_files_of_a_store_says_how_they_are_named(memory):
    memory.pipe_file("/set/a.tar", b"tar")
    with pytest.raises(ValueError, match=r"no video in .*pass their names, such as memory://set/a\.tar or"):
        open_source("memory://set")


def test_folders_of_web_servers_and_unknown_stores_are_refused(server):
    with pytest.raises(
        ValueError, match="folder of a web server, which cannot be listed; pass the address of a manifest"
    ):
        open_source(server.url("folder/"))
    with pytest.raises(ValueError, match="no store is named none://; expected https://, gs://, s3://"):
        open_source("none://x/y.mp4")


def test_missing_packages_are_named_with_their_extra(tmp_path):
    code = """
import sys
sys.modules |= dict.fromkeys(sys.argv[2:])
from vtcav_jax.data import open_source
try:
    open_source(sys.argv[1])
except ValueError as error:
    print(error)
"""
    for address, *missing in (("https://h/v.mp4", "aiohttp"), ("s3://b/v.mp4", "s3fs"), ("gs://b/v.mp4", "fsspec")):
        run = subprocess.run(
            [sys.executable, "-c", code, address, *missing], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip().endswith("pip install 'vtcav-jax[urls]'"), run.stdout


@pytest.mark.slow
def test_a_command_continues_with_replaced_and_missing_objects(server, short_videos, tmp_path):
    server.files |= {"a.mp4": short_videos[0], "b.mp4": short_videos[0], "c.mp4": short_videos[0]}
    server.files["list.csv"] = b"path\na.mp4\nb.mp4\nc.mp4\ngone.mp4\n"
    command = ["attribute", "--model=worlds_cnn", f"--videos={server.url('list.csv')}", "--methods=gradient_x_input"]
    command += ["--targets=direction:left", f"--run={tmp_path / 'run'}"]

    def maps() -> dict[str, str]:
        with (tmp_path / "run" / "maps.csv").open(newline="") as file:
            return {row["clip"]: row["map_sum"] for row in csv.DictReader(file)}

    code, _, err = run_cli(*command)
    assert code == 0, err
    assert "gone.mp4," in (tmp_path / "run" / "attribute_failures.csv").read_text()
    first = maps()
    server.files["b.mp4"] = short_videos[1]
    del server.files["c.mp4"]
    code, _, err = run_cli(*command)
    assert code == 0, err
    second = maps()
    assert first["a.mp4"] == second["a.mp4"] and first["b.mp4"] != second["b.mp4"]
    assert set(first) == {"a.mp4", "b.mp4", "c.mp4"} and set(second) == {"a.mp4", "b.mp4"}


@dataclasses.dataclass
class DescribedObjects:
    """File system that only describes objects, in the words of one store."""

    details: dict[str, Any]

    def invalidate_cache(self) -> None:
        pass

    def info(self, address: str) -> dict[str, Any]:
        return {"name": address, "type": "file", "size": 7} | self.details


@pytest.mark.parametrize(
    ("protocol", "details", "is_fixed"),
    [
        ("s3", {"ETag": '"d41d8"', "LastModified": "now"}, True),
        ("gs", {"generation": "17", "md5Hash": "abc=", "updated": "now"}, True),
        ("gs", {"generation": "17", "crc32c": "abc="}, True),
        ("az", {"etag": "0x8D", "last_modified": "now"}, False),
        ("memory", {"created": "now"}, False),
    ],
)
def test_checksums_of_stores(protocol, details, is_fixed):
    version = object_store.ObjectStore(protocol, DescribedObjects(details)).version(f"{protocol}://b/v.mp4")
    assert version.is_fixed == is_fixed and (version.checksum is not None) == is_fixed
    for name in details:
        changed = object_store.ObjectStore(protocol, DescribedObjects(details | {name: "other"}))
        assert changed.version(f"{protocol}://b/v.mp4") != version


def test_errors_of_stores_are_shown_without_their_text():
    class Secretive(DescribedObjects):
        def info(self, address: str) -> dict[str, Any]:
            raise PermissionError(f"key=hidden for {address}")

    with pytest.raises(ObjectError, match=r"^s3://b/v\.mp4 may not be read; check your credentials$"):
        object_store.ObjectStore("s3", Secretive({})).version("s3://b/v.mp4")
    with pytest.raises(ObjectError, match="is a folder; expected an object"):
        object_store.ObjectStore("s3", DescribedObjects({"type": "directory"})).version("s3://b/v")
