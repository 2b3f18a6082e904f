"""Concept sets on disk: reading of mined and hand-made sets, and errors that name all faulty clips."""

import csv
import hashlib
from dataclasses import replace

import numpy as np
import pytest

from vtcav_jax import concepts
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.concept_table import CONCEPTS_CSV, ConceptClip, format_labels, write_sets
from vtcav_jax.data.encode import encode_lossless_mp4

GEOMETRY = ClipSpec(frames=6, size=32, interval=2)


def video(seed, t=6, height=20, width=11):
    return np.random.default_rng(seed).integers(0, 256, (t, height, width, 3), np.uint8)


def put(folder, file, pixels):
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pixels if isinstance(pixels, bytes) else encode_lossless_mp4(pixels))
    return path


def test_stored_clips_are_lossless_and_deterministic():
    for shape in ((1, 1, 1), (6, 7, 5), (3, 33, 80)):
        pixels = video(0, *shape)
        assert encode_lossless_mp4(pixels) == encode_lossless_mp4(pixels)


def test_a_folder_made_by_hand_is_read(tmp_path):
    for i in range(2):
        put(tmp_path, f"ball/static/{i}.mp4", video(i))
        put(tmp_path, f"ball/dynamic/{i}.mp4", video(2 + i))
        put(tmp_path, f"playing tennis/{i}.mp4", video(4 + i, t=20))
        put(tmp_path, f"random 1/{i}.mp4", video(6 + i))
    (tmp_path / "ball" / "notes.txt").write_text("none")
    sets = concepts.read_concepts(tmp_path)
    assert sets.concepts == ("ball", "playing tennis", "random 1") and sets.negatives == ("random 1",)
    assert [clip.clip_type for clip in sets.clips_of("ball")] == ["static", "static", "dynamic", "dynamic"]
    assert sets.counts()["playing tennis", "dynamic"] == 2
    first = sets.clips_of("ball", "dynamic")[0]
    np.testing.assert_array_equal(concepts.load_frames(first), video(2))
    with pytest.raises(ValueError, match="did you mean ball"):
        sets.clips_of("bal")
    # From a video of 20 frames, the network's clip is sampled in the middle, at its interval.
    long = concepts.load_frames(sets.clips_of("playing tennis")[0], GEOMETRY)
    np.testing.assert_array_equal(long, video(4, t=20)[[4, 6, 8, 10, 12, 14]])
    boxed = concepts.letterboxed(sets.clips_of("playing tennis")[0], GEOMETRY)
    assert boxed.shape == (6, 32, 32, 3) and boxed.dtype == np.uint8 and not boxed[:, :, :6].any()


@pytest.mark.parametrize("name", ["negatives", "Negative", "negative_000", "neg 1", "negative-set"])
def test_a_folder_that_may_hold_negatives_is_questioned(tmp_path, name):
    put(tmp_path, "ball/dynamic/1.mp4", video(1))
    put(tmp_path, f"{name}/dynamic/1.mp4", video(2))
    with pytest.raises(ValueError, match=f"has {name}/: is this a concept, or .* such as random_000; rename"):
        concepts.read_concepts(tmp_path)
    (tmp_path / name).rename(tmp_path / "random_000")
    assert concepts.read_concepts(tmp_path).negatives == ("random_000",)


def test_similar_names_of_concepts_are_not_questioned(tmp_path):
    for i, name in enumerate(["negotiating", "photographic negative", "random_1"]):
        put(tmp_path, f"{name}/dynamic/1.mp4", video(i))
    assert len(concepts.read_concepts(tmp_path).concepts) == 3


def mined(folder, n=3):
    clips = []
    for i in range(n):
        path = put(folder, f"ball/dynamic/{i}.mp4", video(i))
        clip = ConceptClip("a ball", "dynamic", path, "", f"ball/dynamic/{i}.mp4", "x.mp4", "ab" * 32)
        clips.append(
            replace(
                clip,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                frames=tuple(range(6)),
                boxes=((1, 2, 3, 4),),
            )
        )
    write_sets(folder, clips)
    return clips


