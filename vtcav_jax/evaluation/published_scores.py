"""What the shipped networks' table says of a method: how far its maps are to be trusted elsewhere.

`measured.csv` is written by `python -m benchmarks.truth`, from runs of `flagfiles/evaluate_methods.flags` and
`flagfiles/evaluate_methods_budgets.flags`.
"""

import csv
from functools import cache
from importlib import resources

from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.evaluation.world_benchmark.tables import ALL, TRUTH, Row
from vtcav_jax.stats import intervals

FILE = "published_scores.csv"
NETWORKS = {"worlds_swin": "a Video Swin", "worlds_cnn": "a 3D CNN"}
COLUMNS = ("method", "stage", "network", "value", "low", "high", "forwards")


@cache
def measured() -> tuple[Row, ...]:
    """TRUTH over all questions of `NETWORKS`, method by method and stage by stage, in the order of the stages."""
    text = resources.files("vtcav_jax.evaluation").joinpath(FILE).read_text(encoding="utf-8")
    return tuple(
        Row(
            *(line["method"], line["stage"], line["network"], ALL, TRUTH),
            *(float(line["value"]), float(line["low"]), float(line["high"])),
            clips=0,
            forwards=int(line["forwards"]),
            seconds=float("nan"),
        )
        for line in csv.DictReader(text.splitlines())
    )


def trust(method: str, stage: str) -> str:
    """A sentence, or nothing of what was not measured."""
    parts = []
    for network, kind in NETWORKS.items():
        some = [row for row in measured() if row.network == network]
        own = [row for row in some if row.method == method and (row.stage == VIDEO) == (stage == VIDEO)]
        if own:
            parts.append(f"{_range(own)} on {kind} (the best method {max(row.value for row in some):.2f})")
    if not parts:
        return ""
    free = max((row.value for row in measured() if row.free), default=0.0)
    return (
        f"On synthetic clips whose cause is known its maps told {' and '.join(parts)} of the truth, where 0 is chance"
        f" and the best map that asks no network has {free:.2f}."
    )


def _range(rows: list[Row]) -> str:
    """Of one stage the value and its interval; of several the worst and the best, with where, and the last."""
    if len(rows) == 1:
        row = rows[0]
        return intervals.format_interval(row.value, row.low, row.high)
    best, last = max(rows, key=lambda row: row.value), rows[-1]
    told = f"{best.value:.2f} at {best.stage}"
    if last != best:
        told += f", {last.value:.2f} at {last.stage}, the last"
    return told.replace(" -", " −")
