"""What several runs say of motion and of maps, number by number: each run's value with its interval, and differences.

Intervals of differences are put together as in `differences`: as of runs that share no clips.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

from vtcav_jax.attribution.limits import MEASURES
from vtcav_jax.report import map_words, page, share_figures
from vtcav_jax.report.differences import Interval, between
from vtcav_jax.report.drawing import Figure
from vtcav_jax.report.effects import number, percent, signed, span
from vtcav_jax.report.map_sections import SHOWN
from vtcav_jax.report.page import Section
from vtcav_jax.report.run_folder import RunFolder, unique

MOST_TOLD = 12  # sentences
SHARES = {"order": "lost shuffled", "still": "lost frozen", "backwards": "lost reversed"}
SHARES |= {"moving": "changing relevance", "excess": "beyond the frozen clip's"}


class Of(NamedTuple):
    """What makes numbers of different runs the same: whose they are, and which."""

    question: str
    of: str
    what: str


Numbers = dict[Of, Interval]


def motions(run: RunFolder) -> Numbers:
    return {
        Of(row.target, row.answer or "all", text): tuple(getattr(row, name + end) for end in ("", "_low", "_high"))
        for row in run.motion_classes
        for name, text in SHARES.items()
    }


def maps(run: RunFolder) -> Numbers:
    out = {}
    for key in unique([map_words.key(row) for row in run.maps]):
        rows = [row for row in run.maps if map_words.key(row) == key]
        target, made = key[0], f"{key[1]} at {key[2]}"
        out[Of(target, made, "time of half")] = map_words.half(rows)
        out[Of(target, made, "place of half")] = map_words.places(rows)
        measured = {one.measure: one for one in run.limits if map_words.key(one) == key}
        for one in (measured[name] for name in MEASURES if name in measured):
            out[Of(target, made, SHOWN[one.measure])] = (one.mean, one.low, one.high)
    return {of: each for of, each in out.items() if not math.isnan(each[0])}


def motion(runs: Sequence[RunFolder], called: Sequence[str]) -> list[Section]:
    """How much of each decision is motion, in each of the runs."""
    text = (
        "Lost: what goes of the score when frames are shuffled, the clip stands still, or runs backwards; the last two"
        " are of the map that the run made."
    )
    drawn = [
        share_figures.side_by_side(
            target, called, [[r for r in run.motion_classes if r.target == target] for run in runs]
        )
        for target in unique([row.target for row in runs[0].motion_classes])
        if all(any(row.target == target for row in run.motion_classes) for run in runs)
    ]
    return _sections("motion", "How much is motion", text, motions, "lost shuffled", runs, called, drawn)


def looks(runs: Sequence[RunFolder], called: Sequence[str]) -> list[Section]:
    """Where and when maps lie, in each of the runs."""
    text = (
        "Time of half: the part of the clip in which half of the map lies; place of half: the part of a frame that has"
        " half of what lies in it; 50 % is spread evenly. The others are what --limits measured, where both runs did."
    )
    return _sections("maps", "Where and when", text, maps, "time of half", runs, called, [])


def _sections(
    name: str,
    title: str,
    about: str,
    read: Callable[[RunFolder], Numbers],
    told: str,
    runs: Sequence[RunFolder],
    called: Sequence[str],
    drawn: Sequence[Figure],
) -> list[Section]:
    tables = [read(run) for run in runs]
    common = [of for of in tables[0] if all(of in one for one in tables[1:])]
    if not common:
        return []
    pairs = list(combinations(range(len(runs)), 2))
    found = {of: [between(tables[i][of], tables[j][of]) for i, j in pairs] for of in common}
    known = [each for some in found.values() for each in some if not math.isnan(each[1])]
    sure = sum(map(_sure, known))
    leads = [_sentence(of, tables, called, found[of][0]) for of in common if of.what == told][:MOST_TOLD]
    text = (
        f"{sure} of {len(known)} differences have an interval without 0; about {0.05 * len(known):.0f} would by chance"
        " alone. Intervals are those of independent runs: where clips are shared they are too wide."
    )
    columns = ("question", "of", "number", *called, *(f"{called[i]} less {called[j]}" for i, j in pairs))
    lines = []
    for of in common:
        differences = (_written(of, each, difference=True) for each in found[of])
        cells = (*of, *(_written(of, one[of]) for one in tables), *differences)
        lines.append(("" if any(map(_sure, found[of])) else "faint", cells))
    parts = [page.box(page.leads(leads), "answer"), page.paragraph(about, "soft"), page.paragraph(text)]
    parts += [page.figures(drawn)] if drawn else []
    parts.append(page.table(columns, lines))
    if only := [_only(each, common, one) for each, one in zip(called, tables) if set(one) - set(common)]:
        parts += [page.heading("In some runs only"), page.bullets(only)]
    parts.append(f"<p>{page.held(f'{name}_differences.csv', _csv(common, tables, called, pairs, found))}</p>")
    return [Section(name, title, "".join(parts), tuple(drawn))]


def _sure(difference: Interval) -> bool:
    return difference[1] * difference[2] > 0


def _sentence(of: Of, tables: Sequence[Numbers], called: Sequence[str], difference: Interval) -> tuple[str, str]:
    """Of two runs what differs, of more what each has."""
    values = ", ".join(f"{_written(of, one[of])} in {name}" for name, one in zip(called, tables))
    lead = f"{of.question}, {of.of}: {of.what} {values};"
    if len(tables) > 2:
        return lead, "which of these differ stands in the table."
    if math.isnan(difference[1]):
        return lead, "whether that is a difference cannot be told."
    more = "a difference of" if _sure(difference) else "no difference is shown:"
    return lead, f"{more} {_written(of, difference, difference=True)}."


def _written(of: Of, told: Interval, *, difference: bool = False) -> str:
    value, low, high = told
    if math.isnan(value):
        return "cannot be told"
    if of.what in SHOWN.values():
        interval = "" if math.isnan(low) else f" ({span(low, high)})"
        return f"{signed(value) if difference else number(value)}{interval}"
    plus = "+" if difference and round(100 * value) > 0 else ""
    interval = "" if math.isnan(low) else f" ({percent(low).removesuffix(' %')} to {percent(high)})"
    return f"{plus}{percent(value)}{interval}"


def _only(name: str, common: Sequence[Of], one: Numbers) -> str:
    left = [of for of in one if of not in set(common)]
    return f"{name}: {', '.join(unique([f'{of.question}, {of.of}' for of in left]))}"


def _csv(
    common: Sequence[Of],
    tables: Sequence[Numbers],
    called: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    found: dict[Of, list[Interval]],
) -> bytes:
    """In full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    sides = [f"{side}{end}" for side in ("left", "right") for end in ("_value", "_low", "_high")]
    writer.writerow((*Of._fields, "left", "right", *sides, "difference", "low", "high"))
    for of in common:
        for (i, j), difference in zip(pairs, found[of]):
            writer.writerow((*of, called[i], called[j], *tables[i][of], *tables[j][of], *difference))
    return file.getvalue().encode()
