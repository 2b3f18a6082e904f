"""Report section with the error rates of concept tests, compared with known causes."""

from collections.abc import Sequence

from vtcav_jax.evaluation.tcav_benchmark.table import FALSE_POSITIVE_LEVEL, TCAV_BENCHMARK_CSV, TCAV_BENCHMARK_MEASURES
from vtcav_jax.names import count_noun
from vtcav_jax.report import html
from vtcav_jax.report.effect_sizes import format_number, format_percent, format_range
from vtcav_jax.report.figures.labels import Legend
from vtcav_jax.report.figures.svg import Canvas, Figure, Scale
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, slug
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.runs.evaluation_rows import TcavBenchmarkRow
from vtcav_jax.runs.tables import read_rows

PROTOCOL_COLOURS = ("one", "two", "three", "four")
TCAV_BENCHMARK_GUIDE = (
    "A concept is a set of synthetic clips that share the value of one factor: dynamic clips, or static clips frozen at"
    " one frame. It is a cause of the class that this value defines; values of the second glyph and random sets cause"
    " nothing. All methods judge the same clips. Power: the share of causes that are detected, with the right sign."
    " False positives: the share of concepts without effect that are detected. Null: the same for random sets alone,"
    " where a test at level 5 % should detect 5 %. AUROC: how often a cause has a higher score than a concept that is"
    " none. Intervals are 95 %, over concepts, because classes share a concept's clips."
)


def tcav_benchmark_sections(run: RunFolder) -> list[Section]:
    rows = read_rows(run.folder / TCAV_BENCHMARK_CSV, TcavBenchmarkRow)
    if not rows:
        return []
    networks = unique_in_order([row.network_name for row in rows])
    figures = tuple(power_figure(rows, network_name) for network_name in networks)
    parts = [
        html.callout(
            html.lead_list([point for network_name in networks for point in protocol_points(rows, network_name)]),
            "answer",
        )
    ]
    parts += [html.paragraph(TCAV_BENCHMARK_GUIDE, "soft"), html.figure_grid(figures), _benchmark_table(rows)]
    return [Section("truth-concepts", "Which concept test to trust", "".join(parts), figures)]


def most_separating_stage(rows: Sequence[TcavBenchmarkRow], network_name: str) -> str:
    """Return the stage with the highest AUROC, averaged over methods."""
    subset = [
        row for row in rows if row.network_name == network_name and row.measure == "AUROC" and row.clip_type == "both"
    ]
    values_by_stage = {
        stage: [row.value for row in subset if row.stage == stage]
        for stage in unique_in_order([row.stage for row in subset])
    }
    return max(values_by_stage, key=lambda stage: sum(values_by_stage[stage]) / len(values_by_stage[stage]))


def protocol_points(rows: Sequence[TcavBenchmarkRow], network_name: str) -> list[tuple[str, str]]:
    """Return the findings: power and false positives of each method, then dynamic compared with static clips."""
    stage = most_separating_stage(rows, network_name)
    by_key = {
        (r.protocol, r.clip_type, r.measure): r for r in rows if r.network_name == network_name and r.stage == stage
    }

    def describe_protocol(name: str) -> str:
        power, false_positives = by_key[name, "both", "POWER"], by_key[name, "both", "FALSE_POSITIVES"]
        power_text, error_text = (
            f"{format_percent(r.value)} ({format_percent(r.low)} to {format_percent(r.high)})"
            for r in (power, false_positives)
        )
        return f"{power_text} of the causes, with {error_text} false positives"

    others = [name for name in unique_in_order([protocol for protocol, *_ in by_key]) if name != "ours"]
    static, dynamic = (by_key["ours", clip_type, "AUROC"] for clip_type in ("static", "dynamic"))
    return [
        (
            f"{network_name} at {stage}: our test detects {describe_protocol('ours')};",
            "; ".join(f"{name}: {describe_protocol(name)}" for name in others) + ".",
        ),
        (
            f"By our test, a cause has a higher score than a concept that is none in {format_percent(dynamic.value)} of"
            f" pairs with dynamic clips, and in {format_percent(static.value)} with static clips;",
            f"95 % intervals {format_range(dynamic.low, dynamic.high)} and {format_range(static.low, static.high)}.",
        ),
    ]


