"""Ground-truth scores of each method on the shipped networks, cited on pages that show its maps.

`published_scores.csv` is written by `python -m benchmarks.publish_evaluation`, from runs of
`flagfiles/evaluate_methods.flags` and `flagfiles/evaluate_methods_budgets.flags`.
"""

import csv
from functools import cache
from importlib import resources

from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.runs.evaluation_rows import ALL_QUESTIONS, MEAN_SCORE, MethodScoreRow
from vtcav_jax.stats import intervals

PUBLISHED_SCORES_CSV = "published_scores.csv"
PUBLISHED_NETWORKS = {"worlds_swin": "a Video Swin", "worlds_cnn": "a 3D CNN", "worlds_vit": "a plain ViT"}
PUBLISHED_COLUMNS = ("method", "stage", "network_name", "value", "low", "high", "forward_passes")


@cache
def published_scores() -> tuple[MethodScoreRow, ...]:
    """Read the scores over all questions of `PUBLISHED_NETWORKS`, by method and stage in network order."""
    text = resources.files("vtcav_jax.evaluation").joinpath(PUBLISHED_SCORES_CSV).read_text(encoding="utf-8")
    return tuple(
        MethodScoreRow(
            *(line["method"], line["stage"], line["network_name"], ALL_QUESTIONS, MEAN_SCORE),
            *(float(line["value"]), float(line["low"]), float(line["high"])),
            n_clips=0,
            forward_passes=int(line["forward_passes"]),
            seconds=float("nan"),
        )
        for line in csv.DictReader(text.splitlines())
    )


def trust_sentence(method: str, stage: str) -> str:
    """Return a sentence with the method's scores, or "" if it was not measured."""
    parts = []
    for network_name, network_kind in PUBLISHED_NETWORKS.items():
        network_rows = [row for row in published_scores() if row.network_name == network_name and not row.is_reference]
        rows = [row for row in network_rows if row.method == method and (row.stage == VIDEO) == (stage == VIDEO)]
        if rows:
            parts.append(
                f"{_format_range(rows)} on {network_kind} (best method: {max(row.value for row in network_rows):.2f})"
            )
    if not parts:
        return ""
    best_trivial = max((row.value for row in published_scores() if row.is_trivial), default=0.0)
    return (
        f"On synthetic clips with a known cause, the ground-truth score of its maps is {'; '.join(parts)}. 0 is"
        f" chance, 1 is perfect, and the best trivial map, which does not use the network, scores {best_trivial:.2f}."
    )


def _format_range(rows: list[MethodScoreRow]) -> str:
    """Return the value and interval of a single stage, or the values at the best and the last of several stages."""
    if len(rows) == 1:
        row = rows[0]
        text = intervals.format_interval(row.value, row.low, row.high)
        return text.replace("(", "(95 % CI over clips of one trained network ")
    best, last = max(rows, key=lambda row: row.value), rows[-1]
    text = f"{best.value:.2f} at {best.stage}"
    if last != best:
        text += f", its best stage, and {last.value:.2f} at {last.stage}, the last stage,"
    return text.replace(" -", " −")
