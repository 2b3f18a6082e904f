"""The answer in words, made of the tables' numbers and of nothing else: what was found, what not, what forbids it."""

from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_jax.report.effect_sizes import effect_size, format_effect, format_p, format_percent, primary_tests
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.runs.tcav_rows import PredictionRow, ScoreRow
from vtcav_jax.stats.intervals import wilson_ci
from vtcav_jax.tcav.experiment.verdicts import is_finding

VERDICT_TEXTS = {
    "supports": "the concept raises the class score, surely enough after correction",
    "opposes": "the concept lowers the class score, surely enough after correction",
    "motion_supports": "the motion in the clips raises the class score: more than in copies of them that only lack it",
    "motion_opposes": "the motion in the clips lowers the class score: more than in copies of them that only lack it",
    "not significant": "no more than exchanging labels gives by chance, after correction; no proof of no effect",
    "not encoded": "the stage does not tell these clips from those they stand against, so a direction between them is"
    " noise, and its score means nothing whatever its p-value",
    "degenerate layer": "every clip has the same gradient here, as where only a linear map follows: sign counts can"
    " only be 0 or 1 and the number of clips proves nothing; the numbers are shown, and no conclusion is drawn",
    "sign uncertain": "more than chance makes of these clips, but other clips of the same kind could turn it round",
    "underpowered": "there are too few clips or permutations for any result to pass the correction",
    "no derivative": "the derivative is rounding at every clip",
    "no gradient": "the class score does not depend on this stage at any clip",
    "no vector": "no direction could be trained: the clips of both sides look the same here",
}
SMALL_SHARE = 0.25  # of the largest effect
INCONCLUSIVE_VERDICTS = (
    "degenerate layer",
    "not encoded",
    "underpowered",
    "no derivative",
    "no gradient",
    "no vector",
)


@dataclass(frozen=True)
class ClassAnswer:
    """Of one class: what each concept does, a sentence and what goes with it, strongest first; then those of which
    nothing is shown."""

    target: str
    findings: tuple[tuple[str, str], ...]
    no_effect_text: str


def class_answers(run: RunFolder) -> list[ClassAnswer]:
    statistic = run.config.get("statistic", "step_effect")
    out = []
    for target in unique_in_order([row.target for row in run.score_rows]):
        class_rows = [row for row in run.score_rows if row.target == target]
        by_concept, silent = {}, []
        for concept in unique_in_order([row.concept for row in class_rows]):
            rows = [row for row in class_rows if row.concept == concept]
            if any(map(is_finding, rows)):
                by_concept[concept] = largest_effect(rows, statistic), describe_concept(rows, statistic)
            else:
                silent.append(concept)
        ordered = sorted(by_concept.items(), key=lambda item: (not item[1][0], -item[1][0]))
        sentences = []
        for _, (size, (lead, *details)) in ordered:
            first, largest_size = ordered[0][0], ordered[0][1][0]
            if 0 < size < SMALL_SHARE * largest_size:
                details.insert(0, f"That is little: {format_percent(size / largest_size)} of what {first} does.")
            sentences.append((lead, " ".join(details)))
        out.append(ClassAnswer(target, tuple(sentences), _no_effect_text(class_rows, silent, bool(by_concept))))
    return out


def largest_effect(rows: Sequence[ScoreRow], statistic: str) -> float:
    """Of the effects that were found of the concept by itself, not against its copies; 0 if there is none."""
    return max(
        (abs(effect_size(row, statistic).value) for row in primary_tests(rows)[1] if is_finding(row)), default=0.0
    )


def _no_effect_text(rows: Sequence[ScoreRow], silent: Sequence[str], any_found: bool) -> str:
    if not silent:
        return ""
    subset = [row for row in rows if row.concept in silent]
    p = min((row.p_adjusted for row in subset if row.verdict == "not significant"), default=1.0)
    blocked = [row.verdict for row in subset if row.verdict != "not significant"]
    why = f"; {len(blocked)} of their tests could not tell ({', '.join(unique_in_order(blocked))})" if blocked else ""
    lead = (
        f"No effect of {join_names(silent)} is shown"
        if any_found
        else f"No effect of any concept ({join_names(silent)}) is shown"
    )
    return f"{lead}: smallest adjusted p {format_p(p)}{why}."


