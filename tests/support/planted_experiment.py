"""Network with known concept effects, and a folder of clips for it, to test experiments."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts import ConceptSets, read_concepts
from vtcav_jax.data import open_source
from vtcav_jax.data.encode import encode_lossless_mp4
from vtcav_jax.models import Network
from vtcav_jax.tap import identity_tap
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.run import ExperimentResults, run_tcav

GEOMETRY = ClipSpec(frames=4, size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
QUICK = ExperimentConfig(
    permutations=499,
    estimator="mean_difference",
    bootstrap_draws=50,
    calibration_trials=6,
    max_target_clips=6,
    correction="bh",
    batch_size=4,
    steering_clips=0,
    export_vectors=False,
)
KILLED = replace(QUICK, stages=("pool",), steering_clips=6, steering_controls=2)  # for killed runs


class Planted(nnx.Module):
    """Network in which red raises and blue lowers `red`, change raises `moves`, `flat` is linear, `deaf` constant."""

    stages = ("features", "pool")

    def __init__(self):
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, video, tap=identity_tap):
        change = jnp.sqrt(jnp.square(video[:, 1:] - video[:, :-1]) + 1e-3)
        x = tap("features", self.scale[...] * jnp.concatenate([video[:, 1:], change], -1))
        x = tap("pool", x.mean((1, 2, 3)))
        red, moves = jnp.tanh(x[:, 0]) - jnp.tanh(2 * x[:, 2]), jnp.tanh(x[:, 3] * x[:, 4] + x[:, 5])
        return jnp.stack([red, moves, x[:, 1] - x[:, 2], 0 * red], -1)


CLASSES = ("red", "moves", "flat", "deaf")
NETWORK = Network(Planted(), GEOMETRY, {"label": CLASSES}, "planted")
COLOURS = {"red": (90, 0, 0), "blue": (0, 0, 90), "random": (0, 0, 0)}
MOTION = {"red": 40, "blue": 20, "random": 20}  # amplitude of the changes between frames


def video(rng, name, flicker, amplitude=40):
    """Make a clip of a random shade over noise, constant or changing between frames."""
    picture = rng.integers(80, 120, (1, 16, 16, 3)) + rng.integers(-15, 16, 3) + np.array(COLOURS[name])
    noise = rng.integers(-amplitude, amplitude + 1, (4, 16, 16, 3))
    frames = picture + (noise if flicker else np.zeros((4, 1, 1, 1), int))
    return np.clip(frames, 0, 255).astype(np.uint8)


def write(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_lossless_mp4(frames))


def write_clip_folder(folder: Path) -> Path:
    """Write concept sets and target videos to files; dynamic clips of red change most, those of others less."""
    rng = np.random.default_rng(0)
    for name in ("red", "blue"):
        for i in range(8):
            dynamic = video(rng, name, True, MOTION[name])
            write(folder / f"concepts/{name}/static/{i}.mp4", video(rng, name, False))
            write(folder / f"concepts/{name}/dynamic/{i}.mp4", dynamic)
            write(folder / f"concepts/{name}/frozen/{i}.mp4", dynamic[2:3].repeat(4, 0))
    for s in range(3):
        for i in range(6):
            dynamic = video(rng, "random", True, MOTION["random"])
            write(folder / f"concepts/random_{s}/static/{i}.mp4", video(rng, "random", False))
            write(folder / f"concepts/random_{s}/dynamic/{i}.mp4", dynamic)
            write(folder / f"concepts/random_{s}/frozen/{i}.mp4", dynamic[2:3].repeat(4, 0))
    for name in CLASSES:
        for i in range(7):
            write(folder / f"targets/{name}/{i}.mp4", video(rng, "random", True))
    return folder


def run_experiment(
    clip_folder: Path,
    folder: Path,
    config: ExperimentConfig = QUICK,
    targets: Sequence[str] = CLASSES,
    sets: ConceptSets | None = None,
    **more: Any,
) -> ExperimentResults:
    sets = sets or read_concepts(clip_folder / "concepts")
    source = open_source(clip_folder / "targets")
    return run_tcav(NETWORK, targets, source, sets, config, folder, **more)


CLIPS, TARGETS = 2 * 3 * 8 + 3 * 3 * 6, 4 * 6
