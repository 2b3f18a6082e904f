"""Run folders with any number of clips, made by a script: tables with planted effects, maps and concept vectors.

The clips are those of a synthetic world, the network is a shipped one, and its vectors are random directions, so that
everything that the interactive page computes anew is real.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

import vtcav_jax as vtcav
from vtcav_jax import tap
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.videos import map_store
from vtcav_jax.attribution.videos.animation_frames import AnimationFrames
from vtcav_jax.attribution.videos.clip_windows import Window
from vtcav_jax.attribution.videos.explain_videos import VideoMaps
from vtcav_jax.concepts.concept_table import ConceptClip, hash_file, write_sets
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.encode import encode_lossless_mp4
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.open import open_source
from vtcav_jax.data.source import SourceItem
from vtcav_jax.models.network import Network
from vtcav_jax.runs.attribution_rows import MAPS_CSV, MapRow
from vtcav_jax.runs.directory import open_run
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_rows import (
    DERIVATIVES_CSV,
    PREDICTIONS_CSV,
    SCORES_CSV,
    DerivativeRow,
    PredictionRow,
    ScoreRow,
)
from vtcav_jax.tcav.experiment.report_data import DERIVATIVE_PROFILES_NPZ
from vtcav_jax.tcav.vector_file import VECTORS_FILE

NETWORK = "worlds_cnn"
TARGETS, STAGES, CONCEPTS = ("direction:left", "shape:ring"), ("convs.1", "convs.2"), ("ball", "bat", "=net")
MAP_METHODS = (("gradcam", "convs.2", (4, 8, 8)), ("saliency", "video", (8, 32, 32)))
STRONGEST = ("direction:left", "convs.2", "bat")
STEP_LENGTH = 4.0
CLIPS_PER_CONCEPT = 30


@dataclass(frozen=True)
class MadeRun:
    """A run folder and what was planted in it."""

    folder: Path
    concepts: Path
    source: str
    clips: tuple[str, ...]
    effects: np.ndarray  # targets, stages, concepts, clips


def vector(concept: str) -> str:
    return f"{concept}/dynamic/random"


def make_run(folder: Path, n_clips: int, *, seed: int = 0, concept_clips: int = CLIPS_PER_CONCEPT) -> MadeRun:
    """Write a run of tcav and attribute about `n_clips` clips, and the concept folder beside it."""
    random = np.random.default_rng(seed)
    spec = f"worlds:small:{n_clips}:5"
    network, source = vtcav.load(NETWORK), open_source(spec)
    names = tuple(item.name for item in source.items)
    concepts = make_concepts(folder.parent / f"{folder.name}_concepts", concept_clips, random)
    effects = random.normal(size=(len(TARGETS), len(STAGES), len(CONCEPTS), n_clips))
    place = TARGETS.index(STRONGEST[0]), STAGES.index(STRONGEST[1]), CONCEPTS.index(STRONGEST[2])
    effects[place] += 3.0
    request = {"model": NETWORK, "seed": 0, "statistic": "step_effect"}
    for task, own in (
        ("tcav", {"target_videos": spec, "concepts": str(concepts)}),
        ("attribute", {"videos": spec, "clips_per_video": 1, "interval_seconds": None}),
    ):
        flags = f"--task={task}\n--model={NETWORK}\n--run={folder}\n"
        open_run(folder, {"task": task, **request, **own}, flags, network=network.identity())
    _write_effects(folder, names, effects, random)
    _write_vectors(folder, network, random)
    _write_maps(folder, names, random)
    return MadeRun(folder, concepts, spec, names, effects)


def score_row(target: str, stage: str, concept: str, effects: np.ndarray, p: float, verdict: str) -> ScoreRow:
    """Return a test whose other columns are plausible numbers."""
    defaults: dict[type, Any] = {str: "", int: 10, float: 0.5, bool: False}
    values = {field.name: defaults[field.type] for field in fields(ScoreRow)}  # type: ignore[index] (types, not texts)
    mean = float(effects.mean())
    values |= {
        **{"target": target, "stage": stage, "concept": concept, "clip_type": "dynamic", "negatives": "random"},
        **{"derivative": mean, "derivative_low": mean - 0.2, "derivative_high": mean + 0.2, "n_clips": len(effects)},
        **{"step_effect": mean * STEP_LENGTH, "step_effect_low": (mean - 0.2) * STEP_LENGTH},
        **{"step_effect_high": (mean + 0.2) * STEP_LENGTH, "step_effect_in_sample": mean * STEP_LENGTH},
        **{"relative_derivative": mean, "p": p, "p_step": p, "p_adjusted": p, "verdict": verdict},
        **{"comparison": "absolute", "score_fn": "logit", "unit": "video"},
    }
    return ScoreRow(**values)


def _write_effects(folder: Path, names: Sequence[str], effects: np.ndarray, random: np.random.Generator) -> None:
    scores, derivatives, predictions, profiles = [], [], [], {}
    for t, target in enumerate(TARGETS):
        leads = random.normal(2.0, 2.0, len(names))
        predictions += [
            PredictionRow(target, name, "left" if lead > 0 else "up", 1 / (1 + math.exp(-lead)), lead > 0, lead)
            for name, lead in zip(names, leads.tolist())
        ]
        profiles[f"{target}|clips"] = np.array(names)
        for s, stage in enumerate(STAGES):
            for c, concept in enumerate(CONCEPTS):
                values = effects[t, s, c]
                is_strongest = (target, stage, concept) == STRONGEST
                p, verdict = (0.001, "supports") if is_strongest else (0.7, "not significant")
                scores.append(score_row(target, stage, concept, values, p, verdict))
                derivatives += [
                    DerivativeRow(target, stage, concept, "dynamic", "random", name, lead, value, 1.0)
                    for name, value, lead in zip(names, values.tolist(), leads.tolist())
                ]
            shares = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
            profiles[f"{stage}|{target}"] = effects[t, s].astype(np.float32)[..., None] * shares
            profiles[f"{stage}|vectors"] = np.array([vector(concept) for concept in CONCEPTS])
    write_rows(folder / SCORES_CSV, ScoreRow, scores)
    write_rows(folder / DERIVATIVES_CSV, DerivativeRow, derivatives)
    write_rows(folder / PREDICTIONS_CSV, PredictionRow, predictions)
    np.savez_compressed(folder / DERIVATIVE_PROFILES_NPZ, allow_pickle=False, **profiles)


def _write_vectors(folder: Path, network: Network, random: np.random.Generator) -> None:
    from safetensors.numpy import save_file

    video = np.zeros((1, *network.clip_spec.shape), np.float32)
    values = tap.activations(network.model, video, STAGES)[1]
    arrays = {}
    for stage in STAGES:
        t, _, _, c = values[stage].shape[1:]
        for concept in CONCEPTS:
            direction = random.normal(size=(t, c)).astype(np.float32)
            arrays[f"{stage}|{vector(concept)}"] = direction / np.linalg.norm(direction)
    about = {
        "weights": network.identity()["weights"],
        "pool": "space",
        "norm": dict.fromkeys(arrays, 1.0),
        "intercept": dict.fromkeys(arrays, 0.0),
    }
    save_file(arrays, folder / VECTORS_FILE, metadata={"about": json.dumps(about)})


def _write_maps(folder: Path, names: Sequence[str], random: np.random.Generator) -> None:
    """Write random maps, at most 64 different ones, as the task attribute stores them."""
    network = vtcav.load(NETWORK)
    source = open_source("worlds:small:1:5")
    clip = source.read(0, network.clip_spec, SamplingConfig(normalise=False))
    maps_folder = folder / "maps"
    maps_folder.mkdir()
    rows: list[MapRow] = []
    drawn = [
        {
            target: tuple(
                Attribution(random.normal(size=(1, *shape)).astype(np.float32), stage, method != "saliency", 3, method)
                for method, stage, shape in MAP_METHODS
            )
            for target in TARGETS
        }
        for _ in range(min(64, len(names)))
    ]
    for i, name in enumerate(names):
        read = ReadResult(i, SourceItem(name), clip)
        window = Window(read, clip, 0, True)
        answers = {target: np.array([network.class_index(target)]) for target in TARGETS}
        scores = {target: np.array([float(i)]) for target in TARGETS}
        video_maps = VideoMaps((window,), answers, scores, drawn[i % len(drawn)], AnimationFrames())
        path = maps_folder / f"{map_store.video_stem(read)}.npz"
        map_store.save_maps(path, video_maps, network.labels)
        rows += map_store.map_rows(path)
    write_rows(folder / MAPS_CSV, MapRow, rows)


def make_concepts(folder: Path, n_clips: int, random: np.random.Generator) -> Path:
    """Write a concept folder: a moving patch per clip, in a place of its own for each concept."""
    clips = []
    for c, concept in enumerate((*CONCEPTS, "random_000")):
        for i in range(n_clips):
            file = f"{concept.strip('=')}/dynamic/{i:03d}.mp4"
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = random.integers(0, 120, (6, 24, 24, 3), np.uint8)
            frames[:, 4 * c : 4 * c + 6, i % 18 : i % 18 + 6] = 250
            path.write_bytes(encode_lossless_mp4(frames))
            clips.append(ConceptClip(concept, "dynamic", path, hash_file(path), file, source=f"video {i}.mp4"))
    write_sets(folder, clips)
    return folder
