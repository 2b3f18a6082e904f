"""Findings of a class feature pyramid in sentences: its channels, the effect of ablating them, and its limits."""

import math
from collections.abc import Sequence

from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import (
    comparison_name,
    format_number,
    format_p,
    format_percent,
    format_range,
    format_signed,
)
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.runs.pyramid_rows import AblationRow, AlignedRow, EdgeRow, NodeRow, PyramidFacts

PYRAMID_ALPHA = 0.05  # uncorrected
MAX_NAMED_KERNELS = 4  # channels listed per stage
HIGH_AGREEMENT, HIGH_STABILITY = 0.5, 0.8  # Jaccard overlaps between clips and under noise
SELECTION_PHRASES = {
    "mass": "per level, the fewest channels with {} of all positive shares",
    "threshold": "per level, the channels with at least {} of the largest share",
    "top": "per level, the {} channels with the largest shares",
}


def pyramid_points(run: RunFolder, facts: PyramidFacts) -> list[tuple[str, str]]:
    """Return the findings of one target as pairs of a headline and details."""
    channels = [row for row in run.node_rows if row.target == facts.target]
    ablations = [row for row in run.ablation_rows if row.target == facts.target]
    n_levels = len({row.level for row in channels})
    points = [
        (
            f"{count_noun(len(channels), 'channel')} at {count_noun(n_levels, 'level')} contribute to {facts.target}.",
            f"From {count_noun(len(facts.score), 'clip')} with a mean score of"
            f" {format_signed(sum(facts.score) / len(facts.score), 3)}. Selection: {selection_text(facts)}.",
        )
    ]
    for stage in (stage for level in facts.levels for stage in level):
        stage_channels = [row for row in channels if row.stage == stage]
        if stage_channels:
            points.append(
                _describe_stage(
                    stage, stage_channels, [row for row in ablations if row.stage == stage], len(facts.ablation_clips)
                )
            )
    points += [
        ("Agreement between clips:", agreement_text(facts)),
        ("Stability under noise:", noise_stability_text(facts)),
    ]
    if run.concept_alignment_rows:
        points.append(
            (
                "Alignment with concept vectors:",
                alignment_text([row for row in run.concept_alignment_rows if row.target == facts.target], channels),
            )
        )
    doubts = _limitations(facts, channels, [row for row in run.edge_rows if row.target == facts.target], ablations)
    return [*points, ("Limits:", " ".join(doubts))] if doubts else points


def selection_text(facts: PyramidFacts) -> str:
    rule, value = str(facts.selection["rule"]), float(facts.selection["value"])
    phrase = SELECTION_PHRASES[rule].format(f"{value:g}" if rule == "top" else format_percent(value))
    return f"{phrase}, at most {facts.selection['max_channels']}"


def exceeds_chance(row: AblationRow) -> bool:
    """Return whether the score falls significantly without these channels, and more than without random ones."""
    return row.p <= PYRAMID_ALPHA and row.score_drop_low > 0


def _describe_stage(
    stage: str, channels: Sequence[NodeRow], ablations: Sequence[AblationRow], n_clips: int
) -> tuple[str, str]:
    """Describe the channels of one stage and the ablation of all of them, the last row of `ablations`."""
    named = ", ".join(f"#{row.channel} {format_node_share(row.relevance)}" for row in channels[:MAX_NAMED_KERNELS])
    named += f" and {len(channels) - MAX_NAMED_KERNELS} more" if len(channels) > MAX_NAMED_KERNELS else ""
    if not ablations:
        return f"{stage}, not ablated:", f"channels by share of the target: {named}."
    last = ablations[-1]
    lead = f"{stage}: ablation {'lowers' if exceeds_chance(last) else 'does not significantly lower'} the score."
    body = (
        f"Without {last.kernels} of {count_noun(last.channels, 'channel')} the score falls by"
        f" {format_number(last.score_drop)} (95 % CI {format_range(last.score_drop_low, last.score_drop_high)}, over"
        f" {count_noun(n_clips, 'clip')}); without as many random channels of the stage by"
        f" {format_number(last.random_score_drop)} (middle 95 % of draws"
        f" {format_range(last.random_score_drop_low, last.random_score_drop_high)}); p {format_p(last.p)}, not"
        f" corrected for the number of stages. Channels by share of the target: {named}."
    )
    return lead, body


def agreement_text(facts: PyramidFacts) -> str:
    """Describe the overlap of the channels that two single clips would select."""
    overlaps = ", ".join(
        f"{format_percent(overlap)} at {level_name(level)}" for level, overlap in zip(facts.levels, facts.stability)
    )
    finite = [overlap for overlap in facts.stability if not math.isnan(overlap)]
    if not finite:
        return "undefined for a single clip."
    conclusion = (
        "single clips agree, so the channels represent each clip."
        if min(finite) >= HIGH_AGREEMENT
        else "single clips would select different channels, so the pyramid describes the class and not any one clip."
    )
    return f"mean Jaccard overlap of the channels that two single clips select {overlaps}; {conclusion}"


