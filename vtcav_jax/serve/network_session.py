"""What needs the network: steering and new maps. One thread runs it; requests wait in a short queue."""

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vtcav_jax import tap
from vtcav_jax.attribution.baselines import pixel_bounds
from vtcav_jax.attribution.inputs import resolve_inputs
from vtcav_jax.attribution.registry import METHODS, attribute, planned_passes
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.score_model import clip_scores, prepare_explanation
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.attribution.videos.explain_videos import resolve_methods
from vtcav_jax.console import warn
from vtcav_jax.models.network import Network
from vtcav_jax.serve.byte_cache import ByteCache
from vtcav_jax.serve.films import FilmClip
from vtcav_jax.serve.maps.clip_maps import ClipMap
from vtcav_jax.serve.maps.requested_maps import MapContent, RequestedMaps
from vtcav_jax.serve.run_network import NetworkReference, NetworkShelf
from vtcav_jax.tcav.features.pooling import broadcast_vector
from vtcav_jax.tcav.vector_file import VectorBundle

T = TypeVar("T")
MAX_QUEUE, MAX_JOBS = 32, 200
MAX_MAP_BYTES = 128 * 2**20  # of requested maps
MAX_STEPS, MAX_STEP = 21, 20.0
NEEDS_REFERENCES = ("expected_gradients",)  # clips of other videos, which a page does not choose


class BusyError(Exception):
    """Error of a request that comes while too many others wait for the network."""


@dataclass(frozen=True)
class Steering:
    """A concept vector at a stage, and steps along it in units of the distance from its negatives to its concept."""

    stage: str
    vector: str
    steps: tuple[float, ...]
    step_length: float


@dataclass(frozen=True, eq=False)
class MapRequest:
    """A map of a clip (an empty stage is the method's default), and where it is stored.

    `describe` returns what the map depends on, from the hashes of the network and the content of the clip's video.
    """

    reference: NetworkReference
    clip: FilmClip
    target: str
    method: str
    stage: str
    store: RequestedMaps
    describe: Callable[[dict[str, str], str], MapContent]


@dataclass
class MapJob:
    """A requested map: `future` has its name METHOD@STAGE, or the error."""

    key: tuple
    future: "Future[str]"


class NetworkSession:
    """Networks on a thread of their own, and the maps that were requested."""

    def __init__(self, shelf: NetworkShelf):
        self.shelf = shelf
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._waiting = threading.BoundedSemaphore(MAX_QUEUE)
        self._jobs: OrderedDict[str, MapJob] = OrderedDict()
        self._lock = threading.Lock()
        self.maps = ByteCache[ClipMap](MAX_MAP_BYTES, lambda clip_map: clip_map.n_bytes)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Any, *arguments: Any) -> "Future[Any]":
        if not self._waiting.acquire(blocking=False):
            raise BusyError(f"{MAX_QUEUE} requests wait for the network; try again when they are done")
        future = self._thread.submit(work, *arguments)
        future.add_done_callback(lambda _: self._waiting.release())
        return future

    def preload(self, reference: NetworkReference) -> None:
        """Load a network before the first request for it; its errors are reported when it is asked for."""

        def load() -> None:
            try:
                self.shelf.network(reference)
            except Exception as error:
                warn(f"note: {reference.model} cannot be loaded, so that nothing can be computed anew: {error}")

        self._submit(load)

    def steer(
        self, reference: NetworkReference, bundle: VectorBundle, clip: FilmClip, target: str, steering: Steering
    ) -> dict[str, Any]:
        """Return the answer to a clip as it is and after each step along a vector."""
        problems = []
        if not steering.steps or len(steering.steps) > MAX_STEPS or any(abs(s) > MAX_STEP for s in steering.steps):
            problems.append(f"expected 1 to {MAX_STEPS} steps from {-MAX_STEP:g} to {MAX_STEP:g}")
        if not np.isfinite(steering.step_length):
            problems.append(f"the length of a step along {steering.vector} is unknown, as its effect was not measured")
        if problems:
            raise ValueError("; ".join(problems))
        return self._submit(self._steer, reference, bundle, clip, target, steering).result()

    def _steer(
        self, reference: NetworkReference, bundle: VectorBundle, clip: FilmClip, target: str, steering: Steering
    ) -> dict[str, Any]:
        network = self.shelf.network(reference)
        (spec,) = parse_targets(network, [target])
        logits = steered_clip_logits(network, bundle, clip.frames, steering)
        start, stop = spec.head_range
        if spec.custom is not None or spec.contrast is not None:
            raise ValueError(f"{target} is no class; choose a class to steer its answer")
        labels = network.labels[start:stop]
        head_logits = logits[:, start:stop]
        probabilities = np.asarray(jax.nn.softmax(head_logits, axis=-1), np.float64)
        index = spec.classes[0] if len(spec.classes) == 1 else int(spec.predictions(logits[:1])[0])
        scores = spec.margins(logits)[:, index - start]
        answers = [
            {
                "step": step,
                "answer": labels[int(row.argmax())],
                "score": float(score),
                "probabilities": dict(zip(labels, map(float, probability))),
            }
            for step, row, probability, score in zip((0.0, *steering.steps), head_logits, probabilities, scores)
        ]
        return {"unsteered": answers[0], "steered": answers[1:], "stepLength": steering.step_length}

    def request_map(self, key: tuple, request: MapRequest) -> str:
        """Queue a map, unless it is queued or in memory; return the name of the job."""
        with self._lock:
            for name, job in self._jobs.items():
                if job.key == key and (not job.future.done() or self.maps.get(key) is not None):
                    return name
            name = uuid.uuid4().hex[:12]
            self._jobs[name] = MapJob(key, self._submit(self._provide_map, key, request))
            while len(self._jobs) > MAX_JOBS:
                self._jobs.popitem(last=False)
            return name

    def job(self, name: str) -> MapJob | None:
        return self._jobs.get(name)

    def _provide_map(self, key: tuple, request: MapRequest) -> str:
        """Load a map that was requested before, or compute and store it; keep it in memory and return its name."""
        stage = "" if request.stage == VIDEO else request.stage
        network = self.shelf.network(request.reference)
        content = request.describe(self.shelf.identity(request.reference), request.clip.content)
        clip_map = request.store.load(content, request.target, request.method, stage)
        if clip_map is None:
            clip_map = compute_map(network, request.clip, request.target, request.method, stage)
            try:
                request.store.save(content, clip_map, is_default=not stage)
            except OSError as error:
                warn(f"note: requested maps are kept in memory only, because they cannot be stored: {error}")
        for name in {
            key[-1],
            clip_map.name,
            *(() if stage else (request.method,)),
        }:  # with and without the layer that the method chose
            self.maps.put((*key[:-1], name), clip_map)
        return clip_map.name


