"""--task=explain: where and when, as maps in files and films to look at, and what the maps themselves get wrong."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from vtcav_jax import attribution
from vtcav_jax.attribution.attention import globally_mixed_stages
from vtcav_jax.attribution.cam_methods import CAM_METHODS
from vtcav_jax.attribution.sanity_checks import SANITY_MEASURES, SanityRow, SanityScores, sanity_scores
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.target_spec import TargetSpec, parse_targets
from vtcav_jax.attribution.videos import map_store, temporal_profile
from vtcav_jax.attribution.videos.clip_windows import Window, stream_windows
from vtcav_jax.attribution.videos.explain_videos import (
    MethodStages,
    VideoMaps,
    compute_logits,
    explain_videos,
    resolve_methods,
)
from vtcav_jax.cli.commands import all_failed_message, open_nonempty
from vtcav_jax.cli.commands.predict import load_model
from vtcav_jax.cli.commands.report import report
from vtcav_jax.console import info, progress
from vtcav_jax.data import SamplingConfig, Source, failure_table, write_failures
from vtcav_jax.data.encode import encode_jpeg, write_animation
from vtcav_jax.evaluation.faithfulness.own_clips import (
    BEAT_TRIVIAL_METRICS,
    OwnMetricRow,
    compare_with_trivial,
    displayed_titles,
    metric_title,
    own_clip_metrics,
)
from vtcav_jax.evaluation.faithfulness.own_clips import FAITHFULNESS_CSV as METRICS
from vtcav_jax.evaluation.regions import ground_truth_flow, target_region
from vtcav_jax.models import Network
from vtcav_jax.names import unknown_name_message
from vtcav_jax.report.animation import maps as map_animations
from vtcav_jax.runs import directory
from vtcav_jax.stats import intervals
from vtcav_jax.tcav.experiment.verdicts import write_rows

DEFAULT_ATTRIBUTION_METHODS = (
    "attn_lrp",
    "gradient_x_input",
    "gradcam",
)  # the two that tell most truth for little, and what all know
N_REFERENCE_CLIPS = 8  # other clips that expected gradients start from
MAX_MAP_ROWS = 40  # rows on the terminal


def attribute(
    model: str,
    videos: str | None,
    run: Path | None,
    sampling: SamplingConfig,
    *,
    targets: Sequence[str] = (),
    methods: Sequence[str] = (),
    stages: Sequence[str] = (),
    baselines: Sequence[str] = ("zero",),
    ig_steps: int = attribution.IG_STEPS,
    concept_run: Path | None = None,
    slide_over_video: bool = False,
    animations: str = "webp",
    sanity_clips: int = 0,
    faithfulness_clips: int = 0,
    batch_size: int = 4,
    num_workers: int = 2,
    seed: int = 0,
    random_weights_seed: int | None = None,
    flags: str = "",
) -> None:
    """Maps of every video of `spec`, `.npz` and films, into the folder `run`, and its page; the same command continues.

    With `limit_clips` the first so many clips are used to measure what each method gets wrong, with `metric_clips` for
    metrics that need no truth.
    """
    if videos is None or run is None:
        raise ValueError("--task=explain needs --videos=WHERE and --run=NAME, the folder of the run; see --help")
    if unknown_baselines := [name for name in baselines if name not in attribution.BASELINES]:
        raise ValueError(f"--baselines: {unknown_name_message('baseline', unknown_baselines, attribution.BASELINES)}")
    source, network = open_nonempty(videos), load_model(model, random_weights_seed)
    vector_names = [text for text in targets if "|" in text]
    other_targets = [text for text in targets if "|" not in text]
    target_specs = parse_targets(network, other_targets) if other_targets or not vector_names else ()
    target_specs += concept_targets(vector_names, concept_run, network)
    method_stages = resolve_methods(network, methods or DEFAULT_ATTRIBUTION_METHODS, stages, target_specs)
    options = _method_options(method_stages, network, source, baselines, ig_steps, num_workers, seed)
    about = {
        "task": "explain",
        "model": model,
        "videos": source.spec,
        "clips": source.identity,
        "whole": slide_over_video,
    }
    about |= {"targets": [q.name for q in target_specs], "methods": method_stages, "baselines": list(baselines)}
    about |= {
        "num_clips": sampling.clips_per_video,
        "interval_seconds": sampling.interval_seconds,
        "films": animations,
        "seed": seed,
    }
    about |= {"ig_steps": ig_steps} if "integrated_gradients" in options else {}
    if mixed := mixed_stage_names(network, target_specs, method_stages):
        about |= {"mixed": mixed}
        info(f"at {', '.join(mixed)} each token has seen the whole frame: a map there need not lie where the cause is")
    folder = directory.open_run(run, about, flags)
    for part in ("maps", "films"):
        (folder / part).mkdir(exist_ok=True)
    labels = network.labels
    done = {int(path.name[:6]) for path in (folder / "maps").glob("*.npz")}
    todo = [i for i in range(len(source.items)) if i not in done]
    results = explain_videos(
        network,
        source,
        target_specs,
        method_stages,
        sampling,
        slide_over_video=slide_over_video,
        batch_size=batch_size,
        num_workers=num_workers,
        indices=todo,
        options=options,
    )
    failed = []
    for result in progress(results, len(todo), "videos", size=lambda _: 1):
        if not isinstance(result, VideoMaps):
            failed.append(result)
            continue
        name = map_store.video_stem(result.read)
        if animations != "none":
            for target_spec in target_specs:
                answer = int(result.answers[target_spec.name][0])
                animation, rate = map_animations.render_map_animation(
                    result, target_spec.name, labels[answer] if answer >= 0 else target_spec.name
                )
                file = folder / "films" / map_animations.map_animation_name(name, target_spec.name, animations)
                if animations == "mp4":  # an animation has its first picture in it
                    file.with_suffix(".jpg").write_bytes(encode_jpeg(animation[len(animation) // 2]))
                write_animation(file, animation, rate)
        map_store.save_maps(folder / "maps" / f"{name}.npz", result, labels)
    paths = sorted((folder / "maps").glob("*.npz"))
    rows = [row for path in paths for row in map_store.map_rows(path)]
    write_failures(folder / "explain_failures.csv", failed)
    if failed and not paths:
        raise ValueError(all_failed_message(source, failed))
    write_rows(
        folder / temporal_profile.PROFILE_CSV, temporal_profile.ProfileRow, temporal_profile.temporal_profiles(paths)
    )
    write_rows(folder / "explain.csv", map_store.MapRow, rows)
    info(map_table(rows))
    if failed:
        info(failure_table(failed))
    animation_note = "" if animations == "none" else f", films: {folder / 'films'}"
    info(f"\nmaps: {folder / 'maps'}{animation_note}, all in numbers: {folder / 'explain.csv'}")
    n_clips = max(sanity_clips, faithfulness_clips)
    clips = first_readable(source, network, sampling, n_clips, num_workers)
    if n_clips and not clips:
        raise ValueError(f"--limits, --metrics: none of the clips of {source.spec} could be read")
    if sanity_clips:
        sanity_rows = run_sanity_checks(
            network, source, target_specs, method_stages, clips[:sanity_clips], batch_size, seed, options
        )
        write_rows(folder / "limits.csv", SanityRow, sanity_rows)
        info(f"\n{sanity_table(sanity_rows)}\n\nwhat the methods get wrong: {folder / 'limits.csv'}")
    if faithfulness_clips:
        results = run_faithfulness(
            network, target_specs, method_stages, clips[:faithfulness_clips], batch_size, seed, options
        )
        write_rows(folder / METRICS, OwnMetricRow, results)
        info(f"\n{faithfulness_table(results)}\n\nmetrics that need no truth: {folder / METRICS}")
    report([folder])


def mixed_stage_names(network: Network, target_specs: Sequence[TargetSpec], method_stages: MethodStages) -> list[str]:
    """The stages of maps at which every token may hold what any other place shows."""
    video = jnp.zeros((1, *network.clip_spec.shape))
    stage_names = []
    for target_spec in target_specs:
        context = prepare_explanation(
            network.model, video, target_spec.target(np.zeros((1, len(network.labels)), np.float32))
        )
        mixed = globally_mixed_stages(context)
        stage_names += [
            at for name, stage in method_stages if name in CAM_METHODS and (at := context.resolve_stage(stage)) in mixed
        ]
    return list(dict.fromkeys(stage_names))


def concept_targets(texts: Sequence[str], run: Path | None, network: Network) -> tuple[TargetSpec, ...]:
    """Concept vectors of a --task=tcav run as targets, `STAGE|CONCEPT/KIND/AGAINST`: where and when is the concept?"""
    if not texts:
        return ()
    if run is None:
        raise ValueError(f"{texts[0]} is a concept vector; say which --task=tcav run has it: --vectors=RUN")
    from vtcav_jax import tap
    from vtcav_jax.tcav.features.pooling import broadcast_vector
    from vtcav_jax.tcav.vector_file import load_vectors_for

    bundle = load_vectors_for(network.model, run)
    if unknown_vectors := [text for text in texts if text not in bundle.arrays]:
        raise ValueError(unknown_name_message("concept vector", unknown_vectors, bundle.arrays))
    video = jnp.zeros((1, *network.clip_spec.shape))
    out = []
    for text in texts:
        stage = text.split("|")[0]
        shape = tap.activations(network.model, video, stage)[1][stage].shape[1:]
        if len(shape) != 4:
            raise ValueError(f"{text} is at {stage}, {shape}, without time and space; choose a vector of another stage")
        vector = broadcast_vector(bundle.arrays[text], shape, bundle.pool)
        places = np.prod([n for n, m in zip(shape, vector.shape) if m == 1])
        per_place = np.broadcast_to(vector, shape) / np.float32(places)
        out.append(TargetSpec(text, custom=attribution.ConceptTarget(stage, jnp.asarray(per_place))))
    return tuple(out)


def run_sanity_checks(
    network: Network,
    source: Source,
    target_specs: Sequence[TargetSpec],
    methods: MethodStages,
    clips: Sequence[Window],
    batch_size: int,
    seed: int,
    options: dict[str, dict[str, Any]],
) -> list[SanityRow]:
    """`Limits` of every question and method over `clips`."""
    clip_spec = network.clip_spec
    parts: dict[tuple[str, str], list[SanityScores]] = {}
    groups = [clips[i : i + batch_size] for i in range(0, len(clips), batch_size)]
    jobs = [
        (group, target_spec, name, stage) for group in groups for target_spec in target_specs for name, stage in methods
    ]
    for job in progress(jobs, len(jobs), "measurements", size=lambda _: 1):
        group, target_spec, name, stage = job
        video = jnp.asarray(clip_spec.normalise(np.concatenate([window.clip.video for window in group])))
        target = target_spec.target(np.asarray(compute_logits(network.model, video)))
        scores = sanity_scores(
            *(network.model, video, target, name, stage),
            region=_stack_known(
                [target_region(source, window, clip_spec, target_head(network, target_spec)) for window in group]
            ),
            flow=_stack_known([ground_truth_flow(source, window) for window in group]),
            shuffle_seed=seed,
            **options.get(name, {}),
        )
        parts.setdefault((target_spec.name, f"{name}@{scores.stage}"), []).append(scores)
    out = []
    for (target, _), group in parts.items():
        for name in SANITY_MEASURES:
            values = np.concatenate([getattr(one, name) for one in group])
            n_known = int((~np.isnan(values)).sum())
            out.append(SanityRow(target, group[0].method, group[0].stage, name, *intervals.mean_ci(values), n_known))
    return out


def run_faithfulness(
    network: Network,
    target_specs: Sequence[TargetSpec],
    methods: MethodStages,
    clips: Sequence[Window],
    batch_size: int,
    seed: int,
    options: dict[str, dict[str, Any]],
) -> list[OwnMetricRow]:
    """Every metric of every question's maps over `clips`."""
    clip_spec = network.clip_spec
    video = clip_spec.normalise(np.concatenate([window.clip.video for window in clips]))
    parts = [jnp.asarray(video[i : i + batch_size]) for i in range(0, len(video), batch_size)]
    logits = np.concatenate([np.asarray(compute_logits(network.model, part)) for part in parts])
    out = []
    for i, target_spec in enumerate(target_specs):
        info(f"metrics of {target_spec.name}, {i + 1} of {len(target_specs)} questions, on {len(video)} clips")
        for rows in own_clip_metrics(
            network.model, video, target_spec, logits, methods, options, batch_size=batch_size, seed=seed
        ):
            out += rows
    return out


