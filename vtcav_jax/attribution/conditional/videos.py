"""Conditional relevance of whole video sources: computed video by video, stored, and read back."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vtcav_jax import atomic, tap
from vtcav_jax.attribution.conditional.directions import Direction, Directions
from vtcav_jax.attribution.conditional.relevance import propagate, rules_of, stage_relevance, totals_along
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.attribution.videos.clip_windows import VideoResult, map_windows_in_batches
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.source import Source
from vtcav_jax.models.network import Network

RANDOM_DIRECTIONS = 400  # 10 of them are beyond each end of a 95 % range
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class ConditionalPlan:
    """Directions whose relevance is computed by one method, with random directions of the same stages."""

    directions: Directions
    method: str
    seed: int

    def random_directions(self, channels: int) -> Float[np.ndarray, "n c"]:
        """Return directions that are uniform on the sphere, the same for all clips."""
        vectors = np.random.default_rng(self.seed).normal(size=(RANDOM_DIRECTIONS, channels)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def stream_conditional(
    network: Network,
    source: Source,
    target_specs: Sequence[TargetSpec],
    plan: ConditionalPlan,
    sampling: SamplingConfig,
    **settings: Any,  # of `map_windows_in_batches`
) -> Iterator[VideoResult[Arrays] | ReadResult]:
    """Yield arrays of each video, whose first axis is clips, keyed as in `save_conditional`; or unreadable videos."""

    def compute(frames: np.ndarray) -> Arrays:
        video = jnp.asarray(network.clip_spec.normalise(frames))
        logits = np.asarray(tap.compute_logits(network.model, video))
        out = {}
        for spec in target_specs:
            out[f"answer|{spec.name}"] = _predicted_answers(network, spec, logits)
            out |= {
                f"{key}|{spec.name}|{name}": array
                for (key, name), array in _relevance(network, video, spec, logits, plan)
            }
        return out

    yield from map_windows_in_batches(source, network.clip_spec, sampling, compute, **settings)


def _relevance(
    network: Network, video: Any, spec: TargetSpec, logits: np.ndarray, plan: ConditionalPlan
) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Yield relevance along each direction, summed over the places of the stage, and the maps of the chosen ones."""
    score_model = prepare_explanation(network.model, video, spec.target(logits)).score_model
    rules = rules_of(plan.method)
    for stage, concepts in plan.directions.concepts.items():
        _, value, coefficient = stage_relevance(score_model, video, stage, rules)
        yield ("channels", stage), np.asarray((value * coefficient).sum((1, 2, 3)))
        random = jnp.asarray(plan.random_directions(value.shape[-1]))
        yield ("random", stage), np.asarray(totals_along(value, coefficient, random))
        along = [_total_along(value, coefficient, direction) for direction in concepts]
        yield ("concepts", stage), np.stack(along, 1) if along else np.zeros((len(video), 0), np.float32)
    for direction in plan.directions.chosen:
        vector = jnp.asarray(direction.vector)
        values, at_stage = propagate(score_model, video, vector, direction.stage, VIDEO, rules)
        yield ("map", direction.name), np.asarray(values)
        yield ("map_at_stage", direction.name), np.asarray(at_stage)
        yield ("total", direction.name), np.asarray(at_stage.sum((1, 2, 3)))


def _total_along(value: Any, coefficient: Any, direction: Direction) -> Float[np.ndarray, " b"]:
    vector = jnp.broadcast_to(jnp.asarray(direction.vector), value.shape[1:])[None]
    return np.asarray(((value * vector).sum(-1) * (coefficient * vector).sum(-1)).sum((1, 2, 3)))


def _predicted_answers(network: Network, spec: TargetSpec, logits: np.ndarray) -> np.ndarray:
    """Return the class, or the target's name, that each clip is an example of; empty for clips of other classes."""
    if spec.custom is not None:
        return np.full(len(logits), spec.name)
    predictions = spec.predictions(logits)
    if not spec.classes:
        return np.array([network.labels[i] for i in predictions])
    return np.where(np.isin(predictions, spec.classes), spec.name, "")


def save_conditional(path: Path, result: VideoResult[Arrays]) -> None:
    """Save the arrays of a video: relevance of each clip at a stage and along directions, and maps of the video.

    `channels|TARGET|STAGE` `(clips, channels)`, `random|TARGET|STAGE`, `concepts|TARGET|STAGE`, `total|TARGET|CONCEPT`
    `(clips,)`, `map|TARGET|CONCEPT` of the video `(clips, t, h, w)` and `map_at_stage|TARGET|CONCEPT`, and
    `answer|TARGET`, the class that each clip is an example of.
    """
    item = result.windows[0].read.item
    arrays = {key: np.stack([batch[key][row] for batch, row in result.results]) for key in result.results[0][0]}
    arrays["times"] = np.concatenate([window.clip.times for window in result.windows])
    first = result.windows[0]
    about = {"clip": item.name, "content": first.clip.content, "source_video": item.source_video}
    arrays["about"] = np.array(json.dumps(about | {"index": first.read.index}))
    with atomic.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


@dataclass(frozen=True, eq=False)
class StoredRelevance:
    """Stored relevance of one clip; maps are read from the file when they are needed."""

    path: Path
    clip: str
    clip_index: int
    source_video: str
    item_index: int
    times: Float[np.ndarray, " frames"]
    arrays: dict[str, Any]  # without maps

    def load_maps(self, target: str, concept: str) -> tuple[Float[np.ndarray, "t h w"], Float[np.ndarray, "t2 h2 w2"]]:
        """Return the map of the video and that of the stage."""
        with np.load(self.path, allow_pickle=False) as stored:
            names = (f"{key}|{target}|{concept}" for key in ("map", "map_at_stage"))
            video_map, stage_map = (stored[name][self.clip_index] for name in names)
        return video_map, stage_map


def load_conditional(path: Path) -> list[StoredRelevance]:
    """Read the clips of one file of `save_conditional`."""
    with np.load(path, allow_pickle=False) as stored:
        about, times = json.loads(str(stored["about"])), stored["times"]
        arrays = {
            key: stored[key] for key in stored.files if key not in ("about", "times") and not key.startswith("map")
        }
    return [
        StoredRelevance(
            *(path, about["clip"], i, about["source_video"], about["index"], times[i]),
            {key: array[i] for key, array in arrays.items()},
        )
        for i in range(len(times))
    ]
