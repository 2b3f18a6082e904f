"""Choice between the two readings of a method's maps: net or gross relevance.

A method's maps are scored in both readings, and each half of the clips counts in the reading that is better on the
other half. So no method gains by a change of sign handling alone, and the choice does not bias the score.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vtcav_jax.evaluation.world_benchmark.world_metrics import READINGS, Parts, chance_corrected
from vtcav_jax.runs.evaluation_rows import WORLD_METRICS

MIN_CLIPS_TO_SELECT = 20  # so that each half can measure every metric

QuestionMetrics = Mapping[str, Mapping[str, Parts]]  # by question and metric


def better_reading(by_reading: Mapping[str, QuestionMetrics]) -> tuple[str, dict[str, dict[str, Parts]]]:
    """Return the better reading over all questions, and the parts of each question and metric in selected readings.

    With few clips the selection is from all clips.
    """
    n = max(parts.shape[-1] for metrics in by_reading[READINGS[0]].values() for parts in metrics.values())
    overall = _best(by_reading, slice(None))
    halves = (slice(0, None, 2), slice(1, None, 2))
    choices = [_best(by_reading, half) if n >= MIN_CLIPS_TO_SELECT else overall for half in halves[::-1]]
    out: dict[str, dict[str, Parts]] = {}
    for question, metrics in by_reading[overall].items():
        out[question] = {}
        for metric, parts in metrics.items():
            merged = parts.copy()
            for half, reading in zip(halves, choices):
                merged[..., half] = by_reading[reading][question][metric][..., half]
            out[question][metric] = merged
    return overall, out


def _best(by_reading: Mapping[str, QuestionMetrics], clips: slice) -> str:
    scores = {reading: _mean_score(list(metrics.values()), clips) for reading, metrics in by_reading.items()}
    return max(scores, key=lambda reading: scores[reading])


def _mean_score(questions: Sequence[Mapping[str, Parts]], clips: slice) -> float:
    """Return the mean over questions of the mean skill over metrics."""
    scores = []
    for metrics in questions:
        known = [parts[..., clips] for name, parts in metrics.items() if name in WORLD_METRICS]
        known = [parts for parts in known if not np.isnan(parts).all(-1).any()]
        skills = [chance_corrected(*np.nanmean(parts, -1).T).mean() for parts in known]
        scores += [float(np.mean(skills))] if skills else []
    return float(np.mean(scores)) if scores else 0.0
