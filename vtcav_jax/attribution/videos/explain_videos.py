"""Attribution maps of all videos of a source, video by video."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vtcav_jax import tap
from vtcav_jax.attribution.attention import attention_stages
from vtcav_jax.attribution.lrp.methods import require_relus
from vtcav_jax.attribution.registry import ATTENTION_METHODS, METHODS, attribute_targets
from vtcav_jax.attribution.result import Attribution, concatenate_attributions
from vtcav_jax.attribution.score_model import clip_scores, prepare_explanation
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.attribution.videos.animation_frames import AnimationFrames, drop_frames
from vtcav_jax.attribution.videos.clip_windows import Window, map_windows_in_batches
from vtcav_jax.attribution.videos.finite_check import non_finite_failure
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.source import Source
from vtcav_jax.models import Network
from vtcav_jax.names import unknown_name_message

MethodStages = tuple[tuple[str, str | None], ...]  # pairs (method, stage)
METHOD_STAGE_SEPARATOR = "@"


@dataclass(frozen=True, eq=False)
class VideoMaps:
    """Predicted class, score and maps of each clip of one video, keyed by target, and frames for animations.

    `answers` is -1 for targets that are not of a head, such as channels.
    """

    windows: tuple[Window, ...]
    answers: dict[str, Int[np.ndarray, " n"]]
    scores: dict[str, Float[np.ndarray, " n"]]
    maps: dict[str, tuple[Attribution, ...]]
    film: AnimationFrames

    @property
    def read(self) -> ReadResult:
        return self.windows[0].read


def resolve_methods(
    network: Network, methods: Sequence[str], stages: Sequence[str], target_specs: Sequence[TargetSpec]
) -> MethodStages:
    """Parse METHOD or METHOD@STAGE; a method without a stage is applied at each of `stages` if it takes stages.

    Everything is checked for each target without computing maps; one error lists all problems.
    """
    method_stages: list[tuple[str, str | None]] = []
    problems = []
    for text in methods:
        name, _, stage = text.partition(METHOD_STAGE_SEPARATOR)
        if name not in METHODS:
            problems.append(unknown_name_message("method", [name], METHODS))
            continue
        takes_stage = "stage" in inspect.signature(METHODS[name]).parameters
        if stage and not takes_stage:
            problems.append(f"{name} only makes maps of the video, not of {stage}; omit the stage")
        method_stages += [(name, s) for s in ([stage] if stage else stages if takes_stage else ()) or (None,)]
    video = jnp.zeros((1, *network.clip_spec.shape))
    for target_spec in target_specs:
        logits = np.zeros((1, len(network.labels)), np.float32)
        try:
            context = prepare_explanation(network.model, video, target_spec.target(logits))
            jax.eval_shape(context.score_model.score, video)
        except ValueError as error:
            problems.append(f"{target_spec.name}: {error}")
            continue
        for name, stage in method_stages:
            try:
                if name in ATTENTION_METHODS:
                    context.require_reachable(attention_stages(context, stage))
                elif name == "guided_backprop":
                    require_relus(context)
                elif "stage" in inspect.signature(METHODS[name]).parameters:
                    context.require_reachable([context.resolve_stage(stage)] if stage else [])
            except ValueError as error:
                problems.append(f"{name}: {error}")
    if problems:
        raise ValueError("; ".join(dict.fromkeys(problems)))
    return tuple(dict.fromkeys(method_stages))


def explain_videos(
    network: Network,
    source: Source,
    target_specs: Sequence[TargetSpec],
    methods: MethodStages,
    sampling: SamplingConfig,
    *,
    slide_over_video: bool = False,
    batch_size: int = 4,
    num_workers: int = 2,
    indices: Sequence[int] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[VideoMaps | ReadResult]:
    """Yield the maps of each video, or of those in `indices`; a `ReadResult` is a video that cannot be decoded."""
    clip_spec = network.clip_spec

    def explain_batch(frames: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray, list[Attribution]]]:
        video = jnp.asarray(clip_spec.normalise(frames))
        logits = np.asarray(tap.compute_logits(network.model, video))
        targets = [target_spec.target(logits) for target_spec in target_specs]
        maps = attribute_targets(network.model, video, targets, methods, options)
        results = {}
        for target_spec, target, maps_of_target in zip(target_specs, targets, maps):
            score = clip_scores(prepare_explanation(network.model, video, target).score_model, video)
            results[target_spec.name] = (target_spec.predicted_classes(logits), score, maps_of_target)
        return results

    film = AnimationFrames()

    def keep(window: Window, results: dict[str, tuple[np.ndarray, np.ndarray, list[Attribution]]], row: int) -> Window:
        """Return the window without frames, so that memory does not grow with them, unless its maps overflow."""
        nonlocal film
        film = AnimationFrames() if window.clip_index == 0 else film
        film.add(window)
        is_finite = all(
            np.isfinite(a[row]).all() for _, score, maps in results.values() for a in (score, *(m.map for m in maps))
        )
        return drop_frames(window) if is_finite else window

    for result in map_windows_in_batches(
        source,
        clip_spec,
        sampling,
        explain_batch,
        batch_size=batch_size,
        slide_over_video=slide_over_video,
        num_workers=num_workers,
        indices=indices,
        keep=keep,
    ):
        if isinstance(result, ReadResult):
            yield result
            continue
        answers, score, maps = {}, {}, {}
        for name in [target_spec.name for target_spec in target_specs]:
            parts = [(*batch_results[name], slice(row, row + 1)) for batch_results, row in result.results]
            answers[name] = np.concatenate([part[0][part[3]] for part in parts])
            score[name] = np.concatenate([part[1][part[3]] for part in parts])
            maps[name] = tuple(
                concatenate_attributions(attributions)
                for attributions in zip(*([m[part[3]] for m in part[2]] for part in parts))
            )
        non_finite = [
            name for name in maps if not all(np.isfinite(a).all() for a in (score[name], *(m.map for m in maps[name])))
        ]
        if non_finite:
            yield non_finite_failure(network, result.windows, f"its maps of {', '.join(non_finite)}")
        else:
            yield VideoMaps(result.windows, answers, score, maps, film)