def noise_stability_text(facts: PyramidFacts) -> str:
    means = [_finite_mean(level) for level in facts.noise_stability]
    overlaps = ", ".join(
        f"{format_percent(overlap)} at {level_name(level)}" for level, overlap in zip(facts.levels, means)
    )
    finite = [overlap for overlap in means if not math.isnan(overlap)]
    if not finite:
        return "undefined, because no channels were selected."
    verdict = "most channels stay the same" if min(finite) >= HIGH_STABILITY else "the selection changes"
    return f"{verdict} when noise is added to the clips (mean Jaccard overlap {overlaps})."


def alignment_text(rows: Sequence[AlignedRow], channels: Sequence[NodeRow]) -> str:
    """Name the channels that are the largest entry of an encoded concept vector."""
    weak = {row.node for row in channels if row.activation_excess < 0}
    first = sorted(
        (row for row in rows if row.rank == 1 and is_aligned_vector_encoded(row)),
        key=lambda row: -abs(row.cosine_share),
    )
    by_node = {row.node: row for row in reversed(first)}  # the largest entry of each channel
    sentences = [
        f"{row.stage} #{row.channel} ({'less' if row.node in weak else 'more'} active than in the reference) is the"
        f" largest entry of the vector of {vector_name(row)}: {format_signed(row.cosine_share)}"
        for row in sorted(by_node.values(), key=lambda row: -abs(row.cosine_share))[:MAX_NAMED_KERNELS]
    ]
    if not sentences:
        return "no channel of the pyramid is the largest entry of an encoded concept vector."
    return f"{'; '.join(sentences)}."


def is_aligned_vector_encoded(row: AlignedRow) -> bool:
    return not (row.auc_p > PYRAMID_ALPHA or row.auc <= 0.5)


def vector_name(row: AlignedRow) -> str:
    return f"{row.concept}, {comparison_name(row.clip_type, row.negatives)}"


def ordinal(rank: int) -> str:
    return f"{rank}{'th' if 10 < rank % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(rank % 10, 'th')}"


def activity_text(excess: float, n_compared: int) -> str:
    if not n_compared:
        return f"mean {format_number(excess)}"
    return f"mean {format_number(abs(excess))} {'below' if excess < 0 else 'above'} that in the reference clips"


def _limitations(
    facts: PyramidFacts, channels: Sequence[NodeRow], edges: Sequence[EdgeRow], ablations: Sequence[AblationRow]
) -> list[str]:
    out = []
    for stage in unique_in_order([row.stage for row in ablations]):
        rows = [row for row in ablations if row.stage == stage]
        if not exceeds_chance(rows[-1]):
            out.append(f"Not shown that the channels of {stage} matter more than random ones.")
        elif weak := [f"{row.kernels}" for row in rows[:-1] if not exceeds_chance(row)]:
            first_counts = " or ".join(filter(None, (", ".join(weak[:-1]), weak[-1])))
            out.append(f"At {stage}, ablating only the top {first_counts} has no significant effect.")
    if facts.levels and (missing := len(facts.levels) - len({row.level for row in channels})):
        out.append(f"{count_noun(missing, 'requested level')} without a channel of positive share.")
    if n_unsure := sum(row.relevance_low <= 0 for row in channels):
        out.append(
            f"For {n_unsure} of {count_noun(len(channels), 'channel')} the 95 % interval of the share contains 0."
        )
    inner_edges = [row for row in edges if row.parent >= 0]
    if n_unsure := sum(row.share_low <= 0 <= row.share_high for row in inner_edges):
        out.append(
            f"For {n_unsure} of {len(inner_edges)} edges between channels the 95 % interval contains 0 (dashed lines)."
        )
    if unexplained := [row for row in channels if abs(row.unexplained) > 0.2]:
        out.append(
            f"For {count_noun(len(unexplained), 'channel')}, more than 20 % of the response is not explained by the"
            " next level (biases, skip connections, nonlinearity)."
        )
    if facts.same_clips:
        out.append(
            "Too few clips: channels were ablated in the clips that the pyramid was built from, so the effects are"
            " optimistic."
        )
    if not facts.n_reference_clips:
        out.append(
            "Too few clips for a reference: activity is measured from 0, so activity common to all clips also counts."
        )
    if facts.edge_rule == "stergiou2019":
        out.append("Edges are mean kernel times mean activation (Stergiou et al., 2019), not shares of a response.")
    return out


def level_name(level: Sequence[str]) -> str:
    return " + ".join(level)


def format_node_share(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Format a share in percent with its interval; small values keep two digits."""
    if math.isnan(value):
        return "unknown"
    interval = "" if math.isnan(low) else f" ({_format_digits(low)} to {_format_digits(high)} %)"
    return f"{_format_digits(value)} %{interval}"


def _format_digits(value: float) -> str:
    value *= 100
    text = f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.2g}" if abs(value) >= 0.01 else "0"
    return text.replace("-", "−")


def _finite_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return sum(finite) / len(finite) if finite else math.nan
