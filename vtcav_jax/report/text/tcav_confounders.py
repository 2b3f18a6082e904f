"""Sentences about what a finding may be due to, how small it is, and how many source videos it rests on."""

import math
from collections.abc import Sequence

from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import Effect, effect_size, format_effect, format_number, format_p, format_percent
from vtcav_jax.report.run_reader import unique_in_order
from vtcav_jax.runs.tcav_rows import ConfounderRow, PredictionRow, ScoreRow
from vtcav_jax.tcav.experiment.verdicts import MIN_VIDEOS

SMALL_SHARE_OF_LEAD = 0.1  # of the lead of the class; smaller effects change the score "slightly"
SCORE_UNITS = {"logit": "logits", "log_prob": "(log probability)", "margin": "logits (margin)"}


def confounders_of(row: ScoreRow, confounders: Sequence[ConfounderRow]) -> list[ConfounderRow]:
    key = (row.target, row.concept, row.clip_type, row.negatives)
    return [c for c in confounders if (c.target, c.concept, c.clip_type, c.negatives) == key]


def confounder_headline(confounders: Sequence[ConfounderRow]) -> str:
    """Return the end of a headline that names what may explain the finding, or nothing."""
    names = unique_in_order([confounder.name for confounder in confounders if confounder.explains])
    return f", but {' or '.join(names)} may explain this" if names else ""


def confounder_sentences(confounders: Sequence[ConfounderRow], score_fn: str) -> list[str]:
    return [
        _label_sentence(confounder, score_fn) if confounder.kind == "label" else _concept_sentence(confounder)
        for confounder in confounders
    ]


def _label_sentence(confounder: ConfounderRow, score_fn: str) -> str:
    shares = (
        f"{format_percent(confounder.share_concept)} of the {confounder.clip_type} clips of {confounder.concept} have"
        f" {confounder.name} {confounder.value}, but only {format_percent(confounder.share_negatives)} of the clips"
        " that they are compared with"
    )
    if math.isnan(confounder.p):
        return f"{shares}; there are too few clips of equal {confounder.name} to separate the two."
    effect = Effect(
        confounder.effect, confounder.effect_low, confounder.effect_high, math.nan, math.nan, not confounder.explains
    )
    value, _, interval = format_effect(effect).partition(" ")
    interval = f"95 % CI {interval.strip('()')}; " if interval else ""
    conclusion = (
        f"so {confounder.name} may explain this finding"
        if confounder.explains
        else f"so {confounder.name} does not explain it"
    )
    return (
        f"{shares}; among clips of equal {confounder.name}, the effect is {value} {SCORE_UNITS.get(score_fn, score_fn)}"
        f" ({interval}p {format_p(confounder.p)}, not adjusted), {conclusion}."
    )


def _concept_sentence(confounder: ConfounderRow) -> str:
    share = min(confounder.explained_share, 1.0)
    return (
        f"The vectors of {confounder.concept} and {confounder.name} are similar at {confounder.stage} (cosine"
        f" {format_number(confounder.cosine, 2)}): {format_percent(share)} of this effect is along the vector of"
        f" {confounder.name}, so {confounder.name} may explain this finding."
    )


def mean_lead(predictions: Sequence[PredictionRow], target: str) -> float:
    """Return the mean log odds by which the network prefers the class to the rest of its head; NaN if unknown."""
    leads = [prediction.lead for prediction in predictions if prediction.target == target]
    return sum(leads) / len(leads) if leads else math.nan


def is_slight(row: ScoreRow, statistic: str, lead: float) -> bool:
    """Return whether the effect is below a tenth of the lead of the class, in the same unit."""
    in_logits = statistic == "step_effect" and row.score_fn in ("logit", "margin")
    return in_logits and lead > 0 and abs(effect_size(row, statistic).value) < SMALL_SHARE_OF_LEAD * lead


def slight_sentence(row: ScoreRow, statistic: str, lead: float) -> str:
    share = abs(effect_size(row, statistic).value) / lead
    return (
        f"This is a small effect, {format_percent(share)} of the {format_number(lead, 2)} logits by which the network"
        " prefers the class: a step along anything that a stage encodes, such as what other classes need, changes the"
        " score slightly, so it is no evidence that the class uses the concept."
    )


def video_limits(rows: Sequence[ScoreRow]) -> str:
    """Return a sentence on tests with fewer than five source videos on a side, or nothing."""
    parts = []
    if few := [row for row in rows if row.n_videos < MIN_VIDEOS]:
        names = unique_in_order([f"{row.concept} ({row.clip_type})" for row in few])
        subject = "all tests" if len(few) == len(rows) else f"the tests of {', '.join(names)}"
        parts.append(f"the concept clips or negatives of {subject} come from {_count_videos(few)}")
    if rows and (n := rows[0].n_target_videos) < MIN_VIDEOS:
        parts.append(f"the target clips come from {count_noun(n, 'source video')}")
    reasons = ", and ".join(parts)
    return (
        f"No conclusion about other videos is possible: {reasons}; at least {MIN_VIDEOS} are needed." if parts else ""
    )


def _count_videos(rows: Sequence[ScoreRow]) -> str:
    low, high = min(row.n_videos for row in rows), max(row.n_videos for row in rows)
    return count_noun(high, "source video") if low == high else f"{low} to {high} source videos"
