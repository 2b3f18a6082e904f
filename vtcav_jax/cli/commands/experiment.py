"""--task=experiment: concepts out of videos and Video-TCAV on them, --task=mine and then --task=tcav by one command."""

from collections.abc import Sequence
from pathlib import Path

from vtcav_jax import tap
from vtcav_jax.cli.commands import open_nonempty
from vtcav_jax.cli.commands.pipeline import run_pipeline
from vtcav_jax.cli.commands.predict import load_model
from vtcav_jax.console import info
from vtcav_jax.tcav.experiment.config import ExperimentConfig, resolve_stages
from vtcav_jax.tcav.experiment.dataset import clips_of_class


def preflight(
    model: str | None,
    videos: str | None,
    concepts: Sequence[str],
    targets: Sequence[str],
    target_videos: str | None,
    config: ExperimentConfig,
    run: Path | None,
    random_weights_seed: int | None = None,
) -> Path:
    """The run's folder; what the test will need (network, classes, their clips, stages) is asked for before minutes are
    spent on mining."""
    missing = {"--model=NETWORK": model, "--videos=WHERE": videos, "--concepts=NAME": concepts}
    missing |= {"--targets=CLASS": targets, "--target_videos=WHERE": target_videos, "--run=NAME": run}
    if missing_flags := [name for name, value in missing.items() if not value]:
        raise ValueError(f"--task=experiment needs {', '.join(missing_flags)} as well; see --help")
    assert model and videos and target_videos and run
    open_nonempty(videos)
    source, network = open_nonempty(target_videos), load_model(model, random_weights_seed)
    for name in targets:
        clips_of_class(network, name, source, config.max_target_clips, config.seed)
    stages = tap.stages_of(network.model)
    resolve_stages(config.with_protocol(stages).stages, stages)
    return run


def experiment(
    program: Path,
    mining_flags: Sequence[str],
    tcav_flags: Sequence[str],
    concept_dir: Path,
    verbosity_flags: Sequence[str],
    *,
    dry_run: bool,
) -> int:
    """Mines into the folder `sets` by the flags `mining`, tests what is there by `testing`; returns an exit code."""
    code = run_pipeline(program, [mining_flags, tcav_flags], verbosity_flags, dry_run=dry_run)
    if not code and not dry_run:
        info(
            f"\nlook at the concepts: {concept_dir / 'review.html'}; reject what is wrong, save review.csv into {concept_dir}, and"
            " give the same command again: only what has changed is done anew"
        )
    return code
