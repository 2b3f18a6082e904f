"""Any TFDS dataset with a video feature, without TensorFlow, if it was prepared as array_record.

TFDS's own door to such a dataset imports TensorFlow where it meets a `Video`, though that is stored as nothing but a
sequence of images; so it is read as one. Its records can only be read whole: labels are looked up when asked for.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import Clip, How, clip_of
from vtcav_jax.data.decode import VideoError
from vtcav_jax.data.open import Item, Lazy, Source, digest
from vtcav_jax.names import unknown

RATE = 25  # frames per second, only to have times: a dataset's frames have none


@dataclass(frozen=True)
class Records:
    """The examples of a split. What is opened is not part of it, so that it can be sent to a worker."""

    folder: Path  # with features.json in it
    split: str  # as TFDS has it: train, train[:10%]

    def __len__(self) -> int:
        return len(_opened(self))

    def __getitem__(self, key: tuple[int, tuple[str, ...]]) -> dict[str, Any]:
        """Some features of an example, by their paths, such as `video` or `labels/shape`."""
        i, names = key
        try:
            record = _record(self, i)
            return flat(_reader(self.folder, names).deserialize_example_np(record))
        except ImportError as error:
            raise VideoError("images in a dataset need pillow or opencv: pip install pillow") from error
        except (OSError, RuntimeError, ValueError, KeyError, IndexError) as error:
            raise VideoError(
                f"example {i} of {self.folder} cannot be read ({error!s:.200}); prepare the dataset anew"
            ) from error


@dataclass(frozen=True)
class Dataset:
    """Videos in memory, one example each, of which clips are taken as from a file."""

    spec: str
    records: Records
    heads: dict[str, tuple[str, ...]]
    features: dict[str, str]  # where each head's label is
    video: str  # where the video is
    count: int

    @property
    def items(self) -> Lazy:
        return Lazy(self.count, self._item)

    @property
    def identity(self) -> str:
        told = [(self.records.folder / name).read_text() for name in ("dataset_info.json", "features.json")]
        return digest([told, self.records.split])

    def _item(self, i: int) -> Item:
        found = self.records[i, tuple(self.features.values())] if self.features else {}
        answers = {head: int(found[feature]) for head, feature in self.features.items()}
        name = f"{self.records.folder.parent.name}_{self.records.split}_{i:06d}"
        return Item(name, {head: label for head, label in answers.items() if label >= 0})

    def read(self, i: int, geometry: ClipSpec, how: How) -> Clip:
        if how.interval_seconds is not None or how.start_seconds is not None:
            raise ValueError(f"frames in {self.spec} have no times; leave out interval_seconds and start_seconds")
        frames = np.asarray(self.records[i, (self.video,)][self.video])
        if not len(frames):
            raise VideoError(f"example {i} of {self.spec} has no frames")
        content = hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).hexdigest()
        frames = np.broadcast_to(frames, (*frames.shape[:-1], 3))  # grey has one channel
        times = np.arange(len(frames)) / RATE
        return clip_of(
            times, len(frames) / RATE, lambda wanted: ((j, frames[j]) for j in wanted), content, geometry, how.drawn(i)
        )


def opened(rest: str, spec: str) -> Source:
    """`rest` is NAME:SPLIT[?data_dir=FOLDER]; NAME may be NAME/CONFIG and NAME/CONFIG/VERSION."""
    rest, _, given = rest.partition("?data_dir=")
    name, colon, split = rest.partition(":")
    if not (colon and name and split) or "?" in rest:
        raise ValueError(f"{spec}: expected tfds:NAME:SPLIT, or tfds:NAME:SPLIT?data_dir=FOLDER")
    data_dir = Path(given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = _find(data_dir, name)
    from vtcav_jax.data import decoded_dataset

    if (folder / decoded_dataset.INDEX).exists():
        return decoded_dataset.opened(folder, spec, split)
    return dataset(folder, split, spec)


def dataset(folder: Path, split: str, spec: str) -> Dataset:
    records = records_of(folder, split)
    count = len(records)
    features = flat_features(_features(folder))
    videos = [name for name, feature in features.items() if _is_video(feature)]
    if len(videos) != 1:
        listed = "; ".join(f"{name}: {type(feature).__name__}" for name, feature in features.items())
        raise ValueError(f"expected one video feature (uint8) in {folder}, found {len(videos)}; its features: {listed}")
    labels = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    places = {"label": labels[0]} if len(labels) == 1 else {name: name for name in labels}
    heads = {head: tuple(features[name].names or ()) for head, name in places.items()}
    return Dataset(spec, records, heads, places, videos[0], count)


def records_of(folder: Path, split: str) -> Records:
    """What was open is forgotten: another dataset may have taken the place of one that was read before."""
    for cache in (_opened, _record, _features, _reader):
        cache.cache_clear()
    return Records(folder, split)


def flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    """`{"labels": {"shape": 1}}` as `{"labels/shape": 1}`."""
    found = {}
    for name, value in tree.items():
        found |= flat(value, f"{above}{name}/") if isinstance(value, dict) else {above + name: value}
    return found


def flat_features(features: Any, above: str = "") -> dict[str, Any]:
    found = {}
    for name, feature in features.items():
        inner = type(feature).__name__ == "FeaturesDict"
        found |= flat_features(feature, f"{above}{name}/") if inner else {above + name: feature}
    return found


def _is_video(feature: Any) -> bool:
    shape, kind = feature.shape, type(feature).__name__
    if kind not in ("Tensor", "Sequence") or not isinstance(shape, tuple):
        return False
    return len(shape) == 4 and shape[-1] in (1, 3) and feature.np_dtype == np.uint8


def _find(data_dir: Path, name: str) -> Path:
    """The newest version of the dataset; TFDS keeps it in NAME/VERSION or NAME/CONFIG/VERSION."""
    root = data_dir / name
    found = [path.parent for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}features.json")]
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(data_dir).parts)]
    if not found:
        there = sorted(path.name for path in data_dir.iterdir() if path.is_dir()) if data_dir.is_dir() else []
        hint = unknown("dataset", [name], there) if there else "there is none"
        raise ValueError(
            f"{hint}, in {data_dir}; prepare it with TFDS as array_record (tfds build {name} --file_format=array_record"
            f" --data_dir={data_dir}), or say where it is with ?data_dir=FOLDER"
        )
    configs = sorted({path.parent for path in found})
    if len(configs) > 1:
        choices = ", ".join(path.relative_to(data_dir).as_posix() for path in configs)
        raise ValueError(f"{name} in {data_dir} has several configurations; expected one of {choices}")
    return max(found, key=lambda path: [int(part) if part.isdecimal() else -1 for part in path.name.split(".")])


@lru_cache(maxsize=8)
def _opened(records: Records) -> Any:
    """TFDS's split, cut as asked for, as a sequence of bytes."""
    info, splits = _splits(records.folder)
    name = records.split.partition("[")[0]
    if name not in splits:
        raise ValueError(f"{records.folder}: {unknown('split', [name], splits)}")
    if info.file_format != "array_record":
        raise ValueError(
            f"{records.folder} is stored as {info.file_format or 'tfrecord'}, which only TensorFlow reads, and not in"
            " any order; convert it once: pip install tensorflow, then python -m"
            f" tensorflow_datasets.scripts.convert_format --dataset_version_dir={records.folder}"
            " --out_file_format=array_record --out_dir=FOLDER/NAME/VERSION"
        )
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource(splits[records.split].file_instructions)


