"""Command of the task discover: concepts that nobody named, from a network's activations."""

from dataclasses import dataclass
from pathlib import Path

from vtcav_jax import distributed
from vtcav_jax.cli.arguments import (
    ModelArguments,
    OutArguments,
    ProcessArguments,
    RandomWeightsArguments,
    VideoArguments,
)
from vtcav_jax.cli.commands import format_table, load_network, open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.discovery import DiscoveryConfig, DiscoveryReport, discover
from vtcav_jax.models.stages import resolve_stages
from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import format_p
from vtcav_jax.runtime import Runtime
from vtcav_jax.settings import concerning, nested, setting
from vtcav_jax.stats.intervals import format_interval
from vtcav_jax.tcav.experiment.config import STAGES_HELP


@dataclass(frozen=True, kw_only=True)
class DiscoverArguments(ModelArguments, RandomWeightsArguments, VideoArguments, OutArguments, ProcessArguments):
    stages: tuple[str, ...] = setting((), f"layers whose activations are decomposed: {STAGES_HELP}")
    target_videos: str | None = setting(
        None, "videos to be explained later, which are left out of --videos (a source, as for --videos)"
    )
    boxes: Path | None = setting(
        None,
        "CSV of boxes (file, frame, label, x1, y1, x2, y2), such as mine_concepts writes; their labels are suggested",
    )
    clips_per_video: int = setting(1, "evenly spaced clips per video", minimum=1, maximum=1000)
    discovery_config: DiscoveryConfig = nested(DiscoveryConfig)


def discover_concepts(args: DiscoverArguments, context: CommandContext) -> None:
    """Discover concepts, print a table of them, and write their clips and review page."""
    del context
    config, source = args.discovery_config, open_nonempty(args.videos)
    targets = () if args.target_videos is None else open_nonempty(args.target_videos, "target_videos")
    network = load_network(args, config.seed)
    with concerning("stages"):
        stages = resolve_stages(args.stages, network)
    report = discover(
        network,
        source,
        stages,
        args.out,
        config=config,
        sampling=SamplingConfig(clips_per_video=args.clips_per_video),
        targets=targets,
        boxes=args.boxes,
        runtime=Runtime.local(num_workers=args.num_workers),
    )
    if not distributed.is_main_process():
        return
    info(report.mining.text)
    emit(f"\n{summary(report)}")
    emit(f"\nName the concepts, and reject wrong clips: {args.out / 'review.html'}")


def summary(report: DiscoveryReport) -> str:
    """Return the table of the discovered concepts."""
    rows = []
    for row in report.concepts:
        importance = format_interval(row.importance, row.importance_low, row.importance_high)
        auc = format_interval(row.label_auc, row.label_auc_low, row.label_auc_high) if row.label else ""
        p = format_p(row.importance_p)
        rows.append((row.concept, row.label, auc, f"{row.explained_share:.1%}", importance, p, row.n_videos))
    header = ("concept", "label of the videos", "AUROC (95 % CI)", "explained", "importance (95 % CI)", "p", "videos")
    how = (
        f"Fitted to {count_noun(report.n_fit_videos, 'video')}; all figures and clips are from"
        f" {report.n_clip_videos} others."
        " Importance: loss of the predicted classes' lead without the concept, to first order. p: probability that a"
        " random direction in its place has at least this importance, adjusted for all concepts."
    )
    lines = [
        f"{row.stage}: the concepts determine {format_interval(row.share, row.low, row.high)} of the predictions of"
        f" {row.head} above chance (linear readout, 95 % CI over {count_noun(row.n_videos, 'video')})"
        for row in report.completeness
    ]
    return "\n".join([format_table(header, rows, left=2), how, *lines])
