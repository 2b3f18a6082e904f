"""Test whether measures of motion separate questions that need motion from questions that do not."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vtcav_jax.attribution.integrated import static_and_dynamic
from vtcav_jax.attribution.motion.selective_relevance import selective_relevance
from vtcav_jax.attribution.motion.temporal_probes import frame_orders, logits_in_orders, probe_from_scores
from vtcav_jax.attribution.shared_passes import Targets
from vtcav_jax.attribution.targets import Margin
from vtcav_jax.console import progress
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet
from vtcav_jax.evaluation.world_benchmark.questions import EVAL_QUESTIONS
from vtcav_jax.evaluation.world_benchmark.score_rows import bootstrap_interval, bootstrap_weights
from vtcav_jax.evaluation.world_benchmark.scoring import batch_slices
from vtcav_jax.models import Network
from vtcav_jax.runs.evaluation_rows import ALL_QUESTIONS, MOTION_SCORE, MethodScoreRow

N_SHUFFLES = 8


class ShareEstimate(NamedTuple):
    """Share of motion in the decision on each clip, and its cost in forward passes per clip."""

    values: Float[np.ndarray, " n"]
    cost: int


def static_dynamic_share(
    network: Network, video: np.ndarray, targets: Sequence[Margin]
) -> list[dict[str, ShareEstimate]]:
    """Return the share of positive attribution on the path's second leg, from the frozen clip to the clip."""
    estimates = []
    for legs in static_and_dynamic(network.model, video, Targets(targets), frames=2, ig_steps=8):
        static, dynamic = (leg.positive.sum((1, 2, 3)) for leg in (legs.static, legs.dynamic))
        share = ShareEstimate(
            _dynamic_fraction(dynamic, static), legs.static.forward_passes + legs.dynamic.forward_passes
        )
        estimates.append({"two_leg_integrated_gradients": share})
    return estimates


def selective_relevance_share(
    network: Network, video: np.ndarray, targets: Sequence[Margin]
) -> list[dict[str, ShareEstimate]]:
    """Return selective relevance's share of motion minus that of the frozen clip, and as published, without it."""
    estimates = []
    for target in targets:
        motion = selective_relevance(network.model, video, target)
        without = ShareEstimate(motion.clip_split.motion_share, 3)
        estimates.append(
            {"selective_relevance": ShareEstimate(motion.excess, 6), "selective_relevance (no frozen clip)": without}
        )
    return estimates


def temporal_probe_share(
    network: Network, video: np.ndarray, targets: Sequence[Margin]
) -> list[dict[str, ShareEstimate]]:
    """Return the drop of the score when the clip is frozen, and when its frames are shuffled."""
    clips, frames = jnp.asarray(video), video.shape[1]
    edited_logits = logits_in_orders(network.model, clips, frame_orders(frames, N_SHUFFLES, 0))
    empty_logits = logits_in_orders(network.model, jnp.zeros_like(clips), np.arange(frames, dtype=np.int32)[None])
    estimates = []
    for target in targets:
        scores = [np.asarray(_target_score(target, logits)) for logits in (*edited_logits, *empty_logits)]
        probe = probe_from_scores(np.stack(scores[:-1]), frames, scores[-1])
        frozen, shuffled = (
            ShareEstimate(probe.drop_frozen, frames + 2),
            ShareEstimate(probe.drop_shuffled, N_SHUFFLES + 2),
        )
        estimates.append({"frozen": frozen, "shuffled": shuffled})
    return estimates


@jax.jit
def _target_score(target: Margin, logits: Array) -> Array:
    return target(logits, {})


ShareEstimator = Callable[[Network, np.ndarray, Sequence[Margin]], list[dict[str, ShareEstimate]]]
# Each estimator, and whether all targets share its passes
SHARE_ESTIMATORS: tuple[tuple[ShareEstimator, bool], ...] = (
    (static_dynamic_share, False),
    (selective_relevance_share, False),
    (temporal_probe_share, True),
)


def motion_benchmark(eval_set: EvalSet, network_name: str) -> list[MethodScoreRow]:
    """Score each measure of motion by 2 x AUROC - 1 between questions that need motion and questions that do not.

    Questions about a brief event are in neither group.
    """
    sides = {
        dynamic: [
            EVAL_QUESTIONS[i].head
            for i in eval_set.question_ids
            if EVAL_QUESTIONS[i].needs_motion is dynamic and not EVAL_QUESTIONS[i].event_mask
        ]
        for dynamic in (True, False)
    }
    if not all(sides.values()):
        return []
    heads, out, n = [*sides[True], *sides[False]], [], len(eval_set)
    for estimator, batches_all_targets in SHARE_ESTIMATORS:
        parts, seconds = [], []
        for rows in progress(
            batch_slices(n), n, f"clips by {estimator.__name__}", size=lambda rows: rows.stop - rows.start
        ):
            start = time.perf_counter()
            parts.append(
                estimator(
                    eval_set.padded_network, eval_set.video[rows], [eval_set.target(head, rows) for head in heads]
                )
            )
            seconds.append(
                (time.perf_counter() - start) / ((1 if batches_all_targets else len(heads)) * len(eval_set.video[rows]))
            )
        for name, first in parts[0][0].items():
            shares_by_head = {h: np.concatenate([part[i][name].values for part in parts]) for i, h in enumerate(heads)}
            samples = np.mean(
                [_rank_separation(shares_by_head[a], shares_by_head[b]) for a in sides[True] for b in sides[False]], 0
            )
            cost = first.cost, float(np.median(seconds))
            out.append(
                MethodScoreRow(
                    name,
                    "",
                    network_name,
                    ALL_QUESTIONS,
                    MOTION_SCORE,
                    *bootstrap_interval(samples),
                    len(eval_set),
                    *cost,
                )
            )
    return out


def _rank_separation(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], seed: int = 0
) -> Float[np.ndarray, " draws"]:
    """Return 2 x AUROC - 1 over all clips, then over each bootstrap sample; NaN values are left out."""
    known = ~np.isnan(a)[:, None] & ~np.isnan(b)
    larger = np.where(known, np.sign(a[:, None] - b), 0.0)
    weights = bootstrap_weights(len(a), seed)
    total = np.einsum("di,ij,dj->d", weights, known.astype(float), weights, optimize=True)
    return np.einsum("di,ij,dj->d", weights, larger, weights, optimize=True) / total


def _dynamic_fraction(dynamic: Float[np.ndarray, " n"], static: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return dynamic / (dynamic + static)
