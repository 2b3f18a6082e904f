"""--task=worlds, prepare, mine and review: from videos to clips that are there once and for all."""

from dataclasses import replace
from pathlib import Path

from vtcav_jax import concepts, data, models
from vtcav_jax.cli.commands import answer, say, videos
from vtcav_jax.data import How, failure_table
from vtcav_jax.data.world_source import Synthetic
from vtcav_jax.worlds import write_clips


def world(spec: str | None, out: Path | None) -> None:
    """Clips of a world as mp4 files with their answers and boxes, so that they are videos like any other."""
    source = None if spec is None else videos(spec)
    if not isinstance(source, Synthetic) or out is None:
        raise ValueError(
            "--task=worlds needs --videos=worlds:NAME:COUNT:SEED, such as worlds:small:100:0, and --out=DIR"
        )
    paths = write_clips(source.rendered(0, source.count), out)
    answer(f"wrote {len(paths)} clips to {out}; read them with --videos={out / 'manifest.csv'}")


def prepare(spec: str | None, model: str, how: How, out: Path | None, *, workers: int = 2) -> None:
    """Decodes a corpus once, as `model` sees it."""
    if spec is None or out is None:
        raise ValueError("--task=prepare needs --videos=WHERE, --model=PRESET (for the clips' size) and --out=DIR")
    failed = data.prepare(videos(spec), models.abstract_model(model)[1].clip_spec, how, out, workers=workers)
    answer(f"wrote {out}; read it with --videos={out}")
    if failed:
        say(failure_table(failed))


def mine(
    spec: str | None,
    settings: concepts.Mining,
    out: Path | None,
    *,
    model: str | None = None,
    targets: str | None = None,
    negatives: str | None = None,
    workers: int = 2,
) -> None:
    """Concept sets, their controls and random sets out of videos; clips as long as those that `model` sees."""
    if spec is None or out is None:
        raise ValueError("--task=mine needs --videos=WHERE, --concepts=NAME,... and --out=DIR")
    geometry = None if model is None else models.abstract_model(model)[1].clip_spec
    if settings.whole:
        if geometry is None or negatives is not None:
            raise ValueError(
                "whole clips (@HEAD:ANSWER) are cut as a network sees them, and their random sets come from the same"
                " videos; --task=mine needs --model=NETWORK and no --negatives for them"
            )
        there = None if targets is None else videos(targets)
        found = concepts.whole_clips(videos(spec), settings, geometry, out, targets=there, workers=workers)
        say(found.text)
        return answer(f"\nlook at them, and reject what is wrong: {out / 'review.html'}")
    if geometry is not None:
        settings = replace(settings, frames=geometry.frames, interval=geometry.interval)
    report = concepts.mine(spec, settings, out, targets=targets or (), negatives=negatives)
    say(report.text)
    answer(f"\nlook at them, and reject what is wrong: {out / 'review.html'}")


def review(folder: str) -> None:
    """The page of concept sets that are there, for those that were made by hand."""
    path, failures = concepts.review_sets(folder)
    answer(f"look at them, and reject what is wrong: {path}")
    for name, why in failures.items():
        say(f"not on it: {name}: {why}")


def labels(detector: Path) -> None:
    """What a detector knows, a name a line."""
    from vtcav_jax.concepts.detect import list_labels

    answer("\n".join(list_labels(detector)))
