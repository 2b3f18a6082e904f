"""Comparison of motion tests and attribution maps of several runs: values, differences and their intervals.

Intervals of differences assume independent runs, as in `differences`.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

from vtcav_jax.attribution.sanity_checks import SANITY_MEASURES
from vtcav_jax.report import html
from vtcav_jax.report.comparison.differences import EstimateWithInterval, difference_ci
from vtcav_jax.report.effect_sizes import format_number, format_percent, format_range, format_signed
from vtcav_jax.report.figures import motion as motion_figures
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.sections.maps import MEASURE_TEXTS
from vtcav_jax.report.text import maps as map_text
from vtcav_jax.runs.tables import escape_formula

ALL_ANSWERS, TIME_OF_HALF, PLACE_OF_HALF = "all clips", "half mass in time", "half mass in space"
SHARE_TEXTS = {"drop_shuffled": "loss, shuffled", "drop_frozen": "loss, frozen", "drop_reversed": "loss, reversed"}
SHARE_TEXTS |= {"changing_mass": "changing relevance", "changing_mass_excess": "excess changing relevance"}


class MetricKey(NamedTuple):
    """Identity of a number across runs."""

    question: str
    subject: str
    metric: str


MetricTable = dict[MetricKey, EstimateWithInterval]


def motion_metrics(run: RunFolder) -> MetricTable:
    return {
        MetricKey(row.target, row.answer or ALL_ANSWERS, text): tuple(
            getattr(row, name + end) for end in ("", "_low", "_high")
        )
        for row in run.class_motion_rows
        for name, text in SHARE_TEXTS.items()
    }


def map_metrics(run: RunFolder) -> MetricTable:
    out = {}
    for key in unique_in_order([map_text.map_key(row) for row in run.map_rows]):
        rows = [row for row in run.map_rows if map_text.map_key(row) == key]
        target, map_name = key[0], f"{key[1]} at {key[2]}"
        out[MetricKey(target, map_name, TIME_OF_HALF)] = map_text.mean_temporal_half_mass(rows)
        out[MetricKey(target, map_name, PLACE_OF_HALF)] = map_text.mean_spatial_half_mass(rows)
        by_measure = {
            row_of_measure.measure: row_of_measure
            for row_of_measure in run.sanity_rows
            if map_text.map_key(row_of_measure) == key
        }
        for row_of_measure in (by_measure[name] for name in SANITY_MEASURES if name in by_measure):
            out[MetricKey(target, map_name, MEASURE_TEXTS[row_of_measure.measure])] = (
                row_of_measure.mean,
                row_of_measure.low,
                row_of_measure.high,
            )
    return {metric_key: estimate for metric_key, estimate in out.items() if not math.isnan(estimate[0])}


def motion_comparison_sections(runs: Sequence[RunFolder], labels: Sequence[str]) -> list[Section]:
    """Compare the loss of score in edited clips."""
    common = _common_metrics(runs, labels, motion_metrics)
    if common is None:
        return []
    leads = []
    for question in unique_in_order([key.question for key in common.keys]):
        drop_keys = [
            key for key in common.keys if key.question == question and key.metric == SHARE_TEXTS["drop_shuffled"]
        ]
        overall = [(key, "Loss of score when frames are shuffled") for key in drop_keys if key.subject == ALL_ANSWERS]
        leads.append(
            (
                f"{question}:",
                " ".join([*(common.sentence(*pair) for pair in overall), _answer_differences(drop_keys, common)]),
            )
        )
    text = (
        "Loss: share of the class score that is lost when the frames are shuffled, one frame is repeated (frozen) or"
        " the clip is reversed. Changing relevance: share of the map that changes over time; excess: minus that of the"
        " frozen clip."
    )
    figures = []
    for question in unique_in_order([key.question for key in common.keys]):
        rows = [[row for row in run.class_motion_rows if row.target == question] for run in runs]
        figures.append(motion_figures.compared_motion_figure(question, labels, rows))
    return [common.section("motion", "Contribution of motion", leads, text, figures)]


def _answer_differences(keys: Sequence[MetricKey], common: "CommonMetrics") -> str:
    """Name the predicted classes whose loss differs between two runs; empty for more runs."""
    keys = [key for key in keys if key.subject != ALL_ANSWERS]
    if not keys or len(common.labels) > 2:
        return ""
    significant = [key for key in keys if _is_significant(common.differences[key][0])]
    if not significant:
        return f"No significant difference for any of {len(keys)} predicted classes."
    text = ", ".join(
        f"{key.subject} {_format_metric(key, common.differences[key][0], difference=True)}" for key in significant
    )
    return f"Significant differences for predicted classes: {text}."


def map_comparison_sections(runs: Sequence[RunFolder], labels: Sequence[str]) -> list[Section]:
    """Compare how localised maps are, and their sanity checks."""
    common = _common_metrics(runs, labels, map_metrics)
    if common is None:
        return []
    phrases = {
        TIME_OF_HALF: "Share of the time that holds half of the map",
        PLACE_OF_HALF: "Share of a frame that holds half of the map in it",
    }
    leads = [
        (
            f"{question}, {map_name}:",
            " ".join(common.sentence(key, phrases[key.metric]) for key in keys if key.metric in phrases),
        )
        for question, map_name in unique_in_order([(key.question, key.subject) for key in common.keys])
        if (keys := [key for key in common.keys if (key.question, key.subject) == (question, map_name)])
    ]
    text = (
        "Half mass in time (in space): smallest share of the clip's time (of a frame) that holds half of the map; 50 %"
        " if uniform. Other numbers are sanity checks, if all runs have them (--sanity_clips)."
    )
    return [common.section("maps", "Attribution maps", leads, text, [])]


def _common_metrics(
    runs: Sequence[RunFolder], labels: Sequence[str], read_metrics: Callable[[RunFolder], MetricTable]
) -> "CommonMetrics | None":
    tables = [read_metrics(run) for run in runs]
    common_keys = [key for key in tables[0] if all(key in table for table in tables[1:])]
    return CommonMetrics(tuple(labels), tables, common_keys) if common_keys else None


@dataclass(frozen=True)
class CommonMetrics:
    """Numbers that all runs have."""

    labels: tuple[str, ...]
    tables: list[MetricTable]
    keys: list[MetricKey]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(combinations(range(len(self.labels)), 2))

    @cached_property
    def differences(self) -> dict[MetricKey, list[EstimateWithInterval]]:
        """Differences of each number, one per pair of runs."""
        return {
            key: [difference_ci(self.tables[i][key], self.tables[j][key]) for i, j in self.pairs] for key in self.keys
        }

    def sentence(self, key: MetricKey, phrase: str) -> str:
        """State the value in each run and, for two runs, their difference."""
        values = [f"{_format_metric(key, table[key])} in {name}" for name, table in zip(self.labels, self.tables)]
        text = f"{phrase}: {', '.join(values)}"
        if len(self.tables) > 2:
            return f"{text}."
        difference = self.differences[key][0]
        if math.isnan(difference[1]):
            return f"{text}; the difference has no interval."
        lead = "significant difference:" if _is_significant(difference) else "no significant difference:"
        return f"{text}; {lead} {_format_metric(key, difference, difference=True)}."

    def section(
        self, name: str, title: str, leads: Sequence[tuple[str, str]], explanation: str, figures: Sequence[Figure]
    ) -> Section:
        finite = [d for differences in self.differences.values() for d in differences if not math.isnan(d[1])]
        unit = "source videos" if name == "motion" else "clips"
        text = (
            f"{sum(map(_is_significant, finite))} of {len(finite)} differences have a 95 % interval without 0; about"
            f" {0.05 * len(finite):.1g} would by chance, because the intervals are not corrected for their number. They"
            f" are over {unit}, assume independent runs, and are too wide if the runs share clips."
        )
        significant = [key for key in self.keys if any(map(_is_significant, self.differences[key]))]
        others = [key for key in self.keys if key not in significant]
        parts = [html.paragraph(explanation, "soft"), html.callout(html.lead_list(leads), "answer")]
        parts += [
            html.figure_grid(figures) if figures else "",
            html.paragraph(text),
            self._table(significant, "") if significant else "",
        ]
        parts += [html.details_block(f"Other numbers ({len(others)})", self._table(others, "faint"))] if others else []
        unshared_texts = filter(
            None, (_unshared_keys(label, self.keys, table) for label, table in zip(self.labels, self.tables))
        )
        if unshared := list(unshared_texts):
            parts += [html.heading("Results that not all runs have"), html.bullet_list(unshared)]
        parts.append(f"<p>{html.embedded_table(f'{name}_differences.csv', self._csv())}</p>")
        return Section(name, title, "".join(parts), tuple(figures))

    def _table(self, keys: Sequence[MetricKey], css_class: str) -> str:
        difference_columns = (f"difference: {self.labels[i]} − {self.labels[j]}" for i, j in self.pairs)
        columns = ("question", "subject", "metric", *self.labels, *difference_columns)
        lines = [
            (
                css_class,
                (
                    *key,
                    *(_format_metric(key, table[key]) for table in self.tables),
                    *(_format_metric(key, estimate, difference=True) for estimate in self.differences[key]),
                ),
            )
            for key in keys
        ]
        return html.html_table(columns, lines)

    def _csv(self) -> bytes:
        """Return all differences as CSV in full precision."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        sides = [f"{side}{end}" for side in ("left", "right") for end in ("_value", "_low", "_high")]
        writer.writerow((*MetricKey._fields, "left", "right", *sides, "difference", "low", "high"))
        for key in self.keys:
            for (i, j), estimate in zip(self.pairs, self.differences[key]):
                row = (*key, self.labels[i], self.labels[j], *self.tables[i][key], *self.tables[j][key], *estimate)
                writer.writerow(map(escape_formula, row))
        return file.getvalue().encode()


def _is_significant(difference: EstimateWithInterval) -> bool:
    return difference[1] * difference[2] > 0


def _format_metric(key: MetricKey, estimate: EstimateWithInterval, *, difference: bool = False) -> str:
    value, low, high = estimate
    if math.isnan(value):
        return "unknown"
    if key.metric in MEASURE_TEXTS.values():
        interval = "" if math.isnan(low) else f" ({format_range(low, high)})"
        return f"{format_signed(value) if difference else format_number(value)}{interval}"
    if not difference:
        return motion_figures.format_share(value, low, high)
    plus = "+" if round(100 * value) > 0 else ""
    texts = [format_percent(bound).removesuffix(" %") for bound in estimate]
    return f"{plus}{texts[0]} percentage points" + ("" if math.isnan(low) else f" ({texts[1]} to {texts[2]})")


def _unshared_keys(name: str, common_keys: Sequence[MetricKey], table: MetricTable) -> str:
    extra = unique_in_order([f"{key.question}, {key.subject}" for key in table if key not in set(common_keys)])
    return f"{name}: {', '.join(extra)}" if extra else ""
