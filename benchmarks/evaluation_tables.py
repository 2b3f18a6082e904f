"""Tables of docs/evaluation.md, from the rows that benchmarks.publish_evaluation writes."""

from collections.abc import Sequence
from dataclasses import fields

from benchmarks.tables import markdown
from vtcav_jax.report.figures import evaluation as evaluation_figures
from vtcav_jax.runs.evaluation_rows import (
    ABLATION_SCORE,
    ANALYTIC_SCORE,
    CROSS_VALIDATED_SCORE,
    MEAN_SCORE,
    MOTION_SCORE,
    REFERENCE_MAPS,
    SELECTIVITY_SCORE,
    MethodScoreRow,
)
from vtcav_jax.stats import intervals

UNIT = "over clips of one trained network"
TRUTH_METRICS = ("WHERE", "WHO", "WHEN", "WHAT-FOR", "EFFECT")
MAIN_NETWORKS = ("worlds_swin", "worlds_cnn", "worlds_vit")
DISCOVERY_KEY = ("network_name", "stage", "method", "num_concepts")
WELL_KNOWN_METHODS = (
    "gradcam",
    "integrated_gradients",
    "rollout",
    "rise (300)",
    "occlusion",
    "frame_difference",
    "random",
)

SELECTIVITY_COLUMNS = {  # a measure, and the frames in which an object covers a moving pixel
    ("flow_precision", "adjacent"): "motion part (95 % CI over clips)",
    ("flow_precision_map", "adjacent"): "map's strongest cells",
    ("flow_precision_gain", "adjacent"): "motion part − map (95 % CI)",
    ("flow_precision_smoothed_gain", "adjacent"): "motion part − smoothed map (95 % CI)",
    ("flow_precision_difference", "adjacent"): "cells where frames differ most",
    ("flow_area", "adjacent"): "all pixels",
    ("flow_energy_gain", "adjacent"): "relevance: motion part − map (95 % CI)",
    ("flow_precision_gain", "same"): "same frame: motion part − map (95 % CI)",
}


def methods_table(rows: list[dict]) -> str:
    """Return the scores of each method at its best stage, by network."""
    rows = [row for row in rows if row["part"] == "maps"]
    cross_validated = "CHOSEN: stage selected on other clips (95 % CI, likewise)"
    head = (
        *("network", "method", "stage", f"ground-truth score (95 % CI {UNIT})", cross_validated, *TRUTH_METRICS),
        *("forward passes", "ms per clip"),
    )
    body = []
    for network in dict.fromkeys(row["network_name"] for row in rows):
        network_rows = [row for row in rows if row["network_name"] == network]
        for row in _rank_methods(network_rows):
            method_rows = [r for r in network_rows if (r["method"], r["stage"]) == (row["method"], row["stage"])]
            metrics = [
                _format_mean([r["value"] for r in method_rows if r["metric"] == metric]) for metric in TRUTH_METRICS
            ]
            cross_validated_score = "".join(
                _format_interval(r)
                for r in network_rows
                if (r["method"], r["metric"]) == (row["method"], CROSS_VALIDATED_SCORE)
            )
            cost = row["forward_passes"], f"{1000 * row['seconds']:.3g}"
            body.append(
                (network, row["method"], row["stage"], _format_interval(row), cross_validated_score, *metrics, *cost)
            )
    return markdown(head, body)


def best_methods_table(rows: list[dict]) -> str:
    """Return the scores on the main networks of the methods on the cost front and of well-known methods."""
    rows = [row for row in rows if row["part"] == "maps"]
    ranked = _best_by_network(rows, MAIN_NETWORKS)
    first = list(ranked[MAIN_NETWORKS[0]].values())
    score_rows = [to_score_row(row) for row in first]
    paid_rows = [row for row in score_rows if not row.is_trivial and not row.is_reference]
    cheapest = [row.method for row in evaluation_figures.cost_front(paid_rows)]
    methods = [row["method"] for row in first if row["method"] in (*cheapest, *WELL_KNOWN_METHODS, *REFERENCE_MAPS)]
    first_score = f"ground-truth score on {MAIN_NETWORKS[0]} (95 % CI {UNIT})"
    scores = first_score, *(f"on {name}" for name in MAIN_NETWORKS[1:])
    head = ("method, at its best stage", *scores, "forward passes")
    body = []
    for method in methods:
        cells = [_best_cell(rows, ranked, name, method) for name in MAIN_NETWORKS]
        body.append((method, *cells, ranked[MAIN_NETWORKS[0]][method]["forward_passes"]))
    return markdown(head, body)


