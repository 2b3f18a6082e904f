"""The tables of docs/statistics.md: one column per network and stage (layer), and simulated features below."""

import re
from typing import Any

from benchmarks.statistics.power import SCENARIO
from benchmarks.tables import markdown

ONE_STAGE = re.compile(r"worlds_\w+, \S+")  # of a shipped network


def statistics_table(rows: list[dict[str, Any]]) -> str:
    """Return both tables; shares that miss their requirement are bold, those that it does not apply to in italics."""
    cells: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    rows = [row for row in rows if row["scenario"] != SCENARIO]
    encoded = [row for row in rows if ONE_STAGE.fullmatch(row["where"])]
    for row in encoded:
        cells.setdefault((row["scenario"], row["measured"]), {})[row["where"]] = row
    columns = list(dict.fromkeys(row["where"] for row in encoded))
    head = ("scenario", "measured: share (95 % CI over draws of clips)", "required", "tests", *columns)
    body = []
    for key, by_where in cells.items():
        counts = sorted({row["n"] for row in by_where.values()})
        count = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        required = next((row["requirement"] for row in by_where.values() if row["requirement"]), "")
        shares = (format_cell(by_where[where], required) if where in by_where else "" for where in columns)
        body.append((*key, format_requirement(required), count, *shares))
    others = [row for row in rows if row not in encoded]
    other_head = ("scenario", "data", "measured", "required", "tests", "share (95 % CI over draws)")
    other_body = [
        (
            *(row["scenario"], row["where"], row["measured"], format_requirement(row["requirement"]), row["n"]),
            format_cell(row, row["requirement"]),
        )
        for row in others
    ]
    return "\n\n".join(markdown(*part) for part in ((head, body), (other_head, other_body)) if part[1])


def format_requirement(text: str) -> str:
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.2g}", text)


def format_cell(row: dict[str, Any], required: str) -> str:
    if not row["n"]:
        return "not measured"
    share = format_share(row)
    if row["holds"] is False:
        share = f"**{share}**"
    elif required and not row["requirement"]:
        share = f"*{share}*"
    return f"{share}; {row['note']}" if row["note"] else share


def format_share(row: dict[str, Any]) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def describe(row: dict[str, Any]) -> str:
    return (
        f"{row['scenario']}, {row['measured']}, {row['where']}: {format_share(row)} in {row['n']} tests;"
        f" required: {row['requirement']}"
    )