def compute_map(network: Network, clip: FilmClip, target: str, method: str, stage: str) -> ClipMap:
    """Return the map of a clip; an empty stage is the method's default."""
    check_map_request(network, target, method, stage)
    video = clip.frames[None]
    attribution = attribute(network, video, target, method, stage or None, **requested_map_options(network, method))
    logits = np.asarray(tap.compute_logits(network.model, network.clip_spec.normalise(jnp.asarray(video))))
    (spec,) = parse_targets(network, [target])
    (answer,) = spec.predicted_classes(logits).tolist()
    model, normalised, resolved = resolve_inputs(network, video, target)
    score_model = prepare_explanation(model, normalised, resolved).score_model
    (score,) = clip_scores(score_model, jnp.asarray(normalised))
    clip_map = ClipMap(
        target,
        method,
        attribution.stage,
        attribution.signed,
        network.labels[answer] if answer >= 0 else target,
        float(score),
        np.asarray(attribution.map[0]),
        attribution.forward_passes,
    )
    if not np.isfinite(clip_map.map).all():
        raise ValueError(f"the map by {method} has values that are not finite; choose another method or layer")
    return clip_map


def requested_map_options(network: Network, method: str) -> dict[str, Any]:
    """Return the arguments that a method needs."""
    return {"bounds": pixel_bounds(network.clip_spec)} if method == "deep_taylor" else {}


def requestable_methods(network: Network) -> list[dict[str, Any]]:
    """Return the methods that a page can ask for, with their forward passes per clip."""
    shape = network.clip_spec.shape[:3]
    return [
        {"method": name, "passes": planned_passes(name, shape, **requested_map_options(network, name))}
        for name in METHODS
        if name not in NEEDS_REFERENCES
    ]


def check_map_request(network: Network, target: str, method: str, stage: str) -> None:
    """Raise ValueError with all reasons why a map is not possible, before it is computed."""
    if method in NEEDS_REFERENCES:
        raise ValueError(f"{method} needs clips of other videos; make its maps with vtcav attribute")
    resolve_methods(network, [f"{method}@{stage}" if stage else method], (), parse_targets(network, [target]))


def steered_clip_logits(
    network: Network, bundle: VectorBundle, frames: np.ndarray, steering: Steering
) -> Float[np.ndarray, "n k"]:
    """Return the logits of a clip without a step and after each step, one at a time, so that all share a program."""
    video = network.clip_spec.normalise(jnp.asarray(frames[None]))
    shape = jax.eval_shape(lambda m, v: tap.activations(m, v, steering.stage)[1], network.model, video)[steering.stage]
    direction = broadcast_vector(bundle.arrays[f"{steering.stage}|{steering.vector}"], shape.shape[1:], bundle.pool)
    steps: Sequence[float] = (0.0, *steering.steps)
    return np.concatenate(
        [
            np.asarray(
                tap.steered_logits(
                    network.model, video, steering.stage, direction[None], np.float32(step * steering.step_length)
                )
            )
            for step in steps
        ]
    )