def _best_cell(rows: list[dict], ranked: dict[str, dict[str, dict]], network: str, method: str) -> str:
    """Return a method's score at its best stage, or why there is none."""
    if row := ranked[network].get(method):
        return f"{_format_interval(row)} at {row['stage']}"
    family = method.partition(" (")[0]  # the same with other numbers of passes
    measured = {r["method"].partition(" (")[0] for r in rows if r["network_name"] == network}
    return "not measured" if family in measured else "not applicable"


def other_metrics_table(rows: list[dict]) -> str:
    """Return metrics of methods without TRUTH: measures of motion, maps over time only, and W0."""
    rows = [row for row in rows if row["part"] == "maps"]
    where = {(row["network_name"], row["method"]) for row in rows if row["metric"] == MEAN_SCORE}
    body = []
    for metric in (MOTION_SCORE, "WHEN", ANALYTIC_SCORE):
        metric_rows = [
            row for row in rows if row["metric"] == metric and (row["network_name"], row["method"]) not in where
        ]
        for row in sorted(metric_rows, key=lambda row: (row["network_name"], row["question"], -row["value"])):
            body.append(
                (
                    metric,
                    row["network_name"],
                    row["question"],
                    row["method"],
                    _format_interval(row),
                    row["forward_passes"],
                )
            )
    return markdown(("metric", "network", "question", "method", f"value (95 % CI {UNIT})", "forward passes"), body)


def metrics_table(rows: list[dict]) -> str:
    """Return the rank correlation of each metric with the ground-truth score, by decreasing mean."""
    metric_rows = [row for row in rows if row["part"] == "metrics"]
    questions = list(dict.fromkeys((row["network_name"], row["question"]) for row in metric_rows))
    row_of_key = {(row["metric"], row["infill"], row["network_name"], row["question"]): row for row in metric_rows}
    metric_keys = list(dict.fromkeys((row["metric"], row["infill"]) for row in metric_rows))
    rows_of_metric = {
        metric_key: [row_of_key[(*metric_key, *a)] for a in questions if (*metric_key, *a) in row_of_key]
        for metric_key in metric_keys
    }
    metric_keys.sort(key=lambda kind: -sum(row["spearman"] for row in rows_of_metric[kind]) / len(rows_of_metric[kind]))
    head = ("metric", "infill", *(f"{network}, {question}" for network, question in questions))
    body = []
    for metric_key in metric_keys:
        cells = [
            _format_interval(row_of_key[(*metric_key, *a)]) if (*metric_key, *a) in row_of_key else ""
            for a in questions
        ]
        body.append((*metric_key, *cells))
    return markdown(head, body)


def concepts_table(rows: list[dict]) -> str:
    """Return AUROC, power and false-positive rate of each concept test."""
    concept_rows = [row for row in rows if row["part"] == "concepts" and row["clip_type"] == "both"]
    measures = ("AUROC", "POWER", "FALSE_POSITIVES", "POWER_AT_5")
    head = (
        "network",
        "stage",
        "method",
        "AUROC (95 % CI over concepts)",
        "power",
        "false-positive rate",
        "power at a false-positive rate of 5 %",
    )
    body = []
    for key in dict.fromkeys((row["network_name"], row["stage"], row["protocol"]) for row in concept_rows):
        row_of_measure = {
            r["measure"]: r for r in concept_rows if (r["network_name"], r["stage"], r["protocol"]) == key
        }
        body.append(
            (*key, *(_format_interval(row_of_measure[name]) if name in row_of_measure else "" for name in measures))
        )
    return markdown(head, body)


