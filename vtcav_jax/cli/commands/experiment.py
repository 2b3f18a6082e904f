"""The task `experiment`: `mine_concepts` or `discover`, then `tcav` on these concepts, in one command."""

from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.cli.arguments import ModelArguments, VideoArguments, explicit_flags
from vtcav_jax.cli.commands import load_network, open_nonempty
from vtcav_jax.cli.commands.discover_concepts import DiscoverArguments
from vtcav_jax.cli.commands.mine_concepts import MineConceptsArguments, MiningArguments
from vtcav_jax.cli.commands.tcav import TcavArguments, TestArguments
from vtcav_jax.cli.pipeline import run_pipeline
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import info
from vtcav_jax.discovery import DiscoveryConfig
from vtcav_jax.models.stages import resolve_stages
from vtcav_jax.settings import SettingError, concerning, nested, required, setting
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.dataset import clips_by_class


@dataclass(frozen=True, kw_only=True)
class ExperimentArguments(MiningArguments, TestArguments, ModelArguments, VideoArguments):
    discover: bool = setting(
        False, "instead of mining --concepts, discover concepts that nobody named in the activations (task discover)"
    )
    clips_per_video: int = setting(1, "evenly spaced clips per video, with --discover", minimum=1, maximum=1000)
    discovery_config: DiscoveryConfig = nested(DiscoveryConfig)
    target_videos: str = required("WHERE", "clips of the classes to be explained (a source)")
    out: Path | None = setting(None, "folder for the concept sets [default: RUN_concepts]")
    dry_run: bool = setting(False, "print the two commands and stop")


def experiment(args: ExperimentArguments, context: CommandContext) -> int:
    """Mine or discover concepts, then test them; return the exit code of the first step that fails, else 0."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # the steps run in other processes, which need the accelerators
    preflight(args)
    concept_dir = args.out or args.run.with_name(f"{args.run.name}_concepts")
    task, arguments = ("discover", DiscoverArguments) if args.discover else ("mine_concepts", MineConceptsArguments)
    making = explicit_flags(context.flags, arguments, exclude=("out",))
    testing = explicit_flags(context.flags, TcavArguments, exclude=("concept_dir", "dry_run"))
    steps = [
        [f"--task={task}", *making, f"--out={concept_dir}"],
        ["--task=tcav", *testing, f"--concept_dir={concept_dir}"],
    ]
    code = run_pipeline(steps, context.common_flags, dry_run=args.dry_run)
    if not code and not args.dry_run:
        info(
            f"\nReview the concept clips: open {concept_dir / 'review.html'}, reject wrong clips, save review.csv into"
            f" {concept_dir}, and run the same command again; only what has changed is computed again."
        )
    return code


def preflight(args: ExperimentArguments) -> None:
    """Check the inputs of the tests (network, classes, their clips, stages) before minutes are spent on concepts."""
    ways = {"--concepts": bool(args.config.concepts), "--movements": args.movements, "--discover": args.discover}
    if sum(ways.values()) != 1:
        got = " and ".join(way for way, is_given in ways.items() if is_given) or "none"
        raise SettingError(("concepts", f"expected --concepts=NAME,..., --movements or --discover, got {got}"))
    config: ExperimentConfig = args.test_config
    open_nonempty(args.videos)
    source = open_nonempty(args.target_videos, "target_videos")
    network = load_network(args, config.seed)
    with concerning("targets"):
        clips_by_class(network, args.targets, source, config.max_target_clips, config.seed)
    with concerning("stages"):
        resolve_stages(config.stages, network)
