"""A pyramid in sentences: what the target hangs on, whether that matters, and what of it does not hold."""

import math
from collections.abc import Sequence

from vtcav_jax.report.effect_sizes import format_number, format_p, format_percent, format_range, format_signed
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.runs.pyramid_rows import AblationRow, AlignedRow, EdgeRow, NodeRow, PyramidFacts

PYRAMID_ALPHA = 0.05  # of p
MAX_NAMED_KERNELS = 4  # kernels of a stage that the words name
HIGH_AGREEMENT, HIGH_STABILITY = 0.5, 0.8  # overlaps from which clips are said to agree, and kernels to stay
SELECTION_PHRASES = {
    "mass": "of each level the fewest that have {} of all that speaks for it",
    "threshold": "of each level those of at least {} of the greatest share",
    "top": "of each level the {} with the greatest shares",
}


def pyramid_points(run: RunFolder, facts: PyramidFacts) -> list[tuple[str, str]]:
    """What leads a point, and the rest of it."""
    kernels = [row for row in run.node_rows if row.target == facts.target]
    ablations = [row for row in run.ablation_rows if row.target == facts.target]
    n_levels = len({row.level for row in kernels})
    points = [
        (
            f"{count_noun(len(kernels), 'kernel')} at {count_noun(n_levels, 'level')}:",
            f"{facts.target} hangs on them in {count_noun(len(facts.score), 'clip')}, score "
            f"{format_signed(sum(facts.score) / len(facts.score), 3)} on average. Chosen were {selection_text(facts)}.",
        )
    ]
    for stage in (stage for level in facts.levels for stage in level):
        stage_kernels = [row for row in kernels if row.stage == stage]
        if stage_kernels:
            points.append(
                _describe_stage(
                    stage, stage_kernels, [row for row in ablations if row.stage == stage], len(facts.ablation_clips)
                )
            )
    points += [("From clip to clip:", agreement_text(facts)), ("Under noise:", noise_stability_text(facts))]
    if run.concept_alignment_rows:
        points.append(
            (
                "Concepts:",
                alignment_text([row for row in run.concept_alignment_rows if row.target == facts.target], kernels),
            )
        )
    doubts = _limitations(facts, kernels, [row for row in run.edge_rows if row.target == facts.target], ablations)
    return [*points, ("What does not hold:", " ".join(doubts))] if doubts else points


def selection_text(facts: PyramidFacts) -> str:
    rule, value = str(facts.selection["rule"]), float(facts.selection["value"])
    phrase = SELECTION_PHRASES[rule].format(f"{value:g}" if rule == "top" else format_percent(value))
    return f"{phrase}, at most {facts.selection['max_channels']}"


def exceeds_chance(row: AblationRow) -> bool:
    """Whether the score falls without these kernels, and by more than by chance without as many others."""
    return row.p <= PYRAMID_ALPHA and row.score_drop_low > 0


def _describe_stage(
    stage: str, kernels: Sequence[NodeRow], ablations: Sequence[AblationRow], n_clips: int
) -> tuple[str, str]:
    """The last of its ablations is that of all its kernels."""
    named = ", ".join(f"#{row.channel} {format_node_share(row.relevance)}" for row in kernels[:MAX_NAMED_KERNELS])
    named += f" and {len(kernels) - MAX_NAMED_KERNELS} more" if len(kernels) > MAX_NAMED_KERNELS else ""
    if not ablations:
        return f"At {stage}, not ablated:", f"{named}."
    last = ablations[-1]
    lead = f"At {stage} they matter:" if exceeds_chance(last) else f"At {stage} they are not shown to matter:"
    body = (
        f"without its {count_noun(last.kernels, 'kernel')} of {last.channels} the score of"
        f" {count_noun(n_clips, 'clip')} falls"
        f" by {format_number(last.score_drop)} ({format_range(last.score_drop_low, last.score_drop_high)}),"
        f" without as many drawn from the whole stage"
        f" by {format_number(last.random_score_drop)}"
        f" ({format_range(last.random_score_drop_low, last.random_score_drop_high)}); p {format_p(last.p)}."
        f" They are {named}."
    )
    return lead, body


def agreement_text(facts: PyramidFacts) -> str:
    """Whether clips by themselves would choose the same."""
    overlaps = ", ".join(
        f"{format_percent(overlap)} at {level_name(level)}" for level, overlap in zip(facts.levels, facts.stability)
    )
    finite = [overlap for overlap in facts.stability if not math.isnan(overlap)]
    if not finite:
        return "of one clip nothing can be said."
    conclusion = (
        "clips agree well, so that the kernels stand for each of them."
        if min(finite) >= HIGH_AGREEMENT
        else "clips by themselves would choose others: the kernels are those of the class, not of any one clip."
    )
    return f"what two clips by themselves would choose overlaps by {overlaps}; {conclusion}"


