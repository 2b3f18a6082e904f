"""Decoded datasets: equal clips without TensorFlow, and errors for other settings."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.data.test_decode import number_in, write
from tests.support.faulty_source import FaultySource
from tests.support.typed import present
from vtcav_jax.checksums import file_sha256
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, VideoError, decoded_dataset, open_source, prepare_dataset, stream

SMALL = ClipSpec(frames=4, size=32, interval=2)
KEPT = SamplingConfig(normalise=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a folder of three videos in two classes and one file that is not a video."""
    folder = tmp_path_factory.mktemp("folder")
    for number, name in enumerate(("run/1", "run/2", "walk/1")):
        path = folder / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        write(path, "libx264", total=20 + number, numbers=lambda i, number=number: 30 * number + i)
    (folder / "walk" / "broken.mp4").write_bytes(b"no film")
    return folder


def _contents(folder):
    dataset = open_source(folder)
    assert isinstance(dataset, decoded_dataset.PreparedDataset)
    return [dataset.content(i) for i in range(len(dataset.items))]


def assert_same_clip(ours, theirs):
    np.testing.assert_array_equal(ours.video, theirs.video)
    np.testing.assert_array_equal(ours.frames, theirs.frames)
    np.testing.assert_array_equal(ours.times, theirs.times)
    assert ours.video.dtype == theirs.video.dtype
    assert (ours.padded, ours.identity, ours.content) == (theirs.padded, theirs.identity, theirs.content)


@pytest.mark.parametrize(
    "how",
    [
        SamplingConfig(),
        SamplingConfig(clips_per_video=2, views="three_crop", antialias=True),
        SamplingConfig(random_start=3),
    ],
)
def test_a_folder_is_read_back_equal_clip_by_clip(folder, tmp_path, how):
    source = open_source(folder)
    (failed,) = prepare_dataset(source, SMALL, how, tmp_path, name="films", num_workers=0)
    assert failed.item.name == "walk/broken.mp4" and "not a video" in str(failed.failure)
    whole = tmp_path / "films" / "1.0.0"
    for spec in (tmp_path, tmp_path / "films", whole, f"tfds:films:train?data_dir={tmp_path}"):
        prepared = open_source(spec)
        assert prepared.heads == source.heads == {"label": ("run", "walk")}
        assert [item.name for item in prepared.items] == ["run/1.mp4", "run/2.mp4", "walk/1.mp4"]
        assert [item.labels["label"] for item in prepared.items] == [0, 0, 1]
        for i, original in enumerate((0, 1, 2)):
            for sampling in (how, replace(how, normalise=False)):
                assert_same_clip(prepared.read(i, SMALL, sampling), source.read(original, SMALL, sampling))
    other_scale = replace(SMALL, mean=(0.5, 0.5, 0.5))
    assert_same_clip(open_source(tmp_path).read(1, other_scale, how), source.read(1, other_scale, how))
    assert "tensorflow" not in sys.modules
    index = json.loads((whole / "clips.json").read_text())
    assert [failure["name"] for failure in index["failed"]] == ["walk/broken.mp4"]


@pytest.mark.slow
def test_workers_read_and_prepare_datasets(folder, tmp_path):
    source = open_source(folder)
    prepare_dataset(source, SMALL, KEPT, tmp_path, num_workers=2)
    prepared = open_source(tmp_path)
    assert pickle.loads(pickle.dumps(prepared)) == prepared
    for read, original in zip(stream(prepared, SMALL, KEPT, num_workers=2), (0, 1, 2)):
        assert read.clip is not None
        assert_same_clip(read.clip, source.read(original, SMALL, KEPT))


def test_tfds_itself_reads_it_without_tensorflow(tmp_path):
    source = open_source("worlds:small:5")
    geometry = ClipSpec(frames=8, size=32)
    assert (
        prepare_dataset(source, geometry, SamplingConfig(), tmp_path, name="worlds", split="test", num_workers=0) == []
    )
    program = """
import sys
import tensorflow_datasets as tfds
examples = tfds.builder_from_directory(sys.argv[1]).as_data_source("test")
print(len(examples), [int(example["labels"]["shape"]) for example in examples], examples[3]["video"].sum())
assert "tensorflow" not in sys.modules
"""
    command = [sys.executable, "-c", program, str(tmp_path / "worlds" / "1.0.0")]
    last_line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    video = source.read(3, geometry, KEPT).video
    assert last_line == f"5 {[item.labels['shape'] for item in source.items]} {video.sum()}"


