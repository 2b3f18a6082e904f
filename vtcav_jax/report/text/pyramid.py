"""A pyramid in sentences: what the target hangs on, whether that matters, and what of it does not hold."""

import math
from collections.abc import Sequence

from vtcav_jax.pyramid.tables import AblationRow, AlignedRow, EdgeRow, NodeRow, Told
from vtcav_jax.report.effect_sizes import number, p_value, percent, signed, span
from vtcav_jax.report.run_reader import RunFolder, unique

SURE = 0.05  # of p
NAMED = 4  # kernels of a stage that the words name
AGREE, STABLE = 0.5, 0.8  # overlaps from which clips are said to agree, and kernels to stay
CHOSEN = {
    "mass": "of each level the fewest that have {} of all that speaks for it",
    "threshold": "of each level those of at least {} of the greatest share",
    "top": "of each level the {} with the greatest shares",
}


def told(run: RunFolder, facts: Told) -> list[tuple[str, str]]:
    """What leads a point, and the rest of it."""
    kernels = [row for row in run.kernels if row.target == facts.target]
    ablations = [row for row in run.ablations if row.target == facts.target]
    found = len({row.level for row in kernels})
    points = [
        (
            f"{counted(len(kernels), 'kernel')} at {counted(found, 'level')}:",
            f"{facts.target} hangs on them in {counted(len(facts.score), 'clip')}, score "
            f"{signed(sum(facts.score) / len(facts.score), 3)} on average. Chosen were {chosen(facts)}.",
        )
    ]
    for stage in (stage for level in facts.levels for stage in level):
        own = [row for row in kernels if row.stage == stage]
        if own:
            points.append(_stage(stage, own, [row for row in ablations if row.stage == stage], len(facts.ablated)))
    points += [("From clip to clip:", agreement(facts)), ("Under noise:", under_noise(facts))]
    if run.aligned:
        points.append(("Concepts:", concepts([row for row in run.aligned if row.target == facts.target], kernels)))
    doubts = _doubts(facts, kernels, [row for row in run.edges if row.target == facts.target], ablations)
    return [*points, ("What does not hold:", " ".join(doubts))] if doubts else points


def chosen(facts: Told) -> str:
    by, value = str(facts.selection["by"]), float(facts.selection["value"])
    how = CHOSEN[by].format(f"{value:g}" if by == "top" else percent(value))
    return f"{how}, at most {facts.selection['most']}"


def matters(row: AblationRow) -> bool:
    """Whether the score falls without these kernels, and by more than by chance without as many others."""
    return row.p <= SURE and row.drop_low > 0


def _stage(stage: str, own: Sequence[NodeRow], ablations: Sequence[AblationRow], clips: int) -> tuple[str, str]:
    """The last of its ablations is that of all its kernels."""
    named = ", ".join(f"#{row.channel} {part(row.relevance)}" for row in own[:NAMED])
    named += f" and {len(own) - NAMED} more" if len(own) > NAMED else ""
    if not ablations:
        return f"At {stage}, not ablated:", f"{named}."
    last = ablations[-1]
    lead = f"At {stage} they matter:" if matters(last) else f"At {stage} they are not shown to matter:"
    rest = (
        f"without its {counted(last.kernels, 'kernel')} of {last.channels} the score of {counted(clips, 'clip')} falls"
        f" by {number(last.drop)} ({span(last.drop_low, last.drop_high)}), without as many drawn from the whole stage"
        f" by {number(last.random_drop)} ({span(last.random_low, last.random_high)}); p {p_value(last.p)}."
        f" They are {named}."
    )
    return lead, rest


def agreement(facts: Told) -> str:
    """Whether clips by themselves would choose the same."""
    each = ", ".join(f"{percent(one)} at {stages(level)}" for level, one in zip(facts.levels, facts.stability))
    known = [one for one in facts.stability if not math.isnan(one)]
    if not known:
        return "of one clip nothing can be said."
    says = (
        "clips agree well, so that the kernels stand for each of them."
        if min(known) >= AGREE
        else "clips by themselves would choose others: the kernels are those of the class, not of any one clip."
    )
    return f"what two clips by themselves would choose overlaps by {each}; {says}"


