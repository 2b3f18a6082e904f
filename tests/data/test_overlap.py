"""Items that two sources have in common: targets that are concept videos, evaluation videos that were trained on."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.square_videos import write_square_videos
from vtcav_jax.cli.commands.train import unseen_positions
from vtcav_jax.concepts.concept_table import ConceptClip
from vtcav_jax.data import open_source
from vtcav_jax.data.decode import decode_frames, probe
from vtcav_jax.data.encode import encode_mp4
from vtcav_jax.data.overlap import shared_items, shared_note
from vtcav_jax.settings import SettingError
from vtcav_jax.tcav.experiment import dataset

HASH = "0" * 64


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_square_videos(folder, 4)
    return open_source(folder)


def test_copies_overlapping_parts_and_one_recording_are_shared(videos, tmp_path):
    (tmp_path / "copy.mp4").write_bytes(videos.items[1].path.read_bytes())
    other = open_source(tmp_path)
    assert shared_items(videos, other) == {1: "copy.mp4"} and shared_items(other, videos) == {0: "film1.mp4"}
    first, second = (replace(videos.items[1], start=start, end=start + 0.5) for start in (0.0, 0.5))
    parts = replace(videos, items=(first, second))
    assert shared_items(replace(parts, items=(first,)), replace(parts, items=(second,))) == {}
    assert shared_items(parts, other) == {0: "copy.mp4", 1: "copy.mp4"}
    cuts = [replace(videos, items=(replace(videos.items[i], source="match"),)) for i in (2, 3)]
    assert shared_items(*cuts) == {0: "film3.mp4"}
    gone = replace(videos, items=(replace(videos.items[0], path=tmp_path / "gone.mp4"),))
    assert shared_items(gone, videos) == {} == shared_items(videos, gone)


def test_clips_of_a_world_are_shared_by_seed_and_number():
    a, b, c = map(open_source, ("worlds:small:5:1", "worlds:small:3:1", "worlds:small:9:2"))
    assert list(shared_items(a, b)) == [0, 1, 2] == list(shared_items(b, a)) and not shared_items(a, c)
    text = "3 of 5 videos of worlds:small:5:1 are targets and are left out: small_1_000000 (small_1_000000)"
    assert shared_note(a, shared_items(a, b), "targets").startswith(text)


def test_training_videos_are_not_evaluated(videos):
    part = replace(videos, items=videos.items[:3])
    assert unseen_positions(videos, part) == [3] and unseen_positions(part, replace(part, items=())) is None
    with pytest.raises(SettingError, match=r"eval_videos: all 3 videos of .* are training videos"):
        unseen_positions(part, videos)


def test_concept_clips_of_the_target_clips_of_a_world_are_an_error(tmp_path):
    clip = ConceptClip("left", "dynamic", tmp_path / "a.mp4", HASH, "left/dynamic/a.mp4", "small_5_000002", HASH)
    source = open_source("worlds:small:9:5")
    dataset._forbid_world_targets([clip], source, [0, 1])
    with pytest.raises(ValueError, match=r"1 concept clips come from the target clips of worlds:small:9:5, such as"):
        dataset._forbid_world_targets([clip], source, [1, 2])


def test_whole_clips_that_are_reencoded_targets_are_left_out(videos, tmp_path):
    index = probe(videos.items[0].path)
    path = tmp_path / "again.mp4"
    path.write_bytes(encode_mp4(np.stack([frame for _, frame in decode_frames(index, range(len(index.times)))]), 25))
    files = [path, *(item.path for item in videos.items[1:])]
    clips = [ConceptClip("red", "dynamic", file, HASH, file.name, file.name, HASH) for file in files]
    control = replace(clips[0], clip_type="frozen", file="frozen.mp4", control_of=clips[0].file)
    targets = replace(videos, items=videos.items[:1])
    rest, notes = dataset._without_target_recordings([*clips, control], targets, [0])
    assert rest == clips[1:] and "1 concept clips show the same recording as a target video" in notes[0]
    with pytest.raises(ValueError, match=r"show the same recording as a target video: again.mp4 \(film0.mp4\)"):
        dataset._without_target_recordings([replace(clips[0], source_sha256="")], targets, [0])
