"""--task=explain: where and when, as maps in files and films to look at, and what the maps themselves get wrong."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from vtcav_jax import attribution, models
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
from vtcav_jax.cli.commands import say, unreadable, videos
from vtcav_jax.cli.commands.predict import with_weights
from vtcav_jax.cli.commands.report import report
from vtcav_jax.concepts.review.page import jpeg
from vtcav_jax.data import How, Source, failure_table, write_failures
from vtcav_jax.evaluation.faithfulness.own_clips import BEATING, OwnRow, metrics_of, title, told, verdicts
from vtcav_jax.evaluation.faithfulness.own_clips import FILE as METRICS
from vtcav_jax.evaluation.regions import ground_truth_flow, target_region
from vtcav_jax.models import Network
from vtcav_jax.names import unknown
from vtcav_jax.progress import progress
from vtcav_jax.report.animation import maps as map_animations
from vtcav_jax.report.animation.overlay import write_animation
from vtcav_jax.runs import directory
from vtcav_jax.stats import intervals
from vtcav_jax.tcav.experiment.verdicts import write_rows

USUAL = ("attn_lrp", "gradient_x_input", "gradcam")  # the two that tell most truth for little, and what all know
REFERENCES = 8  # other clips that expected gradients start from
SHOWN = 40  # rows on the terminal


def explain(
    model: str,
    spec: str | None,
    run: Path | None,
    how: How,
    *,
    targets: Sequence[str] = (),
    methods: Sequence[str] = (),
    stages: Sequence[str] = (),
    baselines: Sequence[str] = ("zero",),
    nodes: int = attribution.IG_STEPS,
    vectors: Path | None = None,
    whole: bool = False,
    films: str = "webp",
    limit_clips: int = 0,
    metric_clips: int = 0,
    batch: int = 4,
    workers: int = 2,
    seed: int = 0,
    random_seed: int | None = None,
    flags: str = "",
) -> None:
    """Maps of every video of `spec`, `.npz` and films, into the folder `run`, and its page; the same command continues.

    With `limit_clips` the first so many clips are used to measure what each method gets wrong, with `metric_clips` for
    metrics that need no truth.
    """
    if spec is None or run is None:
        raise ValueError("--task=explain needs --videos=WHERE and --run=NAME, the folder of the run; see --help")
    if strange := [name for name in baselines if name not in attribution.BASELINES]:
        raise ValueError(f"--baselines: {unknown('baseline', strange, attribution.BASELINES)}")
    source, loaded = videos(spec), with_weights(model, random_seed)
    vector_names = [text for text in targets if "|" in text]
    others = [text for text in targets if "|" not in text]
    questions = parse_targets(loaded, others) if others or not vector_names else ()
    questions += concepts(vector_names, vectors, loaded)
    chosen = resolve_methods(loaded, methods or USUAL, stages, questions)
    options = _options(chosen, loaded, source, baselines, nodes, workers, seed)
    about = {"task": "explain", "model": model, "videos": source.spec, "clips": source.identity, "whole": whole}
    about |= {"targets": [q.name for q in questions], "methods": chosen, "baselines": list(baselines)}
    about |= {"num_clips": how.clips, "interval_seconds": how.interval_seconds, "films": films, "seed": seed}
    about |= {"ig_steps": nodes} if "integrated_gradients" in options else {}
    if mixed := spread(loaded, questions, chosen):
        about |= {"mixed": mixed}
        say(f"at {', '.join(mixed)} each token has seen the whole frame: a map there need not lie where the cause is")
    folder = directory.open_run(run, about, flags)
    for part in ("maps", "films"):
        (folder / part).mkdir(exist_ok=True)
    labels = loaded.labels
    done = {int(path.name[:6]) for path in (folder / "maps").glob("*.npz")}
    todo = [i for i in range(len(source.items)) if i not in done]
    found = explain_videos(
        loaded,
        source,
        questions,
        chosen,
        how,
        slide_over_video=whole,
        batch_size=batch,
        num_workers=workers,
        indices=todo,
        options=options,
    )
    failed = []
    for one in progress(found, len(todo), "videos", size=lambda _: 1):
        if not isinstance(one, VideoMaps):
            failed.append(one)
            continue
        name = map_store.video_stem(one.read)
        if films != "none":
            for question in questions:
                answer = int(one.answers[question.name][0])
                film, rate = map_animations.render_map_animation(
                    one, question.name, labels[answer] if answer >= 0 else question.name
                )
                file = folder / "films" / map_animations.map_animation_name(name, question.name, films)
                if films == "mp4":  # an animation has its first picture in it
                    file.with_suffix(".jpg").write_bytes(jpeg(film[len(film) // 2]))
                write_animation(file, film, rate)
        map_store.save_maps(folder / "maps" / f"{name}.npz", one, labels)
    paths = sorted((folder / "maps").glob("*.npz"))
    rows = [row for path in paths for row in map_store.map_rows(path)]
    write_failures(folder / "explain_failures.csv", failed)
    if failed and not paths:
        raise ValueError(unreadable(source, failed))
    write_rows(
        folder / temporal_profile.PROFILE_CSV, temporal_profile.ProfileRow, temporal_profile.temporal_profiles(paths)
    )
    write_rows(folder / "explain.csv", map_store.MapRow, rows)
    say(table(rows))
    if failed:
        say(failure_table(failed))
    shown = "" if films == "none" else f", films: {folder / 'films'}"
    say(f"\nmaps: {folder / 'maps'}{shown}, all in numbers: {folder / 'explain.csv'}")
    measuring = max(limit_clips, metric_clips)
    clips = first(source, loaded, how, measuring, workers)
    if measuring and not clips:
        raise ValueError(f"--limits, --metrics: none of the clips of {source.spec} could be read")
    if limit_clips:
        measured = measure(loaded, source, questions, chosen, clips[:limit_clips], batch, seed, options)
        write_rows(folder / "limits.csv", SanityRow, measured)
        say(f"\n{limits_table(measured)}\n\nwhat the methods get wrong: {folder / 'limits.csv'}")
    if metric_clips:
        found = unlabelled(loaded, questions, chosen, clips[:metric_clips], batch, seed, options)
        write_rows(folder / METRICS, OwnRow, found)
        say(f"\n{metrics_table(found)}\n\nmetrics that need no truth: {folder / METRICS}")
    report([folder])


def spread(loaded: Network, questions: Sequence[TargetSpec], chosen: MethodStages) -> list[str]:
    """The stages of maps at which every token may hold what any other place shows."""
    video = jnp.zeros((1, *models.PRESETS[loaded.preset].clip_spec.shape))
    found = []
    for question in questions:
        what = prepare_explanation(loaded.model, video, question.target(np.zeros((1, len(loaded.labels)), np.float32)))
        own = globally_mixed_stages(what)
        found += [at for name, stage in chosen if name in CAM_METHODS and (at := what.resolve_stage(stage)) in own]
    return list(dict.fromkeys(found))


def concepts(texts: Sequence[str], run: Path | None, loaded: Network) -> tuple[TargetSpec, ...]:
    """Concept vectors of a --task=tcav run as targets, `STAGE|CONCEPT/KIND/AGAINST`: where and when is the concept?"""
    if not texts:
        return ()
    if run is None:
        raise ValueError(f"{texts[0]} is a concept vector; say which --task=tcav run has it: --vectors=RUN")
    from vtcav_jax import tap
    from vtcav_jax.tcav.features.pooling import spread_out
    from vtcav_jax.tcav.vector_file import stored_for

    found = stored_for(loaded.model, run)
    if strange := [text for text in texts if text not in found.arrays]:
        raise ValueError(unknown("concept vector", strange, found.arrays))
    video = jnp.zeros((1, *models.PRESETS[loaded.preset].clip_spec.shape))
    out = []
    for text in texts:
        stage = text.split("|")[0]
        shape = tap.activations(loaded.model, video, stage)[1][stage].shape[1:]
        if len(shape) != 4:
            raise ValueError(f"{text} is at {stage}, {shape}, without time and space; choose a vector of another stage")
        vector = spread_out(found.arrays[text], shape, found.pool)
        places = np.prod([n for n, m in zip(shape, vector.shape) if m == 1])
        spread = np.broadcast_to(vector, shape) / np.float32(places)
        out.append(TargetSpec(text, custom=attribution.ConceptTarget(stage, jnp.asarray(spread))))
    return tuple(out)


def measure(
    loaded: Network,
    source: Source,
    questions: Sequence[TargetSpec],
    methods: MethodStages,
    clips: Sequence[Window],
    batch: int,
    seed: int,
    options: dict[str, dict[str, Any]],
) -> list[SanityRow]:
    """`Limits` of every question and method over `clips`."""
    geometry = models.PRESETS[loaded.preset].clip_spec
    parts: dict[tuple[str, str], list[SanityScores]] = {}
    groups = [clips[i : i + batch] for i in range(0, len(clips), batch)]
    jobs = [(some, question, name, stage) for some in groups for question in questions for name, stage in methods]
    for job in progress(jobs, len(jobs), "measurements", size=lambda _: 1):
        some, question, name, stage = job
        video = jnp.asarray(geometry.normalise(np.concatenate([window.clip.video for window in some])))
        target = question.target(np.asarray(compute_logits(loaded.model, video)))
        found = sanity_scores(
            *(loaded.model, video, target, name, stage),
            region=_stacked([target_region(source, window, geometry, head(loaded, question)) for window in some]),
            flow=_stacked([ground_truth_flow(source, window) for window in some]),
            shuffle_seed=seed,
            **options.get(name, {}),
        )
        parts.setdefault((question.name, f"{name}@{found.stage}"), []).append(found)
    out = []
    for (target, _), some in parts.items():
        for name in SANITY_MEASURES:
            values = np.concatenate([getattr(one, name) for one in some])
            told = int((~np.isnan(values)).sum())
            out.append(SanityRow(target, some[0].method, some[0].stage, name, *intervals.mean_ci(values), told))
    return out


def unlabelled(
    loaded: Network,
    questions: Sequence[TargetSpec],
    methods: MethodStages,
    clips: Sequence[Window],
    batch: int,
    seed: int,
    options: dict[str, dict[str, Any]],
) -> list[OwnRow]:
    """Every metric of every question's maps over `clips`."""
    geometry = models.PRESETS[loaded.preset].clip_spec
    video = geometry.normalise(np.concatenate([window.clip.video for window in clips]))
    parts = [jnp.asarray(video[i : i + batch]) for i in range(0, len(video), batch)]
    logits = np.concatenate([np.asarray(compute_logits(loaded.model, part)) for part in parts])
    out = []
    for i, question in enumerate(questions):
        say(f"metrics of {question.name}, {i + 1} of {len(questions)} questions, on {len(video)} clips")
        for some in metrics_of(loaded.model, video, question, logits, methods, options, batch=batch, seed=seed):
            out += some
    return out


