"""Command of the task pyramid: class feature pyramids, the channels that a class depends on, level by level."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax import atomic, tap
from vtcav_jax import pyramid as feature_pyramid
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.target_spec import TargetSpec, parse_targets
from vtcav_jax.attribution.videos.clip_windows import Window, stream_windows
from vtcav_jax.attribution.videos.finite_check import non_finite_failure
from vtcav_jax.cli.arguments import TARGETS_HELP, ModelArguments, RandomWeightsArguments, RunArguments, VideoArguments
from vtcav_jax.cli.commands import format_estimate, format_table, load_network, open_nonempty, source_request
from vtcav_jax.cli.commands.report import write_page
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import info, progress
from vtcav_jax.data import ReadResult, SamplingConfig, Source, failure_table, write_failures
from vtcav_jax.data.encode import write_animation
from vtcav_jax.models import Network
from vtcav_jax.names import count_noun
from vtcav_jax.pyramid import AblationResult, Pyramid, Selection
from vtcav_jax.pyramid.graph import EdgeRule
from vtcav_jax.report.animation.overlay import Panel, overlay_maps
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.runs import directory
from vtcav_jax.runs.directory import ANIMATION_FOLDER
from vtcav_jax.runs.pyramid_rows import PYRAMID_JSON, AblationRow, AlignedRow, EdgeRow, NodeRow, kernel_animation_name
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_rows import VectorRow
from vtcav_jax.settings import MAX_SEED, SEED_HELP, SettingError, check_settings, concerning, nested, setting
from vtcav_jax.tcav.vector_file import load_vectors_for

CLIPS_PER_ANIMATION = 3  # clips in a channel's animation: those with its largest contributions
ANIMATIONS_PER_LEVEL = 8  # number of channels per level with an animation
STAGE_JOINER = "+"  # between parallel stages of one level
MIN_ANIMATION_SECONDS = 2.0
MAX_CHANNELS = 6  # channels per level on the terminal


@dataclass(frozen=True)
class PyramidConfig:
    """Settings of a pyramid and its ablation; see `pyramid.build_pyramid`."""

    stages: tuple[str, ...] = setting(
        (),
        "layers of the pyramid's levels; A+B joins parallel layers to a level [default: the last --depth layers without"
        " a bypass]",
    )
    depth: int = setting(3, "number of levels, counted back from the class score", minimum=1)
    channel_selection: str = setting(
        "mass:0.5",
        "channels of a level: mass:SHARE (fewest channels with this share of the positive relevance), threshold:SHARE"
        " (relevance of at least this share of the maximum) or top:NUMBER",
    )
    max_channels: int = setting(32, "maximum number of channels per level", minimum=1)
    edge_rule: EdgeRule = setting(
        "gradient", "channel weights: gradient, or stergiou2019 (mean kernel weight times mean activation)"
    )
    ig_steps: int = 4
    max_clips: int = setting(
        64, "maximum number of clips per target; half of them are held out for the ablation", minimum=2
    )
    draws: int = 39
    noise: float = 0.05
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)

    def __post_init__(self):
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class PyramidArguments(ModelArguments, VideoArguments, RunArguments, RandomWeightsArguments):
    targets: tuple[str, ...] = setting((), TARGETS_HELP)
    concept_run: Path | None = setting(
        None, "run folder of the task tcav whose concept vectors are compared with the channels"
    )
    sampling: SamplingConfig = nested(SamplingConfig)
    config: PyramidConfig = nested(PyramidConfig)


@dataclass(frozen=True, eq=False)
class PyramidJob:
    """Resolved arguments of the command."""

    args: PyramidArguments
    network: Network
    source: Source
    target_specs: tuple[TargetSpec, ...]
    selection: Selection
    level_stages: list[list[str]] | None  # None: the default levels
    vectors: Mapping[str, np.ndarray]
    vector_rows: Sequence[VectorRow]  # quality of the vectors


@dataclass(frozen=True, eq=False)
class ClipSplit:
    """Indices of the clips that build the pyramid of a target, of those for the ablation, and of their references."""

    build: Int[np.ndarray, " n"]
    held_out: Int[np.ndarray, " m"]
    build_reference: Int[np.ndarray, " r"]
    held_out_reference: Int[np.ndarray, " s"]
    is_shared: bool  # too few clips to hold some out: `build` and `held_out` are the same


@dataclass
class PyramidTables:
    """Table rows, entries of pyramid.json and printed summaries of all targets."""

    nodes: list[NodeRow] = field(default_factory=list)
    edges: list[EdgeRow] = field(default_factory=list)
    ablation: list[AblationRow] = field(default_factory=list)
    concepts: list[AlignedRow] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)


def pyramid(args: PyramidArguments, context: CommandContext) -> None:
    """Build and ablate a pyramid of each target over the clips with its prediction; write tables and a report page."""
    job = resolve_job(args)
    request = source_request("pyramid", args, job.source, job.target_specs)
    network = job.network.identity()
    folder = directory.open_run(args.run, request | asdict(args.config), context.flags_text, network=network)
    (folder / ANIMATION_FOLDER).mkdir(exist_ok=True)
    clips = read_clips(job, folder)
    logits = predict_logits(job.network, clips)
    random = np.random.default_rng(args.config.seed)
    tables = PyramidTables()
    for target_spec in job.target_specs:
        split = split_clips(matches_target(target_spec, logits), random, args.config.max_clips)
        explain_target(job, target_spec, clips, logits, split, folder / ANIMATION_FOLDER, tables)
    write_tables(folder, tables, with_concepts=args.concept_run is not None)
    info("\n\n".join(tables.summaries))
    info(f"\nGraph: {folder / PYRAMID_JSON}\nTables: {folder}/pyramid_*.csv\nAnimations: {folder / ANIMATION_FOLDER}")
    write_page([folder])


def resolve_job(args: PyramidArguments) -> PyramidJob:
    """Load the network and concept vectors and check all targets and levels before any video is read."""
    config, concept_run = args.config, args.concept_run
    source = open_nonempty(args.videos)
    network = load_network(args, config.seed)
    with concerning("targets"):
        target_specs = parse_targets(network, args.targets)
    with concerning("channel_selection"):
        selection = Selection.parse(config.channel_selection, config.max_channels)
    level_stages = [stage.split(STAGE_JOINER) for stage in config.stages] or None
    blank = jnp.zeros((1, *network.clip_spec.shape))
    levels: list[tuple[str, ...]] = []
    for target_spec in target_specs:
        explanation = prepare_explanation(
            network.model, blank, target_spec.target(np.zeros((1, len(network.labels)), np.float32))
        )
        levels += feature_pyramid.pyramid_levels(explanation, level_stages, config.depth)
    vectors = load_vectors_for(network.model, concept_run).arrays if concept_run else {}
    vector_rows = open_run_folder(concept_run).vector_rows if concept_run else ()
    stages = {name.partition("|")[0] for name in vectors}
    if concept_run and not stages & {stage for level in levels for stage in level}:
        vector_stages, level_names = ", ".join(sorted(stages)), ", ".join(" + ".join(level) for level in levels)
        raise SettingError(
            (
                "stages",
                f"the concept vectors in {concept_run} are at {vector_stages}, none of which is a level of the pyramid"
                f" ({level_names}); choose some of these stages",
            )
        )
    return PyramidJob(args, network, source, target_specs, selection, level_stages, vectors, vector_rows)


def read_clips(job: PyramidJob, folder: Path) -> list[Window]:
    """Read all clips of the videos; write and print the list of videos that could not be read."""
    args, source = job.args, job.source
    windows = stream_windows(source, job.network.clip_spec, args.sampling, num_workers=args.num_workers)
    results = list(progress(windows, len(source.items), "videos", size=_progress_size))
    failed = [result for result in results if isinstance(result, ReadResult)]
    write_failures(folder / "pyramid_failures.csv", failed)
    if failed:
        info(failure_table(failed))
    clips = [result for result in results if isinstance(result, Window)]
    if not clips:
        raise ValueError(f"no clip of {source.spec} could be read; see {folder / 'pyramid_failures.csv'}")
    return clips


def split_clips(is_target: Bool[np.ndarray, " n"], random: np.random.Generator, max_clips: int) -> ClipSplit:
    """Draw clips with the target's prediction, one half for the pyramid and one for the ablation.

    Up to three clips are used for both. The clips with other predictions are the reference; without any, each half is
    the reference of the other half, and there is none if both are the same.
    """
    rows = random.permutation(np.flatnonzero(is_target))[:max_clips]
    is_shared = len(rows) <= 3
    build, held_out = (rows, rows) if is_shared else (rows[::2], rows[1::2])
    reference = random.permutation(np.flatnonzero(~is_target))[: len(build)]
    if not is_target.all():
        return ClipSplit(build, held_out, reference, reference, is_shared)
    references = (rows[:0], rows[:0]) if is_shared else (held_out, build)
    return ClipSplit(build, held_out, *references, is_shared)


def explain_target(
    job: PyramidJob,
    target_spec: TargetSpec,
    clips: Sequence[Window],
    logits: Float[np.ndarray, "n k"],
    split: ClipSplit,
    animation_folder: Path,
    tables: PyramidTables,
) -> None:
    """Build the pyramid of a target, ablate it, write its animations, and add its results to `tables`."""
    config, model, name = job.args.config, job.network.model, target_spec.name
    video, held_out_video, reference_video, held_out_reference = (
        _clip_batch(job.network, [clips[i] for i in indices]) if len(indices) else None
        for indices in (split.build, split.held_out, split.build_reference, split.held_out_reference)
    )
    assert video is not None and held_out_video is not None, "a target has at least one clip"
    target = target_spec.target(logits[split.build])
    options: dict[str, Any] = {"reference": reference_video, "ig_steps": config.ig_steps, "seed": config.seed}
    class_pyramid = feature_pyramid.build_pyramid(
        model,
        video,
        target,
        stages=job.level_stages,
        depth=config.depth,
        selection=job.selection,
        edge_rule=config.edge_rule,
        **options,
    )
    ablation_results = feature_pyramid.ablate_pyramid(
        model,
        held_out_video,
        target_spec.target(logits[split.held_out]),
        class_pyramid,
        reference=held_out_reference,
        draws=config.draws,
        seed=config.seed + 1,
    )
    noise = feature_pyramid.noise_stability(model, video, target, class_pyramid, noise=config.noise, **options)
    build_clips = [clips[i] for i in split.build]
    write_animations(animation_folder, name, class_pyramid, build_clips)
    clip_names = [window.read.item.name for window in build_clips]
    for i, node in enumerate(class_pyramid.nodes):
        top_names = "|".join(clip_names[j] for j in top_clips(class_pyramid, i))
        tables.nodes.append(NodeRow(name, i, **vars(node), top_clips=top_names))
    tables.edges += [EdgeRow(name, **vars(edge)) for edge in class_pyramid.edges]
    tables.ablation += [AblationRow(**vars(row), target=name) for row in ablation_results]
    tables.concepts += align_vectors(name, class_pyramid, job.vectors, job.vector_rows)
    facts = {
        "target": name,
        "made_of": clip_names,
        "ablation_clips": [clips[i].read.item.name for i in split.held_out],
        "same_clips": split.is_shared,
        "n_reference_clips": len(split.build_reference),
        "noise_stability": [list(level) for level in noise],
    }
    tables.facts.append(facts | class_pyramid.as_json())
    tables.summaries.append(
        pyramid_table(name, class_pyramid, ablation_results, len(split.held_out), config.draws, split.is_shared)
    )


def write_tables(folder: Path, tables: PyramidTables, *, with_concepts: bool) -> None:
    write_rows(folder / "pyramid_nodes.csv", NodeRow, tables.nodes)
    write_rows(folder / "pyramid_edges.csv", EdgeRow, tables.edges)
    write_rows(folder / "pyramid_ablation.csv", AblationRow, tables.ablation)
    if with_concepts:
        write_rows(folder / "pyramid_concepts.csv", AlignedRow, tables.concepts)
    atomic.write_text(folder / PYRAMID_JSON, json.dumps(tables.facts, indent=1))


def matches_target(target_spec: TargetSpec, logits: Float[np.ndarray, "n k"]) -> Bool[np.ndarray, " n"]:
    """Return which clips have the target's class as prediction; for a target without a class, all clips."""
    if not target_spec.classes or target_spec.head_range[1] <= target_spec.head_range[0]:
        return np.ones(len(logits), bool)
    is_target = np.isin(
        target_spec.head_range[0] + logits[:, slice(*target_spec.head_range)].argmax(1), target_spec.classes
    )
    if not is_target.any():
        text = f"the network predicts {target_spec.name} for none of the {count_noun(len(logits), 'clip')}"
        raise SettingError(("targets", f"{text}; add clips with this prediction, or choose other targets"))
    return is_target


