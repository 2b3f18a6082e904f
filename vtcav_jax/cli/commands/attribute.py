"""--task=explain: where and when, as maps in files and films to look at, and what the maps themselves get wrong."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from vtcav_jax import attribution, models
from vtcav_jax.attribution.attention import mixed_stages
from vtcav_jax.attribution.cam_methods import WEIGHINGS
from vtcav_jax.attribution.sanity_checks import MEASURES, LimitRow, Limits, limits
from vtcav_jax.attribution.score_model import explained
from vtcav_jax.attribution.target_spec import Asked, asked
from vtcav_jax.attribution.videos import map_store, temporal_profile
from vtcav_jax.attribution.videos.clip_windows import Window, windows
from vtcav_jax.attribution.videos.explain_videos import VideoMaps, Wanted, answered, explained_videos, wanted
from vtcav_jax.cli.commands import say, unreadable, videos
from vtcav_jax.cli.commands.predict import with_weights
from vtcav_jax.cli.commands.report import report
from vtcav_jax.concepts.review.page import jpeg
from vtcav_jax.data import How, Source, failure_table, write_failures
from vtcav_jax.evaluation.faithfulness.own_clips import BEATING, OwnRow, metrics_of, title, told, verdicts
from vtcav_jax.evaluation.faithfulness.own_clips import FILE as METRICS
from vtcav_jax.evaluation.regions import displacement, things
from vtcav_jax.models import Loaded
from vtcav_jax.names import unknown
from vtcav_jax.progress import progress
from vtcav_jax.report.animation import maps as map_animations
from vtcav_jax.report.animation.overlay import write_film
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
    nodes: int = attribution.NODES,
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
    questions = asked(loaded, others) if others or not vector_names else ()
    questions += concepts(vector_names, vectors, loaded)
    chosen = wanted(loaded, methods or USUAL, stages, questions)
    options = _options(chosen, loaded, source, baselines, nodes, workers, seed)
    about = {"task": "explain", "model": model, "videos": source.spec, "clips": source.identity, "whole": whole}
    about |= {"targets": [q.name for q in questions], "methods": chosen, "baselines": list(baselines)}
    about |= {"num_clips": how.clips, "interval_seconds": how.interval_seconds, "films": films, "seed": seed}
    about |= {"nodes": nodes} if "integrated_gradients" in options else {}
    if mixed := spread(loaded, questions, chosen):
        about |= {"mixed": mixed}
        say(f"at {', '.join(mixed)} each token has seen the whole frame: a map there need not lie where the cause is")
    folder = directory.open_run(run, about, flags)
    for part in ("maps", "films"):
        (folder / part).mkdir(exist_ok=True)
    labels = loaded.labels
    done = {int(path.name[:6]) for path in (folder / "maps").glob("*.npz")}
    todo = [i for i in range(len(source.items)) if i not in done]
    found = explained_videos(
        loaded, source, questions, chosen, how, whole=whole, batch=batch, workers=workers, numbers=todo, options=options
    )
    failed = []
    for one in progress(found, len(todo), "videos", size=lambda _: 1):
        if not isinstance(one, VideoMaps):
            failed.append(one)
            continue
        name = map_store.stem(one.read)
        if films != "none":
            for question in questions:
                answer = int(one.answers[question.name][0])
                film, rate = map_animations.film(one, question.name, labels[answer] if answer >= 0 else question.name)
                file = folder / "films" / map_animations.file(name, question.name, films)
                if films == "mp4":  # an animation has its first picture in it
                    file.with_suffix(".jpg").write_bytes(jpeg(film[len(film) // 2]))
                write_film(file, film, rate)
        map_store.write(folder / "maps" / f"{name}.npz", one, labels)
    paths = sorted((folder / "maps").glob("*.npz"))
    rows = [row for path in paths for row in map_store.rows(path)]
    write_failures(folder / "explain_failures.csv", failed)
    if failed and not paths:
        raise ValueError(unreadable(source, failed))
    write_rows(folder / temporal_profile.FILE, temporal_profile.Course, temporal_profile.courses(paths))
    write_rows(folder / "explain.csv", map_store.Row, rows)
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
        write_rows(folder / "limits.csv", LimitRow, measured)
        say(f"\n{limits_table(measured)}\n\nwhat the methods get wrong: {folder / 'limits.csv'}")
    if metric_clips:
        found = unlabelled(loaded, questions, chosen, clips[:metric_clips], batch, seed, options)
        write_rows(folder / METRICS, OwnRow, found)
        say(f"\n{metrics_table(found)}\n\nmetrics that need no truth: {folder / METRICS}")
    report([folder])


def spread(loaded: Loaded, questions: Sequence[Asked], chosen: Wanted) -> list[str]:
    """The stages of maps at which every token may hold what any other place shows."""
    video = jnp.zeros((1, *models.PRESETS[loaded.preset].geometry.shape))
    found = []
    for question in questions:
        what = explained(loaded.model, video, question.target(np.zeros((1, len(loaded.labels)), np.float32)))
        own = mixed_stages(what)
        found += [at for name, stage in chosen if name in WEIGHINGS and (at := what.stage(stage)) in own]
    return list(dict.fromkeys(found))


def concepts(texts: Sequence[str], run: Path | None, loaded: Loaded) -> tuple[Asked, ...]:
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
    video = jnp.zeros((1, *models.PRESETS[loaded.preset].geometry.shape))
    out = []
    for text in texts:
        stage = text.split("|")[0]
        shape = tap.activations(loaded.model, video, stage)[1][stage].shape[1:]
        if len(shape) != 4:
            raise ValueError(f"{text} is at {stage}, {shape}, without time and space; choose a vector of another stage")
        vector = spread_out(found.arrays[text], shape, found.pool)
        places = np.prod([n for n, m in zip(shape, vector.shape) if m == 1])
        spread = np.broadcast_to(vector, shape) / np.float32(places)
        out.append(Asked(text, fixed=attribution.Concept(stage, jnp.asarray(spread))))
    return tuple(out)


def measure(
    loaded: Loaded,
    source: Source,
    questions: Sequence[Asked],
    methods: Wanted,
    clips: Sequence[Window],
    batch: int,
    seed: int,
    options: dict[str, dict[str, Any]],
) -> list[LimitRow]:
    """`Limits` of every question and method over `clips`."""
    geometry = models.PRESETS[loaded.preset].geometry
    parts: dict[tuple[str, str], list[Limits]] = {}
    groups = [clips[i : i + batch] for i in range(0, len(clips), batch)]
    jobs = [(some, question, name, stage) for some in groups for question in questions for name, stage in methods]
    for job in progress(jobs, len(jobs), "measurements", size=lambda _: 1):
        some, question, name, stage = job
        video = jnp.asarray(geometry.normalised(np.concatenate([window.clip.video for window in some])))
        target = question.target(np.asarray(answered(loaded.model, video)))
        found = limits(
            *(loaded.model, video, target, name, stage),
            things=_stacked([things(source, window, geometry, head(loaded, question)) for window in some]),
            flow=_stacked([displacement(source, window) for window in some]),
            shuffle=seed,
            **options.get(name, {}),
        )
        parts.setdefault((question.name, f"{name}@{found.stage}"), []).append(found)
    out = []
    for (target, _), some in parts.items():
        for name in MEASURES:
            values = np.concatenate([getattr(one, name) for one in some])
            told = int((~np.isnan(values)).sum())
            out.append(LimitRow(target, some[0].method, some[0].stage, name, *intervals.mean(values), told))
    return out


def unlabelled(
    loaded: Loaded,
    questions: Sequence[Asked],
    methods: Wanted,
    clips: Sequence[Window],
    batch: int,
    seed: int,
    options: dict[str, dict[str, Any]],
) -> list[OwnRow]:
    """Every metric of every question's maps over `clips`."""
    geometry = models.PRESETS[loaded.preset].geometry
    video = geometry.normalised(np.concatenate([window.clip.video for window in clips]))
    parts = [jnp.asarray(video[i : i + batch]) for i in range(0, len(video), batch)]
    logits = np.concatenate([np.asarray(answered(loaded.model, part)) for part in parts])
    out = []
    for i, question in enumerate(questions):
        say(f"metrics of {question.name}, {i + 1} of {len(questions)} questions, on {len(video)} clips")
        for some in metrics_of(loaded.model, video, question, logits, methods, options, batch=batch, seed=seed):
            out += some
    return out