def under_noise(facts: Told) -> str:
    means = [_mean(level) for level in facts.under_noise]
    each = ", ".join(f"{percent(one)} at {stages(level)}" for level, one in zip(facts.levels, means))
    known = [one for one in means if not math.isnan(one)]
    if not known:
        return "nothing was chosen that could change."
    stay = "stay" if min(known) >= STABLE else "do not all stay"
    return f"the kernels {stay} the same when noise is laid over the clips (overlap {each})."


def concepts(rows: Sequence[AlignedRow], kernels: Sequence[NodeRow]) -> str:
    """Which kernels are what concept vectors have most of; those vectors alone that tell their clips apart."""
    weak = {row.number for row in kernels if row.excess < 0}
    first = sorted((row for row in rows if row.rank == 1 and encoded(row)), key=lambda row: -abs(row.weight))
    each = {row.number: row for row in reversed(first)}  # of a kernel its greatest
    told = [
        f"{row.stage} #{row.channel} ({'weaker' if row.number in weak else 'stronger'} here) is the greatest entry of"
        f" {vector(row)}, {signed(row.weight)}"
        for row in sorted(each.values(), key=lambda row: -abs(row.weight))[:NAMED]
    ]
    if not told:
        return "no kernel here is the greatest entry of a concept vector that tells its clips apart."
    return f"{'; '.join(told)}."


def encoded(row: AlignedRow) -> bool:
    return not (row.auc_p > SURE or row.auc <= 0.5)


def vector(row: AlignedRow) -> str:
    return f"{row.concept} ({row.kind}) against {row.against}"


def nth(rank: int) -> str:
    return f"{rank}{'th' if 10 < rank % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(rank % 10, 'th')}"


def activity(excess: float, compared: int) -> str:
    if not compared:
        return f"{number(excess)} on average"
    what = "the clips that it is compared with"
    return f"{'weaker' if excess < 0 else 'stronger'} than in {what}, by {number(abs(excess))} on average"


def _doubts(
    facts: Told, kernels: Sequence[NodeRow], edges: Sequence[EdgeRow], ablations: Sequence[AblationRow]
) -> list[str]:
    out = []
    for stage in unique([row.stage for row in ablations]):
        rows = [row for row in ablations if row.stage == stage]
        if not matters(rows[-1]):
            out.append(f"That {stage} hangs on its kernels more than on others.")
        elif weak := [f"{row.kernels}" for row in rows[:-1] if not matters(row)]:
            listed = " or ".join(filter(None, (", ".join(weak[:-1]), weak[-1])))
            out.append(f"At {stage} taking out only the first {listed} is not shown to do more than chance.")
    if facts.levels and (missing := len(facts.levels) - len({row.level for row in kernels})):
        out.append(f"{counted(missing, 'level')} asked for but without a kernel that speaks for it.")
    if unsure := sum(row.relevance_low <= 0 for row in kernels):
        out.append(f"{unsure} of {len(kernels)} kernels have a share whose interval holds 0.")
    between = [row for row in edges if row.parent >= 0]
    if unsure := sum(row.share_low <= 0 <= row.share_high for row in between):
        out.append(f"{unsure} of {len(between)} edges between kernels have an interval that holds 0 (dashed).")
    if loose := [row for row in kernels if abs(row.rest) > 0.2]:
        out.append(
            f"Of {counted(len(loose), 'kernel')} more than 20 % comes through no channel of the next level (biases,"
            " ways around, what is not linear)."
        )
    if facts.same_clips:
        out.append("Too few clips to ablate others than those that the pyramid was made of: expect too much.")
    if not facts.compared:
        out.append(
            "Too few clips to compare these with others: activity counts from 0, and what is the same in every clip"
            " counts too."
        )
    if facts.edges_by == "paper":
        out.append("Edges are mean kernel times mean activation, as in 2019: no share of any response.")
    return out


def stages(level: Sequence[str]) -> str:
    return " + ".join(level)


def counted(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def part(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A share with its interval; small ones keep two digits."""
    if math.isnan(value):
        return "not known"
    interval = "" if math.isnan(low) else f" ({_digits(low)} to {_digits(high)} %)"
    return f"{_digits(value)} %{interval}"


def _digits(value: float) -> str:
    value *= 100
    told = f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.2g}" if abs(value) >= 0.01 else "0"
    return told.replace("-", "−")


def _mean(some: Sequence[float]) -> float:
    known = [one for one in some if not math.isnan(one)]
    return sum(known) / len(known) if known else math.nan