def first_readable(
    source: Source, network: Network, sampling: SamplingConfig, count: int, num_workers: int
) -> list[Window]:
    """So many clips, of those that can be read."""
    clip_spec = network.clip_spec
    readable = (
        one for one in stream_windows(source, clip_spec, sampling, num_workers=num_workers) if isinstance(one, Window)
    )
    return list(islice(readable, count))


def target_head(network: Network, target_spec: TargetSpec) -> str:
    """Whose classes are asked about; no name where it is something else."""
    return next(
        (name for name, part in network.head_slices.items() if (part.start, part.stop) == target_spec.head_range), ""
    )


def map_table(rows: Sequence[map_store.MapRow]) -> str:
    """The first rows for a person."""
    lines = [
        f"{'clip':24} {'target':18} {'answer':16} {'score':>7}  {'method':20} {'stage':14} "
        f"{'residual':>9} {'peak at':>8}"
    ]
    for row in rows[:MAX_MAP_ROWS]:
        residual = "" if np.isnan(row.completeness_gap) else f"{row.completeness_gap:.2g}"
        lines.append(
            f"{row.clip:24.24} {row.target:18.18} {row.answer:16.16} {row.score:>7.2f}  {row.method:20.20} "
            f"{row.stage:14.14} {residual:>9} {row.peak_time:>6.2f} s"
        )
    return "\n".join([*lines, *([f"and {len(rows) - MAX_MAP_ROWS} more"] if len(rows) > MAX_MAP_ROWS else [])])


