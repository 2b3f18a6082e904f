"""How much of a decision is motion? Clip by clip; `verdicts` puts the clips of a class together.

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

from vtcav_jax import models
from vtcav_jax.attribution.motion import optical_flow, selective_relevance
from vtcav_jax.attribution.motion.temporal_probes import as_probe, logits_in_orders, orders, share, temporal_probe
from vtcav_jax.attribution.target_spec import Asked
from vtcav_jax.attribution.targets import as_target
from vtcav_jax.attribution.videos.clip_windows import asked_in_batches
from vtcav_jax.data.clip import How
from vtcav_jax.data.loader import Read
from vtcav_jax.data.open import Source
from vtcav_jax.models import Loaded
from vtcav_jax.stats import intervals

CHANGES = ("shuffled", "frozen", "reversed")


Found = tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]  # answers, values, margins, by clip


@dataclass(frozen=True)
class Measuring:
    """How it is measured: orders of frames, the map, its threshold in standard deviations."""

    method: str = "gradient_x_input"
    stage: str | None = None
    n: float = 1.0
    shuffles: int = 8
    seed: int = 0
    flow: bool = False  # also against optical flow, which needs OpenCV


@dataclass(frozen=True)
class Motion:
    """Of one clip and question; nan is what cannot be told.

    Scores: of the clip, of nothing, of the clip frozen (the mean over its frames), shuffled (over orders), reversed, at
    half rate. `still` is the share that goes when it stands still, `order` that which goes when it is shuffled; their
    intervals are of the mean over frames at which it may stand, and over orders.
    `moving` is the share of relevance that changes over time, `moving_frozen` the same of the clip frozen, `excess` the
    difference; `area` and `lift` are of the changing part. The four of the flow: does it lie on what moves?
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
    order_low: float = math.nan
    order_high: float = math.nan
    still_low: float = math.nan
    still_high: float = math.nan


@dataclass(frozen=True)
class Evidence:
    """A clip's row and, of a question about one class among several, every class's margin: as the clip is, and with
    each of `CHANGES`. With those of other clips they tell what a network says of changed clips anyway."""

    row: Motion
    classes: tuple[str, ...] = ()
    margins: dict[str, list[float]] = field(default_factory=dict)


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
) -> Iterator[tuple[Read, list[Evidence]]]:
    """Of every video, or those with these `numbers`; one that could not be read has no rows."""
    geometry = models.PRESETS[loaded.preset].geometry
    some = orders(geometry.frames, how.shuffles, how.seed)
    if how.flow:
        optical_flow.opencv()

    def ask(video: np.ndarray) -> dict[str, Found]:
        clips = jnp.asarray(geometry.normalised(video))
        moves = np.stack([optical_flow.moving(clip) for clip in video]) if how.flow else None
        logits = logits_in_orders(loaded.model, clips, some)
        return {question.name: _asked(loaded, clips, question, logits, how, moves) for question in questions}

    for one in asked_in_batches(
        source, geometry, frames, ask, batch=batch, whole=whole, workers=workers, wanted=numbers
    ):
        if isinstance(one, Read):
            yield one, []
            continue
        out = []
        for window, (found, i) in zip(one.windows, one.found):
            for target, (answers, values, margins) in found.items():
                answer = loaded.labels[answers[i]] if answers[i] >= 0 else target
                told = {name: float(value[i]) for name, value in values.items()}
                row = Motion(window.read.item.name, window.number, target, answer, **told)
                first, behind = next(q.among for q in questions if q.name == target)
                labels = loaded.labels[first:behind] if margins else ()
                out.append(Evidence(row, labels, {name: m[i].tolist() for name, m in margins.items()}))
        yield one.windows[0].read, out


def _asked(
    loaded: Loaded, clips: Any, question: Asked, logits: np.ndarray, how: Measuring, moves: np.ndarray | None
) -> Found:
    b, t = clips.shape[:2]
    target = question.target(logits[-1])
    if question.fixed is not None:  # a channel has a value for a clip without anything as well
        probe = temporal_probe(loaded.model, clips, target, shuffles=how.shuffles, seed=how.seed)
    else:
        score = as_target(target, b, logits.shape[-1])
        probe = as_probe(np.stack([np.asarray(score(jnp.asarray(one), {})) for one in logits]), t, None)
    found = selective_relevance.motion(loaded.model, clips, target, how.method, stage=how.stage, n=how.n)
    out = {
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
    for name, changed in (("order", probe.shuffled), ("still", probe.frozen)):
        shares = np.stack([share(probe.score, one, probe.baseline) for one in changed.T], 1)
        _, out[f"{name}_low"], out[f"{name}_high"] = np.array([intervals.mean(clip) for clip in shares]).T
    if moves is not None:
        agreed = optical_flow.agreement(found.selected, moves)
        out |= {"flow_precision": agreed.precision, "flow_recall": agreed.recall, "flow_iou": agreed.iou}
        out |= {"flow_energy": agreed.energy}
    margins = {}
    if question.fixed is None and question.against is None and len(question.classes) < 2:
        own = logits[..., slice(*question.among)]
        k = own.shape[-1]
        own = (own - own.mean(-1, keepdims=True)) * k / max(k - 1, 1)  # less the mean of the others
        margins = {"score": own[-1], "shuffled": own[t:-3].mean(0), "frozen": own[:t].mean(0), "reversed": own[-3]}
    return question.answers(logits[-1]), out, margins
