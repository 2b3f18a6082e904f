"""Comparison of the findings of several runs about the same concepts, in sentences."""

from collections.abc import Mapping, Sequence

from vtcav_jax.names import count_noun
from vtcav_jax.report.comparison.differences import ScoreDifference, ScoreKey, ScoreTable
from vtcav_jax.report.effect_sizes import comparison_name, format_range, format_signed, primary_tests
from vtcav_jax.report.run_reader import unique_in_order
from vtcav_jax.report.text.names import join_names
from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.experiment.verdicts import is_finding

SIGN_PHRASES = {"+": "raises", "-": "lowers", "±": "raises at one stage and lowers at another"}


def comparison_answers(
    labels: Sequence[str],
    tables: Sequence[ScoreTable],
    common_keys: Sequence[ScoreKey],
    differences: Sequence[ScoreDifference],
) -> list[tuple[str, str]]:
    """Return a headline and details for each class and concept, and a line for those without a finding in any run."""
    sentences, silent = [], []
    for target, concept in unique_in_order([(k.target, k.concept) for k in common_keys]):
        keys = [k for k in common_keys if (k.target, k.concept) == (target, concept)]
        signs = [_found_sign(primary_tests([table[k] for k in keys])[1]) for table in tables]
        motion_found = [any(is_finding(table[k]) for k in keys if table[k].comparison == "motion") for table in tables]
        elsewhere = _other_findings(keys, tables)
        if not any(signs) and not any(motion_found) and not elsewhere:
            silent.append(f"{concept} for {target}")
            continue
        subset = [
            difference
            for difference in differences
            if (difference.key.target, difference.key.concept) == (target, concept)
        ]
        sentences.append(
            (
                f"{concept} for {target}:",
                f"{_describe_effect(labels, signs)}{_describe_elsewhere(labels, elsewhere)};"
                f" {_describe_motion(labels, motion_found)};"
                f" {_describe_certainty(subset)}.",
            )
        )
    if silent:
        sentences.append(("No significant effect in any test that all runs have:", f"{join_names(silent)}."))
    return sentences


def _found_sign(rows: Sequence[ScoreRow]) -> str:
    """Return the sign of the significant tests, "±" if both occur, or an empty string."""
    signs = {row.derivative > 0 for row in rows if is_finding(row)}
    return "" if not signs else "±" if len(signs) > 1 else "+" if signs == {True} else "-"


def _other_findings(keys: Sequence[ScoreKey], tables: Sequence[ScoreTable]) -> dict[str, list[int]]:
    """Return other negatives than the primary ones that a finding is compared with, and the numbers of the runs."""
    run_numbers: dict[str, list[int]] = {}
    for i, table in enumerate(tables):
        primary, _ = primary_tests([table[k] for k in keys])
        rows = [table[k] for k in keys if table[k].negatives != primary and table[k].comparison != "motion"]
        for negatives in unique_in_order([row.negatives for row in rows if is_finding(row)]):
            run_numbers.setdefault(negatives, []).append(i)
    return run_numbers


def _describe_elsewhere(labels: Sequence[str], run_numbers: Mapping[str, Sequence[int]]) -> str:
    return "".join(
        f"; compared with {negatives}, a significant effect in"
        f" {_all_runs(len(labels)) if len(runs) == len(labels) else join_names([labels[i] for i in runs])}"
        for negatives, runs in run_numbers.items()
    )


def _describe_effect(labels: Sequence[str], signs: Sequence[str]) -> str:
    if not any(signs):
        return "no significant effect compared with the random clips (or other concepts) in any run"
    if len(set(signs)) == 1:
        return f"it {SIGN_PHRASES[signs[0]]} the score in {_all_runs(len(labels))}"
    parts = [
        f"it {SIGN_PHRASES[sign]} the score in"
        f" {join_names([name for name, run_sign in zip(labels, signs) if run_sign == sign])}"
        for sign in unique_in_order([sign for sign in signs if sign])
    ]
    if without := [name for name, run_sign in zip(labels, signs) if not run_sign]:
        parts.append(f"no significant effect in {join_names(without)}")
    return ", ".join(parts)


def _describe_motion(labels: Sequence[str], motion_found: Sequence[bool]) -> str:
    names_with_motion = [name for name, is_moved in zip(labels, motion_found) if is_moved]
    if not names_with_motion:
        return "no significant contribution of its motion in any run"
    if len(names_with_motion) == len(labels):
        return f"significant contribution of its motion in {_all_runs(len(labels))}"
    return f"significant contribution of its motion in {join_names(names_with_motion)} only"


def _all_runs(n: int) -> str:
    return "both runs" if n == 2 else f"all {n} runs"


def _describe_certainty(differences: Sequence[ScoreDifference]) -> str:
    differences = [difference for difference in differences if not difference.inconclusive_verdict]
    if not differences:
        return "differences between the runs are inconclusive, because no test is conclusive in both"
    significant = sorted(
        (difference for difference in differences if difference.significant),
        key=lambda difference: -abs(difference.value),
    )
    if not significant:
        return f"no significant difference between runs in {count_noun(len(differences), 'comparison')}"
    difference = significant[0]
    return (
        f"{len(significant)} of {len(differences)} differences between runs have a 95 % interval without 0; the"
        f" largest, in shares of gradient, is {difference.left_name} − {difference.right_name} ="
        f" {format_signed(difference.value)} ({format_range(difference.low, difference.high)}) for"
        f" {comparison_name(difference.key.clip_type, difference.key.negatives)} at {difference.key.stage}"
    )
