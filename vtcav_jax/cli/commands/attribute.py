"""Command of the task attribute: write attribution maps as files and animations, and measure their reliability."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vtcav_jax import distributed, tap
from vtcav_jax.attribution.sanity_checks import SANITY_MEASURES, SanityScores, sanity_scores
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.attribution.targets import ConceptTarget
from vtcav_jax.attribution.videos import map_store, temporal_profile
from vtcav_jax.attribution.videos.clip_windows import Window, stream_windows
from vtcav_jax.attribution.videos.explain_videos import (
    VideoMaps,
    explain_videos,
)
from vtcav_jax.attribution.videos.stored_results import StoredResults, animation_hashes, npz_content
from vtcav_jax.cli.commands import all_failed_error, format_estimate, format_table, source_request
from vtcav_jax.cli.commands.attribution_job import (
    AttributeArguments,
    AttributionJob,
    describe_plan,
    mixed_stage_names,
    resolve_job,
)
from vtcav_jax.cli.commands.report import write_page
from vtcav_jax.cli.gallery import write_gallery
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import info, progress
from vtcav_jax.data import ReadResult, failure_table, write_failures
from vtcav_jax.data.encode import write_with_poster
from vtcav_jax.evaluation.faithfulness.own_clips import (
    BEAT_TRIVIAL_METRICS,
    compare_with_trivial,
    displayed_titles,
    metric_title,
    own_clip_metrics,
)
from vtcav_jax.evaluation.regions import ground_truth_flow, target_region
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.models import Network
from vtcav_jax.names import count_noun
from vtcav_jax.report.animation import maps as map_animations
from vtcav_jax.report.animation.overlay import DEFAULT_STYLE
from vtcav_jax.runs import directory
from vtcav_jax.runs.attribution_rows import (
    FAITHFULNESS_CSV,
    MAPS_CSV,
    PROFILE_CSV,
    SANITY_CSV,
    MapRow,
    OwnMetricRow,
    ProfileRow,
    SanityRow,
)
from vtcav_jax.runs.directory import ANIMATION_FOLDER
from vtcav_jax.runs.evaluation_rows import TRIVIAL_MAPS
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.settings import (
    SettingError,
)
from vtcav_jax.stats import intervals

MAX_MAP_ROWS = 40  # rows on the terminal
SANITY_TITLES = {
    "flicker": "flicker along the motion, relative to the map",
    "static_flicker": "the same for the frozen clip",
    "time_reversal_change": "1 - correlation with the map of the reversed clip",
    "mass_outside": "share of the map outside the target's region",
    "area_outside": "share of the volume outside it (chance level)",
    "randomised_weights_similarity": "rank correlation with shuffled weights",
}


def attribute(args: AttributeArguments, context: CommandContext) -> None:
    """Write maps of every video, animations, tables and a report page; continue an interrupted run."""
    job = resolve_job(args)
    info(describe_plan(job))
    folder = open_attribution_run(job, context.flags_text)
    failed = write_maps(job, folder)
    if not distributed.is_main_process():
        return
    rows = write_map_tables(folder, failed, job)
    info(map_table(rows, folder / MAPS_CSV))
    if failed:
        info(failure_table(failed))
    info(f"\nMaps: {folder / 'maps'}\nTable of maps: {folder / MAPS_CSV}")
    if args.animations != "none":
        info(f"Animations: {folder / ANIMATION_FOLDER}")
    if job.conditional is not None:
        write_gallery(job, folder)
    if n_clips := max(args.sanity_clips, args.faithfulness_clips):
        check_maps(job, folder, first_readable(job, n_clips))
    write_page([folder])


def open_attribution_run(job: AttributionJob, flags_text: str) -> Path:
    """Open the run folder, a new one or that of an interrupted run, and return it."""
    args = job.args
    request = source_request("attribute", args, job.source, job.target_specs) | {
        "slide_over_video": args.slide_over_video,
        "methods": job.method_stages,
        "baselines": list(args.baselines),
        "animations": args.animations,
        "seed": args.seed,
    }
    if "integrated_gradients" in job.options:
        request["ig_steps"] = args.ig_steps
    if removal := {name: value for name, value in vars(args.removal).items() if value is not None}:
        request["removal"] = removal
    if args.style != DEFAULT_STYLE:
        request["style"] = asdict(args.style)
    if job.conditional is not None:
        directions = job.conditional.directions.chosen
        request["through"] = {direction.name: direction.digest for direction in directions}
    if mixed := mixed_stage_names(job.network, job.target_specs, job.method_stages):
        request["mixed"] = mixed
        info(
            f"note: at {', '.join(mixed)}, attention has mixed all positions of a frame; maps there can miss the cause"
        )
    if references := job.options.get("expected_gradients"):
        request["references"] = hashlib.sha256(np.asarray(references["references"]).tobytes()).hexdigest()
    if vectors := {
        spec.name: fingerprint(spec.custom) for spec in job.target_specs if isinstance(spec.custom, ConceptTarget)
    }:
        request["vectors"] = vectors
    folder = directory.open_run(args.run, request, flags_text, network=job.network.identity())
    for part in ("maps", ANIMATION_FOLDER):
        (folder / part).mkdir(exist_ok=True)
    return folder


def write_maps(job: AttributionJob, folder: Path) -> list[ReadResult]:
    """Write the maps and animations of all videos without maps; return the videos that could not be read."""
    failed: list[ReadResult] = []
    stored = stored_maps(job, folder)
    for todo in distributed.work_rounds(lambda: stored.drop_invalid()[0], stored.has_result, job.args.batch_size):
        results = explain_videos(
            *(job.network, job.source, job.target_specs, job.method_stages, job.args.sampling),
            slide_over_video=job.args.slide_over_video,
            batch_size=job.args.batch_size,
            num_workers=job.args.num_workers,
            indices=todo,
            options=job.options,
        )
        failed = []  # anew in each round: what is left for the second one includes what failed in the first
        for result in progress(results, len(todo), "videos", size=lambda _: 1):
            if isinstance(result, VideoMaps):
                store_maps(job, folder, result)
            else:
                failed.append(result)
    return failed


def store_maps(job: AttributionJob, folder: Path, result: VideoMaps) -> None:
    """Write the maps of a video and their animation."""
    stem = map_store.video_stem(result.read)
    paths = []
    if job.args.animations != "none":
        film, rate = map_animations.draw_map_film(result, job.network.labels, job.args.style)
        file = folder / ANIMATION_FOLDER / map_animations.map_animation_name(stem, job.args.animations)
        paths = write_with_poster(file, film, rate)
    animations = animation_hashes(paths, folder / "maps")
    map_store.save_maps(folder / "maps" / f"{stem}.npz", result, job.network.labels, animations)


def stored_maps(job: AttributionJob, folder: Path) -> StoredResults:
    return StoredResults(folder / "maps", ".npz", job.source, npz_content)


def write_map_tables(folder: Path, failed: Sequence[ReadResult], job: AttributionJob) -> list[MapRow]:
    """Write the tables of all maps in the folder; raise a `SettingError` if no video could be read."""
    paths = stored_maps(job, folder).paths()
    rows = [row for path in paths for row in map_store.map_rows(path)]
    write_failures(folder / "attribute_failures.csv", failed)
    if failed and not paths:
        raise all_failed_error(job.source, failed)
    write_rows(folder / PROFILE_CSV, ProfileRow, temporal_profile.temporal_profiles(paths))
    write_rows(folder / MAPS_CSV, MapRow, rows)
    return rows


def check_maps(job: AttributionJob, folder: Path, clips: Sequence[Window]) -> None:
    """Run the sanity checks and faithfulness metrics on the first of `clips`, and write their tables."""
    args = job.args
    if not clips:
        raise SettingError(("videos", f"no clip of {job.source.spec} could be read"))
    if args.sanity_clips:
        sanity_rows = run_sanity_checks(job, clips[: args.sanity_clips])
        write_rows(folder / SANITY_CSV, SanityRow, sanity_rows)
        info(f"\n{sanity_table(sanity_rows)}\n\nSanity checks: {folder / SANITY_CSV}")
    if args.faithfulness_clips:
        metric_rows = run_faithfulness(job, clips[: args.faithfulness_clips])
        write_rows(folder / FAITHFULNESS_CSV, OwnMetricRow, metric_rows)
        info(f"\n{faithfulness_table(metric_rows)}\n\nFaithfulness metrics: {folder / FAITHFULNESS_CSV}")


def run_sanity_checks(job: AttributionJob, clips: Sequence[Window]) -> list[SanityRow]:
    """Return the sanity checks of every target and method, each averaged over `clips`."""
    network, source, batch_size = job.network, job.source, job.args.batch_size
    clip_spec = network.clip_spec
    parts: dict[tuple[str, str], list[SanityScores]] = {}
    groups = [clips[i : i + batch_size] for i in range(0, len(clips), batch_size)]
    checks = [(group, spec, *method) for group in groups for spec in job.target_specs for method in job.method_stages]
    for group, target_spec, name, stage in progress(checks, len(checks), "measurements", size=lambda _: 1):
        video = jnp.asarray(clip_spec.normalise(np.concatenate([window.clip.video for window in group])))
        target = target_spec.target(np.asarray(tap.compute_logits(network.model, video)))
        scores = sanity_scores(
            *(network.model, video, target, name, stage),
            region=_stack_known(
                [target_region(source, window, clip_spec, target_head(network, target_spec)) for window in group]
            ),
            flow=_stack_known([ground_truth_flow(source, window) for window in group]),
            shuffle_seed=job.args.seed,
            **job.options.get(name, {}),
        )
        parts.setdefault((target_spec.name, f"{name}@{scores.stage}"), []).append(scores)
    rows = []
    for (target, _), group in parts.items():
        for name in SANITY_MEASURES:
            values = np.concatenate([getattr(scores, name) for scores in group])
            n_known = int((~np.isnan(values)).sum())
            rows.append(SanityRow(target, group[0].method, group[0].stage, name, *intervals.mean_ci(values), n_known))
    return rows


def run_faithfulness(job: AttributionJob, clips: Sequence[Window]) -> list[OwnMetricRow]:
    """Return every faithfulness metric of every target's maps, averaged over `clips`."""
    network, batch_size = job.network, job.args.batch_size
    clip_spec, target_specs = network.clip_spec, job.target_specs
    video = clip_spec.normalise(np.concatenate([window.clip.video for window in clips]))
    parts = [jnp.asarray(video[i : i + batch_size]) for i in range(0, len(video), batch_size)]
    logits = np.concatenate([np.asarray(tap.compute_logits(network.model, part)) for part in parts])
    rows = []
    for i, target_spec in enumerate(target_specs):
        info(
            f"faithfulness metrics of {target_spec.name} (target {i + 1} of {len(target_specs)}) on"
            f" {count_noun(len(video), 'clip')}"
        )
        for part_rows in own_clip_metrics(
            *(network.model, video, target_spec, logits, job.method_stages, job.options),
            batch_size=batch_size,
            seed=job.args.seed,
        ):
            rows += part_rows
    return rows


