"""--task=pyramid: which kernels a class hangs on, and those on which others, as a graph, tables and films."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax import models
from vtcav_jax import pyramid as feature_pyramid
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.target_spec import TargetSpec, parse_targets
from vtcav_jax.attribution.videos.clip_windows import Window, stream_windows
from vtcav_jax.attribution.videos.explain_videos import compute_logits
from vtcav_jax.cli.commands import say, videos
from vtcav_jax.cli.commands.predict import with_weights
from vtcav_jax.cli.commands.report import report
from vtcav_jax.data import How, Read, failure_table, write_failures
from vtcav_jax.models import Network
from vtcav_jax.progress import progress
from vtcav_jax.pyramid import AblationResult, Pyramid, Selection
from vtcav_jax.pyramid.graph import EdgeRule
from vtcav_jax.pyramid.tables import PYRAMID_JSON, AblationRow, AlignedRow, EdgeRow, NodeRow, kernel_animation_name
from vtcav_jax.report.animation.overlay import Panel, overlay_maps, write_animation
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.runs import directory
from vtcav_jax.tcav.experiment.verdicts import VectorRow, write_rows
from vtcav_jax.tcav.vector_file import stored_for

SHOWN = 3  # clips in a kernel's film: those where it contributes most
FILMS = 8  # kernels of each level that get one
BESIDE = "+"  # between stages of one level
LOOP = 2.0  # seconds that a film lasts at least


@dataclass(frozen=True)
class Asking:
    """How a pyramid is made; see `feature_pyramid.build`."""

    stages: tuple[str, ...] = ()
    depth: int = 3
    select: str = "mass:0.5"
    most: int = 32
    edges: EdgeRule = "gradient"
    nodes: int = 4
    most_clips: int = 64
    draws: int = 39
    noise: float = 0.05
    seed: int = 0


def pyramid(
    model: str,
    spec: str | None,
    run: Path | None,
    how: How,
    asking: Asking,
    *,
    targets: Sequence[str] = (),
    vectors: Path | None = None,
    workers: int = 2,
    random_seed: int | None = None,
    flags: str = "",
) -> None:
    """A pyramid of each target over the clips of `spec` that the network takes for it, into the folder `run`.

    Half of these clips make it, the others say what ablation does; the clips that it takes for something else are the
    reference or, where there are none, each half that of the other. Of up to three clips all do both.
    """
    if spec is None or run is None:
        raise ValueError("--task=pyramid needs --videos=WHERE and --run=NAME, the folder of the run; see --help")
    source, loaded = videos(spec), with_weights(model, random_seed)
    questions, selection = parse_targets(loaded, targets), Selection.parse(asking.select, asking.most)
    wanted = [stage.split(BESIDE) for stage in asking.stages] or None
    geometry = models.PRESETS[loaded.preset].clip_spec
    nothing = jnp.zeros((1, *geometry.shape))
    levels: list[tuple[str, ...]] = []
    for question in questions:  # what cannot be explained is refused before a video is read
        what = prepare_explanation(
            loaded.model, nothing, question.target(np.zeros((1, len(loaded.labels)), np.float32))
        )
        levels += feature_pyramid.pyramid_levels(what, wanted, asking.depth)
    known = stored_for(loaded.model, vectors).arrays if vectors else {}
    quality = open_run_folder(vectors).vector_rows if vectors else ()
    stages = {name.partition("|")[0] for name in known}
    if vectors and not stages & {stage for level in levels for stage in level}:
        raise ValueError(
            f"the vectors in {vectors} are at {', '.join(sorted(stages))}, none of which is a level here "
            f"({', '.join(' + '.join(level) for level in levels)}); name some of them with stages"
        )
    about = {"task": "pyramid", "model": model, "videos": source.spec, "clips": source.identity}
    about |= {"targets": [q.name for q in questions], "num_clips": how.clips, "interval_seconds": how.interval_seconds}
    folder = directory.open_run(run, about | asdict(asking), flags)
    (folder / "films").mkdir(exist_ok=True)
    found = list(
        progress(stream_windows(source, geometry, how, num_workers=workers), len(source.items), "videos", size=_last)
    )
    clips = [one for one in found if isinstance(one, Window)]
    failed = [one for one in found if isinstance(one, Read)]
    write_failures(folder / "pyramid_failures.csv", failed)
    if failed:
        say(failure_table(failed))
    if not clips:
        raise ValueError(f"no clip of {source.spec} could be read; see {folder / 'pyramid_failures.csv'}")
    logits = answers(loaded, clips)
    random = np.random.default_rng(asking.seed)
    tables: dict[str, list] = {"nodes": [], "edges": [], "ablation": [], "concepts": []}
    told, lines = [], []
    for question in questions:
        its = of(question, logits)
        rows = random.permutation(np.flatnonzero(its))[: asking.most_clips]
        own, others = (rows[::2], rows[1::2]) if len(rows) > 3 else (rows, rows)
        usual = random.permutation(np.flatnonzero(~its))[: len(own)]
        halves = (others, own) if own is not others else (rows[:0], rows[:0])
        references = halves if its.all() else (usual, usual)
        video, there = (_video(loaded, [clips[i] for i in some]) for some in (own, others))
        before, behind = (_video(loaded, [clips[i] for i in some]) if len(some) else None for some in references)
        target = question.target(logits[own])
        compared: dict[str, Any] = {"reference": before, "nodes": asking.nodes, "seed": asking.seed}
        made = feature_pyramid.build_pyramid(
            loaded.model,
            video,
            target,
            stages=wanted,
            depth=asking.depth,
            selection=selection,
            edge_rule=asking.edges,
            **compared,
        )
        answered_so = question.target(logits[others])
        cut = feature_pyramid.ablate_pyramid(
            loaded.model, there, answered_so, made, reference=behind, draws=asking.draws, seed=asking.seed + 1
        )
        names = [clips[i].read.item.name for i in own]
        films(folder / "films", question.name, made, [clips[i] for i in own])
        tables["nodes"] += [
            NodeRow(question.name, i, **vars(node), top_clips="|".join(names[j] for j in top(made, i)))
            for i, node in enumerate(made.nodes)
        ]
        tables["edges"] += [EdgeRow(question.name, **vars(edge)) for edge in made.edges]
        tables["ablation"] += [AblationRow(**vars(row), target=question.name) for row in cut]
        tables["concepts"] += aligned(question.name, made, known, quality)
        noise = feature_pyramid.noise_stability(loaded.model, video, target, made, noise=asking.noise, **compared)
        told.append(
            {"target": question.name, "made_of": names, "ablated": [clips[i].read.item.name for i in others]}
            | {
                "same_clips": own is others,
                "compared": len(references[0]),
                "under_noise": [list(level) for level in noise],
            }
            | made.as_json()
        )
        lines.append(table(question.name, made, cut, len(others), own is others))
    for name, row in (("nodes", NodeRow), ("edges", EdgeRow), ("ablation", AblationRow), ("concepts", AlignedRow)):
        if name != "concepts" or vectors:
            write_rows(folder / f"pyramid_{name}.csv", row, tables[name])
    directory.write_text(folder / PYRAMID_JSON, json.dumps(told, indent=1))
    say("\n\n".join(lines))
    say(
        f"\nthe graph: {folder / PYRAMID_JSON}; tables: {folder}/pyramid_*.csv; films of its kernels: {folder / 'films'}"
    )
    report([folder])


def of(question: TargetSpec, logits: Float[np.ndarray, "n k"]) -> Bool[np.ndarray, " n"]:
    """The clips that a question is asked of: those where the network gives this answer, or all if it names no class."""
    if not question.classes or question.head_range[1] <= question.head_range[0]:
        return np.ones(len(logits), bool)
    its = np.isin(question.head_range[0] + logits[:, slice(*question.head_range)].argmax(1), question.classes)
    if not its.any():
        raise ValueError(
            f"the network answers {question.name} for none of the {len(logits)} clips of --videos; give clips that it "
            "takes for that, or another of --targets"
        )
    return its


def answers(loaded: Network, clips: Sequence[Window], at_once: int = 8) -> Float[np.ndarray, "n k"]:
    parts = []
    for start in range(0, len(clips), at_once):
        some = list(clips[start : start + at_once])
        padded = some + [some[-1]] * (at_once - len(some))
        parts.append(np.asarray(compute_logits(loaded.model, _video(loaded, padded)))[: len(some)])
    return np.concatenate(parts)


def top(made: Pyramid, node: int) -> list[int]:
    """The clips where a kernel contributes most."""
    return np.argsort(-made.maps[node].sum((1, 2, 3)), kind="stable")[:SHOWN].tolist()


def films(folder: Path, target: str, made: Pyramid, clips: Sequence[Window]) -> None:
    """For each kernel of note a film of the clips where it contributes most and where it does, one below the other."""
    chosen = [i for level in range(len(made.levels)) for i in _first(made, level)]
    for i in progress(chosen, len(chosen), "films", size=lambda _: 1):
        node = made.nodes[i]
        frames, panels = [], []
        for row in top(made, i):
            video = clips[row].clip.video[0]
            at = (np.arange(made.maps[i].shape[1]) + 0.5) * len(video) / made.maps[i].shape[1] - 0.5
            title = f"{node.stage} #{node.channel}"
            panels.append(Panel(title, made.maps[i][row], at, True))
            frames.append(video)
        shown = [overlay_maps(video, [panel], "") for video, panel in zip(frames, panels)]
        write_animation(
            folder / kernel_animation_name(target, node.stage, node.channel),
            np.concatenate(shown, 1),
            max(len(frames[0]) / LOOP, 1.0),
        )


def _first(made: Pyramid, level: int) -> Iterator[int]:
    own = [i for i, node in enumerate(made.nodes) if node.level == level]
    yield from own[:FILMS]


def aligned(
    target: str, made: Pyramid, vectors: Mapping[str, np.ndarray], quality: Sequence[VectorRow]
) -> list[AlignedRow]:
    """Of every kernel the parts of concept vectors that lie on it; of a vector with places, of its sum over them."""
    told = {(row.stage, row.concept, row.kind, row.against): (row.auc, row.auc_p) for row in quality}
    out = []
    for name, vector in vectors.items():
        stage, _, of_what = name.partition("|")
        concept, kind, against = of_what.rsplit("/", 2)
        parts = vector.reshape(-1, vector.shape[-1]).sum(0)
        length = np.linalg.norm(parts)
        entries = np.divide(parts, length, out=np.zeros_like(parts), where=length > 0)
        auc, auc_p = told.get((stage, concept, kind, against), (np.nan, np.nan))
        for i, node in enumerate(made.nodes):
            if node.stage == stage:
                rank = int((np.abs(entries) >= abs(entries[node.channel])).sum())
                here = (target, i, stage, node.channel, concept, kind, against)
                out.append(AlignedRow(*here, float(entries[node.channel]), rank, len(entries), auc, auc_p))
    return out


def table(target: str, made: Pyramid, cut: Sequence[AblationResult], clips: int, same: bool) -> str:
    """What was found, and whether it holds."""
    lines = [f"{target}: {len(made.nodes)} kernels in {len(made.levels)} levels, over {len(made.score)} clips"]
    for level, stages in enumerate(made.levels):
        own = [node for node in made.nodes if node.level == level]
        names = ", ".join(f"#{node.channel} {100 * node.relevance:.0f} %" for node in own[:6])
        more = f" and {len(own) - 6} more" if len(own) > 6 else ""
        lines.append(f"  {' + '.join(stages):24} {names}{more}")
        for stage in stages:
            rows = [row for row in cut if row.stage == stage]
            if rows:
                r = rows[-1]
                lines.append(
                    f"    without its {r.kernels} of {r.channels}: the score falls by {r.score_drop:.2f} ({r.score_drop_low:.2f} "
                    f"to {r.score_drop_high:.2f}), without as many others by {r.random_score_drop:.2f} ({r.random_score_drop_low:.2f} to "
                    f"{r.random_score_drop_high:.2f}); p = {r.p:.3f}, {clips} clips"
                )
    if same:
        lines.append("  too few clips to ablate others than those that the pyramid was made of: expect too much")
    return "\n".join(lines)


def _video(loaded: Network, clips: Sequence[Window]):
    geometry = models.PRESETS[loaded.preset].clip_spec
    return jnp.asarray(geometry.normalise(np.concatenate([window.clip.video for window in clips])))


def _last(one: Window | Read) -> int:
    return 1 if isinstance(one, Read) or one.last else 0
