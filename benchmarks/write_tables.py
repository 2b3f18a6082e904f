"""Write the tables of README.md and docs/ from the files in benchmarks/results.

python -m benchmarks.write_tables
"""

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks import command_tables, evaluation_tables, tables
from benchmarks.statistics import power
from benchmarks.statistics import table as statistics_table

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
PAGES_WITH_TABLES = (
    ROOT / "README.md",
    ROOT / "docs" / "speed.md",
    ROOT / "docs" / "networks.md",
    ROOT / "docs" / "evaluation.md",
    ROOT / "docs" / "statistics.md",
    ROOT / "docs" / "reliability.md",
    ROOT / "docs" / "which-method.md",
    ROOT / "docs" / "guides" / "concepts.md",
    ROOT / "docs" / "guides" / "motion.md",
    ROOT / "docs" / "guides" / "channels-and-concepts.md",
    ROOT / "docs" / "guides" / "serve.md",
)

NOT_MEASURED = "Not measured yet."
TABLE_WRITERS: dict[str, Callable[[list[dict]], str]] = {
    "forward": tables.forward_table,
    "gradients": tables.gradients_table,
    "decode": tables.decode_table,
    "tcav": tables.tcav_table,
    "attribution": tables.attribution_table,
    "parity": tables.parity_table,
    "pyramid": tables.pyramid_table,
    "evaluation": evaluation_tables.methods_table,
    "evaluation:best": evaluation_tables.best_methods_table,
    "evaluation:others": evaluation_tables.other_metrics_table,
    "evaluation:metrics": evaluation_tables.metrics_table,
    "evaluation:channels": evaluation_tables.channels_table,
    "evaluation:seeds": evaluation_tables.seeds_table,
    "evaluation:concepts": evaluation_tables.concepts_table,
    "discovery": evaluation_tables.discovery_table,
    "conditional_relevance": evaluation_tables.conditional_relevance_table,
    "synthesis": evaluation_tables.synthesis_table,
    "time_sensitivity": evaluation_tables.time_sensitivity_table,
    "method_costs": tables.method_costs_table,
    "accelerator": tables.accelerator_table,
    "preflight": tables.preflight_table,
    "faults": command_tables.faults_table,
    "memory": command_tables.memory_table,
    "scaling": command_tables.scaling_table,
    "serve": command_tables.serve_table,
    "start_up": command_tables.start_up_table,
    "motion_selectivity": evaluation_tables.motion_selectivity_table,
    "seed_variation": evaluation_tables.seed_variation_table,
    "movements": tables.movements_table,
    "statistics": statistics_table.statistics_table,
    "statistics:power": power.power_table,
    "statistics:videos": power.videos_table,
}


def render_results(name: str) -> str:
    """Return the table BENCHMARK or BENCHMARK:TABLE of each device, below a line with device and versions."""
    parts = []
    for path in sorted(RESULTS.glob(f"{name.partition(':')[0]}_*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        first = rows[0]
        versions = ", ".join(f"{package} {number}" for package, number in first["versions"].items())
        dates = sorted({row["date"] for row in rows})
        date = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        devices = " or ".join(dict.fromkeys(row["device"] for row in rows))
        measured_on = f"{devices}, {first['cores']} CPU cores, Python {first['python']}, {versions}, {date}"
        parts.append(f"{measured_on}:\n\n{TABLE_WRITERS[name](rows)}")
    return "\n\n".join(parts)


def fill_tables(text: str) -> str:
    """Replace the text between `<!-- table: NAME -->` and `<!-- end -->` by the current tables."""
    for name in TABLE_WRITERS:
        start, end = f"<!-- table: {name} -->", "<!-- end -->"
        before, _, rest = text.partition(start)
        if not rest:
            continue
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n\n{render_results(name) or NOT_MEASURED}\n\n{end}{after}"
    return text


def update_pages() -> str:
    """Write the tables of all pages and return the names of the pages."""
    for page in PAGES_WITH_TABLES:
        page.write_text(fill_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    return ", ".join(str(page.relative_to(ROOT)) for page in PAGES_WITH_TABLES)


if __name__ == "__main__":
    update_pages()
