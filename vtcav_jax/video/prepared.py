"""A source decoded once: its clips on disk, as a TFDS dataset of array_record files that needs no TensorFlow.

What is kept are the squares that a network sees, as uint8: a few percent of the frames of most videos. So a prepared
dataset fits one geometry and one way of choosing clips, and refuses to be read with others.
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vtcav_jax.geometry import ClipGeometry
from vtcav_jax.progress import progress
from vtcav_jax.video.clip import Clip, How, made
from vtcav_jax.video.reading import Read, stream
from vtcav_jax.video.sources import Item, Source, digest
from vtcav_jax.video.tfds import Records, records_of

INDEX = "clips.json"  # what each clip is, and how they were made; written last
VERSION = "1.0.0"
SHARD_BYTES = 256 * 2**20
READ_LATER = ("mean", "std")  # of the geometry: numbers are scaled when they are read
FEATURES = ("video", "frames", "times", "padded", "content")


@dataclass(frozen=True)
class Prepared:
    """Such a dataset as a source."""

    spec: str
    heads: dict[str, tuple[str, ...]]
    items: tuple[Item, ...]
    records: Records
    geometry: ClipGeometry
    how: How

    @property
    def identity(self) -> str:
        return digest((self.records.folder / INDEX).read_text(encoding="utf-8"))

    def read(self, i: int, geometry: ClipGeometry, how: How) -> Clip:
        self._check(geometry, how)
        found = self.records[i, FEATURES]
        video, frames, times = (np.array(found[name]) for name in FEATURES[:3])  # which are read-only
        return made(video, frames, times, bool(found["padded"]), found["content"].decode(), geometry, how)

    def _check(self, geometry: ClipGeometry, how: How) -> None:
        ours, theirs = (_kept(self.geometry, self.how), _kept(geometry, how))
        if differing := [name for name in ours if ours[name] != theirs[name]]:
            expected = ", ".join(f"{name}={ours[name]}" for name in differing)
            got = ", ".join(f"{name}={theirs[name]}" for name in differing)
            raise ValueError(f"{self.spec} was prepared with {expected}, asked for {got}; prepare it anew for this")


def _kept(geometry: ClipGeometry, how: How) -> dict[str, Any]:
    told = {name: value for name, value in asdict(geometry).items() if name not in READ_LATER}
    return told | {name: value for name, value in asdict(how).items() if name != "normalise"}


def prepare(
    source: Source,
    geometry: ClipGeometry,
    how: How,
    out_dir: str | Path,
    *,
    name: str = "clips",
    split: str = "train",
    workers: int = 2,
) -> list[Read]:
    """Reads every clip of `source` and writes them to `out_dir/NAME/1.0.0`, in their order; returns what failed.

    Read it back with `open_source(out_dir)` or `open_source("tfds:NAME:SPLIT?data_dir=OUT_DIR")`. The folder has its
    name only once it is whole.
    """
    for what, given in (("name", name), ("split", split)):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", given):
            raise ValueError(f"expected a {what} of small letters, digits and _, such as clips; got {given!r}")
    folder = Path(out_dir) / name / VERSION
    if folder.exists():
        raise ValueError(f"there is a dataset in {folder} already; remove it, or choose another name")
    how = replace(how, normalise=False)
    part = folder.with_name(f".{VERSION}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was interrupted
    part.mkdir(parents=True)
    try:
        items, failures = _write(source, geometry, how, part, name, split, workers)
        if not items:
            raise ValueError(f"none of the {len(failures)} clips of {source.spec} can be read; {failures[0].failure}")
        told = {
            "source": source.spec,
            "split": split,
            "geometry": asdict(geometry),
            "how": asdict(how),
            "heads": source.heads,
            "items": [{"name": item.name, "labels": item.labels} for item in items],
            "failed": [{"name": read.item.name, "reason": read.failure} for read in failures],
        }
        (part / INDEX).write_text(json.dumps(told, indent=1), encoding="utf-8")
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return failures


def _write(
    source: Source, geometry: ClipGeometry, how: How, part: Path, name: str, split: str, workers: int
) -> tuple[list[Item], list[Read]]:
    from tensorflow_datasets.core import DatasetIdentity, DatasetInfo, SequentialWriter

    columns = {head: re.sub(r"\W", "_", head) for head in source.heads}
    if len(set(columns.values())) < len(columns):
        raise ValueError(f"{source.spec} has heads whose names differ by signs only: {', '.join(columns)}")
    views = how.clips * (3 if how.views == "three" else 1)
    features = _features((views, *geometry.shape), how.clips, {columns[h]: names for h, names in source.heads.items()})
    identity = DatasetIdentity(name=name, version=VERSION, data_dir=str(part), module_name="vtcav_jax")  # pyright: ignore[reportArgumentType]
    info = DatasetInfo(builder=identity, features=features, description=f"Clips of {source.spec}, by vtcav_jax")
    shard = max(1, SHARD_BYTES // (views * int(np.prod(geometry.shape))))
    writer = SequentialWriter(info, max_examples_per_shard=shard, file_format="array_record")
    writer.initialize_splits([split])
    items, failures = [], []
    reads = stream(source, geometry, how, workers=workers)
    for read in progress(reads, len(source.items), "clips", size=lambda _: 1):
        if (clip := read.clip) is None:
            failures.append(read)
            continue
        items.append(read.item)
        example: dict[str, Any] = {name: getattr(clip, name) for name in FEATURES}
        example |= {"frames": clip.frames.astype(np.int64), "times": clip.times.astype(np.float64)}
        example |= {"name": read.item.name, "identity": clip.identity}
        if columns:
            example["labels"] = {column: read.item.labels.get(head, -1) for head, column in columns.items()}
        writer.add_examples({split: [example]})
    writer.close_all()
    return items, failures


def _features(shape: tuple[int, ...], clips: int, heads: dict[str, Sequence[str]]) -> Any:
    from tensorflow_datasets.core import features as tfds

    taken = (clips, shape[1])
    columns: dict[str, Any] = {
        "video": tfds.Tensor(shape=shape, dtype=np.uint8, encoding="bytes"),
        "frames": tfds.Tensor(shape=taken, dtype=np.int64, encoding="bytes"),
        "times": tfds.Tensor(shape=taken, dtype=np.float64, encoding="bytes"),
        "padded": tfds.Scalar(np.bool_),
        "name": tfds.Text(),
        "content": tfds.Text(),
        "identity": tfds.Text(),
    }
    if heads:
        columns["labels"] = {head: tfds.ClassLabel(names=list(names)) for head, names in heads.items()}
    return tfds.FeaturesDict(columns)


def find(folder: Path) -> Path | None:
    """The prepared dataset that `folder` is, or the only one in it."""
    if (folder / INDEX).exists() and (folder / "features.json").exists():
        return folder
    inside = [path.parent for depth in ("", "*/") for path in folder.glob(f"{depth}{VERSION}/{INDEX}")]
    if len(inside) > 1:
        raise ValueError(f"there are several datasets in {folder}; open one of {', '.join(map(str, sorted(inside)))}")
    return inside[0] if inside else None


def opened(folder: Path, spec: str, split: str | None = None) -> Prepared:
    try:
        told = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        geometry: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in told["geometry"].items()}
        heads = {head: tuple(names) for head, names in told["heads"].items()}
        items = tuple(Item(item["name"], item["labels"]) for item in told["items"])
        records = records_of(folder, told["split"])
        if split not in (None, told["split"]):
            raise ValueError(f"{spec}: there is no split {split!r}; there is {told['split']!r}")
        prepared = Prepared(spec, heads, items, records, ClipGeometry(**geometry), How(**told["how"]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / INDEX} is damaged ({error}); prepare the dataset anew") from error
    if len(records) != len(items):
        raise ValueError(f"{folder} has {len(records)} clips, expected {len(items)}; prepare the dataset anew")
    return prepared
