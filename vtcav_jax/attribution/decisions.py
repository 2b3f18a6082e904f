"""How much of a decision is motion? Clip by clip, and over the clips of each class, with intervals.

A score is asked twice. What goes of it when the clip stands still needs more than one moment: motion, an event, or that
anything changes at all. What goes when the same frames come in another order needs their order, and that is motion. The
score is a margin, which is 0 where a class is not preferred to its rivals; so 0 is where shares are counted from.

Selective relevance is told beside it: how much of a map changes over time, beyond what changes in the clip frozen. A
thing that moves takes its relevance along, also where its look alone is asked for: by itself that is no sign of motion.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from vtcav_jax import models, optical_flow, selective_relevance
from vtcav_jax.attribution.asking import Asked
from vtcav_jax.attribution.probes import temporal_probe
from vtcav_jax.attribution.videos import answered
from vtcav_jax.attribution.windows import asked_in_batches
from vtcav_jax.intervals import mean, ratio_of_means
from vtcav_jax.models import Loaded
from vtcav_jax.video.clip import How
from vtcav_jax.video.reading import Read
from vtcav_jax.video.sources import Source

HIGH, LOW = 0.5, 0.25  # shares from which on a decision is called motion, and up to which it is not


@dataclass(frozen=True)
class Measuring:
    """How it is measured: orders of frames, the map, its threshold in standard deviations."""

    method: str = "gradient_x_input"
    stage: str | None = None
    n: float = 1.0
    shuffles: int = 8
    seed: int = 0
    flow: bool = False  # also against optical flow, which needs OpenCV
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Motion:
    """Of one clip and question; nan is what cannot be told.

    Scores: of the clip, of nothing, of the clip frozen (the mean over its frames), shuffled (over orders), reversed, at
    half rate. `still` is the share that goes when it stands still, `order` that which goes when it is shuffled.
    `moving` is the share of relevance that changes over time, `moving_frozen` the same of the clip frozen, `excess` the
    difference; `area` and `lift` are of the changing part. The last four: does it lie on what moves?
    """

    clip: str
    window: int
    target: str
    answer: str
    score: float
    nothing: float
    frozen: float
    shuffled: float
    reversed: float
    half_rate: float
    still: float
    order: float
    moving: float
    moving_frozen: float
    excess: float
    area: float
    lift: float
    flow_precision: float = math.nan
    flow_recall: float = math.nan
    flow_iou: float = math.nan
    flow_energy: float = math.nan


@dataclass(frozen=True)
class ClassMotion:
    """Over the clips of one answer, or of all answers to a question (`answer` is empty): bootstrap over clips.

    `order`, `still` and `backwards` are what goes of the score when clips are shuffled, frozen, reversed: ratios of
    means, so that clips which hardly speak for the class hardly count; the others are means.
    """

    target: str
    answer: str
    clips: int
    order: float
    order_low: float
    order_high: float
    still: float
    still_low: float
    still_high: float
    backwards: float
    backwards_low: float
    backwards_high: float
    moving: float
    moving_low: float
    moving_high: float
    excess: float
    excess_low: float
    excess_high: float


def measured(
    loaded: Loaded,
    source: Source,
    questions: Sequence[Asked],
    how: Measuring,
    frames: How,
    *,
    batch: int = 4,
    whole: bool = False,
    workers: int = 2,
    numbers: Sequence[int] | None = None,
) -> Iterator[tuple[Read, list[Motion]]]:
    """Of every video, or those with these `numbers`; one that could not be read has no rows."""
    geometry = models.PRESETS[loaded.preset].geometry
    if how.flow:
        optical_flow.opencv()

    def ask(video: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        clips = jnp.asarray(geometry.normalised(video))
        moves = np.stack([optical_flow.moving(clip) for clip in video]) if how.flow else None
        logits = np.asarray(answered(loaded.model, clips))
        return {question.name: _asked(loaded, clips, question, logits, how, moves) for question in questions}

    for one in asked_in_batches(
        source, geometry, frames, ask, batch=batch, whole=whole, workers=workers, wanted=numbers
    ):
        if isinstance(one, Read):
            yield one, []
            continue
        rows = []
        for window, (found, row) in zip(one.windows, one.found):
            for target, values in found.items():
                numbers_of = {name: float(v[row]) for name, v in values.items() if name != "answer"}
                said = int(values["answer"][row])
                answer = loaded.labels[said] if said >= 0 else target
                rows.append(Motion(window.read.item.name, window.number, target, answer, **numbers_of))
        yield one.windows[0].read, rows


def _asked(
    loaded: Loaded, clips: Any, question: Asked, logits: np.ndarray, how: Measuring, moves: np.ndarray | None
) -> dict[str, np.ndarray]:
    target = question.target(logits)
    nothing = None if question.fixed is None else "zero"  # a channel has a value for a clip without anything
    probe = temporal_probe(loaded.model, clips, target, baseline=nothing, shuffles=how.shuffles, seed=how.seed)
    found = selective_relevance.motion(loaded.model, clips, target, how.method, stage=how.stage, n=how.n, **how.options)
    out = {
        "answer": question.answers(logits),
        "score": probe.score,
        "nothing": probe.baseline,
        "frozen": probe.frozen.mean(1),
        "shuffled": probe.shuffled.mean(1),
        "reversed": probe.reversed,
        "half_rate": probe.half_rate,
        "still": probe.still_share,
        "order": probe.order_share,
        "moving": found.selected.motion_share,
        "moving_frozen": found.frozen.motion_share,
        "excess": found.excess,
        "area": found.selected.area,
        "lift": found.selected.lift,
    }
    if moves is not None:
        agreed = optical_flow.agreement(found.selected, moves)
        out |= {"flow_precision": agreed.precision, "flow_recall": agreed.recall, "flow_iou": agreed.iou}
        out |= {"flow_energy": agreed.energy}
    return out


def by_class(rows: Sequence[Motion]) -> list[ClassMotion]:
    """First all clips of each question, then each answer."""
    out = []
    for target in dict.fromkeys(row.target for row in rows):
        some = [row for row in rows if row.target == target]
        answers = sorted({row.answer for row in some} - {target})
        out += [_over_clips(target, "", some)]
        out += [_over_clips(target, answer, [r for r in some if r.answer == answer]) for answer in answers]
    return out


def _over_clips(target: str, answer: str, rows: Sequence[Motion]) -> ClassMotion:
    def column(name: str) -> np.ndarray:
        return np.array([getattr(row, name) for row in rows], np.float64)

    rise = column("score") - column("nothing")

    def lost(name: str) -> tuple[float, float, float]:
        if rise.mean() <= 0:  # on the whole nothing speaks for the class: there is nothing to have a share of
            return math.nan, math.nan, math.nan
        return ratio_of_means(column("score") - column(name), rise)

    return ClassMotion(
        *(target, answer, len(rows), *lost("shuffled"), *lost("frozen"), *lost("reversed")),
        *(*mean(column("moving")), *mean(column("excess"))),
    )


def sentences(rows: Sequence[ClassMotion]) -> list[str]:
    """What can be said of each question, and of each answer to it."""
    return [_sentence(row) for row in rows]


def _sentence(row: ClassMotion) -> str:
    what = row.answer or row.target
    clips = f"{row.clips} clip{'s' if row.clips > 1 else ''}"
    if math.isnan(row.order):
        return f"{what}: nothing can be said; on the whole these {clips} do not speak for it."
    order, still = (
        f"{100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)" if row.clips > 1 else f"{100 * share:.0f} %"
        for share, low, high in ((row.order, row.order_low, row.order_high), (row.still, row.still_low, row.still_high))
    )
    told = f"of its score over {clips}, {order} needs the order of the frames and {still} more than a still clip"
    return f"{what}: {_verdict(row)}; {told}."


def _verdict(row: ClassMotion) -> str:
    if math.isnan(row.order_low):
        return "one clip is too few for a verdict"
    if row.order_low >= HIGH:
        return "motion"
    if row.order_high > LOW:
        return "partly motion" if row.order_low > LOW else "not settled, the interval is too wide"
    if row.still_high <= LOW:
        return "look, not motion"
    if row.still_low >= HIGH:
        return "not motion, but what several moments show, in whatever order"
    return "not motion"