def power_figure(rows: Sequence[TcavBenchmarkRow], network_name: str) -> Figure:
    """Draw power over false positives of each method at each stage; small dots are corrected for the family."""
    by_key = {
        (r.protocol, r.stage, r.measure): r for r in rows if r.network_name == network_name and r.clip_type == "both"
    }
    names = unique_in_order([protocol for protocol, *_ in by_key])
    base_names = [name for name in names if (name, most_separating_stage(rows, network_name), "AUROC") in by_key]
    entries = []
    for i, name in enumerate(base_names):
        variants = [
            other.partition(", ")[2] for other in names if other != name and _protocol_index(other, base_names) == i
        ]
        small = f" (small: {', '.join(variants)})" if variants else ""
        entries.append((PROTOCOL_COLOURS[i % len(PROTOCOL_COLOURS)], f"{name}{small}"))
    legend = Legend.of(entries, FIGURE_WIDTH)
    canvas = Canvas(FIGURE_WIDTH, 262 + round(legend.height))
    x, y = Scale(0, 1, 44, FIGURE_WIDTH - 14), Scale(0, 1, 216, 34)
    canvas.heading(f"{network_name}: power against false positives")
    for value in (0, 0.25, 0.5, 0.75, 1):
        canvas.line(44, y(value), FIGURE_WIDTH - 14, y(value), "axis")
        canvas.text(38, y(value) + 4, f"{value:g}", "soft", "end")
        canvas.text(x(value), 232, f"{value:g}", "soft", "middle")
    canvas.line(x(FALSE_POSITIVE_LEVEL), 34, x(FALSE_POSITIVE_LEVEL), 216, "zero", "nominal level, 5 %")
    canvas.text(FIGURE_WIDTH - 14, 248, "false-positive rate", "soft", "end")
    for (name, stage, measure), power in by_key.items():
        if measure != "POWER":
            continue
        false_positives = by_key[name, stage, "FALSE_POSITIVES"]
        css_class, size = (
            PROTOCOL_COLOURS[_protocol_index(name, base_names) % len(PROTOCOL_COLOURS)],
            4.5 if name in base_names else 2.5,
        )
        canvas.line(
            x(false_positives.value), y(power.low), x(false_positives.value), y(power.high), f"thin {css_class}"
        )
        canvas.line(
            x(false_positives.low), y(power.value), x(false_positives.high), y(power.value), f"thin {css_class}"
        )
        title = f"{name} at {stage}: power {format_number(power.value)} ({format_range(power.low, power.high)}),"
        title += " false positives"
        canvas.dot(
            x(false_positives.value),
            y(power.value),
            css_class,
            f"{title} {format_number(false_positives.value)}"
            f" ({format_range(false_positives.low, false_positives.high)})",
            size,
        )
    legend.draw(canvas, 262, "")
    return canvas.figure(
        slug("truth_concepts", network_name), f"{network_name}: power of concept tests over their false-positive rate"
    )


def _protocol_index(name: str, base_names: Sequence[str]) -> int:
    """Return the index of the method, or of the method whose corrected verdict this is."""
    return base_names.index(name if name in base_names else name.partition(", ")[0])


def _benchmark_table(rows: Sequence[TcavBenchmarkRow]) -> str:
    keys = unique_in_order([(r.network_name, r.stage, r.clip_type, r.protocol) for r in rows])
    lines = []
    for key in keys:
        by_measure = {r.measure: r for r in rows if (r.network_name, r.stage, r.clip_type, r.protocol) == key}
        cells = [
            f"{format_number(r.value)} ({format_range(r.low, r.high)})" if (r := by_measure.get(m)) else ""
            for m in TCAV_BENCHMARK_MEASURES
        ]
        lines.append(("", [*key, *cells]))
    head = [
        "network",
        "stage",
        "clips",
        "method",
        "AUROC",
        "power at 5 % false positives",
        "power",
        "false positives",
        "null",
    ]
    return html.details_block(f"all {count_noun(len(lines), 'row')}", html.html_table(head, lines))
