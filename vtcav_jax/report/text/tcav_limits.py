"""Limits of the results of a Video-TCAV run: correction, calibration, inconclusive tests, accuracy, unread clips."""

from collections.abc import Sequence

from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import format_percent
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.text.names import join_names
from vtcav_jax.report.text.tcav_verdicts import INCONCLUSIVE_VERDICTS, UNCERTAIN, VERDICT_TEXTS
from vtcav_jax.runs.tcav_rows import PredictionRow, ScoreRow
from vtcav_jax.stats.intervals import wilson_ci
from vtcav_jax.tcav.experiment.verdicts import is_finding

CORRECTION_NAMES = {
    "holm": "Holm, family-wise error rate",
    "bonferroni": "Bonferroni, family-wise error rate",
    "bh": "Benjamini-Hochberg, false discovery rate",
}


def trust_notes(run: RunFolder) -> list[str]:
    """State the correction for multiple tests, the calibration check, inconclusive tests and cautions."""
    notes, family = [], run.content.get("family", {})
    if family:
        n_permutations = family.get("permutations")
        notes.append(
            f"Multiple tests: p-values are corrected for all {count_noun(family['tests'], 'test')} of this run"
            f" ({CORRECTION_NAMES.get(family['correction'], family['correction'])}). A finding needs an adjusted p of"
            f" at most {family['alpha']:g}; {sum(map(is_finding, run.score_rows))} of them are findings."
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
            f" {count_noun(calibration['n_trials'], 'test')}, and {calibration['n_rejected']} had an unadjusted p of"
            " at most"
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
        for target, predictions in predictions_by_target(run).items()
        if (sentence := _low_accuracy_text(target, predictions))
    ]
    notes += [f"Note: {note}." for note in run.content.get("notes", ())]
    if failed := {**run.content.get("failed", {}), **run.content.get("unreadable", {})}:
        examples = join_names(list(failed)[:5])
        notes.append(f"{count_noun(len(failed), 'clip')} could not be read and were excluded, such as {examples}.")
    return notes


def predictions_by_target(run: RunFolder) -> dict[str, list[PredictionRow]]:
    """Return the predictions of the clips of each class, without classes of which the clips have no labels."""
    unlabelled = run.content.get("unlabelled_targets", ())
    out: dict[str, list[PredictionRow]] = {}
    for prediction in run.prediction_rows:
        if prediction.target not in unlabelled:
            out.setdefault(prediction.target, []).append(prediction)
    return out


def accuracy_text(predictions: Sequence[PredictionRow]) -> str:
    """Return the number of correct predictions with the Wilson interval of their share over clips."""
    n_correct = sum(prediction.correct for prediction in predictions)
    low, high = wilson_ci(n_correct, len(predictions))
    clips = count_noun(len(predictions), "clip")
    return f"{n_correct} of {clips} (95 % CI {format_percent(low)} to {format_percent(high)})"


def _low_accuracy_text(target: str, predictions: Sequence[PredictionRow]) -> str:
    if 2 * sum(prediction.correct for prediction in predictions) >= len(predictions):
        return ""
    return (
        f"Low accuracy: the network predicts {target} for only {accuracy_text(predictions)} of this class, so these"
        " results explain a class that it rarely recognises here."
    )
