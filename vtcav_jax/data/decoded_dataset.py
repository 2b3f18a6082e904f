"""Decoded datasets: the clips of a source on disk, as a TFDS dataset of array_record files that needs no TensorFlow.

It stores the network's input frames, cropped and as uint8. A prepared dataset therefore matches one `ClipSpec` and one
`SamplingConfig`, and reading it with others is an error.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vtcav_jax import distributed
from vtcav_jax.atomic import explain_disk_full, write_text
from vtcav_jax.checksums import json_sha256
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.console import info, progress
from vtcav_jax.data.clip import Clip, SamplingConfig, finish_clip
from vtcav_jax.data.loader import ReadResult, stream_from_processes
from vtcav_jax.data.source import Source, SourceItem, is_unchanged
from vtcav_jax.data.tfds import ExampleRecords, open_records
from vtcav_jax.json_file import load_json
from vtcav_jax.names import abridged_list
from vtcav_jax.runs.code_version import code_hash, package_versions
from vtcav_jax.runs.lock import lock_folder

DATASET_INDEX_FILE = "clips.json"  # items and settings; written last
DATASET_VERSION = "1.0.0"
PREPARE_PROGRESS_FILE = ".progress.json"  # state of an unfinished dataset; written after each shard
SHARD_BYTES = 64 * 2**20  # maximum work that an interrupted run loses
SPEC_FIELDS_AT_READ = ("mean", "std")  # fields of ClipSpec that apply at reading, since normalisation happens then
CLIP_FEATURES = ("video", "frames", "times", "padded", "content")


@dataclass(frozen=True)
class PreparedDataset:
    """Prepared dataset as a source."""

    spec: str
    heads: dict[str, tuple[str, ...]]
    items: tuple[SourceItem, ...]
    records: ExampleRecords
    clip_spec: ClipSpec
    sampling: SamplingConfig

    @property
    def identity(self) -> str:
        return json_sha256((self.records.folder / DATASET_INDEX_FILE).read_text(encoding="utf-8"))

    def read(self, i: int, clip_spec: ClipSpec, sampling: SamplingConfig) -> Clip:
        self._check(clip_spec, sampling)
        example = self.records[i, CLIP_FEATURES]
        # Copies, as records are read-only.
        video, frames, times = (np.array(example[name]) for name in CLIP_FEATURES[:3])
        return finish_clip(
            video, frames, times, bool(example["padded"]), example["content"].decode(), clip_spec, sampling
        )

    def content(self, i: int) -> str:
        """Return the hash of the source video of clip i, which identifies it across sources."""
        return self.records[i, ("content",)]["content"].decode()

    def _check(self, clip_spec: ClipSpec, sampling: SamplingConfig) -> None:
        ours, theirs = (_stored_settings(self.clip_spec, self.sampling), _stored_settings(clip_spec, sampling))
        if differing := [name for name in ours if ours[name] != theirs[name]]:
            expected = ", ".join(f"{name}={ours[name]}" for name in differing)
            got = ", ".join(f"{name}={theirs[name]}" for name in differing)
            raise ValueError(
                f"{self.spec} was prepared with {expected}, got {got}; prepare it again with these settings"
            )


def _stored_settings(clip_spec: ClipSpec, sampling: SamplingConfig) -> dict[str, Any]:
    spec_fields = {name: value for name, value in asdict(clip_spec).items() if name not in SPEC_FIELDS_AT_READ}
    return spec_fields | {name: value for name, value in asdict(sampling).items() if name != "normalise"}


def prepare_dataset(
    source: Source,
    clip_spec: ClipSpec,
    sampling: SamplingConfig,
    out_dir: str | Path,
    *,
    name: str = "clips",
    split: str = "train",
    num_workers: int = 2,
) -> list[ReadResult]:
    """Read all clips of `source` and write them in order to `out_dir/NAME/1.0.0`; return the failed reads.

    Read it with `open_source(out_dir)` or `open_source("tfds:NAME:SPLIT?data_dir=OUT_DIR")`. The folder gets its final
    name when it is complete. Repeating an interrupted call continues after the last complete shard.
    """
    for parameter, value in (("name", name), ("split", split)):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", value):
            raise ValueError(
                f"expected a {parameter} of lower-case letters, digits and _, such as clips; got {value!r}"
            )
    folder = Path(out_dir) / name / DATASET_VERSION
    job = _PrepareJob(source, clip_spec, replace(sampling, normalise=False), folder, split, num_workers)
    distributed.main_process_first(lambda: _claim_dataset(job, Path(out_dir)))
    distributed.require_shared_folder(Path(out_dir))
    try:
        with explain_disk_full(folder):
            if distributed.is_main_process():
                failures = _run_job(job)
            else:
                failures = list(job.reads_in_order(distributed.broadcast_from_main(0)))  # decodes its share; empty
            distributed.wait_for_all()
            return failures
    finally:
        if distributed.is_main_process():
            shutil.rmtree(job.clip_folder, ignore_errors=True)
        if distributed.is_main_process() and not (job.part_folder / PREPARE_PROGRESS_FILE).exists():
            shutil.rmtree(job.part_folder, ignore_errors=True)


def _claim_dataset(job: "_PrepareJob", out_dir: Path) -> None:
    lock_folder(out_dir)
    if job.folder.exists():
        raise ValueError(f"{job.folder} already contains a dataset; remove it, or choose another name")
    if distributed.process_count() > 1:
        job.clip_folder.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class _PrepareJob:
    """Arguments of `prepare_dataset`."""

    source: Source
    clip_spec: ClipSpec
    sampling: SamplingConfig
    folder: Path
    split: str
    num_workers: int

    @property
    def part_folder(self) -> Path:
        """Folder of the unfinished dataset."""
        return self.folder.with_name(f".{DATASET_VERSION}.part")

    @property
    def clip_folder(self) -> Path:
        """Folder of the clips that several processes have decoded, until they are in the dataset."""
        return self.folder.with_name(f".{DATASET_VERSION}.clips.part")

    def reads_in_order(self, first: int) -> Iterator[ReadResult]:
        """Yield the clips from item `first` on in the first process, of which all processes decode a share."""
        positions = range(first, len(self.source.items))
        return stream_from_processes(
            self.source, self.clip_spec, self.sampling, positions, self.clip_folder, self.num_workers
        )

    @property
    def request(self) -> str:
        """Text of everything that determines the clips."""
        identity = [self.source.spec, self.source.identity, self.source.heads]
        made_by = [code_hash("data/*.py", "clip_spec.py"), package_versions()]
        return json.dumps([*identity, asdict(self.clip_spec), asdict(self.sampling), self.split, made_by])


def _run_job(job: _PrepareJob) -> list[ReadResult]:
    source, part, progress_before = job.source, job.part_folder, _load_progress(job)
    if progress_before is None:  # no unfinished dataset, or one of another request
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    items, failures = _write_shards(job, progress_before or PrepareProgress())
    if not items:
        raise ValueError(
            f"none of the {len(failures)} clips of {source.spec} can be read; first: {failures[0].failure}"
        )
    index = {
        "source": source.spec,
        "split": job.split,
        "geometry": asdict(job.clip_spec),
        "how": asdict(job.sampling),
        "heads": source.heads,
        "items": [_item_record(item) for item in items],
        "failed": [{"name": read.item.name, "reason": read.failure} for read in failures],
    }
    (part / DATASET_INDEX_FILE).write_text(json.dumps(index, indent=1), encoding="utf-8")
    (part / PREPARE_PROGRESS_FILE).unlink(missing_ok=True)
    part.rename(job.folder)
    return failures


@dataclass(frozen=True)
class PrepareProgress:
    """Items of an interrupted run in complete shards, and items that cannot be read with reasons."""

    written_items: tuple[int, ...] = ()
    failed_items: tuple[tuple[int, str], ...] = ()
    contents: tuple[str, ...] = ()  # of the written items

    @property
    def n_reads(self) -> int:
        return len(self.written_items) + len(self.failed_items)


def _load_progress(job: _PrepareJob) -> PrepareProgress | None:
    """Return the progress of the same request, None if there is none; restore TFDS's files to that state."""
    try:
        saved_progress = load_json(job.part_folder / PREPARE_PROGRESS_FILE)
        is_same_request = saved_progress["asked"] == job.request
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        info(f"note: {job.part_folder / PREPARE_PROGRESS_FILE} is damaged; all clips are read again")
        return None
    if not is_same_request:
        return None
    written = zip(saved_progress["written_items"], saved_progress["contents"], strict=True)
    if changed := [job.source.items[i].name for i, content in written if not is_unchanged(job.source, i, content)]:
        info(f"note: the files of {abridged_list(changed)} have changed since; all clips are read again")
        return None
    for stale in job.part_folder.glob(".*.part*"):
        stale.unlink()
    for file, text in saved_progress["files"].items():
        write_text(job.part_folder / file, text)
    return PrepareProgress(
        tuple(saved_progress["written_items"]),
        tuple((i, reason) for i, reason in saved_progress["failed_items"]),
        tuple(saved_progress["contents"]),
    )


