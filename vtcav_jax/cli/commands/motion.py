"""--task=motion: how much of each decision is motion, class by class and clip by clip."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vtcav_jax.attribution.motion.reliance import Evidence, Measuring, Motion, measured
from vtcav_jax.attribution.motion.summary import ClassMotion, by_class, sentences
from vtcav_jax.attribution.target_spec import asked
from vtcav_jax.attribution.videos import map_store
from vtcav_jax.attribution.videos.explain_videos import wanted
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
    measuring: Measuring,
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
    questions = asked(loaded, targets)
    wanted(loaded, [measuring.method], [measuring.stage] if measuring.stage else [], questions)
    about = {"task": "motion", "model": model, "videos": source.spec, "clips": source.identity, "whole": whole}
    about |= {"targets": [q.name for q in questions], "num_clips": how.clips, "interval_seconds": how.interval_seconds}
    folder = directory.open_run(run, about | asdict(measuring), flags)
    parts = folder / "clips"
    parts.mkdir(exist_ok=True)
    done = {int(path.name[:6]) for path in parts.glob("*.json")}
    todo = [i for i in range(len(source.items)) if i not in done]
    found = measured(loaded, source, questions, measuring, how, batch=batch, whole=whole, workers=workers, numbers=todo)
    failed = []
    for read, some in progress(found, len(todo), "videos", size=lambda _: 1):
        if read.clip is None:
            failed.append(read)
        else:
            directory.write_text(parts / f"{map_store.stem(read)}.json", json.dumps([asdict(row) for row in some]))
    told_of = [one for path in sorted(parts.glob("*.json")) for one in json.loads(path.read_text("utf-8"))]
    write_failures(folder / "motion_failures.csv", failed)
    if failed and not told_of:
        raise ValueError(unreadable(source, failed))
    evidence = [Evidence(Motion(**one["row"]), tuple(one["classes"]), one["margins"]) for one in told_of]
    classes = by_class(evidence, measuring.seed)
    write_rows(folder / "motion.csv", Motion, [one.row for one in evidence])
    write_rows(folder / "motion_classes.csv", ClassMotion, classes)
    told = sentences(classes)
    directory.write_text(folder / "motion.txt", "\n".join(told) + "\n")
    say(table(classes))
    say("\n" + "\n".join(told))
    if failed:
        say(failure_table(failed))
    say(f"\nby clip: {folder / 'motion.csv'}, by class: {folder / 'motion_classes.csv'}")
    report([folder])


def table(rows: Sequence[ClassMotion]) -> str:
    """What goes of the scores when clips are shuffled, frozen, reversed, and what of the maps changes over time."""
    names = ("order", "still", "backwards", "moving", "excess")
    lines = [f"{'question or answer':24} {'clips':>5}" + "".join(f"{name:>24}" for name in names)]
    for row in rows:
        values = ([getattr(row, name + end) for end in ("", "_low", "_high")] for name in names)
        cells = (f"{share:.2f}" + f" ({low:.2f} to {high:.2f})" * (row.clips > 1) for share, low, high in values)
        name = f"  {row.answer}" if row.answer else row.target
        lines.append(f"{name:24.24} {row.clips:>5}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)
