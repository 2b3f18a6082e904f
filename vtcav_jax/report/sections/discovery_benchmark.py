"""Report section with the scores of methods of concept discovery, compared with known factors."""

from collections.abc import Mapping, Sequence

from vtcav_jax.names import count_noun
from vtcav_jax.report import html
from vtcav_jax.report.effect_sizes import format_number, format_range
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.runs.evaluation_rows import ALL_QUESTIONS, DISCOVERY_BENCHMARK_CSV, DiscoveryBenchmarkRow
from vtcav_jax.runs.tables import read_rows

DISCOVERY_BENCHMARK_GUIDE = (
    "Concepts are discovered without labels in synthetic clips whose factors are known, and scored on other clips. Each"
    " value of a factor (shape, direction, flash, scene) is matched to one concept. Recovery: the AUROC of its score"
    " for the value, above chance, relative to a vector trained with labels. WHERE and WHEN: is its map on the object,"
    " and on the frames of the flash (0: chance, 1: perfect)? Use: the share of the class's lead that the clip loses"
    " without the concept, and without as much of a random direction. Rank: Spearman correlation over concepts of the"
    " reported importance with this loss in other clips. Completeness: share of the network's predictions above chance"
    " that a linear readout of all scores reproduces. Stability: cosine between the concepts of two seeds, fitted to"
    " different clips. Values are means over three seeds; intervals are 95 %, over the scored clips, of stability over"
    " concepts."
)
DISCOVERY_MEASURES = ("RECOVERY", "WHERE", "WHEN", "USE", "USE_RANDOM", "RANK", "COMPLETENESS", "STABILITY")
FLOOR, CEILING_METHOD = "random", "supervised"
Key = tuple[str, str, str, int]  # network, stage, method, number of concepts


def discovery_benchmark_sections(run: RunFolder) -> list[Section]:
    rows = read_rows(run.folder / DISCOVERY_BENCHMARK_CSV, DiscoveryBenchmarkRow)
    if not rows:
        return []
    points = [
        point for name in unique_in_order([row.network_name for row in rows]) for point in best_points(rows, name)
    ]
    parts = [
        html.callout(html.lead_list(points), "answer"),
        html.paragraph(DISCOVERY_BENCHMARK_GUIDE, "soft"),
        _measures_table(rows),
    ]
    return [Section("truth-discovery", "Which method of concept discovery to trust", "".join(parts), ())]


def best_points(rows: Sequence[DiscoveryBenchmarkRow], network_name: str) -> list[tuple[str, str]]:
    """Return the finding: the highest recovery by discovery at each stage, next to that of random directions."""
    by_key = rows_by_key([row for row in rows if row.network_name == network_name])
    points = []
    for stage in unique_in_order([stage for _, stage, _, _ in by_key]):
        at_stage = {key[2:]: measures for key, measures in by_key.items() if key[1] == stage}
        recovery = {key: measures["RECOVERY"] for key, measures in at_stage.items() if key[0] != CEILING_METHOD}
        (method, k), best = max(recovery.items(), key=lambda item: item[1].value)
        floor = next((row for (name, _), row in recovery.items() if name == FLOOR), None)
        compared = f"; {k} random directions: {_cell(floor)}" if floor and method != FLOOR else ""
        points.append(
            (
                f"{network_name} at {stage}: of the methods compared, {method} with {k} concepts recovers most of what"
                " supervised vectors do:",
                f"{_cell(best)}{compared}.",
            )
        )
    return points


def rows_by_key(rows: Sequence[DiscoveryBenchmarkRow]) -> dict[Key, dict[str, DiscoveryBenchmarkRow]]:
    """Return the rows over all factors by measure, for each network, stage, method and number of concepts."""
    by_key: dict[Key, dict[str, DiscoveryBenchmarkRow]] = {}
    for row in rows:
        if row.factor == ALL_QUESTIONS:
            by_key.setdefault((row.network_name, row.stage, row.method, row.num_concepts), {})[row.measure] = row
    return by_key


def _measures_table(rows: Sequence[DiscoveryBenchmarkRow]) -> str:
    head = ["network", "stage", "method", "concepts", *(name.lower().replace("_", " ") for name in DISCOVERY_MEASURES)]
    lines = [("", [*map(str, key), *_cells(measures)]) for key, measures in rows_by_key(rows).items()]
    return html.details_block(f"all {count_noun(len(lines), 'row')}", html.html_table(head, lines))


def _cells(measures: Mapping[str, DiscoveryBenchmarkRow]) -> list[str]:
    return [_cell(measures[name]) if name in measures else "" for name in DISCOVERY_MEASURES]


def _cell(row: DiscoveryBenchmarkRow) -> str:
    return f"{format_number(row.value)} ({format_range(row.low, row.high)})"
