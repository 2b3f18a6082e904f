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

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.console import progress
from vtcav_jax.data.clip import Clip, How, made
from vtcav_jax.data.loader import Read, stream
from vtcav_jax.data.open import Item, Source, digest
from vtcav_jax.data.tfds import Records, records_of
from vtcav_jax.runs.directory import told_when_full, write_text

INDEX = "clips.json"  # what each clip is, and how they were made; written last
VERSION = "1.0.0"
PROGRESS = ".progress.json"  # what is done of an unfinished dataset; written after each shard
SHARD_BYTES = 64 * 2**20  # as much as a run that is interrupted may lose
READ_LATER = ("mean", "std")  # of the geometry: numbers are scaled when they are read
FEATURES = ("video", "frames", "times", "padded", "content")


@dataclass(frozen=True)
class Prepared:
    """Such a dataset as a source."""

    spec: str
    heads: dict[str, tuple[str, ...]]
    items: tuple[Item, ...]
    records: Records
    geometry: ClipSpec
    how: How

    @property
    def identity(self) -> str:
        return digest((self.records.folder / INDEX).read_text(encoding="utf-8"))

    def read(self, i: int, geometry: ClipSpec, how: How) -> Clip:
        self._check(geometry, how)
        found = self.records[i, FEATURES]
        video, frames, times = (np.array(found[name]) for name in FEATURES[:3])  # which are read-only
        return made(video, frames, times, bool(found["padded"]), found["content"].decode(), geometry, how)

    def content(self, i: int) -> str:
        """The hash of what clip i was made of, by which it is known wherever else it may be."""
        return self.records[i, ("content",)]["content"].decode()

    def _check(self, geometry: ClipSpec, how: How) -> None:
        ours, theirs = (_kept(self.geometry, self.how), _kept(geometry, how))
        if differing := [name for name in ours if ours[name] != theirs[name]]:
            expected = ", ".join(f"{name}={ours[name]}" for name in differing)
            got = ", ".join(f"{name}={theirs[name]}" for name in differing)
            raise ValueError(f"{self.spec} was prepared with {expected}, asked for {got}; prepare it anew for this")


def _kept(geometry: ClipSpec, how: How) -> dict[str, Any]:
    told = {name: value for name, value in asdict(geometry).items() if name not in READ_LATER}
    return told | {name: value for name, value in asdict(how).items() if name != "normalise"}


def prepare(
    source: Source,
    geometry: ClipSpec,
    how: How,
    out_dir: str | Path,
    *,
    name: str = "clips",
    split: str = "train",
    workers: int = 2,
) -> list[Read]:
    """Reads every clip of `source` and writes them to `out_dir/NAME/1.0.0`, in their order; returns what failed.

    Read it back with `open_source(out_dir)` or `open_source("tfds:NAME:SPLIT?data_dir=OUT_DIR")`. The folder has its
    name only once it is whole. The same call continues one that was interrupted, after its last whole file of records.
    """
    for what, given in (("name", name), ("split", split)):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", given):
            raise ValueError(f"expected a {what} of small letters, digits and _, such as clips; got {given!r}")
    folder = Path(out_dir) / name / VERSION
    if folder.exists():
        raise ValueError(f"there is a dataset in {folder} already; remove it, or choose another name")
    job = _Job(source, geometry, replace(how, normalise=False), folder, split, workers)
    try:
        with told_when_full(folder):
            return _prepared(job)
    finally:
        if not (job.part / PROGRESS).exists():
            shutil.rmtree(job.part, ignore_errors=True)


@dataclass(frozen=True)
class _Job:
    """What is made of what, and where."""

    source: Source
    geometry: ClipSpec
    how: How
    folder: Path
    split: str
    workers: int

    @property
    def part(self) -> Path:
        """The folder while it is not whole."""
        return self.folder.with_name(f".{VERSION}.part")

    @property
    def asked(self) -> str:
        """All that the clips depend on."""
        identity = [self.source.spec, self.source.identity, self.source.heads]
        return json.dumps([*identity, asdict(self.geometry), asdict(self.how), self.split])


