"""Source videos of concept clips: tables, file names, and recordings recognised by their content."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vtcav_jax import concepts
from vtcav_jax.concepts import near_duplicates
from vtcav_jax.concepts.concept_table import write_sets
from vtcav_jax.concepts.config import Concept
from vtcav_jax.data.decode import decode_frames, probe
from vtcav_jax.data.encode import encode_lossless_mp4, encode_mp4, encode_webm
from vtcav_jax.data.resize import resize
from vtcav_jax.worlds import make_clips

REAL = os.environ.get("VTCAV_REAL_DATA")


def recording(seed, frames=30, height=72, width=96):
    """Make a video of a smooth texture with a blob that moves, over which the camera pans slowly."""
    random = np.random.default_rng(seed)
    texture = resize(random.integers(0, 256, (9, 12, 3), np.uint8), (height + 40, width + 40))
    y, x = np.indices((height, width))
    video = []
    for t in range(frames):
        frame = texture[t // 3 : t // 3 + height, t // 2 : t // 2 + width].copy()
        frame[np.hypot(y - 20 - t, x - 10 - 2 * t) < 9] = (230, 220, 40)
        video.append(frame)
    return np.stack(video)


def resized(video, height, width):
    return np.stack([resize(frame, (height, width), antialias=True) for frame in video])


def put(folder, file, data):
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_copies_and_cuts_of_a_recording_are_one_group(tmp_path):
    videos = [recording(seed) for seed in range(4)]
    paths = [put(tmp_path, f"{i}.mp4", encode_lossless_mp4(video)) for i, video in enumerate(videos)]
    copies = {
        "other codec": encode_webm(videos[0], 25),
        "half size": encode_mp4(resized(videos[0], 36, 48), 25),
        "other aspect": encode_mp4(resized(videos[0], 64, 64), 25),
        "half rate": encode_mp4(videos[0][::2], 12),
        "cut": encode_mp4(videos[0][7:23], 25),
        "darker": encode_mp4(videos[0] // 2, 25),
    }
    paths += [put(tmp_path, f"{name}.mp4", data) for name, data in copies.items()]
    paths += [put(tmp_path, "cut of 1.mp4", encode_mp4(videos[1][:12], 25)), put(tmp_path, "bad.mp4", b"no video")]
    paths += [put(tmp_path, f"flat{i}.mp4", encode_lossless_mp4(np.full((6, 20, 20, 3), 9, np.uint8))) for i in (0, 1)]
    groups = concepts.near_duplicate_groups(paths)
    assert [[path.stem for path in group] for group in groups] == [["0", *copies], ["1", "cut of 1"]]
    pairs = near_duplicates.near_duplicate_pairs(paths[-5:], paths[:4])
    assert [(a.stem, b.stem) for a, b in pairs] == [("darker", "0"), ("cut of 1", "1")]
    assert concepts.near_duplicate_groups([]) == ()


@pytest.mark.slow
def test_different_clips_of_a_world_are_no_duplicates(tmp_path):
    """They share four gratings; 80,000 pairs were compared for the threshold."""
    clips = make_clips("small", 64, 5)
    same_background = np.lexsort([clips.factors["phase"], clips.factors["scene"]])[:40]
    videos = np.rint(255 * np.asarray(clips.video)[same_background]).astype(np.uint8)
    paths = [put(tmp_path, f"{i}.mp4", encode_lossless_mp4(video)) for i, video in enumerate(videos)]
    assert concepts.near_duplicate_groups(paths) == ()
    copies = [
        put(tmp_path, f"{i} copy.mp4", encode_mp4(video.repeat(4, 1).repeat(4, 2), 25))
        for i, video in enumerate(videos)
    ]
    pairs = near_duplicates.near_duplicate_pairs(paths, copies)
    assert [(a.stem, b.stem) for a, b in pairs] == [(str(i), f"{i} copy") for i in range(40)]


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="needs VTCAV_REAL_DATA, a folder of real videos")
def test_real_recordings_are_told_apart_and_their_cuts_recognised(tmp_path):
    assert REAL
    paths = [path for path in sorted(Path(REAL).iterdir()) if path.suffix in (".mp4", ".avi", ".mkv", ".gif")]
    cuts = []
    for path in paths:
        index = probe(path)
        n = len(index.times)
        frames = dict(decode_frames(index, range(n // 4, min(n // 4 + 40, n))))
        video = resized(np.stack([frames[i] for i in sorted(frames)]), 112, 160)
        cuts.append(put(tmp_path, f"{path.stem}.mp4", encode_mp4(video, index.fps)))
    pairs = near_duplicates.near_duplicate_pairs(cuts, paths)
    assert [(a.stem, b.stem) for a, b in pairs] == [(path.stem, path.stem) for path in paths]


def test_mined_clips_have_the_video_that_they_were_cut_from(tmp_path):
    clips = []
    for i, (source, digest) in enumerate((("a.mp4", "aa"), ("b.mp4", "bb"), ("a.mp4", "aa"), ("a.mp4", ""))):
        path = put(tmp_path, f"ball/dynamic/{i}.mp4", encode_lossless_mp4(recording(i, 2)))
        file = f"ball/dynamic/{i}.mp4"
        clips.append(concepts.ConceptClip("ball", "dynamic", path, "", file, source=source, source_sha256=digest))
    control = put(tmp_path, "ball/frozen/1.mp4", encode_lossless_mp4(recording(9, 2)))
    clips.append(
        replace(clips[1], clip_type="frozen", path=control, file="ball/frozen/1.mp4", control_of=clips[1].file)
    )
    assert concepts.source_video_ids(clips) == (("aa", "bb", "aa", "aa", "bb"), ())
    write_sets(tmp_path, clips)
    sets = concepts.read_concepts(tmp_path)
    assert concepts.source_video_ids(sets.clips)[0] == ("aa", "bb", "aa", "aa", "bb")


def test_mined_clips_of_pieces_of_one_recording_have_its_name(tmp_path):
    names = [f"piece_{i}.mp4" for i in range(4)]
    for i, name in enumerate(names):
        put(tmp_path, name, encode_lossless_mp4(recording(i, 20)))
    put(tmp_path, "manifest.csv", b"path,source\npiece_0.mp4,match\npiece_1.mp4,match\npiece_2.mp4,\npiece_3.mp4,\n")
    boxes = "".join(f"{name},{frame},0,ball,10,10,40,40\n" for name in names for frame in range(16))
    put(tmp_path, "boxes.csv", f"file,frame,track,label,x1,y1,x2,y2\n{boxes}".encode())
    config = concepts.MiningConfig(
        concepts=(Concept("ball", "ball"),),
        boxes=tmp_path / "boxes.csv",
        clip_frames=8,
        num_random_sets=0,
        min_pixels=8,
        max_clips_per_video=1,
    )
    concepts.mine(tmp_path / "manifest.csv", config, tmp_path / "concepts")
    clips = concepts.read_concepts(tmp_path / "concepts").clips
    ids = {clip.source: source for clip, source in zip(clips, concepts.source_video_ids(clips)[0])}
    assert ids["piece_0.mp4"] == ids["piece_1.mp4"] == "match" and len(set(ids.values())) == 3


def test_sources_of_clips_made_by_hand(tmp_path):
    videos = {
        "ball/static/match__1.mp4": recording(0),
        "ball/dynamic/match__2.mp4": recording(1),
        "ball/frozen/match__2.mp4": recording(1)[3:4].repeat(5, 0),
        "ball/dynamic/x.mp4": recording(2),
        "ball/dynamic/y.mp4": recording(3),
        "random_0/dynamic/match__3.mp4": recording(4),
        "random_0/dynamic/copy of y.mp4": resized(recording(3)[4:25], 40, 50),
        "random_0/dynamic/z.mp4": recording(5),
    }
    for file, video in videos.items():
        put(tmp_path, file, encode_mp4(video, 25))
    (tmp_path / "sources.csv").write_text("file,source\nball/dynamic/x.mp4,match\nball/dynamic/typo.mp4,match\n")
    sets = concepts.read_concepts(tmp_path)
    assert any("names 1 file not among the clips" in note and "typo.mp4" in note for note in sets.notes)
    ids, notes = concepts.source_video_ids(sets.clips)
    by_file = dict(zip([clip.file for clip in sets.clips], ids))
    matches = {file for file, source in by_file.items() if source == "match"}
    assert matches == {file for file in videos if "match" in file} | {"ball/dynamic/x.mp4"}
    assert (
        by_file["ball/dynamic/y.mp4"] == by_file["random_0/dynamic/copy of y.mp4"] != by_file["random_0/dynamic/z.mp4"]
    )
    assert "2 clips show the same recording and count as one source video: ball/dynamic/y.mp4" in notes[0]
    assert "the source video of 3 clips is unknown" in notes[1] and "sources.csv" in notes[1]
    target = put(tmp_path / "targets", "t.mp4", encode_webm(recording(5), 25))
    leaks = concepts.clips_of_target_recordings(sets.clips, {"target 5": target})
    assert [(clip.file, name) for clip, name in leaks] == [("random_0/dynamic/z.mp4", "target 5")]


def test_controls_of_unknown_sources_share_the_id_of_their_clip(tmp_path):
    for kind, video in (("dynamic", recording(0)), ("reversed", recording(0)[::-1]), ("frozen", recording(0)[:1])):
        put(tmp_path, f"ball/{kind}/a.mp4", encode_lossless_mp4(video))
    put(tmp_path, "ball/dynamic/b.mp4", encode_lossless_mp4(recording(1)))
    ids, _ = concepts.source_video_ids(concepts.read_concepts(tmp_path).clips)
    assert ids == ("ball/dynamic/a.mp4", "ball/dynamic/b.mp4", "ball/dynamic/a.mp4", "ball/dynamic/a.mp4")
