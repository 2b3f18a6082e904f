"""Inputs of mining: videos, their labels and the source of boxes; all are checked before any video is scanned."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vtcav_jax.concepts.boxes import KEYPOINT_COUNT, Box, read_boxes
from vtcav_jax.concepts.config import MiningConfig, folder_name
from vtcav_jax.concepts.near_duplicates import near_duplicate_pairs
from vtcav_jax.concepts.video_scan import BoxTable, Detector
from vtcav_jax.console import progress
from vtcav_jax.data.open import open_source
from vtcav_jax.data.overlap import shared_items, shared_note
from vtcav_jax.data.source import FileSource, Source, SourceItem, disambiguate, one_line
from vtcav_jax.data.world_export import write_video
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.names import escape_control_chars, unknown_name_message

WORLD_CLIPS_PER_BATCH = 64  # synthetic clips
MAX_UNMATCHED_NAMES = 3

VideoInput = Source | str | Path | Sequence[str | Path]  # a source, a specification for `open_source`, or files
LabelledItem = tuple[SourceItem, dict[str, str]]  # a video and its class of each head


@dataclass(frozen=True)
class WorldVideos:
    """Clips of a synthetic world written to video files, with ground-truth boxes."""

    source: WorldSource
    parent: Path

    @property
    def folder(self) -> Path:
        return self.parent / folder_name(f"{self.source.name}_{self.source.n_clips}_{self.source.seed}")

    def path(self, item: SourceItem) -> Path:
        return self.folder / f"{item.name}.mp4"

    def boxes(self) -> dict[str, tuple[Box, ...]]:
        """Return the ground-truth boxes by item name."""
        boxes_by_name: dict[str, list[Box]] = {item.name: [] for item in self.source.items}
        names = list(boxes_by_name)
        for first, n_clips in progress(self._parts(), self.source.n_clips, "clips", size=lambda part: part[1]):
            clips = self.source.render(first, n_clips)
            for clip, frame, track, *corners in clips.boxes.tolist():
                boxes_by_name[names[clip]].append(Box(frame, track, clips.world.tracks[track], *corners))
        return {name: tuple(clip_boxes) for name, clip_boxes in boxes_by_name.items()}

    def write(self) -> None:
        """Write the videos that do not exist yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for first, n_clips in progress(self._parts(), self.source.n_clips, "videos", size=lambda part: part[1]):
            paths = [self.path(item) for item in self.source.items[first : first + n_clips]]
            if not all(path.exists() for path in paths):
                clips = self.source.render(first, n_clips)
                for path, video in zip(paths, clips.video):
                    if not path.exists():
                        write_video(path, video)

    def _parts(self) -> Iterator[tuple[int, int]]:
        for first in range(0, self.source.n_clips, WORLD_CLIPS_PER_BATCH):
            yield first, min(WORLD_CLIPS_PER_BATCH, self.source.n_clips - first)


def as_source(videos: VideoInput) -> Source:
    if isinstance(videos, str | Path):
        return open_source(videos)
    if isinstance(videos, Sequence):
        paths = [Path(path) for path in videos]
        names = disambiguate(one_line(path.name) for path in paths)
        return FileSource("files", {}, tuple(SourceItem(name, {}, path) for name, path in zip(names, paths)))
    return videos


def items_with_labels(source: Source, parent: Path) -> list[LabelledItem]:
    """Return the videos and their labels; videos of a world will be written to a folder in `parent`."""
    items = list(source.items)
    if isinstance(source, WorldSource):
        world_videos = WorldVideos(source, parent)
        items = [SourceItem(item.name, item.labels, world_videos.path(item)) for item in items]
    else:
        require_files(source)
    return [(item, {head: source.heads[head][value] for head, value in item.labels.items()}) for item in items]


def require_files(source: Source) -> None:
    """Raise ValueError if boxes cannot be cropped from the videos of a source, since they are no local files."""
    if isinstance(source, WorldSource):
        return
    if stored := [item for item in source.items if item.stored_video]:
        raise ValueError(
            f"{len(stored)} videos of {source.spec} are at addresses or in tar files, from which boxes are not cropped;"
            " copy them into a folder first"
        )
    if not all(item.path for item in source.items):
        raise ValueError(
            f"{source.spec} has decoded clips but no video files to crop boxes from; pass the videos themselves"
        )


def make_detector(
    config: MiningConfig, items: Sequence[LabelledItem], world_videos: Sequence[WorldVideos]
) -> Detector | BoxTable:
    """Return the source of boxes: the detector, the table of `config`, or the sources' own boxes."""
    if config.detector:
        from vtcav_jax.concepts import detect

        return detect.load_detector(config.detector, config)
    if config.boxes:
        return boxes_from_table(config.boxes, [item for item, _ in items])
    tables: dict[Path, dict[str, tuple[Box, ...]]] = {}
    by_file = {}
    for item, _ in items:
        if item.boxes and item.path:
            if item.boxes not in tables:
                tables[item.boxes] = read_boxes(item.boxes)
            by_file[item.name] = BoxTable("", tables[item.boxes]).boxes_of(item) or tables[item.boxes].get("", ())
    for videos in world_videos:
        by_file |= videos.boxes()
    if not by_file:
        raise ValueError("no source of boxes; pass a detector's weights, or a CSV of boxes")
    return BoxTable("boxes", by_file)


