"""--task=motion: how much of each decision is motion, class by class and clip by clip."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vtcav_jax import atomic
from vtcav_jax.attribution.motion.reliance import ClipMotionRow, MotionConfig, MotionEvidence, measure_motion
from vtcav_jax.attribution.motion.summary import ClassMotionRow, motion_sentences, summarise_by_class
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.attribution.videos import map_store
from vtcav_jax.attribution.videos.explain_videos import resolve_methods
from vtcav_jax.cli.commands import all_failed_message, open_nonempty
from vtcav_jax.cli.commands.predict import load_model
from vtcav_jax.cli.commands.report import report
from vtcav_jax.console import info, progress
from vtcav_jax.data import SamplingConfig, failure_table, write_failures
from vtcav_jax.runs import directory
from vtcav_jax.tcav.experiment.verdicts import write_rows


def measure_motion_reliance(
    model: str,
    videos: str | None,
    run: Path | None,
    sampling: SamplingConfig,
    config: MotionConfig,
    *,
    targets: Sequence[str] = (),
    slide_over_video: bool = False,
    batch_size: int = 4,
    num_workers: int = 2,
    random_weights_seed: int | None = None,
    flags: str = "",
) -> None:
    """Measures every video of `spec` into the folder `run`, and writes its page; the same command continues it."""
    if videos is None or run is None:
        raise ValueError("--task=motion needs --videos=WHERE and --run=NAME, the folder of the run; see --help")
    source, network = open_nonempty(videos), load_model(model, random_weights_seed)
    target_specs = parse_targets(network, targets)
    resolve_methods(network, [config.method], [config.stage] if config.stage else [], target_specs)
    about = {
        "task": "motion",
        "model": model,
        "videos": source.spec,
        "clips": source.identity,
        "whole": slide_over_video,
    }
    about |= {
        "targets": [q.name for q in target_specs],
        "num_clips": sampling.clips_per_video,
        "interval_seconds": sampling.interval_seconds,
    }
    folder = directory.open_run(run, about | asdict(config), flags)
    parts = folder / "clips"
    parts.mkdir(exist_ok=True)
    finished = {int(path.name[:6]) for path in parts.glob("*.json")}
    todo = [i for i in range(len(source.items)) if i not in finished]
    results = measure_motion(
        network,
        source,
        target_specs,
        config,
        sampling,
        batch_size=batch_size,
        slide_over_video=slide_over_video,
        num_workers=num_workers,
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
    records = [one for path in sorted(parts.glob("*.json")) for one in json.loads(path.read_text("utf-8"))]
    write_failures(folder / "motion_failures.csv", failed)
    if failed and not records:
        raise ValueError(all_failed_message(source, failed))
    evidence = [MotionEvidence(ClipMotionRow(**one["row"]), tuple(one["classes"]), one["margins"]) for one in records]
    classes = summarise_by_class(evidence, config.seed)
    write_rows(folder / "motion.csv", ClipMotionRow, [one.row for one in evidence])
    write_rows(folder / "motion_classes.csv", ClassMotionRow, classes)
    lines = motion_sentences(classes)
    atomic.write_text(folder / "motion.txt", "\n".join(lines) + "\n")
    info(motion_table(classes))
    info("\n" + "\n".join(lines))
    if failed:
        info(failure_table(failed))
    info(f"\nby clip: {folder / 'motion.csv'}, by class: {folder / 'motion_classes.csv'}")
    report([folder])


def motion_table(rows: Sequence[ClassMotionRow]) -> str:
    """What goes of the scores when clips are shuffled, frozen, reversed, and what of the maps changes over time."""
    names = ("drop_shuffled", "drop_frozen", "drop_reversed", "changing_mass", "changing_mass_excess")
    lines = [f"{'question or answer':24} {'clips':>5}" + "".join(f"{name:>24}" for name in names)]
    for row in rows:
        values = ([getattr(row, name + end) for end in ("", "_low", "_high")] for name in names)
        cells = (f"{share:.2f}" + f" ({low:.2f} to {high:.2f})" * (row.n_clips > 1) for share, low, high in values)
        name = f"  {row.answer}" if row.answer else row.target
        lines.append(f"{name:24.24} {row.n_clips:>5}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)
