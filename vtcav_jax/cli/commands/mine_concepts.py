"""Commands of mine_concepts (concept sets, their controls and random sets) and review_concepts (their page)."""

from dataclasses import dataclass, replace

from vtcav_jax import concepts, distributed
from vtcav_jax.cli.arguments import OutArguments, ProcessArguments, VideoArguments
from vtcav_jax.cli.commands import network_outline, open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.concepts.config import MiningConfig, OptionalMiningConfig
from vtcav_jax.console import emit, info
from vtcav_jax.discovery.movements import MovementConfig, MovementReport, mine_movements
from vtcav_jax.settings import SettingError, concerning, nested, required, setting


@dataclass(frozen=True, kw_only=True)
class MiningArguments:
    """Mining arguments that the tasks mine_concepts and experiment share."""

    target_videos: str | None = setting(
        None,
        "videos to be explained later, which are left out of the concepts (a source, as for --videos)",
    )
    negative_videos: str | None = setting(None, "additional videos for the random sets (a source, as for --videos)")
    movements: bool = setting(
        False,
        "instead of mining --concepts, cluster the movements of people (needs a pose network, or boxes with keypoints)",
    )
    movement_config: MovementConfig = nested(MovementConfig)
    config: OptionalMiningConfig = nested(OptionalMiningConfig)


@dataclass(frozen=True, kw_only=True)
class MineConceptsArguments(VideoArguments, MiningArguments, OutArguments, ProcessArguments):
    model: str | None = setting(None, "network that will read the clips, which get its clip length and frame interval")


def mine_concepts(args: MineConceptsArguments, context: CommandContext) -> None:
    """Mine concept sets and write their review page; clips have the length that the network reads."""
    config, out = args.config, args.out
    if args.movements == bool(config.concepts):
        got = "both" if args.movements else "neither"
        raise SettingError(("concepts", f"expected --concepts=NAME,... or --movements, got {got}"))
    clip_spec = None if args.model is None else network_outline(args.model)[1]
    if config.uses_whole_clips:
        if clip_spec is None or args.negative_videos is not None:
            raise SettingError(
                (
                    "concepts",
                    "whole clips (@HEAD:CLASS) have the clip length of a network and random sets from the same videos:"
                    " give --model=NETWORK, and remove --negative_videos",
                )
            )
        targets = None if args.target_videos is None else open_nonempty(args.target_videos, "target_videos")
        source = open_nonempty(args.videos)
        if not source.heads:
            heads = ", ".join(dict.fromkeys(str(concept.head) for concept in config.concepts))
            raise SettingError(
                ("videos", f"{args.videos} has no labels for {heads}; pass its manifest.csv, or class folders")
            )
        if not distributed.is_main_process():
            return
        report = concepts.mine_labelled_clips(
            source, config, clip_spec, out, targets=targets, num_workers=args.num_workers
        )
    else:
        if clip_spec is not None:
            config = replace(config, clip_frames=clip_spec.frames, interval=clip_spec.interval)
        if distributed.process_count() > 1:
            for name, spec in (("videos", args.videos), ("negative_videos", args.negative_videos)):
                if spec is not None:
                    open_nonempty(spec, name)  # compares the videos that the processes see
            scan_config = replace(config, movements=args.movements)
            concepts.share_scans(args.videos, scan_config, out, negative_videos=args.negative_videos)
        if not distributed.is_main_process():
            return
        report = _mine_boxes(args, config)
    info(report.text)
    emit(f"\nReview the concept clips and reject wrong ones: {out / 'review.html'}")


def _mine_boxes(args: MineConceptsArguments, config: MiningConfig) -> concepts.MiningReport | MovementReport:
    targets, negative_videos = args.target_videos or (), args.negative_videos
    if not args.movements:
        return concepts.mine(args.videos, config, args.out, targets=targets, negative_videos=negative_videos)
    return mine_movements(
        args.videos, args.out, config, args.movement_config, targets=targets, negative_videos=negative_videos
    )


@dataclass(frozen=True, kw_only=True)
class ReviewConceptsArguments:
    concept_dir: str = required("DIR", "folder of concept sets")


def review_concepts(args: ReviewConceptsArguments, context: CommandContext) -> None:
    """Write the review page of an existing concept folder."""
    with concerning("concept_dir"):
        path, failures = concepts.review_sets(args.concept_dir)
    emit(f"Review the concept clips and reject wrong ones: {path}")
    for name, reason in failures.items():
        info(f"not on the page: {name}: {reason}")
