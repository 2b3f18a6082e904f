"""Markdown tables of the benchmarks of commands: memory, growth, start, the interactive page, faults."""

import math

from benchmarks.tables import format_seconds, markdown


def memory_table(rows: list[dict]) -> str:
    """Return the peak memory of tasks on an input and on a larger one."""
    head = ("task", "input", "MiB", "larger input", "MiB", "ratio")
    body = [
        [
            *(row["task"], row["small"], f"{row['small_mib']:.0f}", row["large"], f"{row['large_mib']:.0f}"),
            f"{row['large_mib'] / row['small_mib']:.2f}",
        ]
        for row in rows
    ]
    return markdown(head, body)


def scaling_table(rows: list[dict]) -> str:
    """Return the points of each curve, with the power of the size that the time grew with since the point before."""
    head = ("curve", "size", "time", "time / size", "growth")
    body = []
    for before, row in zip([None, *rows], rows):
        growth = ""
        if before is not None and before["curve"] == row["curve"]:
            growth = f"{math.log(row['seconds'] / before['seconds']) / math.log(row['size'] / before['size']):.2f}"
        time_per_size = format_seconds(row["seconds"] / row["size"])
        body.append([row["title"], f"{row['size']:,}", format_seconds(row["seconds"]), time_per_size, growth])
    return markdown(head, body)


def serve_table(rows: list[dict]) -> str:
    """Return how long the interactive page takes."""
    head = ("from ... to", "clips of the run", "time", "repeats", "memory of the server")
    body = []
    for row in rows:
        spread = f" ({row['p10_s']:.3f} to {row['p90_s']:.3f})" if "p10_s" in row else ""
        memory = f"{row['memory_mib']} MiB" if "memory_mib" in row else ""
        body.append([row["what"], f"{row['clips']:,}", f"{row['median_s']:.3f} s{spread}", row["repeats"], memory])
    return markdown(head, body)


def faults_table(rows: list[dict]) -> str:
    """Return the faults that each part of the fault suite found, by task or kind of input."""
    head = ("test", "task or input", "cases", "crashes", "hangs", "refusals", "files with other bytes", "repeated work")
    body = []
    for row in rows:
        repeated = f"{row['repeated_share']:.0%}" if row["test"] == "kill" else ""
        counts = [row[name] for name in ("n_cases", "crashes", "hangs", "refusals", "differing_files")]
        body.append([row["test"], row["subject"], *counts, repeated])
    return markdown(head, body)


def start_up_table(rows: list[dict]) -> str:
    """Return what the first start of each task takes, without compiled programs, and the next starts."""
    head = (
        "command",
        "first start",
        "processor time",
        "next starts (fastest to slowest)",
        "processor time",
        "first / next",
    )
    body = []
    for row in rows:
        next_starts = f"{row['next_s']:.1f} s ({row['next_fastest_s']:.1f} to {row['next_slowest_s']:.1f})"
        times = [f"{row['first_s']:.1f} s", f"{row['first_cpu_s']:.1f} s", next_starts, f"{row['next_cpu_s']:.1f} s"]
        body.append([f"`{row['command']}`", *times, f"{row['first_s'] / row['next_s']:.1f}"])
    return markdown(head, body)