def test_the_table_round_trips_and_its_clips_are_read_whole(tmp_path):
    clips = mined(tmp_path)
    sets = concepts.read_concepts(tmp_path)
    assert list(sets.clips) == clips
    np.testing.assert_array_equal(concepts.load_frames(sets.clips[1], GEOMETRY), video(1))
    short = concepts.load_frames(sets.clips[1], replace(GEOMETRY, frames=4))
    np.testing.assert_array_equal(short, video(1)[1:5])  # without the interval, which mining has applied already
    assert len(concepts.load_frames(sets.clips[1], replace(GEOMETRY, frames=9))) == 9


def test_labels_with_any_characters_round_trip(tmp_path):
    labels = {"direction": "left", "a=b;c": "x\\;y=", "d": "", "e\\": 'one\ntwo, "three"'}
    clips = [replace(clip, labels=labels, window=(-2, 0, 9, 11)) for clip in mined(tmp_path)]
    write_sets(tmp_path, clips)
    sets = concepts.read_concepts(tmp_path)
    assert list(sets.clips) == clips and dict(sets.clips[0].labels) == labels and len(set(sets.clips)) == 3
    assert format_labels({"direction": "left", "shape": "ring"}) == "direction=left;shape=ring"
    text = (tmp_path / CONCEPTS_CSV).read_text()
    (tmp_path / CONCEPTS_CSV).write_text(text.replace("direction=left", "direction"))
    with pytest.raises(ValueError, match="expected HEAD=CLASS;HEAD=CLASS"):
        concepts.read_concepts(tmp_path)


def test_tables_of_older_versions_are_read(tmp_path):
    clips = mined(tmp_path)
    with (tmp_path / CONCEPTS_CSV).open(newline="") as file:
        rows = list(csv.reader(file))
    with (tmp_path / CONCEPTS_CSV).open("w", newline="") as file:
        csv.writer(file).writerows(row[: rows[0].index("window")] for row in rows)
    assert list(concepts.read_concepts(tmp_path).clips) == clips


def test_one_error_lists_all_mismatches_with_the_table(tmp_path):
    mined(tmp_path, 4)
    put(tmp_path, "ball/dynamic/1.mp4", video(9))
    (tmp_path / "ball/dynamic/2.mp4").unlink()
    text = (tmp_path / CONCEPTS_CSV).read_text()
    (tmp_path / CONCEPTS_CSV).write_text(text.replace("ball/dynamic/3.mp4", "../3.mp4"))
    with pytest.raises(ValueError, match=r"2\.mp4 is missing") as error:
        concepts.read_concepts(tmp_path)
    for part in ("1.mp4 has changed since it was mined", "2.mp4 is missing", "is not a path within the folder"):
        assert part in str(error.value)
    (tmp_path / CONCEPTS_CSV).write_text("concept,clip_type\n")
    with pytest.raises(ValueError, match="no column file"):
        concepts.read_concepts(tmp_path)


def test_a_clip_in_two_sets_is_an_error_with_both_names(tmp_path):
    put(tmp_path, "ball/static/a.mp4", video(0))
    put(tmp_path, "bat/static/b.mp4", video(0))
    with pytest.raises(ValueError, match=r"ball/static/a.mp4 .ball, static. = bat/static/b.mp4 .bat, static."):
        concepts.read_concepts(tmp_path)


def test_targets_among_clips_or_their_sources_are_an_error(tmp_path):
    clips = mined(tmp_path)
    with pytest.raises(ValueError, match=r"ball/dynamic/2.mp4 was cut from the target match.mp4"):
        concepts.read_concepts(tmp_path, {"match.mp4": "ab" * 32})
    with pytest.raises(ValueError, match=r"ball/dynamic/1.mp4 is the target one.mp4"):
        concepts.read_concepts(tmp_path, {"one.mp4": clips[1].sha256})
    concepts.read_concepts(tmp_path, {"other.mp4": "cd" * 32})


def test_a_control_may_equal_its_dynamic_clip(tmp_path):
    clips = mined(tmp_path, 1)
    path = put(tmp_path, "ball/frozen/0.mp4", video(0))
    write_sets(
        tmp_path,
        [*clips, replace(clips[0], clip_type="frozen", path=path, file="ball/frozen/0.mp4", control_of=clips[0].file)],
    )
    assert len(concepts.read_concepts(tmp_path).clips) == 2


