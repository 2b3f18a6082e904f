"""Findings of a Video-TCAV run as sentences that contain only numbers of its tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_jax.report.effect_sizes import (
    count_noun,
    effect_size,
    format_effect,
    format_p,
    format_percent,
    primary_tests,
)
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
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
from vtcav_jax.runs.tcav_rows import ConfounderRow, PredictionRow, ScoreRow
from vtcav_jax.stats.intervals import wilson_ci
from vtcav_jax.tcav.experiment.verdicts import CONTRADICTED, is_finding

FROZEN_TEXT = "Frozen copies also lose every other moment, so they alone are no evidence of motion"
VERDICT_TEXTS = {
    "supports": "the concept raises the class score; significant after correction",
    "opposes": "the concept lowers the class score; significant after correction",
    "motion_supports": "the difference between dynamic clips and their control clips raises the class score more than"
    f" the same difference of random clips; significant after correction. {FROZEN_TEXT}",
    "motion_opposes": "the difference between dynamic clips and their control clips lowers the class score more than"
    f" the same difference of random clips; significant after correction. {FROZEN_TEXT}",
    "not significant": "the effect is within the range of permuted labels after correction; this does not prove that"
    " there is no effect",
    "not encoded": "a classifier cannot separate the concept clips from the negatives at this stage, so the concept"
    " vector is noise and its effect means nothing, whatever its p-value",
    "too few videos": "the clips of one side come from fewer than five source videos, so that no conclusion about other"
    " videos is possible",
    "differs from control": "dynamic clips and their own control clips have different effects; almost any network"
    " reacts to frozen or shuffled clips, so this alone says nothing about the concept",
    CONTRADICTED: "the test is significant, but when activations are moved by the whole step, the class score changes"
    " in the other direction than the derivative predicts",
    "sign uncertain": "the effect is significant for these clips, but the 95 % CI over source videos contains 0",
    "underpowered": "there are too few clips or permutations for any result to pass the correction",
    "no derivative": "the derivative is within rounding error of 0 at every clip",
    "no gradient": "the class score does not depend on this stage at any clip",
    "no vector": "no concept vector could be trained: concept clips and negatives are identical at this stage",
}
INCONCLUSIVE_REASONS = {
    "too few videos": "there are fewer than five source videos",
    "not encoded": "the clips cannot be separated from the negatives",
    "underpowered": "there are too few clips or permutations to pass the correction",
    "no derivative": "all derivatives are within rounding error of 0",
    "no gradient": "the score does not depend on the stage",
    "no vector": "no concept vector could be trained",
    CONTRADICTED: "moving the activations by the whole step changes the score in the other direction",
}
UNCERTAIN = "sign uncertain"
ORDER_CONTROLS = ("shuffled", "reversed")  # they have the same frames, so that only motion differs
INCONCLUSIVE_VERDICTS = tuple(INCONCLUSIVE_REASONS)
CORRECTION_NAMES = {
    "holm": "Holm, family-wise error rate",
    "bonferroni": "Bonferroni, family-wise error rate",
    "bh": "Benjamini-Hochberg, false discovery rate",
}


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
        slightly = is_slight(row, statistic, lead)
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
        return [
            f"{_motion_headline(motion_rows, row)}{confounder_headline(related)}.",
            *_motion_sentences(motion_rows, statistic),
            *([slight_sentence(row, statistic, lead)] if is_slight(row, statistic, lead) else []),
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


def _motion_headline(rows: Sequence[ScoreRow], row: ScoreRow) -> str:
    """Return the headline of a concept with findings against control clips only; `row` is the strongest of them."""
    same_sign = [other for other in rows if is_finding(other) and (other.derivative > 0) == (row.derivative > 0)]
    controls = unique_in_order([other.negatives for other in same_sign])
    if set(controls) & set(ORDER_CONTROLS):
        return f"The motion in {row.concept} {_verb(row)} the score of {row.target}"
    verb, names = _verb(row).removesuffix("s"), join_names(controls)
    return f"Dynamic clips of {row.concept} {verb} the score of {row.target} compared with their {names} copies"


def _no_difference_text(controls: Sequence[str], rows: Sequence[ScoreRow]) -> str:
    names, verdicts = f"the {join_names(controls)} clips", {row.verdict for row in rows}
    if verdicts <= set(INCONCLUSIVE_VERDICTS):
        return f"The comparison of the dynamic clips with {names} is inconclusive ({_outcome(rows)})."
    effect = "no finding" if UNCERTAIN in verdicts else "no significant effect"
    return f"Moving from {names} to the dynamic clips: {effect} ({_outcome(rows)})."


def _strongest_finding(rows: Sequence[ScoreRow]) -> ScoreRow | None:
    return min(filter(is_finding, rows), key=lambda row: (row.p_adjusted, -abs(row.relative_derivative)), default=None)


def trust_notes(run: RunFolder) -> list[str]:
    """State the correction for multiple tests, the calibration check, inconclusive tests and cautions."""
    notes, family = [], run.content.get("family", {})
    if family:
        n_permutations = family.get("permutations")
        notes.append(
            f"Multiple tests: p-values are corrected for all {family['tests']} tests of this run"
            f" ({CORRECTION_NAMES.get(family['correction'], family['correction'])}). A finding needs an adjusted p of"
            f" at most {family['alpha']:g}; {sum(map(is_finding, run.score_rows))} tests are findings."
            + (f" Each test uses at most {n_permutations:,} permutations." if n_permutations else "")
        )
    for calibration in run.content.get("calibration", ()):
        alpha = family.get("alpha", 0.05)
        sets, low, high = calibration_ci(calibration["rate"], calibration["n_trials"], run.score_rows)
        set_text = "random sets" if calibration["set_origin"] == "sets" else "sets drawn from the random clips"
        verdict = (
            f"consistent with the nominal {format_percent(alpha)}"
            if low <= alpha <= high
            else f"above the nominal {format_percent(alpha)}: clips within a set may be alike, and p-values of this run"
            " are too small"
            if low > alpha
            else f"below the nominal {format_percent(alpha)}: the tests are conservative"
        )
        notes.append(
            f"Calibration check: {sets} {set_text} ({calibration['clip_type']}) were tested like concepts in"
            f" {calibration['n_trials']} tests, and {calibration['n_rejected']} had an unadjusted p of at most"
            f" {alpha:g}. False-positive rate {format_percent(calibration['rate'])} (95 % CI {format_percent(low)} to"
            f" {format_percent(high)} over the {sets} sets, because tests of one set are correlated): {verdict}."
        )
    for verdict in (*INCONCLUSIVE_VERDICTS, UNCERTAIN):
        if rows := [row for row in run.score_rows if row.verdict == verdict]:
            stages = unique_in_order([row.stage for row in rows])
            notes.append(
                f"Inconclusive: {count_noun(len(rows), 'test')} with the verdict “{verdict}” (at {join_names(stages)}):"
                f" {VERDICT_TEXTS[verdict]}."
            )
    return notes + caution_notes(run)


def calibration_ci(rate: float, n_trials: int, rows: Sequence[ScoreRow]) -> tuple[int, float, float]:
    """Return the number of tested sets and the interval of the false-positive rate over them.

    Tests of one set at several stages and for several classes are correlated, so they do not count as independent.
    """
    tests_per_set = max(1, len({(row.target, row.stage) for row in rows}))
    sets = max(1, round(n_trials / tests_per_set))
    return sets, *wilson_ci(round(rate * sets), sets)


def caution_notes(run: RunFolder) -> list[str]:
    """Return warnings about the protocol, the accuracy of the network, the run's notes and unreadable clips."""
    notes = []
    if run.config.get("protocol") == "saha2024":
        notes.append(
            "saha2024.csv contains the tests as published. Their runs share concept clips and are not independent, so"
            " those p-values are too small."
        )
    notes += [
        sentence
        for target, predictions in predictions_by_target(run.prediction_rows).items()
        if (sentence := _low_accuracy_text(target, predictions))
    ]
    notes += [f"Note: {note}." for note in run.content.get("notes", ())]
    if failed := {**run.content.get("failed", {}), **run.content.get("unreadable", {})}:
        examples = join_names(list(failed)[:5])
        notes.append(f"{count_noun(len(failed), 'clip')} could not be read and were excluded, such as {examples}.")
    return notes


def predictions_by_target(predictions: Sequence[PredictionRow]) -> dict[str, list[PredictionRow]]:
    out: dict[str, list[PredictionRow]] = {}
    for prediction in predictions:
        out.setdefault(prediction.target, []).append(prediction)
    return out


def accuracy_text(predictions: Sequence[PredictionRow]) -> str:
    """Return the number of correct predictions with the Wilson interval of their share over clips."""
    n_correct = sum(prediction.correct for prediction in predictions)
    low, high = wilson_ci(n_correct, len(predictions))
    return f"{n_correct} of {len(predictions)} clips (95 % CI {format_percent(low)} to {format_percent(high)})"


def _low_accuracy_text(target: str, predictions: Sequence[PredictionRow]) -> str:
    if 2 * sum(prediction.correct for prediction in predictions) >= len(predictions):
        return ""
    return (
        f"Low accuracy: the network predicts {target} for only {accuracy_text(predictions)} of this class, so these"
        " results explain a class that it rarely recognises here."
    )


def join_names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