def discovery_table(rows: list[dict]) -> str:
    """Return the measures of each method of concept discovery, by network and stage."""
    measures = ("RECOVERY", "WHERE", "WHEN", "USE", "USE_RANDOM", "RANK", "COMPLETENESS", "STABILITY")
    factors = ("shape", "direction", "flash", "scene")
    head = (
        *("network", "stage", "method", "concepts", "recovery (95 % CI over clips)"),
        *(f"of {factor}" for factor in factors),
        *("WHERE", "WHEN", "use", "same, random direction", "rank correlation of importance", "completeness"),
        "stability (95 % CI over concepts)",
    )
    body = []
    for key in dict.fromkeys(tuple(row[name] for name in DISCOVERY_KEY) for row in rows):
        by_name = {(r["measure"], r["factor"]): r for r in rows if tuple(r[name] for name in DISCOVERY_KEY) == key}
        recovery, *others = (_format_interval(by_name[name, "all"]) for name in measures)
        body.append((*key, recovery, *(f"{by_name['RECOVERY', name]['value']:.2f}" for name in factors), *others))
    return markdown(head, body)


def motion_selectivity_table(rows: list[dict]) -> str:
    """Return how much of motion parts and of maps is on moving pixels, by network, head, method and variant."""
    names = ("network_name", "kind", "target", "method", "stage", "variant")
    body = []
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        by_column = {(row["measure"], row["frames"]): row for row in rows if tuple(row[name] for name in names) == key}
        cells = []
        for column, title in SELECTIVITY_COLUMNS.items():
            row = by_column[column]
            text = intervals.format_interval(row["mean"], row["low"], row["high"])
            cells.append(text if "95 % CI" in title else text.partition(" ")[0])
        network, kind, head, method, stage, variant = key
        body.append((network, f"{head} ({kind})", f"{method} at {stage}", variant, *cells))
    return markdown(("network", "head (needs)", "map", "variant", *SELECTIVITY_COLUMNS.values()), body)


def channels_table(rows: list[dict]) -> str:
    """Return the scores of pyramid channels: mean, minimum and maximum over questions."""
    channel_rows = [
        row for row in rows if row["part"] == "maps" and row["metric"] in (ABLATION_SCORE, SELECTIVITY_SCORE)
    ]
    body = []
    for key in dict.fromkeys((row["network_name"], row["stage"], row["method"]) for row in channel_rows):
        key_rows = [row for row in channel_rows if (row["network_name"], row["stage"], row["method"]) == key]
        cells = []
        for metric in (ABLATION_SCORE, SELECTIVITY_SCORE):
            values = [row["value"] for row in key_rows if row["metric"] == metric]
            cells.append(f"{_format_mean(values)} ({min(values):.2f} to {max(values):.2f})")
        body.append((*key, *cells, max(row["forward_passes"] for row in key_rows)))
    return markdown(
        (
            "network",
            "stage",
            "channels",
            *(f"{metric}: mean (minimum to maximum)" for metric in (ABLATION_SCORE, SELECTIVITY_SCORE)),
            "forward passes",
        ),
        body,
    )


def seeds_table(rows: list[dict]) -> str:
    """Return one table per recipe: methods at their best stage on the first network, on networks of several seeds."""
    parts = dict.fromkeys(row["part"] for row in rows if row["part"].startswith("seeds"))
    return "\n\n".join(_seed_table([row for row in rows if row["part"] == part]) for part in parts)


def _seed_table(rows: list[dict]) -> str:
    networks = list(dict.fromkeys(row["network_name"] for row in rows))
    truths = [to_score_row(row) for row in rows if row["metric"] == MEAN_SCORE]
    row_of_key = {
        (r.network_name, r.method, r.stage): vars(r)
        for name in networks
        for r in evaluation_figures.overall_scores(truths, name)
    }
    body = []
    for first in evaluation_figures.best_stage_per_method(evaluation_figures.overall_scores(truths, networks[0])):
        method_rows = [row for name in networks if (row := row_of_key.get((name, first.method, first.stage)))]
        if len(method_rows) < len(networks):
            continue  # does not apply to all networks
        values = [row["value"] for row in method_rows]
        body.append(
            (first.method, first.stage, f"{max(values) - min(values):.2f}", *map(_format_interval, method_rows))
        )
    return markdown(("method", "stage", "maximum - minimum", *networks), body)