def sanity_table(rows: Sequence[SanityRow]) -> str:
    """One line for each question and method: means with their intervals."""
    lines = [f"{'target':16} {'method':20} {'stage':12}" + "".join(f"{name:>24}" for name in SANITY_MEASURES)]
    by_method: dict[tuple[str, str, str], dict[str, SanityRow]] = {}
    for row in rows:
        by_method.setdefault((row.target, row.method, row.stage), {})[row.measure] = row
    for (target, method, stage), by_measure in by_method.items():
        cells = [
            intervals.format_interval(r.mean, r.low, r.high) if r.n_clips else ""
            for r in map(by_measure.get, SANITY_MEASURES)
            if r
        ]
        lines.append(f"{target:16.16} {method:20.20} {stage:12.12}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def faithfulness_table(rows: Sequence[OwnMetricRow]) -> str:
    """What each map has of what it can win, and what it wins, for a person."""
    lines = []
    for target in dict.fromkeys(row.target for row in rows):
        target_rows = [row for row in rows if row.target == target]
        columns = displayed_titles(target_rows, BEAT_TRIVIAL_METRICS)
        lines += ["", f"{target:32.32}" + "".join(f"{name:>26}" for name in columns)]
        for name in dict.fromkeys(row.map for row in target_rows):
            cells = [
                next((r for r in target_rows if r.map == name and metric_title(r) == column), None)
                for column in columns
            ]
            values = [intervals.format_interval(r.mean, r.low, r.high) if r and r.n_clips else "" for r in cells]
            lines.append(f"{name:32.32}" + "".join(f"{value:>26}" for value in values))
        lines += [f"{name} {text}" for name, text in compare_with_trivial(target_rows)]
    return "\n".join(lines[1:])


def _method_options(
    methods: MethodStages,
    network: Network,
    source: Source,
    baselines: Sequence[str],
    ig_steps: int,
    num_workers: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """What methods need besides a clip: the range of pixels, other clips."""
    clip_spec = network.clip_spec
    names, out = {name for name, _ in methods}, {}
    if "deep_taylor" in names:
        out["deep_taylor"] = {"bounds": attribution.pixel_bounds(clip_spec)}
    if "integrated_gradients" in names:
        out["integrated_gradients"] = {"baseline": tuple(baselines), "ig_steps": ig_steps}
    if "expected_gradients" in names:
        random = np.random.default_rng(seed)
        count = len(source.items)
        numbers = sorted(random.choice(count, min(N_REFERENCE_CLIPS, count), replace=False).tolist())
        results = stream_windows(source, clip_spec, SamplingConfig(), num_workers=num_workers, indices=numbers)
        clips = [one.clip.video for one in results if isinstance(one, Window)]
        if not clips:
            raise ValueError("expected_gradients starts from other clips of --videos, and none could be read")
        out["expected_gradients"] = {"references": clip_spec.normalise(np.concatenate(clips)), "seed": seed}
    return out


def _stack_known(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.stack(known) if len(known) == len(parts) else None