def _prepared(job: _Job) -> list[Read]:
    source, part, done = job.source, job.part, _done(job)
    if done is None:  # nothing to go on with, or another dataset
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    items, failures = _write(job, done or Done())
    if not items:
        raise ValueError(f"none of the {len(failures)} clips of {source.spec} can be read; {failures[0].failure}")
    told = {
        "source": source.spec,
        "split": job.split,
        "geometry": asdict(job.geometry),
        "how": asdict(job.how),
        "heads": source.heads,
        "items": [{"name": item.name, "labels": item.labels} for item in items],
        "failed": [{"name": read.item.name, "reason": read.failure} for read in failures],
    }
    (part / INDEX).write_text(json.dumps(told, indent=1), encoding="utf-8")
    (part / PROGRESS).unlink(missing_ok=True)
    part.rename(job.folder)
    return failures


@dataclass(frozen=True)
class Done:
    """What an interrupted run has in whole shards: numbers of items, and why others cannot be read."""

    written: tuple[int, ...] = ()
    failed: tuple[tuple[int, str], ...] = ()

    @property
    def reads(self) -> int:
        return len(self.written) + len(self.failed)


def _done(job: _Job) -> Done | None:
    """What there is of just what is asked for; TFDS's own files are put back as they were when that was true."""
    try:
        told = json.loads((job.part / PROGRESS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if told["asked"] != job.asked:
        return None
    for stale in job.part.glob(".*.part*"):
        stale.unlink()
    for file, text in told["files"].items():
        write_text(job.part / file, text)
    return Done(tuple(told["written"]), tuple((i, why) for i, why in told["failed"]))


def _keep(job: _Job, done: Done) -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in job.part.iterdir() if _about(path)}
    write_text(job.part / PROGRESS, json.dumps({"asked": job.asked, "files": files, **asdict(done)}))


def _about(path: Path) -> bool:
    return path.suffix in (".json", ".txt") and path.name != PROGRESS


def _write(job: _Job, done: Done) -> tuple[list[Item], list[Read]]:
    from tensorflow_datasets.core import DatasetIdentity, DatasetInfo, SequentialWriter

    source, geometry, how, part, split = job.source, job.geometry, job.how, job.part, job.split
    name = job.folder.parent.name
    columns = {head: re.sub(r"\W", "_", head) for head in source.heads}
    if len(set(columns.values())) < len(columns):
        raise ValueError(f"{source.spec} has heads whose names differ by signs only: {', '.join(columns)}")
    views = how.clips * (3 if how.views == "three" else 1)
    features = _features((views, *geometry.shape), how.clips, {columns[h]: names for h, names in source.heads.items()})
    identity = DatasetIdentity(name=name, version=VERSION, data_dir=str(part), module_name="vtcav_jax")  # pyright: ignore[reportArgumentType]
    info = DatasetInfo(builder=identity, features=features, description=f"Clips of {source.spec}, by vtcav_jax")
    shard = max(1, SHARD_BYTES // (views * int(np.prod(geometry.shape))))
    writer = SequentialWriter(info, max_examples_per_shard=shard, file_format="array_record", overwrite=False)
    writer.initialize_splits([split], fail_if_exists=False)
    written, failures = list(done.written), [Read(i, source.items[i], None, why) for i, why in done.failed]
    reads = stream(source, geometry, how, wanted=range(done.reads, len(source.items)), workers=job.workers)
    note = f"{done.reads} from before" if done.reads else ""
    for read in progress(reads, len(source.items) - done.reads, "clips", size=lambda _: 1, note=lambda: note):
        if (clip := read.clip) is None:
            failures.append(read)
            continue
        written.append(read.index)
        example: dict[str, Any] = {name: getattr(clip, name) for name in FEATURES}
        example |= {"frames": clip.frames.astype(np.int64), "times": clip.times.astype(np.float64)}
        example |= {"name": read.item.name, "identity": clip.identity}
        if columns:
            example["labels"] = {column: read.item.labels.get(head, -1) for head, column in columns.items()}
        writer.add_examples({split: [example]})
        if sum(info.splits[split].shard_lengths) == len(written):  # all of it is in whole shards
            _keep(job, Done(tuple(written), tuple((read.index, str(read.failure)) for read in failures)))
    writer.close_all()
    (part / "metadata.json").unlink(missing_ok=True)  # empty; TFDS writes it only where it goes on
    return [source.items[i] for i in written], failures


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
        prepared = Prepared(spec, heads, items, records, ClipSpec(**geometry), How(**told["how"]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / INDEX} is damaged ({error}); prepare the dataset anew") from error
    if len(records) != len(items):
        raise ValueError(f"{folder} has {len(records)} clips, expected {len(items)}; prepare the dataset anew")
    return prepared