def describe_concept(rows: Sequence[ScoreRow], statistic: str) -> list[str]:
    """One class and concept of which something was found: sentences."""
    target, concept = rows[0].target, rows[0].concept
    negatives, primary = primary_tests(rows)
    clip_types = unique_in_order([row.clip_type for row in primary])
    best = {
        clip_type: row
        for clip_type in clip_types
        if (row := _strongest_finding([row for row in primary if row.clip_type == clip_type]))
    }
    sentences = []
    if row := _strongest_finding(list(best.values())):
        positive = row.derivative > 0
        same = {clip_type for clip_type, other in best.items() if (other.derivative > 0) == positive}
        manner = {"static": " as a still picture", "dynamic": " where it moves"}.get("".join(same), "")
        manner = ", still or moving" if same == {"static", "dynamic"} else manner
        sentences.append(
            f"{target} is {'raised' if positive else 'lowered'} by {concept}{manner}: at {row.stage} the step from"
            f" {_negatives_phrase(negatives)} to clips of it is worth {_format_worth(row, statistic)}, adjusted p"
            f" {format_p(row.p_adjusted)}; {format_percent(max(row.tcav_score, 1 - row.tcav_score))} of"
            f" {row.n_clips} clips agree."
        )
        if reversed_rows := [other for other in primary if is_finding(other) and (other.derivative > 0) != positive]:
            places = join_names(unique_in_order([f"{other.stage} ({other.clip_type})" for other in reversed_rows]))
            sentences.append(f"The sign is the other way at {places}.")
        sentences += [
            _missing_text(clip_type, [row for row in primary if row.clip_type == clip_type])
            for clip_type in clip_types
            if clip_type not in best
        ]
    sentences += _motion_sentences(
        target, concept, [row for row in rows if row.comparison == "motion"], statistic, bool(best)
    )
    strongest_other = _strongest_finding(
        [row for row in rows if row.comparison != "motion" and row.negatives != negatives]
    )
    if strongest_other and not best:
        does = "raises" if strongest_other.derivative > 0 else "lowers"
        sentences.append(
            f"{target}: {concept} ({strongest_other.clip_type}) {does} the score against"
            f" {strongest_other.negatives} at {strongest_other.stage}, by"
            f" {_format_worth(strongest_other, statistic)}, adjusted p {format_p(strongest_other.p_adjusted)}."
        )
    return sentences


def _missing_text(clip_type: str, rows: Sequence[ScoreRow]) -> str:
    lead = {"static": "As a still picture", "dynamic": "Moving"}.get(clip_type, f"As {clip_type} clips")
    usable = [row for row in rows if row.verdict != "degenerate layer"]
    if usable and all(row.verdict == "not encoded" for row in usable):
        return f"{lead} it is not even told from the other clips."
    return f"{lead} it shows no effect."


def _motion_sentences(
    target: str, concept: str, rows: Sequence[ScoreRow], statistic: str, is_subject: bool
) -> list[str]:
    """Moving clips against copies of themselves; `known` if the concept is the sentence's subject already."""
    findings = [row for row in rows if is_finding(row)]
    if not findings:
        if not rows or not is_subject:
            return []
        if all(row.verdict in INCONCLUSIVE_VERDICTS for row in rows):
            return ["Whether its motion matters cannot be told here."]
        return [f"Copies of it that only lack the motion ({_control_names(rows)}) do as much, as far as can be told."]
    parts = []
    for control in unique_in_order([row.negatives for row in findings]):
        row = _strongest_finding([row for row in findings if row.negatives == control])
        assert row is not None
        parts.append(f"{control} {format_effect(effect_size(row, statistic))} at {row.stage}")
    begin = "Its moving clips" if is_subject else f"{target}: moving clips of {concept}"
    undecided = [
        control
        for control in unique_in_order([row.negatives for row in rows])
        if control not in {r.negatives for r in findings}
    ]
    suffix = f"; no difference is shown to {join_names(undecided)}" if undecided else ""
    return [f"{begin} differ from copies of themselves that lack the motion: from {join_names(parts)}{suffix}."]


def _control_names(rows: Sequence[ScoreRow]) -> str:
    return join_names(unique_in_order([row.negatives for row in rows]))


