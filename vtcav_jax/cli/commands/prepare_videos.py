"""--task=worlds, prepare, mine and review: from videos to clips that are there once and for all."""

from dataclasses import replace
from pathlib import Path

from vtcav_jax import concepts, data, models
from vtcav_jax.cli.commands import open_nonempty
from vtcav_jax.console import emit, info
from vtcav_jax.data import SamplingConfig, failure_table
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.worlds import write_clips


def render_world(videos: str | None, out: Path | None) -> None:
    """Clips of a world as mp4 files with their answers and boxes, so that they are videos like any other."""
    source = None if videos is None else open_nonempty(videos)
    if not isinstance(source, WorldSource) or out is None:
        raise ValueError(
            "--task=worlds needs --videos=worlds:NAME:COUNT:SEED, such as worlds:small:100:0, and --out=DIR"
        )
    paths = write_clips(source.render(0, source.n_clips), out)
    emit(f"wrote {len(paths)} clips to {out}; read them with --videos={out / 'manifest.csv'}")


def preprocess(
    videos: str | None, model: str, sampling: SamplingConfig, out: Path | None, *, num_workers: int = 2
) -> None:
    """Decodes a corpus once, as `model` sees it."""
    if videos is None or out is None:
        raise ValueError("--task=prepare needs --videos=WHERE, --model=PRESET (for the clips' size) and --out=DIR")
    failed = data.prepare_dataset(
        open_nonempty(videos), models.abstract_model(model)[1].clip_spec, sampling, out, num_workers=num_workers
    )
    emit(f"wrote {out}; read it with --videos={out}")
    if failed:
        info(failure_table(failed))


def mine_concepts(
    videos: str | None,
    config: concepts.MiningConfig,
    out: Path | None,
    *,
    model: str | None = None,
    target_videos: str | None = None,
    negative_videos: str | None = None,
    num_workers: int = 2,
) -> None:
    """Concept sets, their controls and random sets out of videos; clips as long as those that `model` sees."""
    if videos is None or out is None:
        raise ValueError("--task=mine needs --videos=WHERE, --concepts=NAME,... and --out=DIR")
    clip_spec = None if model is None else models.abstract_model(model)[1].clip_spec
    if config.uses_whole_clips:
        if clip_spec is None or negative_videos is not None:
            raise ValueError(
                "whole clips (@HEAD:ANSWER) are cut as a network sees them, and their random sets come from the same"
                " videos; --task=mine needs --model=NETWORK and no --negatives for them"
            )
        target_source = None if target_videos is None else open_nonempty(target_videos)
        labelled_report = concepts.mine_labelled_clips(
            open_nonempty(videos), config, clip_spec, out, targets=target_source, num_workers=num_workers
        )
        info(labelled_report.text)
        return emit(f"\nlook at them, and reject what is wrong: {out / 'review.html'}")
    if clip_spec is not None:
        config = replace(config, frames=clip_spec.frames, interval=clip_spec.interval)
    report = concepts.mine(videos, config, out, targets=target_videos or (), negative_videos=negative_videos)
    info(report.text)
    emit(f"\nlook at them, and reject what is wrong: {out / 'review.html'}")


def review_concepts(concept_dir: str) -> None:
    """The page of concept sets that are there, for those that were made by hand."""
    path, failures = concepts.review_sets(concept_dir)
    emit(f"look at them, and reject what is wrong: {path}")
    for name, why in failures.items():
        info(f"not on it: {name}: {why}")


def list_detector_labels(detector: Path) -> None:
    """What a detector knows, a name a line."""
    from vtcav_jax.concepts.detect import list_labels

    emit("\n".join(list_labels(detector)))
