"""What several runs say of the same concepts, in words: where they agree, where not, and how surely."""

from collections.abc import Sequence

from vtcav_jax.report.comparison.differences import Difference, Key, Table
from vtcav_jax.report.effect_sizes import plain, signed, span
from vtcav_jax.report.run_reader import unique
from vtcav_jax.report.text.tcav import listed
from vtcav_jax.tcav.experiment.verdicts import Row, found

SAYS = {"+": "raises", "-": "lowers", "±": "raises at one stage and lowers at another"}


def answers(
    called: Sequence[str], tables: Sequence[Table], common: Sequence[Key], some: Sequence[Difference]
) -> list[tuple[str, str]]:
    """For each class and concept a sentence, and one for those of which no run shows anything."""
    told, silent = [], []
    for target, concept in unique([(k.target, k.concept) for k in common]):
        keys = [k for k in common if (k.target, k.concept) == (target, concept)]
        signs = [_sign(plain([table[k] for k in keys])[1]) for table in tables]
        moves = [any(found(table[k]) for k in keys if table[k].test == "motion") for table in tables]
        if not any(signs) and not any(moves):
            silent.append(f"{concept} for {target}")
            continue
        own = [one for one in some if (one.key.target, one.key.concept) == (target, concept)]
        told.append((f"{target}, {concept}:", f"{_effect(called, signs)}; {_motion(called, moves)}; {_surely(own)}."))
    if silent:
        told.append(("No run shows an effect of", f"{listed(silent)}."))
    return told


def _sign(rows: Sequence[Row]) -> str:
    """Of the tests of a concept by itself in which it was found."""
    signs = {row.derivative > 0 for row in rows if found(row)}
    return "" if not signs else "±" if len(signs) > 1 else "+" if signs == {True} else "-"


def _effect(called: Sequence[str], signs: Sequence[str]) -> str:
    if not any(signs):
        return "no run shows an effect of it by itself"
    if len(set(signs)) == 1:
        return f"it {SAYS[signs[0]]} the score in {_all(len(called))}"
    parts = [
        f"it {SAYS[sign]} the score in {listed([name for name, own in zip(called, signs) if own == sign])}"
        for sign in unique([sign for sign in signs if sign])
    ]
    if without := [name for name, own in zip(called, signs) if not own]:
        parts.append(f"no effect is shown in {listed(without)}")
    return ", ".join(parts)


def _motion(called: Sequence[str], moves: Sequence[bool]) -> str:
    with_it = [name for name, own in zip(called, moves) if own]
    if not with_it:
        return "that its motion matters is shown in none"
    return f"its motion matters in {_all(len(called)) if len(with_it) == len(called) else f'{listed(with_it)} only'}"


def _all(n: int) -> str:
    return "both" if n == 2 else f"all {n}"


def _surely(some: Sequence[Difference]) -> str:
    some = [one for one in some if not one.why_not]
    if not some:
        return "what differs between the runs cannot be told, since no test could tell in both"
    sure = sorted((one for one in some if one.sure), key=lambda one: -abs(one.value))
    if not sure:
        return "no difference between the runs has an interval without 0"
    one = sure[0]
    return (
        f"{len(sure)} of {len(some)} differences have an interval without 0, the largest {signed(one.value)}"
        f" ({span(one.low, one.high)}) of {one.left_name} less {one.right_name} at {one.key.stage},"
        f" {one.key.kind} − {one.key.against}"
    )
