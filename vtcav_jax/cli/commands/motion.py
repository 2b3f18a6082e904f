"""--task=motion: how much of each decision is motion, class by class and clip by clip."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vtcav_jax.attribution.motion.reliance import ClipMotionRow, MotionConfig, MotionEvidence, measure_motion
from vtcav_jax.attribution.motion.summary import ClassMotionRow, motion_sentences, summarise_by_class
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.attribution.videos import map_store
from vtcav_jax.attribution.videos.explain_videos import resolve_methods
from vtcav_jax.cli.commands import say, unreadable, videos
from vtcav_jax.cli.commands.predict import with_weights
from vtcav_jax.cli.commands.report import report
from vtcav_jax.data import How, failure_table, write_failures
from vtcav_jax.progress import progress
from vtcav_jax.runs import directory
from vtcav_jax.tcav.experiment.verdicts import write_rows


def motion(
    model: str,
    spec: str | None,
    run: Path | None,
    how: How,
    measuring: MotionConfig,
    *,
    targets: Sequence[str] = (),
    whole: bool = False,
    batch: int = 4,
    workers: int = 2,
    random_seed: int | None = None,
    flags: str = "",
) -> None:
    """Measures every video of `spec` into the folder `run`, and writes its page; the same command continues it."""
    if spec is None or run is None:
        raise ValueError("--task=motion needs --videos=WHERE and --run=NAME, the folder of the run; see --help")
    source, loaded = videos(spec), with_weights(model, random_seed)
    questions = parse_targets(loaded, targets)
    resolve_methods(loaded, [measuring.method], [measuring.stage] if measuring.stage else [], questions)
    about = {"task": "motion", "model": model, "videos": source.spec, "clips": source.identity, "whole": whole}
    about |= {"targets": [q.name for q in questions], "num_clips": how.clips, "interval_seconds": how.interval_seconds}
    folder = directory.open_run(run, about | asdict(measuring), flags)
    parts = folder / "clips"
    parts.mkdir(exist_ok=True)
    done = {int(path.name[:6]) for path in parts.glob("*.json")}
    todo = [i for i in range(len(source.items)) if i not in done]
    found = measure_motion(
        loaded,
        source,
        questions,
        measuring,
        how,
        batch_size=batch,
        slide_over_video=whole,
        num_workers=workers,
        indices=todo,
    )
    failed = []
    for read, some in progress(found, len(todo), "videos", size=lambda _: 1):
        if read.clip is None:
            failed.append(read)
        else:
            directory.write_text(
                parts / f"{map_store.video_stem(read)}.json", json.dumps([asdict(row) for row in some])
            )
    told_of = [one for path in sorted(parts.glob("*.json")) for one in json.loads(path.read_text("utf-8"))]
    write_failures(folder / "motion_failures.csv", failed)
    if failed and not told_of:
        raise ValueError(unreadable(source, failed))
    evidence = [MotionEvidence(ClipMotionRow(**one["row"]), tuple(one["classes"]), one["margins"]) for one in told_of]
    classes = summarise_by_class(evidence, measuring.seed)
    write_rows(folder / "motion.csv", ClipMotionRow, [one.row for one in evidence])
    write_rows(folder / "motion_classes.csv", ClassMotionRow, classes)
    told = motion_sentences(classes)
    directory.write_text(folder / "motion.txt", "\n".join(told) + "\n")
    say(table(classes))
    say("\n" + "\n".join(told))
    if failed:
        say(failure_table(failed))
    say(f"\nby clip: {folder / 'motion.csv'}, by class: {folder / 'motion_classes.csv'}")
    report([folder])


def table(rows: Sequence[ClassMotionRow]) -> str:
    """What goes of the scores when clips are shuffled, frozen, reversed, and what of the maps changes over time."""
    names = ("drop_shuffled", "drop_frozen", "drop_reversed", "changing_mass", "changing_mass_excess")
    lines = [f"{'question or answer':24} {'clips':>5}" + "".join(f"{name:>24}" for name in names)]
    for row in rows:
        values = ([getattr(row, name + end) for end in ("", "_low", "_high")] for name in names)
        cells = (f"{share:.2f}" + f" ({low:.2f} to {high:.2f})" * (row.n_clips > 1) for share, low, high in values)
        name = f"  {row.answer}" if row.answer else row.target
        lines.append(f"{name:24.24} {row.n_clips:>5}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)