def test_reading_with_other_settings_is_an_error(folder, tmp_path):
    prepare_dataset(open_source(folder), SMALL, KEPT, tmp_path, num_workers=0)
    prepared = open_source(tmp_path)
    for geometry, how, reason in (
        (replace(SMALL, size=16, interval=1), KEPT, "with size=32, interval=2, got size=16, interval=1"),
        (replace(SMALL, resize=40), KEPT, "resize=None, got resize=40"),
        (SMALL, SamplingConfig(views="three_crop"), "views=center_crop, got views=three_crop"),
        (SMALL, SamplingConfig(random_start=1), "random_start=None, got random_start=1"),
    ):
        with pytest.raises(ValueError, match=f"{reason}; prepare it again"):
            prepared.read(0, geometry, how)
    with pytest.raises(ValueError, match=r"no split 'test'.*'train'"):
        open_source(f"tfds:clips:test?data_dir={tmp_path}")
    with pytest.raises(ValueError, match="already"):
        prepare_dataset(open_source(folder), SMALL, KEPT, tmp_path, num_workers=0)
    with pytest.raises(ValueError, match="lower-case letters"):
        prepare_dataset(open_source(folder), SMALL, KEPT, tmp_path, name="../out", num_workers=0)
    with pytest.raises(ValueError, match="did you mean clips"):
        open_source(f"tfds:clip:train?data_dir={tmp_path}")


def test_a_dataset_may_replace_another(tmp_path):
    geometry = ClipSpec(frames=8, size=32)
    for source in (open_source("worlds:small:2"), open_source("worlds:small:3:1")):
        shutil.rmtree(tmp_path / "clips", ignore_errors=True)
        prepare_dataset(source, geometry, KEPT, tmp_path, num_workers=0)
        assert_same_clip(open_source(tmp_path).read(1, geometry, KEPT), source.read(1, geometry, KEPT))


def test_damage_is_reported(folder, tmp_path):
    prepare_dataset(open_source(folder), SMALL, KEPT, tmp_path, num_workers=0)
    (records,) = (tmp_path / "clips" / "1.0.0").glob("*array_record*")
    content = bytearray(records.read_bytes())
    content[2000:2500] = bytes(500)  # within the first clip
    records.write_bytes(content)
    reads = list(stream(open_source(tmp_path), SMALL, KEPT, num_workers=1))
    assert [read.clip is None for read in reads] == [True, False, False]
    assert "prepare the dataset again" in str(reads[0].failure)
    index = tmp_path / "clips" / "1.0.0" / "clips.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content | {"items": content["items"][1:]}))
    with pytest.raises(ValueError, match="has 3 clips, expected 2"):
        open_source(tmp_path)
    index.write_text(index.read_text()[:100])
    with pytest.raises(ValueError, match=r"clips.json is damaged"):
        open_source(tmp_path)