def first(source: Source, loaded: Loaded, how: How, count: int, workers: int) -> list[Window]:
    """So many clips, of those that can be read."""
    geometry = models.PRESETS[loaded.preset].geometry
    found = (one for one in windows(source, geometry, how, workers=workers) if isinstance(one, Window))
    return list(islice(found, count))


def head(loaded: Loaded, question: Asked) -> str:
    """Whose classes are asked about; no name where it is something else."""
    return next((name for name, part in loaded.slices.items() if (part.start, part.stop) == question.among), "")


def table(rows: Sequence[map_store.Row]) -> str:
    """The first rows for a person."""
    lines = [
        f"{'clip':24} {'target':18} {'answer':16} {'score':>7}  {'method':20} {'stage':14} "
        f"{'residual':>9} {'peak at':>8}"
    ]
    for row in rows[:SHOWN]:
        residual = "" if np.isnan(row.residual) else f"{row.residual:.2g}"
        lines.append(
            f"{row.clip:24.24} {row.target:18.18} {row.answer:16.16} {row.score:>7.2f}  {row.method:20.20} "
            f"{row.stage:14.14} {residual:>9} {row.peak:>6.2f} s"
        )
    return "\n".join([*lines, *([f"and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else [])])


def limits_table(rows: Sequence[LimitRow]) -> str:
    """One line for each question and method: means with their intervals."""
    lines = [f"{'target':16} {'method':20} {'stage':12}" + "".join(f"{name:>24}" for name in MEASURES)]
    by_method: dict[tuple[str, str, str], dict[str, LimitRow]] = {}
    for row in rows:
        by_method.setdefault((row.target, row.method, row.stage), {})[row.measure] = row
    for (target, method, stage), some in by_method.items():
        cells = [intervals.told(r.mean, r.low, r.high) if r.clips else "" for r in map(some.get, MEASURES) if r]
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
            values = [intervals.told(r.mean, r.low, r.high) if r and r.clips else "" for r in cells]
            lines.append(f"{name:32.32}" + "".join(f"{value:>26}" for value in values))
        lines += [f"{name} {text}" for name, text in verdicts(some)]
    return "\n".join(lines[1:])


def _options(
    methods: Wanted,
    loaded: Loaded,
    source: Source,
    baselines: Sequence[str],
    nodes: int,
    workers: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """What methods need besides a clip: the range of pixels, other clips."""
    geometry = models.PRESETS[loaded.preset].geometry
    names, out = {name for name, _ in methods}, {}
    if "deep_taylor" in names:
        out["deep_taylor"] = {"bounds": attribution.pixel_bounds(geometry)}
    if "integrated_gradients" in names:
        out["integrated_gradients"] = {"baseline": tuple(baselines), "nodes": nodes}
    if "expected_gradients" in names:
        random = np.random.default_rng(seed)
        count = len(source.items)
        numbers = sorted(random.choice(count, min(REFERENCES, count), replace=False).tolist())
        found = windows(source, geometry, How(), workers=workers, wanted=numbers)
        clips = [one.clip.video for one in found if isinstance(one, Window)]
        if not clips:
            raise ValueError("expected_gradients starts from other clips of --videos, and none could be read")
        out["expected_gradients"] = {"references": geometry.normalised(np.concatenate(clips)), "seed": seed}
    return out


def _stacked(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.stack(known) if len(known) == len(parts) else None
