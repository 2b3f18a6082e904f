"""Whole labelled clips as concepts: each video is in one set, as one clip type, and sets differ only in the label."""

import re
from collections import Counter
from dataclasses import is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from vtcav_jax.concepts import MiningConfig, load_frames, mine_labelled_clips, parse_concepts, read_concepts
from vtcav_jax.concepts.labelled_clips import assign_clips
from vtcav_jax.data import open_source
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.models import PRESETS
from vtcav_jax.worlds import make_clips

GEOMETRY = PRESETS["video_swin_tiny"].clip_spec
WORLD = "worlds:small:90:3"
CONFIG = MiningConfig(parse_concepts(["left=@direction:left", "@shape:ring"]), max_clips=4, num_random_sets=2)


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "sets"
    return folder, mine_labelled_clips(open_source(WORLD), CONFIG, GEOMETRY, folder)


def test_each_clip_is_in_one_set_and_has_its_label(mined):
    sets = read_concepts(mined[0])
    assert sets.concepts == ("left", "shape ring", "random_000", "random_001")
    base_clips = [clip for clip in sets.clips if not clip.control_of]
    assert Counter((clip.concept, clip.clip_type) for clip in base_clips) == {
        (concept, kind): 4 for concept in sets.concepts for kind in ("static", "dynamic")
    }
    assert len({clip.source for clip in base_clips}) == len(base_clips)
    source = open_source(WORLD)
    labels = {item.name: item.labels for item in source.items}
    assert all(labels[clip.source]["direction"] == 0 for clip in sets.clips_of("left"))
    assert all(labels[clip.source]["shape"] == 1 for clip in sets.clips_of("shape ring"))
    for clip in sets.clips:
        assert clip.labels == {head: source.heads[head][i] for head, i in labels[clip.source].items()}


def test_random_dynamic_clips_have_controls(mined):
    sets = read_concepts(mined[0])
    for name in ("left", *sets.negatives):
        files = [clip.file for clip in sets.clips_of(name, "dynamic")]
        for kind in ("frozen", "shuffled", "reversed"):
            assert sorted(clip.control_of for clip in sets.clips_of(name, kind)) == files
    assert "random, controls    24" in re.sub(r" +(?= {4}\d)", "", mined[1].text)
    assert "random, frozen" not in mined[1].text


@pytest.mark.slow
def test_random_sets_contain_all_labels_evenly():
    """Random sets filled after the concepts would lack the concepts' labels."""
    source = open_source("worlds:small:1200:3")
    config = MiningConfig(parse_concepts(["@direction:left", "@shape:ring"]), max_clips=40, num_random_sets=6)
    places, notes = assign_clips(source, config)
    counts = np.zeros((6, 2))
    for i, (name, _, _) in places.items():
        if name.startswith("random_"):
            counts[int(name[-3:])] += [
                source.items[i].labels[head] == n for head, n in (("direction", 0), ("shape", 1))
            ]
    assert not notes and np.all(np.abs(counts - 20) < 3.5 * np.sqrt(80 * 0.25 * 0.75))
    assert np.all(np.abs(counts.sum(0) - 120) < 3 * np.sqrt(480 * 0.25 * 0.75))


def test_clip_types_match_their_definitions(mined):
    sets = read_concepts(mined[0])
    of = {(clip.family, clip.clip_type): load_frames(clip) for clip in sets.clips_of("left")}
    for (family, kind), video in of.items():
        still = bool((video == video[0]).all())
        assert still == (kind in ("static", "frozen"))
        moving = of.get((family, "dynamic"))
        if kind == "reversed":
            assert moving is not None
            assert np.array_equal(video, moving[::-1])
        if kind == "frozen":
            assert moving is not None
            assert np.array_equal(video[0], moving[4])
        if kind == "shuffled":
            assert moving is not None
            assert sorted(frame.tobytes() for frame in video) == sorted(frame.tobytes() for frame in moving)
    assert Counter(kind for _, kind in of) == dict.fromkeys(("static", "dynamic", "frozen", "shuffled", "reversed"), 4)


@pytest.mark.slow
def test_the_same_call_makes_the_same_files(mined, tmp_path):
    again = tmp_path / "again"
    mine_labelled_clips(open_source(WORLD), CONFIG, GEOMETRY, again)
    (clip := next(again.rglob("*.mp4"))).unlink()
    assert mine_labelled_clips(open_source(WORLD), CONFIG, GEOMETRY, again).counts == mined[1].counts and clip.exists()

    def files(folder: Path) -> dict[str, bytes]:
        # The page contains the folder's name.
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "review.html"]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    assert files(again) == files(mined[0])


def test_shortfalls_are_noted(tmp_path):
    notes = " ".join(assign_clips(open_source("worlds:small:30:3"), CONFIG)[1])
    assert re.search(r"left: \d clips of each type instead of 4; \d clips have this label", notes)
    twice = MiningConfig(parse_concepts(["a=@direction:left", "b=@direction:left"]), max_clips=4, num_random_sets=2)
    with pytest.raises(ValueError, match="a, b are labels of the same clips"):
        assign_clips(open_source("worlds:small:30:3"), twice)
    wrong = MiningConfig(parse_concepts(["a=@direction:lefft", "b=@size:big"]))
    message = r"a=@direction:lefft: no class of direction named 'lefft'.*b=@size:big: no head of the videos"
    with pytest.raises(ValueError, match=message):
        mine_labelled_clips(open_source(WORLD), wrong, GEOMETRY, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(ValueError, match="ball use boxes, the others whole clips"):
        MiningConfig(parse_concepts(["ball", "@direction:left"]))


@pytest.mark.slow
def test_target_videos_are_left_out(tmp_path):
    write_clips(make_clips("small", 24, 1), tmp_path / "videos")
    source = open_source(tmp_path / "videos" / "manifest.csv")
    with pytest.raises(ValueError, match=r"all 24 videos of .* are target videos"):
        mine_labelled_clips(source, CONFIG, GEOMETRY, tmp_path / "sets", targets=source)
    assert is_dataclass(source)
    targets = replace(source, items=source.items[:2])
    report = mine_labelled_clips(source, CONFIG, GEOMETRY, tmp_path / "sets", targets=targets)
    assert any("2 of 24 videos of" in note and "are left out" in note for note in report.notes)
    assert not {clip.source for clip in read_concepts(tmp_path / "sets").clips} & {item.name for item in targets.items}