def first(source: Source, loaded: Network, how: How, count: int, workers: int) -> list[Window]:
    """So many clips, of those that can be read."""
    geometry = models.PRESETS[loaded.preset].clip_spec
    found = (one for one in stream_windows(source, geometry, how, num_workers=workers) if isinstance(one, Window))
    return list(islice(found, count))


def head(loaded: Network, question: TargetSpec) -> str:
    """Whose classes are asked about; no name where it is something else."""
    return next(
        (name for name, part in loaded.head_slices.items() if (part.start, part.stop) == question.head_range), ""
    )


def table(rows: Sequence[map_store.MapRow]) -> str:
    """The first rows for a person."""
    lines = [
        f"{'clip':24} {'target':18} {'answer':16} {'score':>7}  {'method':20} {'stage':14} "
        f"{'residual':>9} {'peak at':>8}"
    ]
    for row in rows[:SHOWN]:
        residual = "" if np.isnan(row.completeness_gap) else f"{row.completeness_gap:.2g}"
        lines.append(
            f"{row.clip:24.24} {row.target:18.18} {row.answer:16.16} {row.score:>7.2f}  {row.method:20.20} "
            f"{row.stage:14.14} {residual:>9} {row.peak_time:>6.2f} s"
        )
    return "\n".join([*lines, *([f"and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else [])])


def limits_table(rows: Sequence[SanityRow]) -> str:
    """One line for each question and method: means with their intervals."""
    lines = [f"{'target':16} {'method':20} {'stage':12}" + "".join(f"{name:>24}" for name in SANITY_MEASURES)]
    by_method: dict[tuple[str, str, str], dict[str, SanityRow]] = {}
    for row in rows:
        by_method.setdefault((row.target, row.method, row.stage), {})[row.measure] = row
    for (target, method, stage), some in by_method.items():
        cells = [
            intervals.format_interval(r.mean, r.low, r.high) if r.n_clips else ""
            for r in map(some.get, SANITY_MEASURES)
            if r
        ]
        lines.append(f"{target:16.16} {method:20.20} {stage:12.12}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def metrics_table(rows: Sequence[OwnRow]) -> str:
    """What each map has of what it can win, and what it wins, for a person."""
    lines = []
    for target in dict.fromkeys(row.target for row in rows):
        some = [row for row in rows if row.target == target]
        columns = told(some, BEATING)
        lines += ["", f"{target:32.32}" + "".join(f"{name:>26}" for name in columns)]
        for name in dict.fromkeys(row.map for row in some):
            cells = [next((r for r in some if r.map == name and title(r) == column), None) for column in columns]
            values = [intervals.format_interval(r.mean, r.low, r.high) if r and r.clips else "" for r in cells]
            lines.append(f"{name:32.32}" + "".join(f"{value:>26}" for value in values))
        lines += [f"{name} {text}" for name, text in verdicts(some)]
    return "\n".join(lines[1:])


def _options(
    methods: MethodStages,
    loaded: Network,
    source: Source,
    baselines: Sequence[str],
    nodes: int,
    workers: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """What methods need besides a clip: the range of pixels, other clips."""
    geometry = models.PRESETS[loaded.preset].clip_spec
    names, out = {name for name, _ in methods}, {}
    if "deep_taylor" in names:
        out["deep_taylor"] = {"bounds": attribution.pixel_bounds(geometry)}
    if "integrated_gradients" in names:
        out["integrated_gradients"] = {"baseline": tuple(baselines), "ig_steps": nodes}
    if "expected_gradients" in names:
        random = np.random.default_rng(seed)
        count = len(source.items)
        numbers = sorted(random.choice(count, min(REFERENCES, count), replace=False).tolist())
        found = stream_windows(source, geometry, How(), num_workers=workers, indices=numbers)
        clips = [one.clip.video for one in found if isinstance(one, Window)]
        if not clips:
            raise ValueError("expected_gradients starts from other clips of --videos, and none could be read")
        out["expected_gradients"] = {"references": geometry.normalise(np.concatenate(clips)), "seed": seed}
    return out


def _stacked(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.stack(known) if len(known) == len(parts) else None
