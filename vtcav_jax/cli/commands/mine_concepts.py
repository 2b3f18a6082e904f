"""--task=mine_concepts: concept sets, their controls and random sets out of videos."""

from dataclasses import dataclass, replace

from vtcav_jax import concepts, models
from vtcav_jax.cli.arguments import OutArguments, VideoArguments
from vtcav_jax.cli.commands import open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.settings import SettingError, concerning, nested, setting


@dataclass(frozen=True, kw_only=True)
class MiningArguments:
    """What mining takes beside its videos and its output folder; --task=experiment takes it too."""

    target_videos: str | None = setting(
        None, "clips of the classes to be explained: no concept may come from them (a source, as for --videos)"
    )
    negative_videos: str | None = setting(None, "other videos for the random sets (a source, as for --videos)")
    config: concepts.MiningConfig = nested(concepts.MiningConfig)


@dataclass(frozen=True, kw_only=True)
class MineConceptsArguments(VideoArguments, MiningArguments, OutArguments):
    model: str | None = setting(None, "network that will read the clips: they get its length and interval")


def mine_concepts(args: MineConceptsArguments, context: CommandContext) -> None:
    """Mine concept sets; clips are as long as those that the network reads."""
    config, out = args.config, args.out
    with concerning("model"):
        clip_spec = None if args.model is None else models.abstract_model(args.model)[1].clip_spec
    if config.uses_whole_clips:
        if clip_spec is None or args.negative_videos is not None:
            raise SettingError(
                (
                    "concepts",
                    "whole clips (@HEAD:CLASS) are cut as a network reads them, and their random sets come from the"
                    " same videos: give --model=NETWORK and no --negative_videos",
                )
            )
        targets = None if args.target_videos is None else open_nonempty(args.target_videos, "target_videos")
        source = open_nonempty(args.videos)
        report = concepts.mine_labelled_clips(
            source, config, clip_spec, out, targets=targets, num_workers=args.num_workers
        )
    else:
        if clip_spec is not None:
            config = replace(config, clip_frames=clip_spec.frames, interval=clip_spec.interval)
        report = concepts.mine(
            args.videos, config, out, targets=args.target_videos or (), negative_videos=args.negative_videos
        )
    info(report.text)
    emit(f"\nlook at them, and reject what is wrong: {out / 'review.html'}")
