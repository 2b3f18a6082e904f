"""Findings of a Video-TCAV run as sentences that contain only numbers of its tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import effect_size, format_effect, format_p, primary_tests
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.text.names import join_names
from vtcav_jax.report.text.tcav_confounders import (
    SCORE_UNITS,
    confounder_headline,
    confounder_sentences,
    confounders_of,
    is_slight,
    mean_lead,
    slight_sentence,
    video_limits,
)
from vtcav_jax.report.text.tcav_verdicts import (
    FROZEN_TEXT,
    INCONCLUSIVE_REASONS,
    INCONCLUSIVE_VERDICTS,
    ORDER_CONTROLS,
    UNCERTAIN,
)
from vtcav_jax.runs.tcav_rows import ConfounderRow, ScoreRow
from vtcav_jax.tcav.experiment.verdicts import is_finding


@dataclass(frozen=True)
class ClassAnswer:
    """Findings of one class, the largest effect first, as (headline, details); and the concepts without a finding.

    `limits` says that no conclusion about other videos is possible, where there are too few of them.
    """

    target: str
    limits: str
    findings: tuple[tuple[str, str], ...]
    no_effect_text: str


def class_answers(run: RunFolder) -> list[ClassAnswer]:
    statistic = run.config.get("statistic", "step_effect")
    out = []
    for target in unique_in_order([row.target for row in run.score_rows]):
        class_rows = [row for row in run.score_rows if row.target == target]
        by_concept, without_finding = {}, []
        lead = mean_lead(run.prediction_rows, target)
        for concept in unique_in_order([row.concept for row in class_rows]):
            rows = [row for row in class_rows if row.concept == concept]
            if any(map(is_finding, rows)):
                sentences = describe_concept(rows, statistic, run.confounder_rows, lead)
                by_concept[concept] = largest_effect(rows, statistic), sentences
            else:
                without_finding.append(concept)
        ordered = sorted(by_concept.items(), key=lambda item: (not item[1][0], -item[1][0]))
        findings = tuple((headline, " ".join(details)) for _, (_, (headline, *details)) in ordered)
        no_effect_text = _no_effect_text(class_rows, without_finding)
        out.append(ClassAnswer(target, video_limits(class_rows), findings, no_effect_text))
    return out


def largest_effect(rows: Sequence[ScoreRow], statistic: str) -> float:
    """Return the largest significant effect against the random clips or the other concepts; 0 if there is none."""
    return max(
        (abs(effect_size(row, statistic).value) for row in primary_tests(rows)[1] if is_finding(row)), default=0.0
    )


def _no_effect_text(rows: Sequence[ScoreRow], concepts: Sequence[str]) -> str:
    if not concepts:
        return ""
    subject = f"any concept ({join_names(concepts)})" if len(concepts) == len({r.concept for r in rows}) else ""
    subject = subject or join_names(concepts)
    rows = [row for row in rows if row.concept in concepts]
    lead = "No finding for" if any(row.verdict == UNCERTAIN for row in rows) else "No significant effect of"
    return f"{lead} {subject}: {_outcome(rows)}."


def _outcome(rows: Sequence[ScoreRow]) -> str:
    """Summarise tests without a finding: the smallest adjusted p, and how many tests are inconclusive and why."""
    tested = [row for row in rows if row.verdict == "not significant"]
    uncertain = [row for row in rows if row.verdict == UNCERTAIN]
    other = [row for row in rows if row.verdict not in ("not significant", UNCERTAIN)]
    p_text = f"smallest adjusted p {format_p(min(row.p_adjusted for row in tested))}" if tested else ""
    parts = [f"{p_text} in {count_noun(len(tested), 'test')}"] if tested else []
    if uncertain:
        p = format_p(min(row.p_adjusted for row in uncertain))
        parts.append(
            f"1 test has adjusted p {p} but an uncertain sign"
            if len(uncertain) == 1
            else f"{len(uncertain)} tests are significant (smallest adjusted p {p}) but have an uncertain sign"
        )
    if other:
        more = "other " if parts else ""
        reasons = ", ".join(unique_in_order([row.verdict for row in other]))
        parts.append(f"{len(other)} {more}test{'' if len(other) == 1 else 's'} inconclusive: {reasons}")
    return "; ".join(parts)


def describe_concept(
    rows: Sequence[ScoreRow], statistic: str, confounders: Sequence[ConfounderRow] = (), lead: float = math.nan
) -> list[str]:
    """Return a headline and sentences about one class and a concept with at least one finding.

    `lead` is the log odds by which the network prefers the class.
    """
    target, concept = rows[0].target, rows[0].concept
    primary = primary_tests(rows)[1]
    clip_types = unique_in_order([row.clip_type for row in primary])
    best = {
        clip_type: row
        for clip_type in clip_types
        if (row := _strongest_finding([row for row in primary if row.clip_type == clip_type]))
    }
    motion_rows = [row for row in rows if row.comparison == "motion"]
    if row := _strongest_finding(list(best.values())):
        positive = row.derivative > 0
        related = confounders_of(row, confounders)
        slightly = all(is_slight(other, statistic, lead) for other in primary if is_finding(other))
        types = [clip_type for clip_type, other in best.items() if (other.derivative > 0) == positive]
        sentences = [
            f"{concept} ({join_names(types)} clips) {'slightly ' * slightly}{_verb(row)} the score of"
            f" {target}{confounder_headline(related)}.",
            f"At {row.stage}, {_effect_text(row, statistic)}.",
            *([slight_sentence(row, statistic, lead)] if slightly else []),
            *confounder_sentences(related, row.score_fn),
        ]
        if opposite := [other for other in primary if is_finding(other) and (other.derivative > 0) != positive]:
            places = [
                f"{other.stage} ({other.clip_type} clips, {format_effect(effect_size(other, statistic))}, adjusted p"
                f" {format_p(other.p_adjusted)})"
                for other in opposite
            ]
            sentences.append(f"The sign is opposite at {join_names(places)}.")
        sentences += [
            _missing_text(clip_type, [row for row in primary if row.clip_type == clip_type])
            for clip_type in clip_types
            if clip_type not in best
        ]
        return sentences + _motion_sentences(motion_rows, statistic)
    if row := _strongest_finding(motion_rows):
        related = confounders_of(row, confounders)
        slightly = all(is_slight(other, statistic, lead) for other in motion_rows if is_finding(other))
        return [
            f"{_motion_headline(motion_rows, row, slightly)}{confounder_headline(related)}.",
            *_motion_sentences(motion_rows, statistic),
            *([slight_sentence(row, statistic, lead)] if slightly else []),
            *confounder_sentences(related, row.score_fn),
        ]
    row = _strongest_finding(rows)
    assert row is not None
    related = confounders_of(row, confounders)
    return [
        f"{concept} ({row.clip_type} clips) {_verb(row)} the score of {target} compared with"
        f" {row.negatives}{confounder_headline(related)}.",
        f"At {row.stage}, {_effect_text(row, statistic)}.",
        *confounder_sentences(related, row.score_fn),
    ]


def _verb(row: ScoreRow) -> str:
    return "raises" if row.derivative > 0 else "lowers"


def _effect_text(row: ScoreRow, statistic: str) -> str:
    """State the effect of one test with its unit, its 95 % CI, its adjusted p and the share of clips with its sign."""
    start = {"others": "the clips of the other concepts"}.get(row.negatives, f"the {row.negatives} clips")
    clips = f"from {start} to the {row.clip_type} clips of {row.concept}"
    value, _, interval = format_effect(effect_size(row, statistic)).partition(" ")
    unit = SCORE_UNITS.get(row.score_fn, row.score_fn)
    share = row.tcav_score if row.derivative > 0 else 1 - row.tcav_score  # ties count as half
    n_same = round(share * row.n_clips - row.n_ties / 2)
    action = (
        f"moving {clips} changes the score by {value} {unit}"
        if statistic == "step_effect"
        else f"the derivative of the score along the vector {clips} is {value} {unit} per unit length"
    )
    return (
        f"{action} ({_ci_text(interval)}adjusted p {format_p(row.p_adjusted)}; same sign in {n_same} of"
        f" {row.n_clips} target clips)"
    )


def _ci_text(interval: str) -> str:
    return f"95 % CI {interval.strip('()')}; " if interval else ""


def _missing_text(clip_type: str, rows: Sequence[ScoreRow]) -> str:
    """Describe the tests of a clip type without a finding."""
    lead = f"{clip_type.capitalize()} clips"
    verdicts = unique_in_order([row.verdict for row in rows])
    if any(verdict not in INCONCLUSIVE_REASONS for verdict in verdicts):
        return f"{lead}: no {'finding' if UNCERTAIN in verdicts else 'significant effect'} ({_outcome(rows)})."
    reasons = [
        f"{INCONCLUSIVE_REASONS[verdict]} at {join_names([row.stage for row in rows if row.verdict == verdict])}"
        for verdict in verdicts
    ]
    return f"{lead}: inconclusive, because {', and '.join(reasons)}."


def _motion_sentences(rows: Sequence[ScoreRow], statistic: str) -> list[str]:
    """Compare dynamic clips with their control clips; nothing if the run has no such comparison."""
    if not rows:
        return []
    findings = [row for row in rows if is_finding(row)]
    controls = unique_in_order([row.negatives for row in rows])
    if not findings:
        return [_no_difference_text(controls, rows)]
    unit = f" {SCORE_UNITS.get(findings[0].score_fn, findings[0].score_fn)}"
    unit += "" if statistic == "step_effect" else " per unit length"
    step = statistic == "step_effect"
    parts = []
    for control in unique_in_order([row.negatives for row in findings]):
        row = _strongest_finding([row for row in findings if row.negatives == control])
        assert row is not None
        value, _, interval = format_effect(effect_size(row, statistic)).partition(" ")
        details = f"({_ci_text(interval)}adjusted p {format_p(row.p_adjusted)}; at {row.stage})"
        if parts:
            parts.append(f"from the {control} clips {'by' if step else 'it is'} {value} {details}")
        else:
            change = "changes the score by" if step else "is"
            parts.append(
                f"from the {control} clips to the dynamic clips {change} {value}{unit} more than for random clips"
                f" {details}"
            )
    action = "Moving" if step else "The derivative of the score along the vector"
    sentences = [f"{action} {join_names(parts)}."]
    compared = {row.negatives for row in findings}
    if "frozen" in compared and not compared & set(ORDER_CONTROLS):
        sentences.append(f"{FROZEN_TEXT}.")
    if undecided := [control for control in controls if control not in compared]:
        sentences.append(_no_difference_text(undecided, [row for row in rows if row.negatives in undecided]))
    return sentences


def _motion_headline(rows: Sequence[ScoreRow], row: ScoreRow, slightly: bool) -> str:
    """Return the headline of a concept with findings against control clips only; `row` is the strongest of them."""
    same_sign = [other for other in rows if is_finding(other) and (other.derivative > 0) == (row.derivative > 0)]
    controls = unique_in_order([other.negatives for other in same_sign])
    if set(controls) & set(ORDER_CONTROLS):
        return f"The motion in {row.concept} {'slightly ' * slightly}{_verb(row)} the score of {row.target}"
    verb, names = "slightly " * slightly + _verb(row).removesuffix("s"), join_names(controls)
    return f"Dynamic clips of {row.concept} {verb} the score of {row.target} compared with their {names} copies"


def _no_difference_text(controls: Sequence[str], rows: Sequence[ScoreRow]) -> str:
    names, verdicts = f"the {join_names(controls)} clips", {row.verdict for row in rows}
    if verdicts <= set(INCONCLUSIVE_VERDICTS):
        return f"The comparison of the dynamic clips with {names} is inconclusive ({_outcome(rows)})."
    effect = "no finding" if UNCERTAIN in verdicts else "no significant effect"
    return f"Moving from {names} to the dynamic clips: {effect} ({_outcome(rows)})."


def _strongest_finding(rows: Sequence[ScoreRow]) -> ScoreRow | None:
    return min(filter(is_finding, rows), key=lambda row: (row.p_adjusted, -abs(row.relative_derivative)), default=None)