def _save_progress(job: _PrepareJob, progress_now: PrepareProgress) -> None:
    files = {
        path.name: path.read_text(encoding="utf-8") for path in job.part_folder.iterdir() if _is_metadata_file(path)
    }
    write_text(
        job.part_folder / PREPARE_PROGRESS_FILE,
        json.dumps({"asked": job.request, "files": files, **asdict(progress_now)}),
    )


def _is_metadata_file(path: Path) -> bool:
    return path.suffix in (".json", ".txt") and path.name != PREPARE_PROGRESS_FILE


def _write_shards(job: _PrepareJob, progress_before: PrepareProgress) -> tuple[list[SourceItem], list[ReadResult]]:
    from tensorflow_datasets.core import DatasetIdentity, DatasetInfo, SequentialWriter

    source, clip_spec, sampling, part, split = job.source, job.clip_spec, job.sampling, job.part_folder, job.split
    name = job.folder.parent.name
    columns = {head: re.sub(r"\W", "_", head) for head in source.heads}
    if len(set(columns.values())) < len(columns):
        raise ValueError(f"{source.spec} has heads whose names differ only in punctuation: {', '.join(columns)}")
    views = sampling.clips_per_video * (3 if sampling.views == "three_crop" else 1)
    features = _dataset_features(
        (views, *clip_spec.shape), sampling.clips_per_video, {columns[h]: names for h, names in source.heads.items()}
    )
    identity = DatasetIdentity(name=name, version=DATASET_VERSION, data_dir=str(part), module_name="vtcav_jax")  # pyright: ignore[reportArgumentType] (tfds takes text)
    info = DatasetInfo(builder=identity, features=features, description=f"Clips of {source.spec}, by vtcav_jax")
    clips_per_shard = max(1, SHARD_BYTES // (views * int(np.prod(clip_spec.shape))))
    writer = SequentialWriter(info, max_examples_per_shard=clips_per_shard, file_format="array_record", overwrite=False)
    writer.initialize_splits([split], fail_if_exists=False)
    written_items, contents, failures = (
        list(progress_before.written_items),
        list(progress_before.contents),
        [ReadResult(i, source.items[i], None, reason) for i, reason in progress_before.failed_items],
    )
    reads = job.reads_in_order(distributed.broadcast_from_main(progress_before.n_reads))
    progress_note = f"{progress_before.n_reads} done before" if progress_before.n_reads else ""
    for read in progress(
        reads, len(source.items) - progress_before.n_reads, "clips", size=lambda _: 1, note=lambda: progress_note
    ):
        if (clip := read.clip) is None:
            failures.append(read)
            continue
        written_items.append(read.index)
        contents.append(clip.content)
        example: dict[str, Any] = {name: getattr(clip, name) for name in CLIP_FEATURES}
        example |= {"frames": clip.frames.astype(np.int64), "times": clip.times.astype(np.float64)}
        example |= {"name": read.item.name, "identity": clip.identity}
        if columns:
            example["labels"] = {column: read.item.labels.get(head, -1) for head, column in columns.items()}
        writer.add_examples({split: [example]})
        if sum(info.splits[split].shard_lengths) == len(written_items):  # all items are in complete shards
            reasons = tuple((read.index, str(read.failure)) for read in failures)
            _save_progress(job, PrepareProgress(tuple(written_items), reasons, tuple(contents)))
    writer.close_all()
    (part / "metadata.json").unlink(missing_ok=True)  # empty; TFDS writes it only when it continues a dataset
    return [source.items[i] for i in written_items], failures


def _dataset_features(shape: tuple[int, ...], n_clips: int, heads: dict[str, Sequence[str]]) -> Any:
    from tensorflow_datasets.core import features as tfds

    frame_shape = (n_clips, shape[1])
    columns: dict[str, Any] = {
        "video": tfds.Tensor(shape=shape, dtype=np.uint8, encoding="bytes"),
        "frames": tfds.Tensor(shape=frame_shape, dtype=np.int64, encoding="bytes"),
        "times": tfds.Tensor(shape=frame_shape, dtype=np.float64, encoding="bytes"),
        "padded": tfds.Scalar(np.bool_),
        "name": tfds.Text(),
        "content": tfds.Text(),
        "identity": tfds.Text(),
    }
    if heads:
        columns["labels"] = {head: tfds.ClassLabel(names=list(names)) for head, names in heads.items()}
    return tfds.FeaturesDict(columns)


def find_prepared(folder: Path) -> Path | None:
    """Return the prepared dataset at `folder` or the only one in it; None if there is none."""
    if (folder / DATASET_INDEX_FILE).exists() and (folder / "features.json").exists():
        return folder
    candidates = [
        path.parent for depth in ("", "*/") for path in folder.glob(f"{depth}{DATASET_VERSION}/{DATASET_INDEX_FILE}")
    ]
    if len(candidates) > 1:
        raise ValueError(f"{folder} contains several datasets; open one of {', '.join(map(str, sorted(candidates)))}")
    return candidates[0] if candidates else None


def _item_record(item: SourceItem) -> dict[str, Any]:
    record: dict[str, Any] = {"name": item.name, "labels": item.labels, "source": item.source}
    return record | ({"further_labels": item.further_labels} if item.further_labels else {})


def open_prepared(folder: Path, spec: str, split: str | None = None) -> PreparedDataset:
    try:
        index = load_json(folder / DATASET_INDEX_FILE)
        spec_fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in index["geometry"].items()}
        heads = {head: tuple(names) for head, names in index["heads"].items()}
        items = tuple(
            SourceItem(
                item["name"],
                item["labels"],
                source=item.get("source", ""),
                further_labels={head: tuple(labels) for head, labels in item.get("further_labels", {}).items()},
            )
            for item in index["items"]
        )
        records = open_records(folder, index["split"])
        if split not in (None, index["split"]):
            raise ValueError(f"{spec}: there is no split {split!r}, only {index['split']!r}")
        dataset = PreparedDataset(spec, heads, items, records, ClipSpec(**spec_fields), SamplingConfig(**index["how"]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / DATASET_INDEX_FILE} is damaged ({error}); prepare the dataset again") from error
    if len(records) != len(items):
        raise ValueError(f"{folder} has {len(records)} clips, expected {len(items)}; prepare the dataset again")
    return dataset
