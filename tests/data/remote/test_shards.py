"""WebDataset shards: samples, labels, damaged tar files, and members that are no files."""

import io
import json
import os
import tarfile
import time

import numpy as np
import pytest

from tests.data.test_decode import write
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, failure_table, open_source, read_clip, stream, write_failures
from vtcav_jax.data.remote import shards
from vtcav_jax.data.source import is_unchanged, item_content

SMALL = ClipSpec(frames=4, size=32, interval=2)
SAMPLING = SamplingConfig(normalise=False)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write(tmp_path_factory.mktemp("video") / "video.mp4", "libx264", total=12)


@pytest.fixture(scope="module")
def other_video(tmp_path_factory):
    return write(tmp_path_factory.mktemp("video") / "other.mp4", "libx264", total=12, numbers=lambda i: 100 + i)


def write_shard(path, members):
    """Write members (name, bytes or TarInfo) and return the offsets of their data."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with tarfile.open(path) as archive:
        return {member.name: (member.offset_data, member.size) for member in archive}


def names(source):
    return [item.name for item in source.items]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("s-{9..11}.tar", ["s-9.tar", "s-10.tar", "s-11.tar"]),
        ("s-{08..10}.tar", ["s-08.tar", "s-09.tar", "s-10.tar"]),
        (
            "https://h/{train,val}-{0..1}.tar",
            [f"https://h/{part}-{i}.tar" for part in ("train", "val") for i in (0, 1)],
        ),
    ],
)
def test_braces_are_numbers_and_alternatives(pattern, names):
    assert shards.expand_braces(pattern) == names


@pytest.mark.parametrize("pattern", ["{a}.tar", "{}.tar", "{3..1}.tar", "{a..c}.tar"])
def test_other_braces_are_refused(pattern):
    with pytest.raises(ValueError, match=r"is no list of names; expected \{000\.\.007\} or \{a,b\}"):
        shards.expand_braces(pattern)


@pytest.mark.parametrize("pattern", ["{0..999999999}.tar", "{0..999}{0..999}.tar"])
def test_too_many_names_are_refused(pattern):
    with pytest.raises(ValueError, match="tar files; expected at most 100000"):
        shards.expand_braces(pattern)


def test_samples_of_shards_are_items_with_labels(tmp_path, video, other_video):
    for i in range(2):
        label = ("1", json.dumps({"label": 0, "caption": "x"}))[i].encode()
        members = [("d/000.mp4", video.read_bytes()), (f"d/000.{('cls', 'json')[i]}", label)]
        members += [("d/001.txt", b"a sentence"), ("d/001.MP4", other_video.read_bytes()), ("d/001.cls", b"3\n")]
        write_shard(tmp_path / f"s-{i:03d}.tar", [*members, ("__key__", b"no sample")])
    source = open_source(f"{tmp_path}/s-{{000..001}}.tar")
    assert names(source) == ["s-000/d/000.mp4", "s-000/d/001.MP4", "s-001/d/000.mp4", "s-001/d/001.MP4"]
    assert source.heads == {"label": ("0", "1", "2", "3")}
    assert [item.labels["label"] for item in source.items] == [1, 3, 0, 3]
    for read, path in zip(stream(source, SMALL, SAMPLING, num_workers=1), [video, other_video] * 2):
        direct = read_clip(path, SMALL, SAMPLING)
        assert read.clip is not None and (read.clip.identity, read.clip.content) == (direct.identity, direct.content)
        np.testing.assert_array_equal(read.clip.video, direct.video)
        assert item_content(source, read.index) == direct.content


def test_labels_are_names_unless_all_are_indices(tmp_path, video):
    data = video.read_bytes()
    write_shard(tmp_path / "s.tar", [("a.mp4", data), ("a.cls", b"run"), ("b.mp4", data), ("b.json", b'{"label": 7}')])
    source = open_source(tmp_path / "s.tar")
    assert source.heads == {"label": ("7", "run")} and [item.labels["label"] for item in source.items] == [1, 0]
    write_shard(tmp_path / "s.tar", [("a.mp4", data), ("b.mp4", data), ("b.json", b'{"title": "x"}')])
    source = open_source(tmp_path / "s.tar")
    assert source.heads == {} and [item.labels for item in source.items] == [{}, {}]


def test_samples_with_faulty_labels_are_failures(tmp_path, video):
    data = video.read_bytes()
    faulty = {"a.cls": b"", "b.json": b"{", "c.json": b'{"label": [1]}', "d.cls": b"\xff\xfe", "e.cls": b"fine"}
    members = [pair for name, label in faulty.items() for pair in ((f"{name[0]}.mp4", data), (name, label))]
    write_shard(tmp_path / "s.tar", members)
    source = open_source(tmp_path / "s.tar")
    failures = [read.failure for read in stream(source, SMALL, SAMPLING, num_workers=0)]
    assert failures[4] is None and source.heads == {"label": ("fine",)}
    for failure, reason in zip(
        failures, ("a.cls is empty", "b.json has no label", "c.json: the label is [1]", "d.cls has")
    ):
        assert failure and reason in failure


def test_several_videos_of_a_sample_are_one_source_video(tmp_path, video):
    data = video.read_bytes()
    members = [("1.left.mp4", data), ("1.right.mp4", data), ("1.cls", b"2"), ("2.left.mp4", data)]
    write_shard(tmp_path / "s.tar", members)
    source = open_source(tmp_path / "s.tar")
    assert [item.source_video for item in source.items] == ["s/1", "s/1", "s/2.left.mp4"]
    assert [item.labels for item in source.items] == [{"label": 2}, {"label": 2}, {}]


def test_names_are_unique_across_shards(tmp_path, video):
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        write_shard(tmp_path / folder / "s.tar", [("1.mp4", video.read_bytes()), ("1.mp4", video.read_bytes())])
    source = open_source(f"{tmp_path}/{{train,val}}/s.tar")
    assert names(source) == ["s/1.mp4", "s/1.mp4 (2)", "s/1.mp4 (3)", "s/1.mp4 (4)"]


def test_samples_without_a_video_are_counted(tmp_path, video, caplog):
    write_shard(tmp_path / "s.tar", [("1.jpg", b"x"), ("1.cls", b"0"), ("2.jpg", b"x"), ("3.mp4", video.read_bytes())])
    assert names(open_source(tmp_path / "s.tar")) == ["s/3.mp4"]
    assert "2 of 3 samples of s.tar have no video (1 with cls, jpg, 1 with jpg)" in caplog.text
    write_shard(tmp_path / "s.tar", [("1.jpg", b"x")])
    with pytest.raises(ValueError, match=r"s\.tar has no samples with a video \(\.mp4,"):
        open_source(tmp_path / "s.tar")


def test_links_devices_and_paths_outside_have_no_effect(tmp_path, video):
    secret = write(tmp_path / "secret.mp4", "libx264", total=12)
    members: list[tuple[str, bytes | tarfile.TarInfo]] = [("ok.mp4", video.read_bytes())]
    for name, kind in (("a.mp4", tarfile.SYMTYPE), ("b.mp4", tarfile.LNKTYPE), ("c.mp4", tarfile.FIFOTYPE)):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, str(secret)
        members.append((name, info))
    device = tarfile.TarInfo("d.mp4")
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 5
    members += [("d.mp4", device), ("../../up.mp4", video.read_bytes()), ("/etc/root.mp4", video.read_bytes())]
    (tmp_path / "in").mkdir()
    write_shard(tmp_path / "in" / "s.tar", members)
    before = sorted(tmp_path.rglob("*"))
    source = open_source(tmp_path / "in" / "s.tar")
    assert names(source) == ["s/ok.mp4", "s/../../up.mp4", "s//etc/root.mp4"]
    reads = list(stream(source, SMALL, SAMPLING, num_workers=0))
    assert [read.failure for read in reads] == [None] * 3
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_shards_are_failures_and_others_are_read(tmp_path, video):
    data = video.read_bytes()
    place, size = write_shard(tmp_path / "a.tar", [(f"{i}.mp4", data) for i in range(3)])["1.mp4"]
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[: place + size // 2])  # truncated within a video
    (tmp_path / "c.tar").write_bytes(whole[: place - 512] + b"\7" * 512 + whole[place:])  # a header is overwritten
    (tmp_path / "d.tar").write_bytes(b"no tar file" * 100)
    source = open_source(f"{tmp_path}/{{a,b,c,d,gone}}.tar")
    reads = {read.item.name: read.failure for read in stream(source, SMALL, SAMPLING, num_workers=0)}
    assert [name for name, failure in reads.items() if failure is None] == [
        *(f"a/{i}.mp4" for i in range(3)),
        "b/0.mp4",
        "c/0.mp4",
    ]
    assert "truncated" in str(reads["b/1.mp4"])
    for name, reason in (
        ("b", "damaged (unexpected end of data)"),
        ("c", "damaged (no valid header"),
        ("d", "damaged"),
    ):
        assert reason in str(reads[f"{name}.tar"]) and "copy it again" in str(reads[f"{name}.tar"])
    assert "there is no file" in str(reads["gone.tar"])
    with pytest.raises(ValueError, match=r"d\.tar is damaged"):
        open_source(tmp_path / "d.tar")


def test_the_damage_of_a_local_shard_is_reported(tmp_path, video):
    place, size = write_shard(tmp_path / "cut.tar", [(f"{i}.mp4", video.read_bytes()) for i in range(2)])["1.mp4"]
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[: place + size // 2])
    reads = list(stream(open_source(tmp_path / "cut.tar"), SMALL, SAMPLING, num_workers=0))
    assert [(read.item.name, read.failure is None) for read in reads] == [
        ("cut/0.mp4", True),
        ("cut/1.mp4", False),
        ("cut.tar", False),
    ]
    reason = "damaged (unexpected end of data) after 2 samples; copy it again from its source"
    assert f"     1  {reason}\n          cut.tar" in failure_table(reads)
    write_failures(tmp_path / "failures.csv", reads)
    assert reason in (tmp_path / "failures.csv").read_text()


def test_a_replaced_shard_never_gives_old_results(tmp_path, video, other_video):
    write_shard(tmp_path / "s.tar", [("1.mp4", video.read_bytes()), ("1.cls", b"0")])
    source = open_source(tmp_path / "s.tar")
    clip = source.read(0, SMALL, SAMPLING)
    write_shard(tmp_path / "s.tar", [("1.mp4", other_video.read_bytes()), ("1.cls", b"0")])
    os.utime(tmp_path / "s.tar", (time.time() + 2, time.time() + 2))
    assert not is_unchanged(source, 0, clip.content)
    (read,) = stream(source, SMALL, SAMPLING, num_workers=0)
    assert "s.tar::1.mp4 was replaced since it was listed; run again" in str(read.failure)
    again = open_source(tmp_path / "s.tar")
    assert again.identity == source.identity and not is_unchanged(again, 0, clip.content)


def test_compressed_shards_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"s\.tar\.gz is compressed, .*; decompress it first"):
        open_source(tmp_path / "s.tar.gz")


def test_shards_at_addresses_are_read_in_parts(tmp_path, video, other_video):
    pytest.importorskip("aiohttp", reason="addresses need fsspec and aiohttp (pip install 'vtcav-jax[urls]')")
    from tests.support.range_server import serve

    padding = np.random.default_rng(0).bytes(1_000_000)
    with serve() as server:
        for i, path in enumerate((video, other_video)):
            members = [("0.bin", padding), ("1.mp4", path.read_bytes()), ("1.cls", b"%d" % i), ("2.bin", padding)]
            write_shard(tmp_path / "s.tar", members)
            server.files[f"s {i}.tar"] = (tmp_path / "s.tar").read_bytes()
        source = open_source(server.url("s {0..2}.tar?x=1"))
        assert names(source) == ["s 0/1.mp4", "s 1/1.mp4", "s 2.tar"]
        reads = list(stream(source, SMALL, SAMPLING, num_workers=2))
        for read, path in zip(reads, (video, other_video)):
            assert read.clip is not None and read.item.labels == {"label": read.index}
            np.testing.assert_array_equal(read.clip.video, read_clip(path, SMALL, SAMPLING).video)
        assert "404 Not Found" in str(reads[2].failure)
        assert server.sent < 2_000_000 < sum(map(len, server.files.values()))
        server.files["s 0.tar"] = server.files["s 1.tar"]
        assert not is_unchanged(source, 0, str(reads[0].clip and reads[0].clip.content))
        server.has_ranges = False
        with pytest.raises(ValueError, match=r"no range requests or no entity tags.*; download it first"):
            open_source(server.url("s {0..1}.tar"))