def noise_stability_text(facts: PyramidFacts) -> str:
    means = [_finite_mean(level) for level in facts.noise_stability]
    overlaps = ", ".join(
        f"{format_percent(overlap)} at {level_name(level)}" for level, overlap in zip(facts.levels, means)
    )
    finite = [overlap for overlap in means if not math.isnan(overlap)]
    if not finite:
        return "nothing was chosen that could change."
    stay = "stay" if min(finite) >= HIGH_STABILITY else "do not all stay"
    return f"the kernels {stay} the same when noise is laid over the clips (overlap {overlaps})."


def alignment_text(rows: Sequence[AlignedRow], kernels: Sequence[NodeRow]) -> str:
    """Which kernels are what concept vectors have most of; those vectors alone that tell their clips apart."""
    weak = {row.node for row in kernels if row.activation_excess < 0}
    first = sorted(
        (row for row in rows if row.rank == 1 and is_aligned_vector_encoded(row)),
        key=lambda row: -abs(row.cosine_share),
    )
    by_node = {row.node: row for row in reversed(first)}  # of a kernel its greatest
    sentences = [
        f"{row.stage} #{row.channel} ({'weaker' if row.node in weak else 'stronger'} here) is the greatest entry of"
        f" {vector_name(row)}, {format_signed(row.cosine_share)}"
        for row in sorted(by_node.values(), key=lambda row: -abs(row.cosine_share))[:MAX_NAMED_KERNELS]
    ]
    if not sentences:
        return "no kernel here is the greatest entry of a concept vector that tells its clips apart."
    return f"{'; '.join(sentences)}."


def is_aligned_vector_encoded(row: AlignedRow) -> bool:
    return not (row.auc_p > PYRAMID_ALPHA or row.auc <= 0.5)


def vector_name(row: AlignedRow) -> str:
    return f"{row.concept} ({row.clip_type}) against {row.negatives}"


def ordinal(rank: int) -> str:
    return f"{rank}{'th' if 10 < rank % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(rank % 10, 'th')}"


def activity_text(excess: float, n_compared: int) -> str:
    if not n_compared:
        return f"{format_number(excess)} on average"
    reference = "the clips that it is compared with"
    return f"{'weaker' if excess < 0 else 'stronger'} than in {reference}, by {format_number(abs(excess))} on average"


def _limitations(
    facts: PyramidFacts, kernels: Sequence[NodeRow], edges: Sequence[EdgeRow], ablations: Sequence[AblationRow]
) -> list[str]:
    out = []
    for stage in unique_in_order([row.stage for row in ablations]):
        rows = [row for row in ablations if row.stage == stage]
        if not exceeds_chance(rows[-1]):
            out.append(f"That {stage} hangs on its kernels more than on others.")
        elif weak := [f"{row.kernels}" for row in rows[:-1] if not exceeds_chance(row)]:
            first_counts = " or ".join(filter(None, (", ".join(weak[:-1]), weak[-1])))
            out.append(f"At {stage} taking out only the first {first_counts} is not shown to do more than chance.")
    if facts.levels and (missing := len(facts.levels) - len({row.level for row in kernels})):
        out.append(f"{count_noun(missing, 'level')} asked for but without a kernel that speaks for it.")
    if n_unsure := sum(row.relevance_low <= 0 for row in kernels):
        out.append(f"{n_unsure} of {len(kernels)} kernels have a share whose interval holds 0.")
    inner_edges = [row for row in edges if row.parent >= 0]
    if n_unsure := sum(row.share_low <= 0 <= row.share_high for row in inner_edges):
        out.append(f"{n_unsure} of {len(inner_edges)} edges between kernels have an interval that holds 0 (dashed).")
    if unexplained := [row for row in kernels if abs(row.unexplained) > 0.2]:
        out.append(
            f"Of {count_noun(len(unexplained), 'kernel')} more than 20 % comes through no channel of the next"
            f" level (biases,"
            " ways around, what is not linear)."
        )
    if facts.same_clips:
        out.append("Too few clips to ablate others than those that the pyramid was made of: expect too much.")
    if not facts.n_reference_clips:
        out.append(
            "Too few clips to compare these with others: activity counts from 0, and what is the same in every clip"
            " counts too."
        )
    if facts.edge_rule == "stergiou2019":
        out.append("Edges are mean kernel times mean activation, as in 2019: no share of any response.")
    return out


def level_name(level: Sequence[str]) -> str:
    return " + ".join(level)


def count_noun(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def format_node_share(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A share with its interval; small ones keep two digits."""
    if math.isnan(value):
        return "not known"
    interval = "" if math.isnan(low) else f" ({_format_digits(low)} to {_format_digits(high)} %)"
    return f"{_format_digits(value)} %{interval}"


def _format_digits(value: float) -> str:
    value *= 100
    text = f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.2g}" if abs(value) >= 0.01 else "0"
    return text.replace("-", "−")


def _finite_mean(values: Sequence[float]) -> float:
    finite = [one for one in values if not math.isnan(one)]
    return sum(finite) / len(finite) if finite else math.nan