def predict_logits(network: Network, clips: Sequence[Window], batch_size: int = 8) -> Float[np.ndarray, "n k"]:
    """Compute the logits of all clips, in batches of equal shape."""
    parts = []
    for start in range(0, len(clips), batch_size):
        batch = list(clips[start : start + batch_size])
        padded = batch + [batch[-1]] * (batch_size - len(batch))
        parts.append(np.asarray(tap.compute_logits(network.model, _clip_batch(network, padded)))[: len(batch)])
    logits = np.concatenate(parts)
    if (bad := np.flatnonzero(~np.isfinite(logits).all(1))).size:
        failure = non_finite_failure(network, [clips[bad[0]]], "its logits").failure
        raise ValueError(f"{failure}; remove it from --videos" + (f", as {bad.size - 1} more" if bad.size > 1 else ""))
    return logits


def top_clips(class_pyramid: Pyramid, node: int) -> list[int]:
    """Return the indices of the clips to which a channel contributes most."""
    return np.argsort(-class_pyramid.maps[node].sum((1, 2, 3)), kind="stable")[:CLIPS_PER_ANIMATION].tolist()


def write_animations(folder: Path, target: str, class_pyramid: Pyramid, clips: Sequence[Window]) -> None:
    """Write one animation per channel: its top clips, one below the other, with the places of its contribution."""
    node_indices = [i for level in range(len(class_pyramid.levels)) for i in _first_nodes(class_pyramid, level)]
    for i in progress(node_indices, len(node_indices), "animations", size=lambda _: 1):
        node = class_pyramid.nodes[i]
        frames, panels = [], []
        for row in top_clips(class_pyramid, i):
            video = clips[row].clip.video[0]
            frame_times = (np.arange(class_pyramid.maps[i].shape[1]) + 0.5) * len(video) / class_pyramid.maps[i].shape[
                1
            ] - 0.5
            title = f"{node.stage} #{node.channel}"
            panels.append(Panel(title, class_pyramid.maps[i][row], frame_times, True))
            frames.append(video)
        overlays = [overlay_maps(video, [panel], "") for video, panel in zip(frames, panels)]
        write_animation(
            folder / kernel_animation_name(target, node.stage, node.channel),
            np.concatenate(overlays, 1),
            max(len(frames[0]) / MIN_ANIMATION_SECONDS, 1.0),
        )


