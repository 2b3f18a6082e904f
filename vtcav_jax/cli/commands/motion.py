"""Command of the task motion: measure how much each decision depends on motion, per class and per clip."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from vtcav_jax import atomic, distributed
from vtcav_jax.attribution.motion.optical_flow import is_motion_known
from vtcav_jax.attribution.motion.part_rows import part_means
from vtcav_jax.attribution.motion.reliance import (
    MotionConfig,
    MotionEvidence,
    resolve_motion_methods,
    stream_motion,
)
from vtcav_jax.attribution.motion.summary import motion_sentences, summarise_by_class
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.attribution.videos.stored_results import StoredResults
from vtcav_jax.checksums import json_sha256
from vtcav_jax.cli.arguments import (
    TARGETS_HELP,
    LabelTreeArguments,
    ModelArguments,
    ProcessArguments,
    RandomWeightsArguments,
    RunArguments,
    VideoArguments,
)
from vtcav_jax.cli.commands import (
    all_failed_error,
    format_estimate,
    format_table,
    load_network,
    open_nonempty,
    source_request,
)
from vtcav_jax.cli.commands.report import write_page
from vtcav_jax.cli.motion_depth import write_time_sensitivity
from vtcav_jax.cli.motion_examples import parts_file, select_examples, write_examples
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import info, progress
from vtcav_jax.data import ReadResult, SamplingConfig, failure_table, write_failures
from vtcav_jax.runs import directory
from vtcav_jax.runs.attribution_rows import (
    KNOWN_MOTION,
    MOTION_CLASSES_CSV,
    MOTION_CSV,
    MOTION_MAP_MEANS_CSV,
    MOTION_MAPS_CSV,
    MOTION_PARTS_FOLDER,
    ClassMotionRow,
    ClipMotionRow,
    MotionMapMeanRow,
    MotionMapRow,
)
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.time_sensitivity_rows import TIME_SENSITIVITY_CSV
from vtcav_jax.settings import BATCH_HELP, MAX_BATCH_SIZE, concerning, nested, setting


@dataclass(frozen=True, kw_only=True)
class MotionArguments(
    ModelArguments, LabelTreeArguments, VideoArguments, RunArguments, RandomWeightsArguments, ProcessArguments
):
    targets: tuple[str, ...] = setting((), TARGETS_HELP)
    slide_over_video: bool = setting(False, "measure consecutive clips from the start to the end of each video")
    examples: int = setting(
        12,
        "videos per target whose first clip is stored with its maps and their motion and static parts, spread over the"
        " predicted classes; 0: none",
        minimum=0,
    )
    animations: Literal["webp", "mp4", "none"] = setting("webp", "format of the animated examples")
    depth_videos: int = setting(
        16,
        "videos, spread over the source, in which the sensitivity of each layer to time is measured; 0: none",
        minimum=0,
    )
    sampling: SamplingConfig = nested(SamplingConfig)
    batch_size: int = setting(4, BATCH_HELP, minimum=1, maximum=MAX_BATCH_SIZE)
    config: MotionConfig = nested(MotionConfig)


def measure_motion_reliance(args: MotionArguments, context: CommandContext) -> None:
    """Measure every video, write tables, examples and a report page; continue an interrupted run."""
    config = args.config
    source = open_nonempty(args.videos)
    network = load_network(args, config.seed)
    with concerning("targets"):
        target_specs = parse_targets(network, args.targets)
    with concerning("methods"):
        method_stages = resolve_motion_methods(network, config, target_specs)
    request = source_request("motion", args, source, target_specs) | {"slide_over_video": args.slide_over_video}
    request |= asdict(config) | {"methods": method_stages, "motion_thresholds": config.all_thresholds}
    request |= {"examples": args.examples, "animations": args.animations, "depth_videos": args.depth_videos}
    if config.compare_optical_flow and is_motion_known(source, network.clip_spec):
        request["moving_pixels"] = KNOWN_MOTION
    folder = directory.open_run(args.run, request, context.flags_text, network=network.identity())
    parts = folder / "clips"
    for path in (parts, folder / MOTION_PARTS_FOLDER):
        path.mkdir(exist_ok=True)
    stored = StoredResults(parts, ".json", source, lambda path: _read_evidence(path)[0])

    def videos_to_measure() -> list[int]:
        todo, n_invalid = stored.drop_invalid()
        if n_invalid:
            (folder / TIME_SENSITIVITY_CSV).unlink(missing_ok=True)
        return todo

    failed: list[ReadResult] = []
    for todo in distributed.work_rounds(videos_to_measure, stored.has_result, args.batch_size):
        results = stream_motion(
            network,
            source,
            target_specs,
            method_stages,
            config,
            args.sampling,
            batch_size=args.batch_size,
            slide_over_video=args.slide_over_video,
            num_workers=args.num_workers,
            indices=todo,
        )
        failed = []
        for read, video_rows in progress(results, len(todo), "videos", size=lambda _: 1):
            if read.clip is None:
                failed.append(read)
            else:
                evidence = {"content": read.clip.content, "clips": [asdict(row) for row in video_rows]}
                atomic.write_text(stored.path(read.index), json.dumps(evidence | {"sha256": json_sha256(evidence)}))
    if not distributed.is_main_process():
        return
    write_failures(folder / "motion_failures.csv", failed)
    videos = {path.stem: _read_evidence(path) for path in stored.paths()}
    records = [(stem, item) for stem, (_, clips) in videos.items() for item in clips]
    if failed and not records:
        raise all_failed_error(source, failed)
    examples = {
        target_spec.name: select_examples(
            [
                (int(stem[:6]), replace(item.row, parts_file=parts_file(stem, target_spec.name)))
                for stem, item in records
                if item.row.target == target_spec.name
            ],
            args.examples,
        )
        for target_spec in target_specs
    }
    sampling = replace(args.sampling, start=0) if args.slide_over_video else args.sampling
    for target_spec in progress(target_specs, len(target_specs), "targets of examples", size=lambda _: 1):
        write_examples(
            *(folder, network, source, target_spec, method_stages, config, examples[target_spec.name]),
            contents={int(stem[:6]): content for stem, (content, _) in videos.items()},
            sampling=sampling,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            animations=args.animations,
        )
    example_rows = {
        (index, row.target): row
        for rows in examples.values()
        for index, row in rows
        if (folder / row.parts_file).is_file()  # not of a video that could no longer be read
    }
    clip_rows = [
        item.row if item.row.clip_index else example_rows.get((int(stem[:6]), item.row.target), item.row)
        for stem, item in records
    ]
    lines = _write_tables(folder, clip_rows, [item for _, item in records], config)
    info("\n" + "\n".join(lines))
    if failed:
        info(failure_table(failed))
    info(f"\nTable of clips: {folder / MOTION_CSV}\nTable of classes: {folder / MOTION_CLASSES_CSV}")
    info(f"Table of maps: {folder / MOTION_MAPS_CSV}\nTable of their means: {folder / MOTION_MAP_MEANS_CSV}")
    write_time_sensitivity(
        *(folder, network, source, target_specs, args.depth_videos),
        sampling=sampling,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        seed=config.seed,
    )
    if example_rows:
        info(f"Maps with their motion and static parts: {folder / MOTION_PARTS_FOLDER}")
    write_page([folder])


def _read_evidence(path: Path) -> tuple[str, list[MotionEvidence]]:
    """Return the content of a video and the evidence of its clips; a damaged file raises an error."""
    video = json.loads(path.read_text("utf-8"))
    if video.pop("sha256") != json_sha256(video):
        raise ValueError(f"{path} does not have its checksum")
    return video["content"], [
        MotionEvidence(
            ClipMotionRow(**item["row"]),
            tuple(item["classes"]),
            item["margins"],
            tuple(MotionMapRow(**row) for row in item["maps"]),
        )
        for item in video["clips"]
    ]


def _write_tables(
    folder: Path, clip_rows: Sequence[ClipMotionRow], evidence: Sequence[MotionEvidence], config: MotionConfig
) -> list[str]:
    """Write all tables and print those of classes and of maps; return one sentence per class."""
    classes = summarise_by_class(evidence, config.seed)
    map_rows = [row for item in evidence for row in item.maps]
    means = part_means(map_rows, config.motion_threshold_sd)
    write_rows(folder / MOTION_CSV, ClipMotionRow, clip_rows)
    write_rows(folder / MOTION_CLASSES_CSV, ClassMotionRow, classes)
    write_rows(folder / MOTION_MAPS_CSV, MotionMapRow, map_rows)
    write_rows(folder / MOTION_MAP_MEANS_CSV, MotionMapMeanRow, means)
    lines = motion_sentences(classes)
    atomic.write_text(folder / "motion.txt", "\n".join(lines) + "\n")
    info(motion_table(classes))
    info("\n" + motion_map_table(means, config.motion_threshold_sd))
    return lines


def motion_table(rows: Sequence[ClassMotionRow]) -> str:
    """Format the lost shares of the score of each target and predicted class."""
    names = ("drop_shuffled", "drop_frozen", "drop_reversed")
    header = ("target / predicted class", "clips", "videos", "shuffled", "frozen", "reversed")
    cells = []
    for row in rows:
        shares = ([getattr(row, name + end) for end in ("", "_low", "_high")] for name in names)
        name = f"  {row.answer}" if row.answer else row.target
        cells.append((name, row.n_clips, row.n_videos, *(format_estimate(*share) for share in shares)))
    return (
        f"{format_table(header, cells, left=1)}\n"
        "Intervals: 95 % CI over source videos. shuffled, frozen, reversed: share of the score that is lost when the\n"
        "frames are edited in this way; the score counts from its value on clips of other classes, or from no\n"
        "preference if there are too few (above 1: the score falls below this value)."
    )


MAP_MEASURES = {
    "motion_share": "motion part",
    "excess": "beyond frozen",
    "area": "area",
    "flow_precision": "on moving pixels",
    "flow_precision_map": "map",
    "flow_precision_gain": "difference",
    "flow_precision_smoothed": "smoothed map",
    "flow_precision_difference": "frame difference",
    "flow_area": "moving area",
}


def motion_map_table(rows: Sequence[MotionMapMeanRow], threshold_sd: float) -> str:
    """Format the motion parts of the maps of each target and method, over all clips, at one threshold."""
    rows = [row for row in rows if row.threshold_sd == threshold_sd and not row.answer]
    names = [name for name in MAP_MEASURES if any(row.measure == name for row in rows)]
    cells = {}
    for row in rows:
        cells.setdefault((row.target, f"{row.method}@{row.stage}"), {})[row.measure] = format_estimate(
            row.mean, row.low, row.high
        )
    header = ("target", "map", *(MAP_MEASURES[name] for name in names))
    lines = [(*key, *(values.get(name, "undefined") for name in names)) for key, values in cells.items()]
    text = (
        "Selective relevance (95 % CI over source videos). motion part: share of the map that changes over time;\n"
        "beyond frozen: the same minus that of the frozen clip's map; area: share of the voxels."
    )
    if "flow_precision" in names:
        text += (
            "\non moving pixels: share of the motion part's cells; map, smoothed map, frame difference: the same of\n"
            "as many of their strongest cells; difference: motion part minus map; moving area: share of all pixels."
        )
    return f"{format_table(header, lines, left=2)}\n{text}"