@lru_cache(maxsize=1)
def _record(records: Records, i: int) -> bytes:
    """The last one is kept: its label is asked for after its video."""
    return _opened(records)[i]


def _splits(folder: Path) -> tuple[Any, Any]:
    try:
        from etils import epath
        from tensorflow_datasets.core import dataset_info, naming, splits
    except ModuleNotFoundError as error:
        raise ValueError("TFDS datasets need tensorflow-datasets: pip install tensorflow-datasets") from error
    info = dataset_info.read_proto_from_builder_dir(folder)
    template = naming.ShardedFileTemplate(
        dataset_name=info.name, data_dir=epath.Path(folder), filetype_suffix=info.file_format or "tfrecord"
    )
    return info, splits.SplitDict.from_proto(repeated_split_infos=info.splits, filename_template=template)


@lru_cache(maxsize=8)
def _features(folder: Path) -> Any:
    """As TFDS restores them, but for videos."""
    from tensorflow_datasets.core.features import FeaturesDict

    told = json.loads((folder / "features.json").read_text())
    features: Any = FeaturesDict.from_json(_videos_as_images(told))
    features.load_metadata(folder, feature_name=None)
    return features


def _videos_as_images(told: Any) -> Any:
    if isinstance(told, list):
        return [_videos_as_images(each) for each in told]
    if not isinstance(told, dict):
        return told
    if "video" not in told or not str(told.get("pythonClassName", "")).endswith(".Video"):
        return {name: _videos_as_images(value) for name, value in told.items()}
    frames = told["video"]
    length, *shape = frames["shape"]["dimensions"]
    image = {"shape": {"dimensions": shape}, "dtype": frames.get("dtype", "uint8")}
    image |= {name: frames[name] for name in ("encodingFormat", "useColormap") if name in frames}
    place = "tensorflow_datasets.core.features"
    inner = {"pythonClassName": f"{place}.image_feature.Image", "image": image}
    sequence = {"feature": inner, "length": length}
    return {"pythonClassName": f"{place}.sequence_feature.Sequence", "sequence": sequence}


@lru_cache(maxsize=8)
def _reader(folder: Path, names: tuple[str, ...]) -> Any:
    """Reads these features and no others of an example."""
    from tensorflow_datasets.core.features import FeaturesDict

    def only(features: Any, above: str) -> dict[str, Any]:
        found = {}
        for name, feature in features.items():
            path = above + name
            if path in names:
                found[name] = feature
            elif any(wanted.startswith(path + "/") for wanted in names):
                found[name] = FeaturesDict(only(feature, path + "/"))
        return found

    return FeaturesDict(only(_features(folder), ""))