def seed_variation_table(rows: list[dict]) -> str:
    """Return mean and standard deviation over networks of one recipe, next to the intervals over clips."""
    head = ("method", "stage", "networks", "mean", "SD over networks", "half-width of the 95 % CI over clips")
    numbers = [
        [f"{round(row['mean'], 2) + 0.0:.2f}", *(f"{row[name]:.3f}" for name in ("sd", "half_width"))] for row in rows
    ]
    body = [
        (row["method"], row["stage"], len(row["networks"]), *cells, f"{row['outside']} of {row['pairs']}")
        for row, cells in zip(rows, numbers)
    ]
    return markdown((*head, "scores outside the CI of another network"), body)


def to_score_row(row: dict) -> MethodScoreRow:
    return MethodScoreRow(**{field.name: row[field.name] for field in fields(MethodScoreRow)})


def _best_by_network(rows: list[dict], networks: Sequence[str]) -> dict[str, dict[str, dict]]:
    """Return the best row of each method, by network."""
    return {
        name: {r["method"]: r for r in _rank_methods([r for r in rows if r["network_name"] == name])}
        for name in networks
    }


def _rank_methods(rows: list[dict]) -> list[dict]:
    """Return the TRUTH rows of each method at its best stage on one network, sorted by decreasing score."""
    truth_rows = [to_score_row(row) for row in rows if row["metric"] == MEAN_SCORE]
    return (
        [
            vars(row)
            for row in evaluation_figures.best_stage_per_method(
                evaluation_figures.overall_scores(truth_rows, truth_rows[0].network_name)
            )
        ]
        if truth_rows
        else []
    )


def _format_interval(row: dict) -> str:
    return intervals.format_interval(row["spearman" if "spearman" in row else "value"], row["low"], row["high"])


def _format_mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2f}" if values else ""


def synthesis_table(rows: list[dict]) -> str:
    """Return how many synthesised clips contain the cause, by the network that they were made for and the judge."""
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    names = {"motion": "motion in the direction"} | {judge: f"called so by {judge}" for judge in judges[1:]}
    body = []
    for network in dict.fromkeys(row["network"] for row in rows):
        by_judge = {row["judge"]: row for row in rows if row["network"] == network}
        cells = [_format_percent(*(by_judge[judge][name] for name in ("share", "low", "high"))) for judge in judges]
        body.append((f"`{network}`", by_judge["motion"]["clips"], *cells))
    return markdown(("made for", "clips", *(names[judge] for judge in judges)), body)


def conditional_relevance_table(rows: list[dict]) -> str:
    """Return the relevance of each target through each concept, and where the maps lie."""
    head = ("network", "stage", "target", "concept", "share of the relevance", "absolute map on the glyph")
    body = [
        (
            *(f"`{row[name]}`" if name in ("network", "stage") else row[name] for name in head[:4]),
            *(
                intervals.format_interval(*(row[f"{measure}{end}"] for end in ("", "_low", "_high")))
                for measure in ("share", "on_glyph")
            ),
        )
        for row in rows
    ]
    return markdown(head, body)


def time_sensitivity_table(rows: list[dict]) -> str:
    """Return the change of activations and the loss of score when stages are edited along time."""
    panels = [("activation_change", "", "shuffled", "change of the activation, clip shuffled")]
    panels += [
        ("score_loss", target, edit, f"loss of {target}, stage {edit}")
        for target in ("direction", "shape")
        for edit in ("shuffled", "frozen")
    ]
    by_key = {(r["network"], r["weights"], r["stage"], r["quantity"], r["target"], r["edit"]): r for r in rows}
    body = []
    for place in dict.fromkeys((r["network"], r["weights"], r["stage"]) for r in rows if r["target"]):
        panel_rows = [by_key.get((*place, *panel[:3])) for panel in panels]
        cells = ["" if row is None else _format_percent(row["value"], row["low"], row["high"]) for row in panel_rows]
        name, weights, stage = place
        body.append((f"`{name}`", weights, "input" if stage == "video" else f"`{stage}`", *cells))
    return markdown(("network", "weights", "stage", *(panel[3] for panel in panels)), body)


def _format_percent(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "undefined"
    interval = "" if low is None or high is None else f" ({round(100 * low)} to {round(100 * high)} %)"
    return f"{round(100 * value)} %{interval}"