def _first_nodes(class_pyramid: Pyramid, level: int) -> Iterator[int]:
    level_nodes = [i for i, node in enumerate(class_pyramid.nodes) if node.level == level]
    yield from level_nodes[:ANIMATIONS_PER_LEVEL]


def align_vectors(
    target: str, class_pyramid: Pyramid, vectors: Mapping[str, np.ndarray], quality: Sequence[VectorRow]
) -> list[AlignedRow]:
    """Return the component of each concept vector (summed over positions) along each channel, with its rank."""
    auc_by_vector = {(row.stage, row.concept, row.clip_type, row.negatives): (row.auc, row.auc_p) for row in quality}
    out = []
    for name, vector in vectors.items():
        stage, _, vector_key = name.partition("|")
        concept, clip_type, negatives = vector_key.rsplit("/", 2)
        parts = vector.reshape(-1, vector.shape[-1]).sum(0)
        length = np.linalg.norm(parts)
        entries = np.divide(parts, length, out=np.zeros_like(parts), where=length > 0)
        auc, auc_p = auc_by_vector.get((stage, concept, clip_type, negatives), (np.nan, np.nan))
        for i, node in enumerate(class_pyramid.nodes):
            if node.stage == stage:
                rank = int((np.abs(entries) >= abs(entries[node.channel])).sum())
                row_key = (target, i, stage, node.channel, concept, clip_type, negatives)
                out.append(AlignedRow(*row_key, float(entries[node.channel]), rank, len(entries), auc, auc_p))
    return out


