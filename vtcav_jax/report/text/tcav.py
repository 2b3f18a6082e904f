"""The answer in words, made of the tables' numbers and of nothing else: what was found, what not, what forbids it."""

from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_jax.report.effect_sizes import effect, p_value, percent, plain, with_interval
from vtcav_jax.report.run_reader import RunFolder, unique
from vtcav_jax.stats.intervals import wilson
from vtcav_jax.tcav.experiment.verdicts import Row, found
from vtcav_jax.tcav.previews import Prediction

VERDICTS = {
    "supports": "the concept raises the class score, surely enough after correction",
    "opposes": "the concept lowers the class score, surely enough after correction",
    "motion: +": "the motion in the clips raises the class score: more than in copies of them that only lack it",
    "motion: -": "the motion in the clips lowers the class score: more than in copies of them that only lack it",
    "not significant": "no more than exchanging labels gives by chance, after correction; no proof of no effect",
    "not encoded": "the stage does not tell these clips from those they stand against, so a direction between them is"
    " noise, and its score means nothing whatever its p-value",
    "degenerate stage": "every clip has the same gradient here, as where only a linear map follows: sign counts can"
    " only be 0 or 1 and the number of clips proves nothing; the numbers are shown, and no conclusion is drawn",
    "sign not certain": "more than chance makes of these clips, but other clips of the same kind could turn it round",
    "family too small": "there are too few clips or permutations for any result to pass the correction",
    "no derivative": "the derivative is rounding at every clip",
    "no gradient": "the class score does not depend on this stage at any clip",
    "no vector": "no direction could be trained: the clips of both sides look the same here",
}
LITTLE = 0.25  # of the largest effect
WHY_NOT = ("degenerate stage", "not encoded", "family too small", "no derivative", "no gradient", "no vector")


@dataclass(frozen=True)
class Answer:
    """Of one class: what each concept does, a sentence and what goes with it, strongest first; then those of which
    nothing is shown."""

    target: str
    found: tuple[tuple[str, str], ...]
    nothing: str


def answers(run: RunFolder) -> list[Answer]:
    statistic = run.asked.get("statistic", "step")
    out = []
    for target in unique([row.target for row in run.rows]):
        some = [row for row in run.rows if row.target == target]
        told, silent = {}, []
        for concept in unique([row.concept for row in some]):
            rows = [row for row in some if row.concept == concept]
            if any(map(found, rows)):
                told[concept] = largest(rows, statistic), about(rows, statistic)
            else:
                silent.append(concept)
        ordered = sorted(told.items(), key=lambda item: (not item[1][0], -item[1][0]))
        sentences = []
        for _, (size, (lead, *rest)) in ordered:
            first, most = ordered[0][0], ordered[0][1][0]
            if 0 < size < LITTLE * most:
                rest.insert(0, f"That is little: {percent(size / most)} of what {first} does.")
            sentences.append((lead, " ".join(rest)))
        out.append(Answer(target, tuple(sentences), _nothing(some, silent, bool(told))))
    return out


def largest(rows: Sequence[Row], statistic: str) -> float:
    """Of the effects that were found of the concept by itself, not against its copies; 0 if there is none."""
    return max((abs(effect(row, statistic).value) for row in plain(rows)[1] if found(row)), default=0.0)


def _nothing(rows: Sequence[Row], silent: Sequence[str], others: bool) -> str:
    if not silent:
        return ""
    own = [row for row in rows if row.concept in silent]
    p = min((row.p_adjusted for row in own if row.verdict == "not significant"), default=1.0)
    blocked = [row.verdict for row in own if row.verdict != "not significant"]
    why = f"; {len(blocked)} of their tests could not tell ({', '.join(unique(blocked))})" if blocked else ""
    what = (
        f"No effect of {listed(silent)} is shown" if others else f"No effect of any concept ({listed(silent)}) is shown"
    )
    return f"{what}: smallest adjusted p {p_value(p)}{why}."


def about(rows: Sequence[Row], statistic: str) -> list[str]:
    """One class and concept of which something was found: sentences."""
    target, concept = rows[0].target, rows[0].concept
    against, some = plain(rows)
    kinds = unique([row.kind for row in some])
    best = {kind: row for kind in kinds if (row := _strongest([row for row in some if row.kind == kind]))}
    told = []
    if row := _strongest(list(best.values())):
        sign = row.derivative > 0
        same = {kind for kind, other in best.items() if (other.derivative > 0) == sign}
        manner = {"static": " as a still picture", "dynamic": " where it moves"}.get("".join(same), "")
        manner = ", still or moving" if same == {"static", "dynamic"} else manner
        told.append(
            f"{target} is {'raised' if sign else 'lowered'} by {concept}{manner}: at {row.stage} the step from"
            f" {_clips(against)} to clips of it is worth {_worth(row, statistic)}, adjusted p"
            f" {p_value(row.p_adjusted)}; {percent(max(row.score, 1 - row.score))} of {row.n_targets} clips agree."
        )
        if turned := [other for other in some if found(other) and (other.derivative > 0) != sign]:
            places = listed(unique([f"{other.stage} ({other.kind})" for other in turned]))
            told.append(f"The sign is the other way at {places}.")
        told += [_missing(kind, [row for row in some if row.kind == kind]) for kind in kinds if kind not in best]
    told += _motion(target, concept, [row for row in rows if row.test == "motion"], statistic, bool(best))
    others = _strongest([row for row in rows if row.test != "motion" and row.against != against])
    if others and not best:
        does = "raises" if others.derivative > 0 else "lowers"
        told.append(
            f"{target}: {concept} ({others.kind}) {does} the score against {others.against} at {others.stage}, by"
            f" {_worth(others, statistic)}, adjusted p {p_value(others.p_adjusted)}."
        )
    return told


