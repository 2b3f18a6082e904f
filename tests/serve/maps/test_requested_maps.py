"""Requested maps are stored in the run folder: found after a restart, never used for other content, bounded."""

import os
from dataclasses import replace

import numpy as np
import pytest

import vtcav_jax as vtcav
from tests.support.cli_runner import run_cli
from vtcav_jax.data.encode import encode_lossless_mp4
from vtcav_jax.serve import network_session
from vtcav_jax.serve.clip_views import ClipView
from vtcav_jax.serve.films import ClipSampling
from vtcav_jax.serve.maps.clip_maps import ClipMap
from vtcav_jax.serve.maps.requested_maps import REQUESTED_FOLDER, MapContent, RequestedMaps
from vtcav_jax.serve.workspace import open_workspace

TARGET = "direction:left"


def noise_video(seed):
    return encode_lossless_mp4(np.random.default_rng(seed).integers(0, 256, (12, 32, 32, 3), np.uint8))


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for i, name in enumerate("ab"):
        (folder / f"{name}.mp4").write_bytes(noise_video(i))
    flags = ["--model=worlds_cnn", f"--videos={folder}", f"--targets={TARGET}", "--methods=saliency"]
    code, _, err = run_cli("attribute", *flags, "--animations=none", "--num_workers=0", f"--run={tmp_path / 'run'}")
    assert code == 0, err
    return folder


@pytest.fixture
def view(videos):
    """Return a function that starts a new server and returns its view of the first clip."""
    started = []

    def start():
        workspace = open_workspace([videos.parent / "run"])
        started.append(workspace)
        return ClipView(workspace, workspace.run("run"), "attribute", "a.mp4", 0)

    yield start
    for workspace in started:
        workspace.session.close()


def request(view, method="gradcam", stage=""):
    session = view.workspace.session
    job = session.job(view.request_map(TARGET, method, stage))
    assert job is not None
    return job.future.result(120)


def test_a_requested_map_is_found_after_a_restart_without_the_network(view, videos, monkeypatch):
    first = view()
    assert first.find_map(TARGET, "gradcam") is None
    name = request(first)
    frames = first.read().frames
    expected = vtcav.attribute(vtcav.load("worlds_cnn"), frames[None], TARGET, "gradcam").map[0]
    (file,) = (videos.parent / "run" / REQUESTED_FOLDER).iterdir()
    again = view()
    for map_name in ("gradcam", name):
        found = again.find_map(TARGET, map_name)
        assert found is not None and found.name == name
        np.testing.assert_allclose(found.map, expected, rtol=1e-4, atol=1e-6)
    assert again.workspace.shelf.n_loaded == 0
    assert {"target": TARGET, "map": name} in again.facts(TARGET, "", "")["maps"]
    assert again.find_map(TARGET, "gradcam@convs.0") is None and again.find_map("direction:up", "gradcam") is None
    assert replace(again, clip="b.mp4").find_map(TARGET, "gradcam") is None

    def fail(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(network_session, "compute_map", fail)
    assert request(view()) == name and list(file.parent.iterdir()) == [file]


def test_a_requested_map_is_never_used_for_another_video(view, videos):
    before = view()
    name = request(before)
    old = before.find_map(TARGET, name)
    (videos / "a.mp4").write_bytes(noise_video(7))
    after = view()
    assert after.find_map(TARGET, name) is None and after.requested_maps() == []
    assert request(after) == name
    new = after.find_map(TARGET, name)
    assert old and new and not np.allclose(old.map, new.map)
    kept = view().find_map(TARGET, name)
    assert kept is not None
    np.testing.assert_array_equal(kept.map, new.map)


def test_a_cached_film_of_a_video_that_changed_gives_no_map_of_the_new_one(view, videos):
    """The server has the old frames in memory, so that its map is of the old video, and is stored as such."""
    server = view()
    server.read()
    (videos / "a.mp4").write_bytes(noise_video(8))
    name = request(server)
    assert view().find_map(TARGET, name) is None


def test_damaged_files_are_computed_again(view, videos):
    name = request(view())
    (file,) = (videos.parent / "run" / REQUESTED_FOLDER).iterdir()
    data = file.read_bytes()
    for damaged in (b"", data[: len(data) // 2], b"no archive"):
        file.write_bytes(damaged)
        assert view().find_map(TARGET, name) is None
        assert request(view()) == name and view().find_map(TARGET, name) is not None


@pytest.fixture
def store(tmp_path):
    return RequestedMaps(tmp_path)


CONTENT = MapContent({"weights": "a"}, "source", "clip", 0, ClipSampling(), "bytes", "code", {"jax": "1"})


def clip_map(value=1.0, method="saliency", stage="video"):
    values = np.full((2, 3, 3), value, np.float32)
    return ClipMap(TARGET, method, stage, True, TARGET, 2.5, values, forward_passes=3)


@pytest.mark.parametrize(
    "other",
    [
        {"network": {"weights": "b"}},
        {"network": {"weights": "a", "class names": "c"}},
        {"source": "another"},
        {"part": 1},
        {"clip": "another"},
        {"sampling": ClipSampling(interval_seconds=0.5)},
        {"sampling": ClipSampling(slides=True, start_frame=8)},
        {"content": "other bytes"},
        {"code": "changed"},
        {"versions": {"jax": "2"}},
    ],
)
def test_a_map_of_other_content_is_another_map(store, other):
    store.save(CONTENT, clip_map(), is_default=True)
    found = store.load(CONTENT, TARGET, "saliency", "")
    assert found is not None and (found.score, found.signed, found.forward_passes) == (2.5, True, 3)
    np.testing.assert_array_equal(found.map, clip_map().map)
    changed = replace(CONTENT, **other)
    assert store.load(changed, TARGET, "saliency", "") is None
    store.save(changed, clip_map(5.0), is_default=True)
    for content, value in ((CONTENT, 1.0), (changed, 5.0)):
        found = store.load(content, TARGET, "saliency", "")
        assert found is not None and found.map[0, 0, 0] == value


def test_an_explicit_stage_is_not_taken_for_the_default(store):
    store.save(CONTENT, clip_map(method="gradcam", stage="layers.0"), is_default=False)
    assert store.load(CONTENT, TARGET, "gradcam", "") is None
    assert store.load(CONTENT, TARGET, "gradcam", "layers.1") is None
    assert store.load(CONTENT, TARGET, "gradcam", "layers.0") is not None
    store.save(CONTENT, clip_map(method="gradcam", stage="layers.0"), is_default=True)
    assert store.load(CONTENT, TARGET, "gradcam", "") is not None and len(store.entries("clip", 0)) == 1


def test_the_maps_that_were_used_longest_ago_are_removed(tmp_path):
    store = RequestedMaps(tmp_path, max_maps=3)
    for i, method in enumerate("abc"):
        store.save(CONTENT, clip_map(method=method), is_default=True)
        for path in store.folder.iterdir():  # times are coarse on some file systems
            if path.stat().st_mtime > 1e6:
                os.utime(path, (i + 1, i + 1))
    assert store.load(CONTENT, TARGET, "a", "") is not None  # used now
    store.save(CONTENT, clip_map(method="d"), is_default=True)
    assert sorted(entry.method for entry in store.entries("clip", 0)) == ["a", "c", "d"]
    size = max(path.stat().st_size for path in store.folder.iterdir())
    RequestedMaps(tmp_path, max_bytes=size).save(CONTENT, clip_map(method="e"), is_default=True)
    assert [entry.method for entry in store.entries("clip", 0)] == ["e"]
    assert RequestedMaps(tmp_path / "new").entries("clip", 0) == []
