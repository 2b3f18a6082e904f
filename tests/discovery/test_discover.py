"""Discovery on synthetic clips whose factors are known, and its restart after a kill."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vtcav_jax as vtcav
from tests.support.devices import device_environment
from vtcav_jax import models
from vtcav_jax.concepts import read_concepts
from vtcav_jax.concepts.concept_sets import OVERVIEW_FOLDER
from vtcav_jax.data import SamplingConfig
from vtcav_jax.data.open import open_source
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.discovery import DiscoveryConfig, discover
from vtcav_jax.discovery import passes as passes_module
from vtcav_jax.discovery.activation_grids import GridReader
from vtcav_jax.discovery.overviews import shade
from vtcav_jax.discovery.passes import VideoPasses
from vtcav_jax.discovery.run import DIRECTIONS_NPZ, split_videos
from vtcav_jax.runs.discovery_rows import (
    CLIP_SCORES_NPZ,
    COMPLETENESS_CSV,
    DISCOVERED_CSV,
    HEAD_IMPORTANCE_CSV,
    CompletenessRow,
    DiscoveredRow,
    HeadImportanceRow,
)
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.runtime import Runtime
from vtcav_jax.worlds.render import WORLDS, make_clips

SMALL = DiscoveryConfig(num_concepts=8, clips_per_concept=4, importance_videos=4, num_random_sets=2, max_tokens=4000)
WORLD = "worlds:small:120:3"


@pytest.fixture(scope="module")
def network():
    return models.load("worlds_swin")


@pytest.fixture(autouse=True, scope="module")
def four_parts_per_pass():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes_module, "BLOCK_VIDEOS", 16)
        yield


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    out = tmp_path_factory.mktemp("discovered") / "concepts"
    discover(network, WORLD, ["layers.1"], out, config=SMALL)
    return out


@pytest.mark.slow
def test_the_folder_is_a_concept_set_of_videos_that_no_direction_was_fitted_to(folder):
    sets = read_concepts(folder)
    rows = read_rows(folder / DISCOVERED_CSV, DiscoveredRow)
    assert [row.concept for row in rows] == [f"layers.1/{i:02d}" for i in range(8)]
    clips = [clip for clip in sets.clips if not clip.is_negative]
    assert {clip.concept for clip in clips} <= {row.concept for row in rows}
    assert {clip.clip_type for clip in clips} >= {"static", "dynamic", "frozen", "shuffled", "reversed"}
    source = open_source(WORLD)
    fit_half, clip_half = split_videos(source, SMALL.seed)
    assert not set(fit_half) & set(clip_half) and len(fit_half) + len(clip_half) == 120
    fitted, scored = ({source.items[i].name for i in half} for half in (fit_half, clip_half))
    assert {clip.source for clip in clips} <= scored
    assert {clip.source for clip in sets.clips if clip.is_negative} <= fitted
    overviews = {path.name for path in (folder / OVERVIEW_FOLDER).iterdir()}
    assert overviews == {f"layers.1_{i:02d}.{suffix}" for i in range(8) for suffix in ("jpg", "mp4")}
    page = (folder / "review.html").read_text()
    assert page.count('"overview":"data:image/jpeg') == 8 and len(page) > 10_000


@pytest.mark.slow
def test_concepts_go_with_the_factors_of_the_clips(folder):
    """Each concept's strongest clips share a factor value far more often than random clips, which do in a quarter."""
    rows = read_rows(folder / DISCOVERED_CSV, DiscoveredRow)
    assert np.mean([row.label_auc > 0.9 for row in rows]) >= 0.6
    assert all(row.label_auc_low > 0.5 for row in rows if row.label)
    assert all(row.importance_low <= row.importance <= row.importance_high for row in rows)
    assert all(0 <= row.explained_share < 1 for row in rows) and all(row.n_videos == 4 for row in rows)
    completeness = read_rows(folder / COMPLETENESS_CSV, CompletenessRow)
    assert {row.head for row in completeness} >= {"direction", "shape"} and max(row.share for row in completeness) > 0.5
    importance = [row.importance for row in rows]
    assert importance == sorted(importance, reverse=True)
    heads = read_rows(folder / HEAD_IMPORTANCE_CSV, HeadImportanceRow)
    for row in rows:
        assert np.isclose(sum(h.importance for h in heads if h.concept == row.concept), row.importance, rtol=1e-5)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_files(network, folder, tmp_path, monkeypatch):
    saves = []
    original = passes_module.VideoPasses._save

    def save_and_die(self, path, part, fitted_to):
        original(self, path, part, fitted_to)
        saves.append(path.stem)
        if len(saves) in (2, 6):  # in the middle of each pass
            raise KeyboardInterrupt

    monkeypatch.setattr(passes_module.VideoPasses, "_save", save_and_die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            discover(network, WORLD, ["layers.1"], tmp_path / "concepts", config=SMALL)
    discover(network, WORLD, ["layers.1"], tmp_path / "concepts", config=SMALL)
    assert saves == [f"{kind}_{n:06d}" for kind in ("tokens", "scores") for n in range(4)]
    for name in ("concepts.csv", DISCOVERED_CSV, HEAD_IMPORTANCE_CSV, "review.html"):
        assert (tmp_path / "concepts" / name).read_bytes() == (folder / name).read_bytes(), name
    for name in (DIRECTIONS_NPZ, CLIP_SCORES_NPZ):
        with np.load(tmp_path / "concepts" / name) as ours, np.load(folder / name) as expected:
            assert ours.files == expected.files
            for key in ours.files:
                np.testing.assert_array_equal(ours[key], expected[key])


@pytest.mark.slow
def test_motion_only_sees_nothing_in_frozen_clips(network, tmp_path):
    config = replace(SMALL, motion_only=True, num_concepts=4)
    source = open_source("worlds:small:40:5")
    report = discover(network, source, ["layers.0"], tmp_path / "concepts", config=config)
    assert {row.clip_type for row in report.concepts} == {"motion"}
    still = np.repeat(vtcav.worlds.make_clips("small", 2, 0).frames[:, :1], 8, 1)
    grids = GridReader(network, ("layers.0",), True, Runtime.single_device())(still)
    np.testing.assert_allclose(grids["layers.0"], 0, atol=1e-5)


def test_overviews_are_in_colour_where_the_concept_is():
    video = np.full((4, 8, 8, 3), (200, 100, 0), np.uint8)
    concept_map = np.zeros((2, 2, 2), np.float32)
    concept_map[1, 0, 1] = 3
    shaded = shade(video, concept_map)
    grey = [50, 50, 50]
    assert (shaded[:2] == grey).all() and (shaded[2:, 6:, :2] == grey).all()
    assert (shaded[2:, 0, 7] == [200, 100, 0]).all()


def test_errors_come_before_the_network_runs(network, tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected at least 8 source videos.*has 6: pass more videos"):
        discover(network, "worlds:small:6:0", ["layers.1"], tmp_path / "a")
    with pytest.raises(ValueError, match="has the same clips as the targets"):
        discover(network, WORLD, ["layers.1"], tmp_path / "b", targets="worlds:small:50:3")
    with pytest.raises(ValueError, match=r"layers\.9"):
        discover(network, WORLD, ["layers.9"], tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "other.txt").write_text("")
    with pytest.raises(ValueError, match="is not empty and not a folder written by mining"):
        discover(network, WORLD, ["layers.1"], tmp_path / "d")
    assert not any((tmp_path / name).exists() for name in "abc")


DISCOVER_IN_PROCESS = """
import sys
from vtcav_jax import models
from vtcav_jax.discovery import DiscoveryConfig, discover
config = DiscoveryConfig(num_concepts=4, clips_per_concept=3, importance_videos=4, num_random_sets=1, max_tokens=2000)
discover(models.load("worlds_cnn"), "worlds:small:40:3", ["convs.2"], sys.argv[1], config=config)
"""


@pytest.mark.slow
def test_two_devices_find_the_same_concepts_and_clips(tmp_path):
    for devices in (1, 2):
        command = [sys.executable, "-c", DISCOVER_IN_PROCESS, tmp_path / str(devices)]
        subprocess.run(command, check=True, env=device_environment(devices))
    first, second = tmp_path / "1", tmp_path / "2"
    assert (first / "concepts.csv").read_bytes() == (second / "concepts.csv").read_bytes()
    with np.load(first / CLIP_SCORES_NPZ) as ours, np.load(second / CLIP_SCORES_NPZ) as theirs:
        assert ours.files == theirs.files
        for name in set(ours.files) - {"video"}:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-5)


def test_states_of_changed_videos_and_damaged_states_are_computed_again(tmp_path, capsys):
    network = models.load("worlds_cnn")
    write_clips(make_clips(WORLDS["small"], 6, 1), tmp_path / "videos")
    source = open_source(tmp_path / "videos")
    reader = GridReader(network, ("convs.1",), False, Runtime.local(num_workers=0))

    def sample():
        passes = VideoPasses(source, reader, SMALL, SamplingConfig(), tmp_path / "state")
        tokens = passes.sample_tokens(range(6))["convs.1"].now
        return np.stack(tokens), capsys.readouterr().out

    first, note = sample()
    again, note = sample()
    assert np.array_equal(first, again) and "note" not in note
    paths = [item.path for item in source.items if item.path]
    paths[4].write_bytes(paths[0].read_bytes())
    changed, note = sample()
    assert "of videos whose files have changed since (" in note and paths[4].name in note
    assert not np.array_equal(first, changed)
    state = tmp_path / "state/tokens_000000.npz"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    for damaged in (data, data[:99], b"", b"PK"):
        state.write_bytes(damaged)
        after, note = sample()
        assert "state/tokens_000000.npz, is damaged; computed again" in note and np.array_equal(after, changed)
