"""Writes the tables of the pages from the files in benchmarks/results: `python -m benchmarks.write_tables`."""

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks import evaluation_tables, tables

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
PAGES_WITH_TABLES = (
    ROOT / "README.md",
    ROOT / "docs" / "speed.md",
    ROOT / "docs" / "networks.md",
    ROOT / "docs" / "evaluation.md",
)

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
    "evaluation:kernels": evaluation_tables.kernels_table,
    "evaluation:seeds": evaluation_tables.seeds_table,
    "evaluation:concepts": evaluation_tables.concepts_table,
}


def render_results(name: str) -> str:
    """Every device's table, each under a line that says where it was measured; BENCHMARK, or BENCHMARK:TABLE."""
    parts = []
    for path in sorted(RESULTS.glob(f"{name.partition(':')[0]}_*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        first = rows[0]
        versions = ", ".join(f"{package} {number}" for package, number in first["versions"].items())
        measured_on = (
            f"{first['device']}, {first['cores']} CPU cores, Python {first['python']}, {versions}, {first['date']}"
        )
        parts.append(f"{measured_on}:\n\n{TABLE_WRITERS[name](rows)}")
    return "\n\n".join(parts)


def fill_tables(text: str) -> str:
    """`text` with what stands between `<!-- table: NAME -->` and `<!-- end -->` made anew."""
    for name in TABLE_WRITERS:
        start, end = f"<!-- table: {name} -->", "<!-- end -->"
        before, _, rest = text.partition(start)
        if not rest:
            continue
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n\n{render_results(name)}\n\n{end}{after}"
    return text


def update_pages() -> str:
    """Writes the tables; returns the pages' names."""
    for page in PAGES_WITH_TABLES:
        page.write_text(fill_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    return ", ".join(str(page.relative_to(ROOT)) for page in PAGES_WITH_TABLES)


if __name__ == "__main__":
    update_pages()