def first_readable(job: AttributionJob, count: int) -> list[Window]:
    """Return the first `count` clips that can be read."""
    results = stream_windows(job.source, job.network.clip_spec, job.args.sampling, num_workers=job.args.num_workers)
    return list(islice((result for result in results if isinstance(result, Window)), count))


def target_head(network: Network, target_spec: TargetSpec) -> str:
    """Return the head that the target's classes belong to, or "" for a target that is not a class."""
    return next(
        (name for name, part in network.head_slices.items() if (part.start, part.stop) == target_spec.head_range), ""
    )


def map_table(rows: Sequence[MapRow], file: Path) -> str:
    """Format the first rows of the table of maps, which is in `file`."""
    header = ("clip", "target", "predicted class", "method", "stage", "score", "gap", "noise", "peak (s)")
    cells = []
    for row in rows[:MAX_MAP_ROWS]:
        gap = "" if np.isnan(row.completeness_gap) else f"{row.completeness_gap:.2g}"
        noise = f"{row.sampling_noise:.0%}" if row.sampling_noise else ""
        names = (row.clip, row.target, row.answer, row.method, row.stage)
        cells.append((*names, f"{row.score:.2f}", gap, noise, f"{row.peak_time:.2f}"))
    lines = [format_table(header, cells, left=5)]
    if len(rows) > MAX_MAP_ROWS:
        lines.append(f"... {len(rows) - MAX_MAP_ROWS} more rows in {file}")
    lines.append(
        "gap: score difference that the method should distribute, minus the sum of the map (empty for methods without\n"
        "this property); noise: standard errors of random masks relative to the map (root mean squares; empty without\n"
        "random masks); peak: time of the step with the largest share of the absolute map"
    )
    return "\n".join(lines)