def test_failed_preparation_leaves_no_files(tmp_path):
    with pytest.raises(ValueError, match=r"none of the 2 clips of tricky can be read.*refused"):
        prepare_dataset(FaultySource(("refuse", "refuse")), SMALL, KEPT, tmp_path, num_workers=0)
    with pytest.raises(ZeroDivisionError):
        prepare_dataset(FaultySource(("fine", "bug")), SMALL, KEPT, tmp_path, num_workers=0)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_interrupted_run_continues_after_its_last_complete_shard(tmp_path, monkeypatch):
    monkeypatch.setattr("vtcav_jax.data.decoded_dataset.SHARD_BYTES", 2 * 8 * 32 * 32 * 3)  # two clips
    geometry, folders = ClipSpec(frames=8, size=32), [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    first, again, whole = (f"touch {folder}" for folder in folders)

    def source(trick, *stop):
        tricks = [trick, "refuse", *[trick] * 8]
        tricks[7:8] = stop or tricks[7:8]
        return FaultySource(tuple(tricks))

    with pytest.raises(ZeroDivisionError):
        prepare_dataset(source(first, "bug"), geometry, KEPT, tmp_path / "broken", num_workers=0)
    unfinished = tmp_path / "broken" / "clips" / ".1.0.0.part"
    (unfinished / "dataset_info.json").write_text("half a fi")  # possible state after a kill
    (failed,) = prepare_dataset(source(again), geometry, KEPT, tmp_path / "broken", num_workers=0)
    assert sorted(os.listdir(folders[1])) == ["7", "8", "9"] and failed.index == 1 and failed.failure == "refused"
    prepare_dataset(source(whole), geometry, KEPT, tmp_path / "whole", num_workers=0)
    resumed, other = (tmp_path / name / "clips" / "1.0.0" for name in ("broken", "whole"))
    assert sorted(os.listdir(resumed)) == sorted(os.listdir(other)) and len(list(resumed.glob("*array_record*"))) == 5
    for i in range(9):
        ours, theirs = (open_source(place).read(i, geometry, KEPT) for place in (resumed, other))
        assert np.array_equal(ours.video, theirs.video) and ours.identity == theirs.identity
    assert (resumed / "dataset_info.json").read_bytes() == (other / "dataset_info.json").read_bytes()


def test_a_full_disk_is_reported_and_the_same_call_continues(tmp_path, monkeypatch):
    from tensorflow_datasets.core import SequentialWriter

    monkeypatch.setattr("vtcav_jax.data.decoded_dataset.SHARD_BYTES", 1)
    geometry, write, left = ClipSpec(frames=8, size=32), SequentialWriter.add_examples, [3]

    def full(writer, examples):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("write() failed: No space left on device; Failed to close chunk_writer")
        write(writer, examples)

    with monkeypatch.context() as patch:
        patch.setattr(SequentialWriter, "add_examples", full)
        with pytest.raises(ValueError, match=r"disk of .* is full; free some space and run the command again"):
            prepare_dataset(FaultySource(("fine",) * 5), geometry, KEPT, tmp_path, num_workers=0)
    (unfinished,) = tmp_path.rglob(".progress.json")
    (unfinished.parent / ".progress.json.part99").write_text("a disk that was full")
    assert prepare_dataset(FaultySource(("fine",) * 3 + ("fine",) * 2), geometry, KEPT, tmp_path, num_workers=0) == []
    assert len(open_source(tmp_path).items) == 5 and not list(tmp_path.rglob(".*"))


def test_another_request_does_not_continue_an_interrupted_run(tmp_path, monkeypatch):
    monkeypatch.setattr("vtcav_jax.data.decoded_dataset.SHARD_BYTES", 1)
    geometry = ClipSpec(frames=8, size=32)
    with pytest.raises(ZeroDivisionError):
        prepare_dataset(FaultySource(("fine", "fine", "bug")), geometry, KEPT, tmp_path, num_workers=0)
    assert list(tmp_path.rglob(".progress.json"))
    prepare_dataset(open_source("worlds:small:2"), geometry, KEPT, tmp_path, num_workers=0)
    assert len(open_source(tmp_path).items) == 2 and os.listdir(tmp_path / "clips") == ["1.0.0"]


def test_an_unfinished_dataset_is_not_opened(tmp_path):
    program = """
import sys
from vtcav_jax.checksums import file_sha256
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, open_source, prepare_dataset
source = open_source("worlds:small:100000")
prepare_dataset(source, ClipSpec(frames=8, size=32), SamplingConfig(), sys.argv[1], num_workers=0)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.DEVNULL) as running:
        until = time.monotonic() + 30
        while not list(tmp_path.rglob("*array_record*")) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
        os.kill(running.pid, signal.SIGKILL)
    assert list(tmp_path.rglob("*array_record*"))
    with pytest.raises(ValueError, match="no video in"):
        open_source(tmp_path)
    with pytest.raises(ValueError, match="prepare it with TFDS"):
        open_source(f"tfds:clips:train?data_dir={tmp_path}")
    prepare_dataset(
        open_source("worlds:small:3"), ClipSpec(frames=8, size=32), SamplingConfig(), tmp_path, num_workers=0
    )
    assert len(open_source(tmp_path).items) == 3
    assert os.listdir(tmp_path / "clips") == ["1.0.0"]


def images(video):
    """Encode each frame as TFDS stores it."""
    import io

    from PIL import Image

    for frame in video:
        file = io.BytesIO()
        Image.fromarray(frame.squeeze()).save(file, "png")
        yield file.getvalue()


def other_dataset(data_dir, channels=3, file_format="array_record", **more):
    """Write a dataset with a `Video` like TFDS, whose records are those of a sequence of images."""
    from tensorflow_datasets.core import DatasetIdentity, DatasetInfo, SequentialWriter, features

    folder = data_dir / "moving" / "2.0.0"
    folder.mkdir(parents=True)
    image = features.Image(shape=(24, 32, channels), encoding_format="png", dtype=np.uint8)
    columns = {"film": features.Sequence(image, length=None), "class": features.ClassLabel(names=["a", "b"]), **more}
    version: Any = "2.0.0"  # as in the package; TFDS's annotation requires its own class
    identity = DatasetIdentity(name="moving", version=version, data_dir=str(folder), module_name="elsewhere")
    info = DatasetInfo(builder=identity, features=features.FeaturesDict(columns), description="d")
    writer = SequentialWriter(info, max_examples_per_shard=2, file_format="array_record")
    writer.initialize_splits(["train", "test"])
    random = np.random.default_rng(0)
    films = [random.integers(0, 256, (frames, 24, 32, channels), np.uint8) for frames in (9, 4, 12)]
    for i, film in enumerate(films):
        example = {"film": list(images(film)), "class": i % 2} | dict.fromkeys(more, 1)
        writer.add_examples({"train": [example]})
    writer.close_all()
    description = json.loads((folder / "features.json").read_text())
    sequence = description["featuresDict"]["features"]["film"]
    frame = sequence["sequence"]["feature"]["image"]
    dimensions = ["-1", *frame["shape"]["dimensions"]]
    description["featuresDict"]["features"]["film"] = {
        "pythonClassName": "tensorflow_datasets.core.features.video_feature.Video",
        "video": {"shape": {"dimensions": dimensions}, "dtype": "uint8", "encodingFormat": "png"},
    }
    (folder / "features.json").write_text(json.dumps(description))
    return films


@pytest.mark.parametrize("channels", [1, 3])
def test_any_tfds_dataset_with_a_video_is_read_without_tensorflow(tmp_path, channels):
    films = other_dataset(tmp_path, channels)
    source = open_source(f"tfds:moving:train?data_dir={tmp_path}")
    assert source.heads == {"label": ("a", "b")} and len(source.items) == 3
    assert [item.labels for item in source.items] == [{"label": 0}, {"label": 1}, {"label": 0}]
    assert len({item.name for item in source.items}) == 3
    geometry = ClipSpec(frames=4, size=24, resize=24, interval=2)
    clip = source.read(2, geometry, KEPT)
    assert clip.frames.tolist() == [[2, 4, 6, 8]] and not clip.padded
    np.testing.assert_array_equal(clip.video[0], np.broadcast_to(films[2][2:10:2, :, 4:28], (4, 24, 24, 3)))
    assert source.read(1, geometry, KEPT).padded
    part = open_source(f"tfds:moving/2.0.0:train[1:]?data_dir={tmp_path}")
    assert_same_clip(part.read(1, geometry, KEPT), clip)
    (read,) = stream(source, geometry, KEPT, positions=[2], num_workers=1)
    assert read.clip is not None
    assert_same_clip(read.clip, clip)
    with pytest.raises(ValueError, match="have no times"):
        source.read(0, geometry, SamplingConfig(interval_seconds=0.1))
    with pytest.raises(ValueError, match=r"no split named 'trian' .did you mean train"):
        open_source(f"tfds:moving:trian?data_dir={tmp_path}")
    assert "tensorflow" not in sys.modules


def test_several_labels_are_several_heads(tmp_path):
    from tensorflow_datasets.core import features

    other_dataset(tmp_path, speed=features.ClassLabel(num_classes=3))
    source = open_source(f"tfds:moving:train?data_dir={tmp_path}")
    assert source.heads == {"class": ("a", "b"), "speed": ("0", "1", "2")}
    assert source.items[1].labels == {"class": 1, "speed": 1}


def test_a_tfrecord_dataset_is_an_error_with_a_remedy(tmp_path):
    other_dataset(tmp_path)
    info = tmp_path / "moving" / "2.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError, match=r"convert_format .*--out_file_format=array_record"):
        open_source(f"tfds:moving:train?data_dir={tmp_path}")


def test_a_dataset_without_a_video_lists_its_features(tmp_path):
    other_dataset(tmp_path)
    path = tmp_path / "moving" / "2.0.0" / "features.json"
    path.write_text(path.read_text().replace('"3"', '"4"'))
    with pytest.raises(ValueError, match=r"found 0; its features: .*film: Sequence"):
        open_source(f"tfds:moving:train?data_dir={tmp_path}")


def test_a_prepared_clip_equals_its_video(folder, tmp_path):
    prepare_dataset(open_source(folder / "walk"), SMALL, KEPT, tmp_path, num_workers=0)
    clip = open_source(tmp_path).read(0, SMALL, KEPT)
    assert [number_in(picture) for picture in clip.video[0]] == [60 + int(i) for i in clip.frames[0]]
    with pytest.raises((VideoError, IndexError)):
        open_source(tmp_path).read(1, SMALL, KEPT)


def test_an_interrupted_run_reads_changed_videos_again(folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "videos")
    monkeypatch.setattr("vtcav_jax.data.decoded_dataset.SHARD_BYTES", 1)  # one clip per shard
    source = open_source(tmp_path / "videos")
    original = decoded_dataset._save_progress

    def stop_after_two(job, progress_now):
        original(job, progress_now)
        if len(progress_now.written_items) == 2:
            raise KeyboardInterrupt

    def interrupt():
        monkeypatch.setattr(decoded_dataset, "_save_progress", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            prepare_dataset(source, SMALL, KEPT, tmp_path / "out", num_workers=0)
        monkeypatch.setattr(decoded_dataset, "_save_progress", original)

    first, second = (tmp_path / "videos" / f"run/{n}.mp4" for n in (1, 2))
    interrupt()
    size = max(first.stat().st_size, second.stat().st_size) + 4
    first.write_bytes(second.read_bytes().ljust(size, b"\0"))
    prepare_dataset(source, SMALL, KEPT, tmp_path / "out", num_workers=0)
    assert "note: the files of run/1.mp4 have changed since; all clips are read again" in capsys.readouterr().out
    contents = _contents(tmp_path / "out")
    assert contents == [file_sha256(present(item.path)) for item in source.items if item.name != "walk/broken.mp4"]
    shutil.rmtree(tmp_path / "out")
    interrupt()
    progress_file = next((tmp_path / "out").rglob(decoded_dataset.PREPARE_PROGRESS_FILE))
    progress_file.write_text(progress_file.read_text()[:40])
    prepare_dataset(source, SMALL, KEPT, tmp_path / "out", num_workers=0)
    assert "is damaged; all clips are read again" in capsys.readouterr().out
    assert _contents(tmp_path / "out") == contents


def test_a_flipped_bit_in_a_prepared_clip_is_reported(folder, tmp_path):
    prepare_dataset(open_source(folder), SMALL, KEPT, tmp_path, num_workers=0)
    (shard,) = tmp_path.rglob("*.array_record*")
    data = bytearray(shard.read_bytes())
    intact = open_source(tmp_path).read(1, SMALL, KEPT).video
    silent = 0
    for position in np.random.default_rng(0).integers(0, len(data), 20):
        damaged = bytearray(data)
        damaged[position] ^= 4
        shard.write_bytes(damaged)
        try:
            silent += not np.array_equal(open_source(tmp_path).read(1, SMALL, KEPT).video, intact)
        except (ValueError, VideoError):
            continue
    assert silent == 0
