"""What several runs say of motion and of maps, number by number: each run's value with its interval, and differences.

Intervals of differences are put together as in `differences`: as of runs that share no clips.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

from vtcav_jax.attribution.sanity_checks import MEASURES
from vtcav_jax.report import html
from vtcav_jax.report.comparison.differences import Interval, between
from vtcav_jax.report.effect_sizes import number, percent, signed, span
from vtcav_jax.report.figures import motion as motion_figures
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique
from vtcav_jax.report.sections.maps import SHOWN
from vtcav_jax.report.text import maps as map_text

ALL, TIME, PLACE = "all", "time of half", "place of half"
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
        Of(row.target, row.answer or ALL, text): tuple(getattr(row, name + end) for end in ("", "_low", "_high"))
        for row in run.motion_classes
        for name, text in SHARES.items()
    }


def maps(run: RunFolder) -> Numbers:
    out = {}
    for key in unique([map_text.key(row) for row in run.maps]):
        rows = [row for row in run.maps if map_text.key(row) == key]
        target, made = key[0], f"{key[1]} at {key[2]}"
        out[Of(target, made, TIME)] = map_text.half(rows)
        out[Of(target, made, PLACE)] = map_text.places(rows)
        measured = {one.measure: one for one in run.limits if map_text.key(one) == key}
        for one in (measured[name] for name in MEASURES if name in measured):
            out[Of(target, made, SHOWN[one.measure])] = (one.mean, one.low, one.high)
    return {of: each for of, each in out.items() if not math.isnan(each[0])}


def motion(runs: Sequence[RunFolder], called: Sequence[str]) -> list[Section]:
    """How much of each decision is motion, in each of the runs."""
    shared = _shared(runs, called, motions)
    if shared is None:
        return []
    leads = []
    for question in unique([of.question for of in shared.common]):
        own = [of for of in shared.common if of.question == question and of.what == SHARES["order"]]
        whole = [(of, "of its score needs the order of the frames") for of in own if of.of == ALL]
        leads.append((f"{question}:", " ".join([*(shared.sentence(*each) for each in whole), _answers(own, shared)])))
    text = (
        "Lost: what goes of the score when the frames are shuffled, the clip stands still, or runs backwards. Changing"
        " relevance: the share of the map that changes over time, and how much of that is beyond the frozen clip's."
    )
    drawn = []
    for question in unique([of.question for of in shared.common]):
        rows = [[row for row in run.motion_classes if row.target == question] for run in runs]
        drawn.append(motion_figures.side_by_side(question, called, rows))
    return [shared.section("motion", "How much is motion", leads, text, drawn)]


def _answers(some: Sequence[Of], shared: "Shared") -> str:
    """Where the answers to a question differ; nothing where runs are many or have none."""
    some = [of for of in some if of.of != ALL]
    if not some or len(shared.called) > 2:
        return ""
    sure = [of for of in some if _sure(shared.found[of][0])]
    if not sure:
        return f"No difference is shown for any of its {len(some)} answers."
    told = ", ".join(f"{of.of} {_written(of, shared.found[of][0], difference=True)}" for of in sure)
    return f"Of its {len(some)} answers these differ: {told}."


def looks(runs: Sequence[RunFolder], called: Sequence[str]) -> list[Section]:
    """Where and when maps lie, in each of the runs."""
    shared = _shared(runs, called, maps)
    if shared is None:
        return []
    says = {TIME: "of the time hold half of the map", PLACE: "of a frame hold half of what lies in it"}
    leads = [
        (f"{question}, {made}:", " ".join(shared.sentence(of, says[of.what]) for of in own if of.what in says))
        for question, made in unique([(of.question, of.of) for of in shared.common])
        if (own := [of for of in shared.common if (of.question, of.of) == (question, made)])
    ]
    text = (
        "Time of half: the part of the clip in which half of the map lies; place of half: the part of a frame that has"
        " half of what lies in it; 50 % is spread evenly. What else there is was measured by --limits in every run."
    )
    return [shared.section("maps", "Where and when", leads, text, [])]


def _shared(runs: Sequence[RunFolder], called: Sequence[str], read: Callable[[RunFolder], Numbers]) -> "Shared | None":
    tables = [read(run) for run in runs]
    common = [of for of in tables[0] if all(of in one for one in tables[1:])]
    return Shared(tuple(called), tables, common) if common else None


@dataclass(frozen=True)
class Shared:
    """The numbers that all runs have, and what each run has."""

    called: tuple[str, ...]
    tables: list[Numbers]
    common: list[Of]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(combinations(range(len(self.called)), 2))

    @cached_property
    def found(self) -> dict[Of, list[Interval]]:
        """The differences, one for each pair of runs."""
        return {of: [between(self.tables[i][of], self.tables[j][of]) for i, j in self.pairs] for of in self.common}

    def sentence(self, of: Of, says: str) -> str:
        """What each run has, and of two whether they differ."""
        values = [f"{_written(of, one[of])} in {name}" for name, one in zip(self.called, self.tables)]
        told = f"{values[0].replace(' in ', f' {says} in ', 1)}, {', '.join(values[1:])}"
        if len(self.tables) > 2:
            return f"{told}."
        difference = self.found[of][0]
        if math.isnan(difference[1]):
            return f"{told}; whether they differ cannot be told."
        more = "a difference of" if _sure(difference) else "no difference is shown,"
        return f"{told}; {more} {_written(of, difference, difference=True)}."

    def section(
        self, name: str, title: str, leads: Sequence[tuple[str, str]], about: str, drawn: Sequence[Figure]
    ) -> Section:
        known = [each for some in self.found.values() for each in some if not math.isnan(each[1])]
        text = (
            f"{sum(map(_sure, known))} of {len(known)} differences have an interval without 0; about"
            f" {0.05 * len(known):.1g} would by chance alone. Intervals are those of independent runs: where clips are"
            " shared they are too wide."
        )
        sure = [of for of in self.common if any(map(_sure, self.found[of]))]
        rest = [of for of in self.common if of not in sure]
        parts = [html.box(html.leads(leads), "answer"), html.figures(drawn) if drawn else ""]
        parts += [html.paragraph(about, "soft"), html.paragraph(text), self._table(sure, "") if sure else ""]
        parts += [html.details(f"{len(rest)} others", self._table(rest, "faint"))] if rest else []
        only = filter(None, (_only(each, self.common, one) for each, one in zip(self.called, self.tables)))
        if told := list(only):
            parts += [html.heading("In some runs only"), html.bullets(told)]
        parts.append(f"<p>{html.held(f'{name}_differences.csv', self._csv())}</p>")
        return Section(name, title, "".join(parts), tuple(drawn))

    def _table(self, some: Sequence[Of], kind: str) -> str:
        less = (f"{self.called[i]} less {self.called[j]}" for i, j in self.pairs)
        columns = ("question", "of", "number", *self.called, *less)
        lines = [
            (
                kind,
                (
                    *of,
                    *(_written(of, one[of]) for one in self.tables),
                    *(_written(of, each, difference=True) for each in self.found[of]),
                ),
            )
            for of in some
        ]
        return html.table(columns, lines)

    def _csv(self) -> bytes:
        """In full precision."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        sides = [f"{side}{end}" for side in ("left", "right") for end in ("_value", "_low", "_high")]
        writer.writerow((*Of._fields, "left", "right", *sides, "difference", "low", "high"))
        for of in self.common:
            for (i, j), each in zip(self.pairs, self.found[of]):
                writer.writerow((*of, self.called[i], self.called[j], *self.tables[i][of], *self.tables[j][of], *each))
        return file.getvalue().encode()


def _sure(difference: Interval) -> bool:
    return difference[1] * difference[2] > 0


def _written(of: Of, told: Interval, *, difference: bool = False) -> str:
    value, low, high = told
    if math.isnan(value):
        return "not known"
    if of.what in SHOWN.values():
        interval = "" if math.isnan(low) else f" ({span(low, high)})"
        return f"{signed(value) if difference else number(value)}{interval}"
    if not difference:
        return motion_figures.share(value, low, high)
    plus = "+" if round(100 * value) > 0 else ""
    texts = [percent(one).removesuffix(" %") for one in told]
    return f"{plus}{texts[0]} points" + ("" if math.isnan(low) else f" ({texts[1]} to {texts[2]})")


def _only(name: str, common: Sequence[Of], one: Numbers) -> str:
    left = unique([f"{of.question}, {of.of}" for of in one if of not in set(common)])
    return f"{name}: {', '.join(left)}" if left else ""