def _strongest_finding(rows: Sequence[ScoreRow]) -> ScoreRow | None:
    return min(filter(is_finding, rows), key=lambda row: (row.p_adjusted, -abs(row.relative_derivative)), default=None)


def _negatives_phrase(negatives: str) -> str:
    return "clips of the other concepts" if negatives == "others" else f"{negatives} clips"


def _format_worth(row: ScoreRow, statistic: str) -> str:
    unit = {"logit": "logits", "log_prob": "of log probability", "margin": "of margin"}.get(row.score_fn, row.score_fn)
    length = "" if statistic == "step_effect" else " a unit length"
    value, _, interval = format_effect(effect_size(row, statistic)).partition(" ")
    return f"{value} {unit}{length} {interval}".rstrip()


def trust_notes(run: RunFolder) -> list[str]:
    """What speaks for and against believing the table."""
    notes, family = [], run.content.get("family", {})
    if family:
        notes.append(
            f"All {family['tests']} tests are one family: p-values are corrected for it ({family['correction']}), and a"
            f" finding needs an adjusted p of at most {family['alpha']:g}; {sum(map(is_finding, run.score_rows))}"
            f" have it."
        )
    tests_per_set = max(1, len({(row.target, row.stage) for row in run.score_rows}))
    for calibration in run.content.get("calibration", ()):
        alpha = family.get("alpha", 0.05)
        sets = max(1, round(calibration["n_trials"] / tests_per_set))
        low, high = wilson_ci(round(calibration["rate"] * sets), sets)
        set_text = "random sets" if calibration["set_origin"] == "sets" else "sets drawn out of the random clips"
        verdict = (
            "as it should be"
            if low <= alpha <= high
            else "more than it should: clips of one set may be alike, and p-values here promise too much"
            if low > alpha
            else "less than allowed: the tests are careful"
        )
        notes.append(
            f"Of {calibration['n_trials']} tests of what is no concept ({set_text}, {calibration['clip_type']})"
            f" {calibration['n_rejected']} had p at most"
            f" {alpha:g}: {format_percent(calibration['rate'])} ({format_percent(low)} to {format_percent(high)},"
            f" as of {sets} sets, since the tests"
            f" of a set go together), {verdict}."
        )
    for verdict in INCONCLUSIVE_VERDICTS:
        if rows := [row for row in run.score_rows if row.verdict == verdict]:
            stages = unique_in_order([row.stage for row in rows])
            notes.append(f"{len(rows)} tests: {verdict} (at {join_names(stages)}): {VERDICT_TEXTS[verdict]}.")
    return notes + caution_notes(run)


def caution_notes(run: RunFolder) -> list[str]:
    notes = []
    if run.config.get("protocol") == "saha2024":
        notes.append(
            "saha2024.csv holds the tests as they were published; their runs share concept clips and are not"
            " independent,"
            " so those p-values are too small."
        )
    notes += [
        sentence
        for target, predictions in predictions_by_target(run.prediction_rows).items()
        if (sentence := _low_accuracy_text(target, predictions))
    ]
    notes += [f"Note: {note}." for note in run.content.get("notes", ())]
    if failed := {**run.content.get("failed", {}), **run.content.get("unreadable", {})}:
        notes.append(f"{len(failed)} clips could not be read and are left out: {join_names(list(failed)[:5])}.")
    return notes


def predictions_by_target(predictions: Sequence[PredictionRow]) -> dict[str, list[PredictionRow]]:
    out: dict[str, list[PredictionRow]] = {}
    for prediction in predictions:
        out.setdefault(prediction.target, []).append(prediction)
    return out


def accuracy_text(predictions: Sequence[PredictionRow]) -> str:
    n_correct = sum(prediction.correct for prediction in predictions)
    low, high = wilson_ci(n_correct, len(predictions))
    return f"{n_correct} of {len(predictions)} clips ({format_percent(low)} to {format_percent(high)})"


def _low_accuracy_text(target: str, predictions: Sequence[PredictionRow]) -> str:
    if 2 * sum(prediction.correct for prediction in predictions) >= len(predictions):
        return ""
    return (
        f"The network answers {target} on only {accuracy_text(predictions)}: these scores are of a class that it seldom"
        " sees here."
    )


def join_names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
