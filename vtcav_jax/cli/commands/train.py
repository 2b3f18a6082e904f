"""--task=train: a network from labelled videos, and how good it is."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vtcav_jax import models
from vtcav_jax.cli.commands import answer, say, videos
from vtcav_jax.data import Source, failure_table, write_failures
from vtcav_jax.models import parameters
from vtcav_jax.models.checkpoint import TRAINED_NETWORK_FILE
from vtcav_jax.names import unknown
from vtcav_jax.report.figures.training import draw_training_curves
from vtcav_jax.runs import directory
from vtcav_jax.training import loop
from vtcav_jax.training.evaluate import accuracy
from vtcav_jax.worlds import gates


def train(
    model: str,
    spec: str | None,
    run: Path | None,
    recipe: loop.Recipe,
    *,
    held_out: str | None = None,
    gate_clips: int = 0,
    bfloat16: bool = False,
    workers: int = 2,
    flags: str = "",
) -> None:
    """Trains, or goes on with, the run in folder `run`; tests the network on `held_out`, a world's at its gates too.

    `model` is a preset, or a network that the new one begins with: its body, and its head if that asks the same.
    """
    if run is None:
        raise ValueError("--task=train needs --run=NAME, the folder of the run")
    if spec is None:
        raise ValueError("--task=train needs --videos=WHERE, labelled clips")
    source = videos(spec)
    heads = loop.checked_heads(source)
    others = None if held_out is None else videos(held_out)
    world = source.spec.split(":")[1] if source.spec.startswith("worlds:") else None
    if missing := [head for head in recipe.timeless_heads if head not in heads]:
        raise ValueError(f"--timeless_heads: {unknown('head', missing, heads)}")
    if recipe.augment == "torus" and world is None:
        raise ValueError(f"--augment=torus is for worlds:..., whose borders meet; {source.spec} is not one")
    if gate_clips and world is None:
        raise ValueError(f"--gates checks a world's causes; --videos={source.spec} is not worlds:...")
    start = models.load(model) if model not in models.PRESETS else None
    preset = model if start is None else start.preset
    geometry = models.PRESETS[preset].clip_spec
    dtype = jnp.bfloat16 if bfloat16 else jnp.float32
    make = partial(models.make, preset, num_classes=sum(map(len, heads.values())), seed=recipe.seed, dtype=dtype)
    asked = asdict(recipe) | {"model": model, "videos": source.spec, "clips": source.identity, "bfloat16": bfloat16}
    folder = directory.open_run(run, asked, flags)
    initial = parameters.named_parameters(start.model) if start else None
    if start and initial and start.heads != {head: tuple(names) for head, names in heads.items()}:
        initial = loop.with_new_head(initial, make)
    trained = loop.train(make, source, geometry, recipe, folder, initial=initial, workers=workers)
    if trained.failures:
        say(failure_table(trained.failures))
        write_failures(folder / "failures.csv", trained.failures)
    say(f"curves: {draw_training_curves(folder / 'metrics.csv')}")
    if not (folder / TRAINED_NETWORK_FILE).exists():
        models.save(folder / TRAINED_NETWORK_FILE, trained.model, preset, heads, run=folder.name, videos=source.spec)
    answer(f"network: {folder / TRAINED_NETWORK_FILE}")
    loaded = models.load(folder / TRAINED_NETWORK_FILE)
    if others is not None:
        test(loaded, others, folder, recipe.batch_size, workers)
    if world is not None and gate_clips:
        mean, std = (np.asarray(values, np.float32) for values in (geometry.mean, geometry.std))
        found = gates(loaded.model, world, gate_clips, seed=recipe.seed + 2, prepare=lambda video: (video - mean) / std)
        directory.write_text(folder / "gates.txt", found.table() + "\n")
        answer(found.table())
        found.check()


def test(loaded: models.Network, source: Source, folder: Path, batch_size: int, workers: int) -> None:
    """Prints and writes the accuracy of every head, with its interval."""
    failed = []
    found = accuracy(loaded, source, batch_size, workers=workers, failed=failed)
    rows = [(a.head, a.n, a.right, a.share, *a.interval) for a in found]
    directory.write_table(folder / "accuracy.csv", ("head", "n", "right", "accuracy", "low", "high"), rows)
    answer(f"on {source.spec} ({len(failed)} of {len(source.items)} could not be read):")
    for head, n, _, share, low, high in rows:
        answer(f"  {head:16} {share:.4f} of {n} right (95 % interval {low:.4f} to {high:.4f})")