def review(folder, rows):
    with (folder / "review.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "sha256", "verdict"), *rows])


def test_a_review_removes_clips_and_counts_stale_verdicts(tmp_path):
    clips = mined(tmp_path)
    review(tmp_path, [(clips[0].file, clips[0].sha256, "reject"), (clips[1].file, "", "keep"), ("gone", "", "reject")])
    sets = concepts.read_concepts(tmp_path)
    assert [clip.review for clip in sets.clips] == ["keep", ""] and sets.rejected[0].file == clips[0].file
    assert any("1 verdict in review.csv refers" in note for note in sets.notes)
    review(tmp_path, [(clips[0].file, "another", "reject")])
    assert len(concepts.read_concepts(tmp_path).clips) == 3
    review(tmp_path, [(clip.file, clip.sha256, "reject") for clip in clips])
    with pytest.raises(ValueError, match="no clip left"):
        concepts.read_concepts(tmp_path)
    review(tmp_path, [(clips[0].file, "", "perhaps")])
    with pytest.raises(ValueError, match="'perhaps' is not a verdict"):
        concepts.read_concepts(tmp_path)


def test_names_of_the_review_replace_concepts_and_merge_them(tmp_path):
    clips = mined(tmp_path)
    rows = [f"{clip.file},{clip.sha256},,renamed" for clip in clips]
    (tmp_path / "review.csv").write_text("\n".join(["file,sha256,verdict,name", *rows, ""]))
    assert {clip.concept for clip in concepts.read_concepts(tmp_path).clips if not clip.is_negative} == {"renamed"}
    (tmp_path / "review.csv").write_text(f"file,verdict,name\n{clips[0].file},,Random things\n")
    with pytest.raises(ValueError, match="'Random things' begins with random, which marks negatives"):
        concepts.read_concepts(tmp_path)


def test_invalid_folders_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        concepts.read_concepts(tmp_path / "none")
    with pytest.raises(ValueError, match="no clip left"):
        concepts.read_concepts(tmp_path)
    put(tmp_path, "loose.mp4", video(0))
    with pytest.raises(ValueError, match=r"has 1 video outside of any concept .loose.mp4"):
        concepts.read_concepts(tmp_path)


def test_controls_made_by_hand_match_clips_by_name(tmp_path):
    for i, name in enumerate(("dynamic/a", "frozen/a", "reversed/a", "dynamic/b", "frozen/b", "frozen/c")):
        put(tmp_path, f"ball/{name}.mp4", video(i))
    twins = {clip.file: clip.control_of for clip in concepts.read_concepts(tmp_path).clips}
    assert twins["ball/frozen/a.mp4"] == twins["ball/reversed/a.mp4"] == "ball/dynamic/a.mp4"
    assert twins["ball/frozen/b.mp4"] == "ball/dynamic/b.mp4" and twins["ball/frozen/c.mp4"] == ""
    review(tmp_path, [("ball/dynamic/a.mp4", "", "reject")])
    sets = concepts.read_concepts(tmp_path)
    names = ["ball/dynamic/a.mp4", "ball/frozen/a.mp4", "ball/reversed/a.mp4"]
    assert sorted(clip.file for clip in sets.rejected) == names
    assert sorted(clip.file for clip in sets.clips) == [f"ball/{n}.mp4" for n in ("dynamic/b", "frozen/b", "frozen/c")]


def test_a_stored_verdict_can_be_revoked(tmp_path):
    clips = [replace(clip, review="reject") for clip in mined(tmp_path)]
    write_sets(tmp_path, clips)
    review(tmp_path, [(clips[0].file, clips[0].sha256, ""), (clips[1].file, "", "keep")])
    sets = concepts.read_concepts(tmp_path)
    assert [(clip.file, clip.review) for clip in sets.clips] == [(clips[0].file, ""), (clips[1].file, "keep")]
    assert [clip.file for clip in sets.rejected] == [clips[2].file]
