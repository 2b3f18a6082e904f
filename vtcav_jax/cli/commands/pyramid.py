"""--task=pyramid: which kernels a class hangs on, and those on which others, as a graph, tables and films."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax import atomic
from vtcav_jax import pyramid as feature_pyramid
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.target_spec import TargetSpec, parse_targets
from vtcav_jax.attribution.videos.clip_windows import Window, stream_windows
from vtcav_jax.attribution.videos.explain_videos import compute_logits
from vtcav_jax.cli.arguments import TARGETS_HELP, ModelArguments, RandomWeightsArguments, RunArguments, VideoArguments
from vtcav_jax.cli.commands import load_network, open_nonempty, source_request
from vtcav_jax.cli.commands.report import write_page
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import info, progress
from vtcav_jax.data import ReadResult, SamplingConfig, failure_table, write_failures
from vtcav_jax.data.encode import write_animation
from vtcav_jax.models import Network
from vtcav_jax.pyramid import AblationResult, Pyramid, Selection
from vtcav_jax.pyramid.graph import EdgeRule
from vtcav_jax.report.animation.overlay import Panel, overlay_maps
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.runs import directory
from vtcav_jax.runs.directory import ANIMATION_FOLDER
from vtcav_jax.runs.pyramid_rows import PYRAMID_JSON, AblationRow, AlignedRow, EdgeRow, NodeRow, kernel_animation_name
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_rows import VectorRow
from vtcav_jax.settings import MAX_SEED, SEED_HELP, check_settings, concerning, nested, setting
from vtcav_jax.tcav.vector_file import load_vectors_for

CLIPS_PER_ANIMATION = 3  # clips in a kernel's film: those where it contributes most
ANIMATIONS_PER_LEVEL = 8  # kernels of each level that get one
STAGE_JOINER = "+"  # between stages of one level
MIN_ANIMATION_SECONDS = 2.0  # seconds that a film lasts at least


@dataclass(frozen=True)
class PyramidConfig:
    """How a pyramid is made; see `pyramid.build_pyramid`."""

    stages: tuple[str, ...] = setting(
        (), "layers of the levels; A+B for layers side by side [default: the last ones that nothing bypasses]"
    )
    depth: int = setting(3, "levels back from the class", minimum=1)
    channel_selection: str = setting(
        "mass:0.5", "channels of a level: mass:SHARE of what helps, threshold:SHARE of the best, top:NUMBER"
    )
    max_channels: int = setting(32, "channels per level, at most", minimum=1)
    edge_rule: EdgeRule = setting(
        "gradient", "how channels are weighted; stergiou2019: mean kernel times mean activation"
    )
    ig_steps: int = 4
    max_clips: int = setting(64, "clips per target, at most; half of them for the ablation", minimum=2)
    draws: int = 39
    noise: float = 0.05
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)

    def __post_init__(self):
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class PyramidArguments(ModelArguments, VideoArguments, RunArguments, RandomWeightsArguments):
    targets: tuple[str, ...] = setting((), TARGETS_HELP)
    concept_run: Path | None = setting(None, "folder of a --task=tcav run with concept vectors to compare with")
    sampling: SamplingConfig = nested(SamplingConfig)
    config: PyramidConfig = nested(PyramidConfig)


def pyramid(args: PyramidArguments, context: CommandContext) -> None:
    """A pyramid of each target over the clips that the network takes for it, with tables and a page.

    Half of these clips make the pyramid, the others measure ablation; the clips that the network takes for something
    else are the reference or, where there are none, each half that of the other. Of up to three clips all do both.
    """
    config, concept_run = args.config, args.concept_run
    source = open_nonempty(args.videos)
    network = load_network(args.model, random_weights=args.random_weights, seed=config.seed)
    with concerning("targets"):
        target_specs = parse_targets(network, args.targets)
    with concerning("channel_selection"):
        selection = Selection.parse(config.channel_selection, config.max_channels)
    level_stages = [stage.split(STAGE_JOINER) for stage in config.stages] or None
    clip_spec = network.clip_spec
    blank = jnp.zeros((1, *clip_spec.shape))
    levels: list[tuple[str, ...]] = []
    for target_spec in target_specs:  # what cannot be explained is refused before a video is read
        explanation = prepare_explanation(
            network.model, blank, target_spec.target(np.zeros((1, len(network.labels)), np.float32))
        )
        levels += feature_pyramid.pyramid_levels(explanation, level_stages, config.depth)
    vectors = load_vectors_for(network.model, concept_run).arrays if concept_run else {}
    quality = open_run_folder(concept_run).vector_rows if concept_run else ()
    stages = {name.partition("|")[0] for name in vectors}
    if concept_run and not stages & {stage for level in levels for stage in level}:
        raise ValueError(
            f"the vectors in {concept_run} are at {', '.join(sorted(stages))}, none of which is a level here "
            f"({', '.join(' + '.join(level) for level in levels)}); name some of them with stages"
        )
    request = source_request("pyramid", args, source, target_specs)
    folder = directory.open_run(args.run, request | asdict(config), context.flags_text)
    (folder / ANIMATION_FOLDER).mkdir(exist_ok=True)
    results = list(
        progress(
            stream_windows(source, clip_spec, args.sampling, num_workers=args.num_workers),
            len(source.items),
            "videos",
            size=_progress_size,
        )
    )
    clips = [one for one in results if isinstance(one, Window)]
    failed = [one for one in results if isinstance(one, ReadResult)]
    write_failures(folder / "pyramid_failures.csv", failed)
    if failed:
        info(failure_table(failed))
    if not clips:
        raise ValueError(f"no clip of {source.spec} could be read; see {folder / 'pyramid_failures.csv'}")
    logits = predict_logits(network, clips)
    random = np.random.default_rng(config.seed)
    tables: dict[str, list] = {"nodes": [], "edges": [], "ablation": [], "concepts": []}
    pyramid_facts, lines = [], []
    for target_spec in target_specs:
        is_target = matches_target(target_spec, logits)
        rows = random.permutation(np.flatnonzero(is_target))[: config.max_clips]
        build_rows, held_out_rows = (rows[::2], rows[1::2]) if len(rows) > 3 else (rows, rows)
        reference_rows = random.permutation(np.flatnonzero(~is_target))[: len(build_rows)]
        halves = (held_out_rows, build_rows) if build_rows is not held_out_rows else (rows[:0], rows[:0])
        references = halves if is_target.all() else (reference_rows, reference_rows)
        video, held_out_video = (_clip_batch(network, [clips[i] for i in some]) for some in (build_rows, held_out_rows))
        reference_video, held_out_reference = (
            _clip_batch(network, [clips[i] for i in some]) if len(some) else None for some in references
        )
        target = target_spec.target(logits[build_rows])
        reference_options: dict[str, Any] = {
            "reference": reference_video,
            "ig_steps": config.ig_steps,
            "seed": config.seed,
        }
        class_pyramid = feature_pyramid.build_pyramid(
            network.model,
            video,
            target,
            stages=level_stages,
            depth=config.depth,
            selection=selection,
            edge_rule=config.edge_rule,
            **reference_options,
        )
        held_out_target = target_spec.target(logits[held_out_rows])
        ablation_results = feature_pyramid.ablate_pyramid(
            network.model,
            held_out_video,
            held_out_target,
            class_pyramid,
            reference=held_out_reference,
            draws=config.draws,
            seed=config.seed + 1,
        )
        names = [clips[i].read.item.name for i in build_rows]
        write_animations(folder / ANIMATION_FOLDER, target_spec.name, class_pyramid, [clips[i] for i in build_rows])
        tables["nodes"] += [
            NodeRow(
                target_spec.name, i, **vars(node), top_clips="|".join(names[j] for j in top_clips(class_pyramid, i))
            )
            for i, node in enumerate(class_pyramid.nodes)
        ]
        tables["edges"] += [EdgeRow(target_spec.name, **vars(edge)) for edge in class_pyramid.edges]
        tables["ablation"] += [AblationRow(**vars(row), target=target_spec.name) for row in ablation_results]
        tables["concepts"] += align_vectors(target_spec.name, class_pyramid, vectors, quality)
        noise = feature_pyramid.noise_stability(
            network.model, video, target, class_pyramid, noise=config.noise, **reference_options
        )
        pyramid_facts.append(
            {
                "target": target_spec.name,
                "made_of": names,
                "ablation_clips": [clips[i].read.item.name for i in held_out_rows],
            }
            | {
                "same_clips": build_rows is held_out_rows,
                "n_reference_clips": len(references[0]),
                "noise_stability": [list(level) for level in noise],
            }
            | class_pyramid.as_json()
        )
        lines.append(
            pyramid_table(
                target_spec.name, class_pyramid, ablation_results, len(held_out_rows), build_rows is held_out_rows
            )
        )
    for name, row in (("nodes", NodeRow), ("edges", EdgeRow), ("ablation", AblationRow), ("concepts", AlignedRow)):
        if name != "concepts" or concept_run:
            write_rows(folder / f"pyramid_{name}.csv", row, tables[name])
    atomic.write_text(folder / PYRAMID_JSON, json.dumps(pyramid_facts, indent=1))
    info("\n\n".join(lines))
    info(
        f"\nthe graph: {folder / PYRAMID_JSON}; tables: {folder}/pyramid_*.csv; films of its kernels:"
        f" {folder / ANIMATION_FOLDER}"
    )
    write_page([folder])


def matches_target(target_spec: TargetSpec, logits: Float[np.ndarray, "n k"]) -> Bool[np.ndarray, " n"]:
    """The clips that a question is asked of: those where the network gives this answer, or all if it names no class."""
    if not target_spec.classes or target_spec.head_range[1] <= target_spec.head_range[0]:
        return np.ones(len(logits), bool)
    is_target = np.isin(
        target_spec.head_range[0] + logits[:, slice(*target_spec.head_range)].argmax(1), target_spec.classes
    )
    if not is_target.any():
        raise ValueError(
            f"the network answers {target_spec.name} for none of the {len(logits)} clips of --videos; give clips"
            f" that it "
            "takes for that, or another of --targets"
        )
    return is_target


def predict_logits(network: Network, clips: Sequence[Window], batch_size: int = 8) -> Float[np.ndarray, "n k"]:
    parts = []
    for start in range(0, len(clips), batch_size):
        batch = list(clips[start : start + batch_size])
        padded = batch + [batch[-1]] * (batch_size - len(batch))
        parts.append(np.asarray(compute_logits(network.model, _clip_batch(network, padded)))[: len(batch)])
    return np.concatenate(parts)


def top_clips(class_pyramid: Pyramid, node: int) -> list[int]:
    """The clips where a kernel contributes most."""
    return np.argsort(-class_pyramid.maps[node].sum((1, 2, 3)), kind="stable")[:CLIPS_PER_ANIMATION].tolist()


def write_animations(folder: Path, target: str, class_pyramid: Pyramid, clips: Sequence[Window]) -> None:
    """For each kernel of note a film of the clips where it contributes most and where it does, one below the other."""
    node_indices = [i for level in range(len(class_pyramid.levels)) for i in _first_nodes(class_pyramid, level)]
    for i in progress(node_indices, len(node_indices), "films", size=lambda _: 1):
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
    """Of every kernel the parts of concept vectors that lie on it; of a vector with places, of its sum over them."""
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
    target: str, class_pyramid: Pyramid, ablation_results: Sequence[AblationResult], n_clips: int, same_clips: bool
) -> str:
    """What was found, and whether it holds."""
    lines = [
        f"{target}: {len(class_pyramid.nodes)} kernels in {len(class_pyramid.levels)} levels, over"
        f" {len(class_pyramid.score)} clips"
    ]
    for level, stages in enumerate(class_pyramid.levels):
        level_nodes = [node for node in class_pyramid.nodes if node.level == level]
        names = ", ".join(f"#{node.channel} {100 * node.relevance:.0f} %" for node in level_nodes[:6])
        remainder = f" and {len(level_nodes) - 6} more" if len(level_nodes) > 6 else ""
        lines.append(f"  {' + '.join(stages):24} {names}{remainder}")
        for stage in stages:
            rows = [row for row in ablation_results if row.stage == stage]
            if rows:
                r = rows[-1]
                lines.append(
                    f"    without its {r.kernels} of {r.channels}: the score falls by {r.score_drop:.2f}"
                    f" ({r.score_drop_low:.2f} "
                    f"to {r.score_drop_high:.2f}), without as many others by {r.random_score_drop:.2f}"
                    f" ({r.random_score_drop_low:.2f} to "
                    f"{r.random_score_drop_high:.2f}); p = {r.p:.3f}, {n_clips} clips"
                )
    if same_clips:
        lines.append("  too few clips to ablate others than those that the pyramid was made of: expect too much")
    return "\n".join(lines)


def _clip_batch(network: Network, clips: Sequence[Window]):
    clip_spec = network.clip_spec
    return jnp.asarray(clip_spec.normalise(np.concatenate([window.clip.video for window in clips])))


def _progress_size(result: Window | ReadResult) -> int:
    return 1 if isinstance(result, ReadResult) or result.last else 0
