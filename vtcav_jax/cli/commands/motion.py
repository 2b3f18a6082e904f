"""Command of the task motion: measure how much each decision depends on motion, per class and per clip."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from vtcav_jax import atomic
from vtcav_jax.attribution.motion.reliance import MotionConfig, MotionEvidence, stream_motion
from vtcav_jax.attribution.motion.summary import motion_sentences, summarise_by_class
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.attribution.videos import map_store
from vtcav_jax.attribution.videos.explain_videos import resolve_methods
from vtcav_jax.cli.arguments import TARGETS_HELP, ModelArguments, RandomWeightsArguments, RunArguments, VideoArguments
from vtcav_jax.cli.commands import (
    all_failed_error,
    format_estimate,
    format_table,
    load_network,
    open_nonempty,
    single_value,
    source_request,
)
from vtcav_jax.cli.commands.report import write_page
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import info, progress
from vtcav_jax.data import SamplingConfig, failure_table, write_failures
from vtcav_jax.runs import directory
from vtcav_jax.runs.attribution_rows import ClassMotionRow, ClipMotionRow
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.settings import BATCH_HELP, concerning, nested, setting


@dataclass(frozen=True, kw_only=True)
class MotionArguments(ModelArguments, VideoArguments, RunArguments, RandomWeightsArguments):
    targets: tuple[str, ...] = setting((), TARGETS_HELP)
    methods: tuple[str, ...] = setting(
        ("gradient_x_input",), "attribution method (one) of the maps whose changing part is measured"
    )
    stages: tuple[str, ...] = setting((), "layer of the maps (one) [default: the method's default layer]")
    slide_over_video: bool = setting(False, "measure consecutive clips from the start to the end of each video")
    sampling: SamplingConfig = nested(SamplingConfig)
    batch_size: int = setting(4, BATCH_HELP, minimum=1)
    config: MotionConfig = nested(MotionConfig)


def measure_motion_reliance(args: MotionArguments, context: CommandContext) -> None:
    """Measure every video, write tables and a report page; continue an interrupted run."""
    method, stage = single_value(args.methods, "methods"), single_value(args.stages, "stages")
    config = replace(args.config, method=method or args.config.method, stage=stage)
    source = open_nonempty(args.videos)
    network = load_network(args.model, labels=args.labels, random_weights=args.random_weights, seed=config.seed)
    with concerning("targets"):
        target_specs = parse_targets(network, args.targets)
    resolve_methods(network, [config.method], [config.stage] if config.stage else [], target_specs)
    request = source_request("motion", args, source, target_specs) | {"slide_over_video": args.slide_over_video}
    folder = directory.open_run(args.run, request | asdict(config), context.flags_text)
    parts = folder / "clips"
    parts.mkdir(exist_ok=True)
    finished = {int(path.name[:6]) for path in parts.glob("*.json")}
    todo = [i for i in range(len(source.items)) if i not in finished]
    results = stream_motion(
        network,
        source,
        target_specs,
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
            atomic.write_text(
                parts / f"{map_store.video_stem(read)}.json", json.dumps([asdict(row) for row in video_rows])
            )
    records = [record for path in sorted(parts.glob("*.json")) for record in json.loads(path.read_text("utf-8"))]
    write_failures(folder / "motion_failures.csv", failed)
    if failed and not records:
        raise all_failed_error(source, failed)
    evidence = [MotionEvidence(ClipMotionRow(**r["row"]), tuple(r["classes"]), r["margins"]) for r in records]
    classes = summarise_by_class(evidence, config.seed)
    write_rows(folder / "motion.csv", ClipMotionRow, [clip_evidence.row for clip_evidence in evidence])
    write_rows(folder / "motion_classes.csv", ClassMotionRow, classes)
    lines = motion_sentences(classes)
    atomic.write_text(folder / "motion.txt", "\n".join(lines) + "\n")
    info(motion_table(classes))
    info("\n" + "\n".join(lines))
    if failed:
        info(failure_table(failed))
    info(f"\nTable of clips: {folder / 'motion.csv'}\nTable of classes: {folder / 'motion_classes.csv'}")
    write_page([folder])


def motion_table(rows: Sequence[ClassMotionRow]) -> str:
    """Format the lost shares of the score and the changing share of the map of each target and predicted class."""
    names = ("drop_shuffled", "drop_frozen", "drop_reversed", "changing_mass", "changing_mass_excess")
    header = (
        "target / predicted class",
        "clips",
        "videos",
        "shuffled",
        "frozen",
        "reversed",
        "map changes",
        "beyond frozen",
    )
    cells = []
    for row in rows:
        shares = ([getattr(row, name + end) for end in ("", "_low", "_high")] for name in names)
        name = f"  {row.answer}" if row.answer else row.target
        cells.append((name, row.n_clips, row.n_videos, *(format_estimate(*share) for share in shares)))
    return (
        f"{format_table(header, cells, left=1)}\n"
        "Intervals: 95 % CI over source videos. shuffled, frozen, reversed: share of the score that is lost when the\n"
        "frames are edited in this way; the score counts from its value on clips of other classes, or from no\n"
        "preference if there are too few (above 1: the score falls below this value). map changes: share of the\n"
        "attribution map that changes over time; beyond frozen: that share minus the share in the frozen clip's map."
    )
