"""Every map that is wanted of every video of a source, video by video."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vtcav_jax import models
from vtcav_jax.attribution.attention import stages_needed
from vtcav_jax.attribution.lrp.methods import require_relus
from vtcav_jax.attribution.registry import METHODS, OVER_BLOCKS, explain_many
from vtcav_jax.attribution.result import Attribution, joined
from vtcav_jax.attribution.score_model import explained, scores
from vtcav_jax.attribution.target_spec import Asked
from vtcav_jax.attribution.videos.clip_windows import Window, asked_in_batches
from vtcav_jax.data.clip import How
from vtcav_jax.data.loader import Read
from vtcav_jax.data.open import Source
from vtcav_jax.models import Loaded
from vtcav_jax.names import unknown

Wanted = tuple[tuple[str, str | None], ...]  # methods and stages
AT = "@"


@dataclass(frozen=True, eq=False)
class VideoMaps:
    """What is known of one video: for each question the class, the score and the maps of each of its clips."""

    windows: tuple[Window, ...]
    answers: dict[str, Int[np.ndarray, " n"]]
    scores: dict[str, Float[np.ndarray, " n"]]
    maps: dict[str, tuple[Attribution, ...]]

    @property
    def read(self) -> Read:
        return self.windows[0].read


def wanted(loaded: Loaded, methods: Sequence[str], stages: Sequence[str], questions: Sequence[Asked]) -> Wanted:
    """`methods` are METHOD or METHOD@STAGE; those without a stage are made at each of `stages` if they can be.

    Everything is checked for every question, and all that is wrong is told at once; nothing is computed.
    """
    found: list[tuple[str, str | None]] = []
    problems = []
    for text in methods:
        name, _, stage = text.partition(AT)
        if name not in METHODS:
            problems.append(unknown("method", [name], METHODS))
            continue
        anywhere = "stage" in inspect.signature(METHODS[name]).parameters
        if stage and not anywhere:
            problems.append(f"{name} makes maps of the video, not of {stage}; leave the stage out")
        found += [(name, s) for s in ([stage] if stage else stages if anywhere else ()) or (None,)]
    video = jnp.zeros((1, *models.PRESETS[loaded.preset].geometry.shape))
    for question in questions:
        logits = np.zeros((1, len(loaded.labels)), np.float32)
        try:
            what = explained(loaded.model, video, question.target(logits))
            jax.eval_shape(what.scored.score, video)
        except ValueError as error:
            problems.append(f"{question.name}: {error}")
            continue
        for name, stage in found:
            try:
                if name in OVER_BLOCKS:
                    what.require(stages_needed(what, stage))
                elif name == "guided_backprop":
                    require_relus(what)
                elif "stage" in inspect.signature(METHODS[name]).parameters:
                    what.require([what.stage(stage)] if stage else [])
            except ValueError as error:
                problems.append(f"{name}: {error}")
    if problems:
        raise ValueError("; ".join(dict.fromkeys(problems)))
    return tuple(dict.fromkeys(found))


def explained_videos(
    loaded: Loaded,
    source: Source,
    questions: Sequence[Asked],
    methods: Wanted,
    how: How,
    *,
    whole: bool = False,
    batch: int = 4,
    workers: int = 2,
    numbers: Sequence[int] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[VideoMaps | Read]:
    """Of every video, or those with these `numbers`; a `Read` is one that could not be read."""
    geometry = models.PRESETS[loaded.preset].geometry

    def ask(frames: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray, list[Attribution]]]:
        video = jnp.asarray(geometry.normalised(frames))
        logits = np.asarray(answered(loaded.model, video))
        found = {}
        for question in questions:
            target = question.target(logits)
            score = scores(explained(loaded.model, video, target).scored, video)
            maps = explain_many(loaded.model, video, target, methods, options)
            found[question.name] = (question.answers(logits), score, maps)
        return found

    for one in asked_in_batches(source, geometry, how, ask, batch=batch, whole=whole, workers=workers, wanted=numbers):
        if isinstance(one, Read):
            yield one
            continue
        answers, score, maps = {}, {}, {}
        for name in [question.name for question in questions]:
            parts = [(*found[name], slice(row, row + 1)) for found, row in one.found]
            answers[name] = np.concatenate([part[0][part[3]] for part in parts])
            score[name] = np.concatenate([part[1][part[3]] for part in parts])
            maps[name] = tuple(joined(of_one) for of_one in zip(*([m[part[3]] for m in part[2]] for part in parts)))
        yield VideoMaps(one.windows, answers, score, maps)


@jax.jit
def answered(model: Any, video: Array) -> Float[Array, "b k"]:
    return model(video)
