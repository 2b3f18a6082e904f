"""Does a method that has a motion part know motion from look? By questions that need the one or the other."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vtcav_jax.attribution.integrated import static_and_dynamic_many
from vtcav_jax.attribution.motion import selective_relevance
from vtcav_jax.attribution.motion.temporal_probes import frame_orders, logits_in_orders, probe_from_scores
from vtcav_jax.attribution.targets import Margin
from vtcav_jax.evaluation.world_benchmark.eval_set import Material
from vtcav_jax.evaluation.world_benchmark.questions import QUESTIONS
from vtcav_jax.evaluation.world_benchmark.scoring import batches, draws, interval
from vtcav_jax.evaluation.world_benchmark.tables import ALL, KIND, Row
from vtcav_jax.models import Network
from vtcav_jax.progress import progress

SHUFFLES = 8


class Share(NamedTuple):
    """How much of each clip's decision is motion, and how many forward passes of the clip that takes."""

    values: Float[np.ndarray, " n"]
    cost: int


def two_legs(loaded: Network, video: np.ndarray, targets: Sequence[Margin]) -> list[dict[str, Share]]:
    """Of what speaks for the answer, the part on the second leg of the path: from the frozen clip to the clip."""
    found = []
    for legs in static_and_dynamic_many(loaded.model, video, targets, frames=2, ig_steps=8):
        still, moving = (one.positive.sum((1, 2, 3)) for one in (legs.static, legs.dynamic))
        share = Share(_part(moving, still), legs.static.forward_passes + legs.dynamic.forward_passes)
        found.append({"two_leg_integrated_gradients": share})
    return found


def relevance(loaded: Network, video: np.ndarray, targets: Sequence[Margin]) -> list[dict[str, Share]]:
    """The motion part of selective relevance less that of the frozen clip, and as it was published, without it."""
    found = []
    for target in targets:
        motion = selective_relevance.motion_share(loaded.model, video, target)
        without = Share(motion.clip_split.motion_share, 3)
        found.append({"selective_relevance": Share(motion.excess, 6), "selective_relevance (no frozen clip)": without})
    return found


def time_changed(loaded: Network, video: np.ndarray, targets: Sequence[Margin]) -> list[dict[str, Share]]:
    """What the score loses when the clip stands still, and when its frames are shuffled."""
    clips, frames = jnp.asarray(video), video.shape[1]
    changed = logits_in_orders(loaded.model, clips, frame_orders(frames, SHUFFLES, 0))
    empty = logits_in_orders(loaded.model, jnp.zeros_like(clips), np.arange(frames, dtype=np.int32)[None])
    found = []
    for target in targets:
        scores = [np.asarray(_score(target, logits)) for logits in (*changed, *empty)]
        probe = probe_from_scores(np.stack(scores[:-1]), frames, scores[-1])
        frozen, shuffled = Share(probe.drop_frozen, frames + 2), Share(probe.drop_shuffled, SHUFFLES + 2)
        found.append({"frozen": frozen, "shuffled": shuffled})
    return found


@jax.jit
def _score(target: Margin, logits: Array) -> Array:
    return target(logits, {})


Shares = Callable[[Network, np.ndarray, Sequence[Margin]], list[dict[str, Share]]]
# Each, and whether all of its passes are the same for all targets
WAYS: tuple[tuple[Shares, bool], ...] = ((two_legs, False), (relevance, False), (time_changed, True))


def kinds(about: Material, network: str) -> list[Row]:
    """How often a clip's share of motion is larger for a question that needs motion than for one that does not, as 2 x
    AUROC - 1. Questions whose answer is seen for a moment only are neither."""
    sides = {
        dynamic: [QUESTIONS[i].head for i in about.ids if QUESTIONS[i].dynamic is dynamic and not QUESTIONS[i].event]
        for dynamic in (True, False)
    }
    if not all(sides.values()):
        return []
    heads, out, n = [*sides[True], *sides[False]], [], len(about)
    for way, shared in WAYS:
        parts, seconds = [], []
        for rows in progress(batches(n), n, f"clips by {way.__name__}", size=lambda some: some.stop - some.start):
            start = time.perf_counter()
            parts.append(way(about.wide, about.video[rows], [about.target(head, rows) for head in heads]))
            seconds.append((time.perf_counter() - start) / ((1 if shared else len(heads)) * len(about.video[rows])))
        for name, first in parts[0][0].items():
            found = {h: np.concatenate([part[i][name].values for part in parts]) for i, h in enumerate(heads)}
            drawn = np.mean([_apart(found[a], found[b]) for a in sides[True] for b in sides[False]], 0)
            cost = first.cost, float(np.median(seconds))
            out.append(Row(name, "", network, ALL, KIND, *interval(drawn), len(about), *cost))
    return out


def _apart(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], seed: int = 0) -> Float[np.ndarray, " draws"]:
    """2 x AUROC - 1, first of all clips, then of clips drawn again; what is not known counts for neither."""
    known = ~np.isnan(a)[:, None] & ~np.isnan(b)
    larger = np.where(known, np.sign(a[:, None] - b), 0.0)
    weights = draws(len(a), seed)
    total = np.einsum("di,ij,dj->d", weights, known.astype(float), weights, optimize=True)
    return np.einsum("di,ij,dj->d", weights, larger, weights, optimize=True) / total


def _part(moving: Float[np.ndarray, " n"], still: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return moving / (moving + still)
