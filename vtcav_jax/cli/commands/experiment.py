"""--task=experiment: concepts out of videos and Video-TCAV on them, --task=mine and then --task=tcav by one command."""

from collections.abc import Sequence
from pathlib import Path

from vtcav_jax import tap
from vtcav_jax.cli.commands import say, videos
from vtcav_jax.cli.commands.pipeline import in_turn
from vtcav_jax.cli.commands.predict import with_weights
from vtcav_jax.tcav.experiment.config import Experiment, chosen_stages
from vtcav_jax.tcav.experiment.dataset import of_class


def check(
    model: str | None,
    spec: str | None,
    concepts: Sequence[str],
    targets: Sequence[str],
    target_videos: str | None,
    settings: Experiment,
    run: Path | None,
    random_seed: int | None = None,
) -> Path:
    """The run's folder; what the test will need (network, classes, their clips, stages) is asked for before minutes are
    spent on mining."""
    missing = {"--model=NETWORK": model, "--videos=WHERE": spec, "--concepts=NAME": concepts}
    missing |= {"--targets=CLASS": targets, "--target_videos=WHERE": target_videos, "--run=NAME": run}
    if lacking := [name for name, value in missing.items() if not value]:
        raise ValueError(f"--task=experiment needs {', '.join(lacking)} as well; see --help")
    assert model and spec and target_videos and run
    videos(spec)
    source, loaded = videos(target_videos), with_weights(model, random_seed)
    for name in targets:
        of_class(loaded, name, source, settings.n_targets, settings.seed)
    known = tap.stages_of(loaded.model)
    chosen_stages(settings.adapted(known).stages, known)
    return run


def experiment(
    program: Path, mining: Sequence[str], testing: Sequence[str], sets: Path, style: Sequence[str], *, dry_run: bool
) -> int:
    """Mines into the folder `sets` by the flags `mining`, tests what is there by `testing`; returns an exit code."""
    code = in_turn(program, [mining, testing], style, dry_run=dry_run)
    if not code and not dry_run:
        say(
            f"\nlook at the concepts: {sets / 'review.html'}; reject what is wrong, save review.csv into {sets}, and"
            " give the same command again: only what has changed is done anew"
        )
    return code