def boxes_from_table(path: Path, items: Sequence[SourceItem]) -> BoxTable:
    """Read a table of boxes and check that its file names identify the videos."""
    by_file = read_boxes(path)
    if "" in by_file and len(items) == 1:
        by_file = {items[0].name: by_file[""]}
    box_table = BoxTable(path.name, by_file)
    paths_by_name: dict[str, set[Path]] = defaultdict(set)
    for item in items:
        if item.path and item.name not in by_file and item.path.name in by_file:
            paths_by_name[item.path.name].add(item.path)
    if ambiguous := [name for name, paths in paths_by_name.items() if len(paths) > 1]:
        unique_name = next(item.name for item in items if item.path and item.path.name == ambiguous[0])
        raise ValueError(
            f"{path.name}: {len(ambiguous)} file names match several videos, such as"
            f" {escape_control_chars(ambiguous[0])}; write {unique_name} in the column file instead"
        )
    if not any(box_table.boxes_of(item) for item in items if item.path):
        raise ValueError(
            f"{path.name} has no box for any of the {len(items)} videos; expected names such as {items[0].name!r} in"
            f" the column file, got {next(iter(by_file), '')!r}"
        )
    return box_table


def unmatched_files(box_source: Detector | BoxTable, items: Sequence[LabelledItem]) -> list[str]:
    """Return a note on files that a table of boxes names but the source lacks, since this is often a mistake."""
    if not isinstance(box_source, BoxTable):
        return []
    known = {name for item, _ in items if item.path for name in (item.name, item.path.name)}
    unexpected = [name for name in box_source.by_file if name not in known]
    more = f" and {len(unexpected) - MAX_UNMATCHED_NAMES} more" if len(unexpected) > MAX_UNMATCHED_NAMES else ""
    named = ", ".join(map(repr, unexpected[:MAX_UNMATCHED_NAMES]))
    return [f"{box_source.name} has boxes for files that are not among the videos: {named}{more}"] if unexpected else []


def check_labels(config: MiningConfig, box_source: Detector | BoxTable, items: Sequence[LabelledItem]) -> None:
    """Raise ValueError if the boxes or videos lack a label or class that a concept names."""
    faults = []
    if unexpected := sorted({c.label for c in config.concepts} - set(box_source.labels)):
        faults.append(f"{box_source.name}: {unknown_name_message('label', unexpected, box_source.labels)}")
    if config.background == "grey" and not getattr(box_source, "has_outlines", False):
        faults.append(
            f"{box_source.name} has no outlines, which --background=grey needs; pass a segmentation network, such as"
            " yolov8n-seg.pt, or boxes with the column outline"
        )
    if config.movements and (count := getattr(box_source, "keypoint_count", 0)) != KEYPOINT_COUNT:
        faults.append(
            f"{box_source.name} has {count or 'no'} keypoints, but movements need the {KEYPOINT_COUNT} of COCO; pass a"
            " pose network, such as yolov8n-pose.pt, or boxes with the column keypoints"
        )
    known = {f"{head}:{answer}" for _, answers in items for head, answer in answers.items()}
    requested = {f"{c.head}:{c.answer}" for c in config.concepts if c.head}
    if unexpected := sorted(requested - known):
        faults.append(unknown_name_message("HEAD:CLASS of the videos", unexpected, sorted(known) or ["none"]))
    if faults:
        raise ValueError("\n".join(map(escape_control_chars, faults)))


def forbid_same_world(world_videos: Sequence[WorldVideos], targets: Source) -> None:
    """Raise ValueError if the targets have the same world and seed, and hence the same clips whatever their number."""
    if not isinstance(targets, WorldSource):
        return
    for videos in world_videos:
        if (videos.source.world, videos.source.seed) == (targets.world, targets.seed):
            raise ValueError(
                f"{videos.source.spec} has the same clips as the targets, {targets.spec}; change the seed of one"
            )


def target_items(source: Source, targets: Source) -> dict[int, str]:
    """Return the indices of the items of `source` that are targets, or show the recording of one, with its name."""
    shared = shared_items(source, targets)
    paths = {item.path: i for i, item in enumerate(source.items) if item.path is not None and i not in shared}
    target_paths = {item.path: item.name for item in targets.items if item.path is not None}
    for path, target_path in near_duplicate_pairs(list(paths), list(target_paths)):
        shared[paths[path]] = target_paths[target_path]
    return dict(sorted(shared.items()))


def without_targets(source: Source, targets: Source, notes: list[str]) -> Source:
    """Return a source of files without the targets, about which a note is added; an error if none is left."""
    if not targets.items or not isinstance(source, FileSource) or not (shared := target_items(source, targets)):
        return source
    require_other_than_targets(source, shared)
    notes.append(shared_note(source, shared, "targets"))
    return replace(source, items=tuple(item for i, item in enumerate(source.items) if i not in shared))


def require_other_than_targets(source: Source, shared: Mapping[int, str]) -> None:
    if len(shared) == len(source.items):
        raise ValueError(
            f"all {len(shared)} videos of {source.spec} are target videos or show their recordings, and cannot be used"
            " for concepts or negatives; pass other videos or targets"
        )