def sanity_table(rows: Sequence[SanityRow]) -> str:
    """Format the sanity checks, with the methods of a target and measure in consecutive lines."""
    ordered = sorted(rows, key=lambda row: SANITY_MEASURES.index(row.measure))
    cells = [
        (row.target, SANITY_TITLES[row.measure], f"{row.method}@{row.stage}", _format_mean(row), row.n_clips)
        for target in dict.fromkeys(row.target for row in rows)
        for row in ordered
        if row.target == target
    ]
    return format_table(("target", "measure", "map", "mean (95 % CI over clips)", "clips"), cells, left=3)


def faithfulness_table(rows: Sequence[OwnMetricRow]) -> str:
    """Format the metrics that separate maps from trivial maps, with all maps of a metric in consecutive lines."""
    cells, verdicts = [], []
    for target in dict.fromkeys(row.target for row in rows):
        target_rows = [row for row in rows if row.target == target]
        for title in displayed_titles(target_rows, BEAT_TRIVIAL_METRICS):
            cells += [
                (target, title, row.map, _format_mean(row), row.n_clips)
                for row in target_rows
                if metric_title(row) == title
            ]
        verdicts += [f"{target}: {name} {text}" for name, text in compare_with_trivial(target_rows)]
    header = ("target", "metric (higher is better)", "map", "mean (95 % CI over clips)", "clips (splice: pairs)")
    note = f"{', '.join(TRIVIAL_MAPS)}: trivial maps, computed without the network"
    return "\n".join([format_table(header, cells, left=3), note, *verdicts])


def _format_mean(row: SanityRow | OwnMetricRow) -> str:
    return format_estimate(row.mean, row.low, row.high) if row.n_clips else "undefined"


def _stack_known(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.stack(known) if len(known) == len(parts) else None
