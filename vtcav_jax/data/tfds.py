"""Source made of a TFDS dataset with a video feature, prepared as array_record and read without TensorFlow.

TFDS's own reader imports TensorFlow for a `Video` feature, although it is stored as a sequence of images; we read it as
such a sequence. Records can only be read whole, so labels are read on access.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vtcav_jax.checksums import json_sha256
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import Clip, SamplingConfig, clip_from_frames
from vtcav_jax.data.decode import VideoError
from vtcav_jax.data.source import LazySequence, SourceItem
from vtcav_jax.json_file import load_json
from vtcav_jax.names import unknown_name_message

TFDS_FRAME_RATE = 25  # nominal frames per second, since frames in a dataset have no times


@dataclass(frozen=True)
class ExampleRecords:
    """Examples of a split; holds no open files, so that it can be sent to a worker."""

    folder: Path  # contains features.json
    split: str  # in TFDS's syntax, such as train or train[:10%]

    def __len__(self) -> int:
        return len(_open_record_reader(self))

    def __getitem__(self, key: tuple[int, tuple[str, ...]]) -> dict[str, Any]:
        """Return the named features of an example; names are paths such as `video` or `labels/shape`."""
        i, names = key
        try:
            record = _read_record(self, i)
            return flatten_features(_feature_reader(self.folder, names).deserialize_example_np(record))
        except ImportError as error:
            raise VideoError("images in a dataset need pillow or opencv: pip install pillow") from error
        except (OSError, RuntimeError, ValueError, KeyError, IndexError) as error:
            raise VideoError(
                f"example {i} of {self.folder} cannot be read ({error!s:.200}); prepare the dataset again"
            ) from error


@dataclass(frozen=True)
class TfdsSource:
    """Source whose items are the videos of a dataset's examples."""

    spec: str
    records: ExampleRecords
    heads: dict[str, tuple[str, ...]]
    label_features: dict[str, str]  # label feature of each head
    video_feature: str
    n_examples: int

    @property
    def items(self) -> LazySequence:
        return LazySequence(self.n_examples, self._make_item)

    @property
    def identity(self) -> str:
        metadata = [(self.records.folder / name).read_text() for name in ("dataset_info.json", "features.json")]
        return json_sha256([metadata, self.records.split])

    def _make_item(self, i: int) -> SourceItem:
        example = self.records[i, tuple(self.label_features.values())] if self.label_features else {}
        class_of_head = {head: int(example[feature]) for head, feature in self.label_features.items()}
        name = f"{self.records.folder.parent.name}_{self.records.split}_{i:06d}"
        return SourceItem(name, {head: label for head, label in class_of_head.items() if label >= 0})

    def read(self, i: int, clip_spec: ClipSpec, sampling: SamplingConfig) -> Clip:
        if sampling.interval_seconds is not None or sampling.start_seconds is not None:
            raise ValueError(f"frames in {self.spec} have no times; omit interval_seconds and start_seconds")
        frames = np.asarray(self.records[i, (self.video_feature,)][self.video_feature])
        if not len(frames):
            raise VideoError(f"example {i} of {self.spec} has no frames")
        content = hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).hexdigest()
        frames = np.broadcast_to(frames, (*frames.shape[:-1], 3))  # grey images have one channel
        times = np.arange(len(frames)) / TFDS_FRAME_RATE
        return clip_from_frames(
            times,
            len(frames) / TFDS_FRAME_RATE,
            lambda indices: ((j, frames[j]) for j in indices),
            content,
            clip_spec,
            sampling.with_random_start(i),
        )


