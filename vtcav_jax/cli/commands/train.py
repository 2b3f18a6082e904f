"""Command of the task train: train a network on labelled videos and measure its accuracy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vtcav_jax import atomic, models
from vtcav_jax.cli.arguments import RunArguments, VideoArguments
from vtcav_jax.cli.commands import format_table, open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.data import Source, failure_table, write_failures
from vtcav_jax.data.overlap import shared_items, shared_note
from vtcav_jax.models import parameters
from vtcav_jax.models.checkpoint import TRAINED_NETWORK_FILE
from vtcav_jax.names import unknown_name_message
from vtcav_jax.report.figures.training import draw_training_curves
from vtcav_jax.runs import directory
from vtcav_jax.runs.tables import write_table
from vtcav_jax.settings import SettingError, concerning, nested, required, setting
from vtcav_jax.stats.intervals import share_ci
from vtcav_jax.training import loop
from vtcav_jax.training.evaluate import measure_accuracy
from vtcav_jax.worlds import measure_gates
from vtcav_jax.worlds.gates import Gates


@dataclass(frozen=True, kw_only=True)
class TrainArguments(VideoArguments, RunArguments):
    model: str = required(
        "NETWORK",
        "a preset to train from scratch, or a network to fine-tune; its heads are replaced if the classes differ",
    )
    eval_videos: str | None = setting(None, "videos for testing the trained network (a source, as for --videos)")
    gate_clips: int = setting(
        0,
        "with worlds:...: number of clips for the gates, which check the network's causes; 0: no gates",
        minimum=0,
        maximum=10**6,
    )
    clip_memory: float = setting(
        loop.DEFAULT_CLIP_MEMORY / 2**30,
        "GiB of decoded clips that are kept, so that each is decoded once; 0: decode in every epoch, as clips with"
        " --temporal_jitter always are",
        minimum=0,
        maximum=10**4,
    )
    bfloat16: bool = setting(False, "compute in bfloat16, with float32 parameters")
    config: loop.TrainConfig = nested(loop.TrainConfig)


def train(args: TrainArguments, context: CommandContext) -> None:
    """Train a network or continue an interrupted run; then test it on other videos and run the gates of a world."""
    config, source = args.config, open_nonempty(args.videos)
    with concerning("videos"):
        heads = loop.require_heads(source)
    eval_source = None if args.eval_videos is None else open_nonempty(args.eval_videos, "eval_videos")
    eval_positions = None if eval_source is None else unseen_positions(eval_source, source)
    world = source.spec.split(":")[1] if source.spec.startswith("worlds:") else None
    problems = []
    if missing := [head for head in config.static_heads if head not in heads]:
        problems.append(("static_heads", unknown_name_message("head", missing, heads)))
    if config.augment == "torus" and world is None:
        problems.append(
            ("augment", f"torus requires --videos=worlds:..., where borders wrap around; got {source.spec}")
        )
    if args.gate_clips and world is None:
        problems.append(("gate_clips", f"gates require --videos=worlds:..., where causes are known; got {source.spec}"))
    if problems:
        raise SettingError(*problems)
    with concerning("model"):
        start = models.load(args.model) if args.model not in models.PRESETS else None
    preset = args.model if start is None else start.preset
    assert preset is not None, "networks from models.load have a preset"
    clip_spec = models.PRESETS[preset].clip_spec
    dtype = jnp.bfloat16 if args.bfloat16 else jnp.float32
    make = partial(models.make, preset, num_classes=sum(map(len, heads.values())), seed=config.seed, dtype=dtype)
    record = {"task": "train", "model": args.model, "videos": source.spec, "clips": source.identity}
    record |= {"bfloat16": args.bfloat16, **asdict(config)}
    network = start.identity() if start else None
    folder = directory.open_run(args.run, record, context.flags_text, network=network)
    initial = parameters.named_parameters(start.model) if start else None
    if start and initial and start.heads != {head: tuple(names) for head, names in heads.items()}:
        initial = loop.replace_head(initial, make)
    trained = loop.train_network(
        *(make, source, clip_spec, config, folder),
        initial=initial,
        num_workers=args.num_workers,
        clip_memory=round(args.clip_memory * 2**30),
    )
    if trained.failures:
        info(failure_table(trained.failures))
        write_failures(folder / "failures.csv", trained.failures)
    info(f"Training curves: {draw_training_curves(folder / 'metrics.csv')}")
    if not (folder / TRAINED_NETWORK_FILE).exists():
        models.save(folder / TRAINED_NETWORK_FILE, trained.model, preset, heads, run=folder.name, videos=source.spec)
    emit(f"Network: {folder / TRAINED_NETWORK_FILE}")
    network = models.load(folder / TRAINED_NETWORK_FILE)
    if eval_source is not None:
        report_accuracy(network, eval_source, folder, config.batch_size, args.num_workers, eval_positions)
    if world is not None and args.gate_clips:
        mean, std = (np.asarray(values, np.float32) for values in (clip_spec.mean, clip_spec.std))
        gate_results = measure_gates(
            network.model, world, args.gate_clips, seed=config.seed + 2, prepare=lambda video: (video - mean) / std
        )
        atomic.write_text(folder / "gates.txt", gate_results.table() + "\n")
        emit(gate_results.table())
        emit(format_gate_accuracy(gate_results))
        gate_results.check()


def format_gate_accuracy(gates: Gates) -> str:
    """Return the accuracy of every head on the clips of the gates with its interval."""
    cells = [
        f"{head} {share:.3f} ({low:.3f} to {high:.3f})"
        for head, share in zip(gates.questions, gates.accuracy)
        for low, high in [share_ci(float(share), gates.n_clips)]
    ]
    return f"Accuracy (95 % CI over source videos; each of the {gates.n_clips} clips is one): {', '.join(cells)}"


def unseen_positions(source: Source, training: Source) -> list[int] | None:
    """Return the items of `source` that are not trained on, with a note on the others; None if there are no others."""
    shared = shared_items(source, training)
    if not shared:
        return None
    if len(shared) == len(source.items):
        raise SettingError(
            ("eval_videos", f"all {len(shared)} videos of {source.spec} are training videos; pass videos that are not")
        )
    info(f"note: {shared_note(source, shared, 'training videos')}")
    return [i for i in range(len(source.items)) if i not in shared]


def report_accuracy(
    network: models.Network,
    source: Source,
    folder: Path,
    batch_size: int,
    num_workers: int,
    positions: Sequence[int] | None = None,
) -> None:
    """Print the accuracy of every head with its 95 % interval over source videos, and write it to accuracy.csv."""
    failed = []
    accuracies = measure_accuracy(
        network, source, batch_size, num_workers=num_workers, failed=failed, positions=positions
    )
    rows = [(a.head, a.n_clips, a.n_videos, a.n_correct, a.share, *a.interval) for a in accuracies]
    write_table(folder / "accuracy.csv", ("head", "n_clips", "n_videos", "n_correct", "accuracy", "low", "high"), rows)
    unread = (
        f"; {len(failed)} of {len(source.items) if positions is None else len(positions)} could not be read"
        if failed
        else ""
    )
    emit(f"\nAccuracy on the videos of {source.spec}{unread}")
    cells = [(*counts, f"{share:.4f} ({low:.4f} to {high:.4f})") for *counts, _, share, low, high in rows]
    emit(format_table(("head", "clips", "videos", "accuracy (95 % CI over source videos)"), cells, left=1))