def pyramid_table(
    target: str,
    class_pyramid: Pyramid,
    ablation_results: Sequence[AblationResult],
    n_clips: int,
    draws: int,
    same_clips: bool,
) -> str:
    """Format the most relevant channels of each level, and the effect of ablating all of them."""
    n_nodes, n_levels, n_build = len(class_pyramid.nodes), len(class_pyramid.levels), len(class_pyramid.score)
    levels_text, clips_text = f"{n_levels} level{'s' * (n_levels > 1)}", f"{n_build} clip{'s' * (n_build > 1)}"
    lines = [f"{target}: {count_noun(n_nodes, 'channel')} in {levels_text}, from {clips_text}"]
    cells = []
    for level, stages in enumerate(class_pyramid.levels):
        level_nodes = [node for node in class_pyramid.nodes if node.level == level]
        names = ", ".join(f"#{node.channel} {100 * node.relevance:.0f} %" for node in level_nodes[:MAX_CHANNELS])
        if len(level_nodes) > MAX_CHANNELS:
            names += f", ... {len(level_nodes) - MAX_CHANNELS} more"
        cells.append((" + ".join(stages), names))
    lines += [format_table(("stage (layer)", "channels with their share of the score"), cells, left=2), ""]
    largest = {row.stage: row for row in ablation_results}  # the last row of a stage ablates all its channels
    header = ("ablated at", "channels", "score drop (95 % CI)", "mean drop of random channels (95 % range)", "p")
    drops = [
        (
            row.stage,
            f"{row.kernels} of {row.channels}",
            format_estimate(row.score_drop, row.score_drop_low, row.score_drop_high),
            format_estimate(row.random_score_drop, row.random_score_drop_low, row.random_score_drop_high),
            f"{row.p:.3f}",
        )
        for row in largest.values()
    ]
    lines.append(format_table(header, drops, left=1))
    lines.append(
        f"CI over {count_noun(n_clips, 'clip')}, {'not ' * same_clips}held out; range over {draws} draws of as many"
        " random"
        " channels of the stage\np: share of draws with a drop at least as large (the pyramid's channels count as one)"
    )
    if same_clips:
        lines.append(
            "There are too few clips to hold some out: the drops are measured on the pyramid's clips, biased upwards."
        )
    return "\n".join(lines)


def _clip_batch(network: Network, clips: Sequence[Window]):
    clip_spec = network.clip_spec
    return jnp.asarray(clip_spec.normalise(np.concatenate([window.clip.video for window in clips])))


def _progress_size(result: Window | ReadResult) -> int:
    return 1 if isinstance(result, ReadResult) or result.last else 0