def find_tfds_folder(rest: str, spec: str) -> tuple[Path, str]:
    """Return folder and split of `rest`, NAME:SPLIT[?data_dir=FOLDER]; NAME may include /CONFIG and /CONFIG/VERSION."""
    rest, _, data_dir_option = rest.partition("?data_dir=")
    name, colon, split = rest.partition(":")
    if not (colon and name and split) or "?" in rest:
        raise ValueError(f"{spec}: expected tfds:NAME:SPLIT, or tfds:NAME:SPLIT?data_dir=FOLDER")
    data_dir = Path(data_dir_option or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    return _find_dataset(data_dir, name), split


def make_tfds_source(folder: Path, split: str, spec: str) -> TfdsSource:
    records = open_records(folder, split)
    n_examples = len(records)
    features = flatten_feature_specs(_restore_features(folder))
    videos = [name for name, feature in features.items() if _is_video(feature)]
    if len(videos) != 1:
        listed = "; ".join(f"{name}: {type(feature).__name__}" for name, feature in features.items())
        raise ValueError(f"expected one video feature (uint8) in {folder}, found {len(videos)}; its features: {listed}")
    labels = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    label_features = {"label": labels[0]} if len(labels) == 1 else {name: name for name in labels}
    heads = {head: tuple(features[name].names or ()) for head, name in label_features.items()}
    return TfdsSource(spec, records, heads, label_features, videos[0], n_examples)


def open_records(folder: Path, split: str) -> ExampleRecords:
    """Open a split; clears caches, since the folder may contain another dataset than before."""
    for cache in (_open_record_reader, _read_record, _restore_features, _feature_reader):
        cache.cache_clear()
    return ExampleRecords(folder, split)


def flatten_features(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested features: `{"labels": {"shape": 1}}` becomes `{"labels/shape": 1}`."""
    flattened = {}
    for name, value in tree.items():
        flattened |= flatten_features(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value}
    return flattened


def flatten_feature_specs(features: Any, prefix: str = "") -> dict[str, Any]:
    flattened = {}
    for name, feature in features.items():
        inner = type(feature).__name__ == "FeaturesDict"
        flattened |= flatten_feature_specs(feature, f"{prefix}{name}/") if inner else {prefix + name: feature}
    return flattened


def _is_video(feature: Any) -> bool:
    shape, type_name = feature.shape, type(feature).__name__
    if type_name not in ("Tensor", "Sequence") or not isinstance(shape, tuple):
        return False
    return len(shape) == 4 and shape[-1] in (1, 3) and feature.np_dtype == np.uint8


def _find_dataset(data_dir: Path, name: str) -> Path:
    """Return the newest version of the dataset, stored in NAME/VERSION or NAME/CONFIG/VERSION."""
    root = data_dir / name
    version_folders = [path.parent for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}features.json")]
    version_folders = [
        path for path in version_folders if not any(part.startswith(".") for part in path.relative_to(data_dir).parts)
    ]
    if not version_folders:
        dataset_names = sorted(path.name for path in data_dir.iterdir() if path.is_dir()) if data_dir.is_dir() else []
        hint = unknown_name_message("dataset", [name], dataset_names) if dataset_names else "there is no dataset"
        raise ValueError(
            f"{hint}, in {data_dir}; prepare it with TFDS as array_record (tfds build {name} --file_format=array_record"
            f" --data_dir={data_dir}), or give its folder with ?data_dir=FOLDER"
        )
    configs = sorted({path.parent for path in version_folders})
    if len(configs) > 1:
        choices = ", ".join(path.relative_to(data_dir).as_posix() for path in configs)
        raise ValueError(f"{name} in {data_dir} has several configurations; expected one of {choices}")
    return max(
        version_folders, key=lambda path: [int(part) if part.isdecimal() else -1 for part in path.name.split(".")]
    )


@lru_cache(maxsize=8)
def _open_record_reader(records: ExampleRecords) -> Any:
    """Open the split, including a slice such as [:10%], as a sequence of serialized records."""
    info, splits = _read_splits(records.folder)
    name = records.split.partition("[")[0]
    if name not in splits:
        raise ValueError(f"{records.folder}: {unknown_name_message('split', [name], splits)}")
    if info.file_format != "array_record":
        raise ValueError(
            f"{records.folder} is stored as {info.file_format or 'tfrecord'}, which only TensorFlow reads, and without"
            " random access; convert it once: pip install tensorflow, then python -m"
            f" tensorflow_datasets.scripts.convert_format --dataset_version_dir={records.folder}"
            " --out_file_format=array_record --out_dir=FOLDER/NAME/VERSION"
        )
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource(splits[records.split].file_instructions)


@lru_cache(maxsize=1)
def _read_record(records: ExampleRecords, i: int) -> bytes:
    """Read a record; caches the last one, since its video and its label are read separately."""
    return _open_record_reader(records)[i]


def _read_splits(folder: Path) -> tuple[Any, Any]:
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
def _restore_features(folder: Path) -> Any:
    """Restore the features like TFDS, except for videos."""
    from tensorflow_datasets.core.features import FeaturesDict

    feature_json = load_json(folder / "features.json")
    features: Any = FeaturesDict.from_json(_videos_as_images(feature_json))
    features.load_metadata(folder, feature_name=None)
    return features


def _videos_as_images(feature_json: Any) -> Any:
    if isinstance(feature_json, list):
        return [_videos_as_images(part) for part in feature_json]
    if not isinstance(feature_json, dict):
        return feature_json
    if "video" not in feature_json or not str(feature_json.get("pythonClassName", "")).endswith(".Video"):
        return {name: _videos_as_images(value) for name, value in feature_json.items()}
    frames = feature_json["video"]
    length, *shape = frames["shape"]["dimensions"]
    image = {"shape": {"dimensions": shape}, "dtype": frames.get("dtype", "uint8")}
    image |= {name: frames[name] for name in ("encodingFormat", "useColormap") if name in frames}
    features_module = "tensorflow_datasets.core.features"
    inner = {"pythonClassName": f"{features_module}.image_feature.Image", "image": image}
    sequence = {"feature": inner, "length": length}
    return {"pythonClassName": f"{features_module}.sequence_feature.Sequence", "sequence": sequence}


@lru_cache(maxsize=8)
def _feature_reader(folder: Path, names: tuple[str, ...]) -> Any:
    """Return a reader that decodes only the named features of an example."""
    from tensorflow_datasets.core.features import FeaturesDict

    def select(features: Any, prefix: str) -> dict[str, Any]:
        selected = {}
        for name, feature in features.items():
            path = prefix + name
            if path in names:
                selected[name] = feature
            elif any(wanted_path.startswith(path + "/") for wanted_path in names):
                selected[name] = FeaturesDict(select(feature, path + "/"))
        return selected

    return FeaturesDict(select(_restore_features(folder), ""))