def _missing(kind: str, rows: Sequence[Row]) -> str:
    what = {"static": "As a still picture", "dynamic": "Moving"}.get(kind, f"As {kind} clips")
    usable = [row for row in rows if row.verdict != "degenerate stage"]
    if usable and all(row.verdict == "not encoded" for row in usable):
        return f"{what} it is not even told from the other clips."
    return f"{what} it shows no effect."


def _motion(target: str, concept: str, rows: Sequence[Row], statistic: str, known: bool) -> list[str]:
    """Moving clips against copies of themselves; `known` if the concept is the sentence's subject already."""
    strong = [row for row in rows if found(row)]
    if not strong:
        if not rows or not known:
            return []
        if all(row.verdict in WHY_NOT for row in rows):
            return ["Whether its motion matters cannot be told here."]
        return [f"Copies of it that only lack the motion ({_controls(rows)}) do as much, as far as can be told."]
    told = []
    for control in unique([row.against for row in strong]):
        row = _strongest([row for row in strong if row.against == control])
        assert row is not None
        told.append(f"{control} {with_interval(effect(row, statistic))} at {row.stage}")
    begin = "Its moving clips" if known else f"{target}: moving clips of {concept}"
    less = [control for control in unique([row.against for row in rows]) if control not in {r.against for r in strong}]
    but = f"; no difference is shown to {listed(less)}" if less else ""
    return [f"{begin} differ from copies of themselves that lack the motion: from {listed(told)}{but}."]


def _controls(rows: Sequence[Row]) -> str:
    return listed(unique([row.against for row in rows]))


def _strongest(rows: Sequence[Row]) -> Row | None:
    return min(filter(found, rows), key=lambda row: (row.p_adjusted, -abs(row.share)), default=None)


def _clips(against: str) -> str:
    return "clips of the other concepts" if against == "others" else f"{against} clips"


def _worth(row: Row, statistic: str) -> str:
    what = {"logit": "logits", "log_prob": "of log probability", "margin": "of margin"}.get(
        row.target_fn, row.target_fn
    )
    length = "" if statistic == "step" else " a unit length"
    value, _, interval = with_interval(effect(row, statistic)).partition(" ")
    return f"{value} {what}{length} {interval}".rstrip()


def trust(run: RunFolder) -> list[str]:
    """What speaks for and against believing the table."""
    told, family = [], run.about.get("family", {})
    if family:
        told.append(
            f"All {family['tests']} tests are one family: p-values are corrected for it ({family['correction']}), and a"
            f" finding needs an adjusted p of at most {family['alpha']:g}; {sum(map(found, run.rows))} have it."
        )
    together = max(1, len({(row.target, row.stage) for row in run.rows}))
    for one in run.about.get("self_check", ()):
        alpha = family.get("alpha", 0.05)
        sets = max(1, round(one["trials"] / together))
        low, high = wilson(round(one["rate"] * sets), sets)
        what = "random sets" if one["sets"] == "sets" else "sets drawn out of the random clips"
        verdict = (
            "as it should be"
            if low <= alpha <= high
            else "more than it should: clips of one set may be alike, and p-values here promise too much"
            if low > alpha
            else "less than allowed: the tests are careful"
        )
        told.append(
            f"Of {one['trials']} tests of what is no concept ({what}, {one['kind']}) {one['found']} had p at most"
            f" {alpha:g}: {percent(one['rate'])} ({percent(low)} to {percent(high)}, as of {sets} sets, since the tests"
            f" of a set go together), {verdict}."
        )
    for verdict in WHY_NOT:
        if rows := [row for row in run.rows if row.verdict == verdict]:
            places = unique([row.stage for row in rows])
            told.append(f"{len(rows)} tests: {verdict} (at {listed(places)}): {VERDICTS[verdict]}.")
    return told + cautions(run)


def cautions(run: RunFolder) -> list[str]:
    told = []
    if run.asked.get("protocol") == "paper":
        told.append(
            "paper.csv holds the tests as they were published; their runs share concept clips and are not independent,"
            " so those p-values are too small."
        )
    told += [sentence for target, some in by_target(run.predictions).items() if (sentence := _unseen(target, some))]
    told += [f"Note: {note}." for note in run.about.get("notes", ())]
    if failed := {**run.about.get("failed", {}), **run.about.get("unreadable", {})}:
        told.append(f"{len(failed)} clips could not be read and are left out: {listed(list(failed)[:5])}.")
    return told


def by_target(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    out: dict[str, list[Prediction]] = {}
    for one in predictions:
        out.setdefault(one.target, []).append(one)
    return out


def accuracy(some: Sequence[Prediction]) -> str:
    right = sum(one.right for one in some)
    low, high = wilson(right, len(some))
    return f"{right} of {len(some)} clips ({percent(low)} to {percent(high)})"


def _unseen(target: str, some: Sequence[Prediction]) -> str:
    if 2 * sum(one.right for one in some) >= len(some):
        return ""
    return (
        f"The network answers {target} on only {accuracy(some)}: these scores are of a class that it seldom sees here."
    )


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
