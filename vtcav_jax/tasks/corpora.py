"""--task=prepare, --task=mine and --task=review: from videos to clips that are there once and for all."""

from dataclasses import replace
from pathlib import Path

from vtcav_jax import concepts, models, video
from vtcav_jax.tasks import say, videos
from vtcav_jax.video import How, failure_table


def prepare(spec: str | None, model: str, how: How, out: Path | None, *, workers: int = 2) -> None:
    """Decodes a corpus once, as `model` sees it."""
    if spec is None or out is None:
        raise ValueError("--task=prepare needs --videos=WHERE, --model=PRESET (for the clips' size) and --out=DIR")
    failed = video.prepare(videos(spec), models.abstract(model)[1].geometry, how, out, workers=workers)
    say(f"wrote {out}; read it with --videos={out}")
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
) -> None:
    """Concept sets, their controls and random sets out of videos; clips as long as those that `model` sees."""
    if spec is None or out is None:
        raise ValueError("--task=mine needs --videos=WHERE, --concepts=NAME,... and --out=DIR")
    if model is not None:
        geometry = models.abstract(model)[1].geometry
        settings = replace(settings, frames=geometry.frames, interval=geometry.interval)
    report = concepts.mine(spec, settings, out, targets=targets or (), negatives=negatives)
    say(report.text)
    say(f"\nlook at them, and reject what is wrong: {out / 'review.html'}")


def review(folder: str) -> None:
    """The page of concept sets that are there, for those that were made by hand."""
    path, failures = concepts.review_sets(folder)
    say(f"look at them, and reject what is wrong: {path}")
    for name, why in failures.items():
        say(f"not on it: {name}: {why}")


def labels(detector: Path) -> None:
    """What a detector knows, a name a line."""
    from vtcav_jax.concepts.detect import list_labels

    say("\n".join(list_labels(detector)))
