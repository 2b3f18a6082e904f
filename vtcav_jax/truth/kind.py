"""Does a method that has a motion part know motion from look? By questions that need the one or the other."""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from vtcav_jax import selective_relevance
from vtcav_jax.attribution import static_and_dynamic, temporal_probe
from vtcav_jax.models import Loaded
from vtcav_jax.truth.material import Material
from vtcav_jax.truth.questions import QUESTIONS
from vtcav_jax.truth.scoring import batches, draws, interval
from vtcav_jax.truth.table import ALL, KIND, Row

Share = Callable[..., tuple[Float[np.ndarray, " n"], int]]


def two_legs(loaded: Loaded, video, target) -> tuple[Float[np.ndarray, " n"], int]:
    """Of what speaks for the answer, the part on the second leg of the path: from the frozen clip to the clip."""
    legs = static_and_dynamic(loaded.model, video, target, frames=2, nodes=8)
    still, moving = (one.positive.sum((1, 2, 3)) for one in (legs.static, legs.dynamic))
    return _part(moving, still), legs.static.cost + legs.dynamic.cost


def selective(loaded: Loaded, video, target) -> tuple[Float[np.ndarray, " n"], int]:
    """The motion part of selective relevance, less that of the frozen clip."""
    return selective_relevance.motion(loaded.model, video, target).excess, 6


def selective_alone(loaded: Loaded, video, target) -> tuple[Float[np.ndarray, " n"], int]:
    """The motion part as it was published, without the frozen clip."""
    return selective_relevance.motion(loaded.model, video, target).selected.motion_share, 3


def frozen(loaded: Loaded, video, target) -> tuple[Float[np.ndarray, " n"], int]:
    """What the score loses when the clip stands still."""
    probe = temporal_probe(loaded.model, video, target)
    return probe.still_share, probe.frozen.shape[1] + 2


def shuffled(loaded: Loaded, video, target) -> tuple[Float[np.ndarray, " n"], int]:
    """What the score loses when frames are shuffled."""
    probe = temporal_probe(loaded.model, video, target)
    return probe.order_share, probe.shuffled.shape[1] + 2


KINDS: dict[str, Share] = {
    "two_leg_integrated_gradients": two_legs,
    "selective_relevance": selective,
    "selective_relevance (no frozen clip)": selective_alone,
    "frozen": frozen,
    "shuffled": shuffled,
}


def kinds(about: Material, network: str) -> list[Row]:
    """How often a clip's share of motion is larger for a question that needs motion than for one that does not, as 2 x
    AUROC - 1. Questions whose answer is seen for a moment only are neither."""
    sides = {
        dynamic: [QUESTIONS[i].head for i in about.ids if QUESTIONS[i].dynamic is dynamic and not QUESTIONS[i].event]
        for dynamic in (True, False)
    }
    if not all(sides.values()):
        return []
    out = []
    for name, share in KINDS.items():
        found: dict[str, np.ndarray] = {}
        seconds, cost = [], 0
        for head in (*sides[True], *sides[False]):
            parts = []
            for rows in batches(len(about)):
                start = time.perf_counter()
                values, cost = share(about.loaded, about.video[rows], about.target(head, rows))
                seconds.append((time.perf_counter() - start) / len(values))
                parts.append(values)
            found[head] = np.concatenate(parts)
        drawn = np.mean([_apart(found[a], found[b]) for a in sides[True] for b in sides[False]], 0)
        out.append(Row(name, "", network, ALL, KIND, *interval(drawn), len(about), cost, float(np.median(seconds))))
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
