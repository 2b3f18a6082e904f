"""The tables of what explanations are worth, from the rows of benchmarks.publish_evaluation."""

from collections.abc import Sequence
from dataclasses import fields

from benchmarks.tables import markdown
from vtcav_jax.evaluation.world_benchmark.tables import (
    ABLATION_SCORE,
    ANALYTIC_SCORE,
    CROSS_VALIDATED_SCORE,
    MEAN_SCORE,
    MOTION_SCORE,
    SELECTIVITY_SCORE,
    MethodScoreRow,
)
from vtcav_jax.report.figures import evaluation as evaluation_figures
from vtcav_jax.stats import intervals

TRUTH_AXES = ("WHERE", "WHO", "WHEN", "WHAT-FOR", "EFFECT")
FIRST = ("worlds_swin", "worlds_cnn")
KNOWN = ("gradcam", "integrated_gradients", "rollout", "rise (300)", "occlusion", "frame_difference", "random")


def table(rows: list[dict]) -> str:
    """Every method at its best stage on each network."""
    rows = [row for row in rows if row["part"] == "maps"]
    by_half = "its stage chosen on half of the clips, judged on the other"
    head = ("network", "method", "stage", "truth (95 %)", by_half, *TRUTH_AXES, "forward passes", "ms a clip")
    body = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        for row in _ranked(own):
            same = [r for r in own if (r["method"], r["stage"]) == (row["method"], row["stage"])]
            axes = [_mean([r["value"] for r in same if r["axis"] == axis]) for axis in TRUTH_AXES]
            chosen = "".join(
                _interval(r) for r in own if (r["method"], r["axis"]) == (row["method"], CROSS_VALIDATED_SCORE)
            )
            cost = row["forwards"], f"{1000 * row['seconds']:.3g}"
            body.append((network, row["method"], row["stage"], _interval(row), chosen, *axes, *cost))
    return markdown(head, body)


def best(rows: list[dict]) -> str:
    """What nothing beats for as little, and what everyone knows: on the first networks."""
    rows = [row for row in rows if row["part"] == "maps"]
    ranked = _by_network(rows, FIRST)
    first = list(ranked[FIRST[0]].values())
    asked = [one for row in first if not (one := as_row(row)).is_trivial]
    cheapest = [row.method for row in evaluation_figures.cost_front(asked)]
    wanted = [row["method"] for row in first if row["method"] in (*cheapest, *KNOWN)]
    head = ("method, at its best stage", *(f"{name}: truth (95 %)" for name in FIRST), "forward passes")
    body = []
    for method in wanted:
        some = [ranked[name].get(method) for name in FIRST]
        told = [f"{_interval(row)} at {row['stage']}" if row else "not for it" for row in some]
        body.append((method, *told, ranked[FIRST[0]][method]["forwards"]))
    return markdown(head, body)


def others(rows: list[dict]) -> str:
    """What has no TRUTH: shares of motion, the hand-wired network, and what tells when and not where."""
    rows = [row for row in rows if row["part"] == "maps"]
    where = {(row["network"], row["method"]) for row in rows if row["axis"] == MEAN_SCORE}
    body = []
    for axis in (MOTION_SCORE, "WHEN", ANALYTIC_SCORE):
        own = [row for row in rows if row["axis"] == axis and (row["network"], row["method"]) not in where]
        for row in sorted(own, key=lambda row: (row["network"], row["world"], -row["value"])):
            body.append((axis, row["network"], row["world"], row["method"], _interval(row), row["forwards"]))
    return markdown(("axis", "network", "question", "method", "value (95 %)", "forward passes"), body)


def metrics(rows: list[dict]) -> str:
    """How well metrics that know no truth put maps in its order, the best on average first."""
    some = [row for row in rows if row["part"] == "metrics"]
    asked = list(dict.fromkeys((row["network"], row["world"]) for row in some))
    by = {(row["metric"], row["fill"], row["network"], row["world"]): row for row in some}
    kinds = list(dict.fromkeys((row["metric"], row["fill"]) for row in some))
    there = {kind: [by[(*kind, *a)] for a in asked if (*kind, *a) in by] for kind in kinds}
    kinds.sort(key=lambda kind: -sum(row["value"] for row in there[kind]) / len(there[kind]))
    head = ("metric", "filled with", *(f"{network}, {world}" for network, world in asked))
    body = []
    for kind in kinds:
        told = [_interval(by[(*kind, *a)]) if (*kind, *a) in by else "" for a in asked]
        body.append((*kind, *told))
    return markdown(head, body)


def concepts(rows: list[dict]) -> str:
    """What each procedure finds of the causes, and of what is none."""
    some = [row for row in rows if row["part"] == "concepts" and row["kind"] == "both"]
    measures = ("AUROC", "POWER", "FALSE_POSITIVES", "POWER_AT_5")
    head = (
        "network",
        "stage",
        "procedure",
        "AUROC",
        "causes found",
        "found of what is none",
        "causes found at 5 % of that",
    )
    body = []
    for key in dict.fromkeys((row["network"], row["stage"], row["procedure"]) for row in some):
        own = {r["measure"]: r for r in some if (r["network"], r["stage"], r["procedure"]) == key}
        body.append((*key, *(_interval(own[name]) if name in own else "" for name in measures)))
    return markdown(head, body)


def kernels(rows: list[dict]) -> str:
    """What the kernels of pyramids are worth, the mean over questions; of each the worst and the best one."""
    some = [row for row in rows if row["part"] == "maps" and row["axis"] in (ABLATION_SCORE, SELECTIVITY_SCORE)]
    body = []
    for key in dict.fromkeys((row["network"], row["stage"], row["method"]) for row in some):
        own = [row for row in some if (row["network"], row["stage"], row["method"]) == key]
        told = []
        for axis in (ABLATION_SCORE, SELECTIVITY_SCORE):
            values = [row["value"] for row in own if row["axis"] == axis]
            told.append(f"{_mean(values)} ({min(values):.2f} to {max(values):.2f})")
        body.append((*key, *told, max(row["forwards"] for row in own)))
    return markdown(
        (
            "network",
            "stage",
            "kernels",
            *(f"{a}, of the questions" for a in (ABLATION_SCORE, SELECTIVITY_SCORE)),
            "forward passes",
        ),
        body,
    )


def seeds(rows: list[dict]) -> str:
    """The same methods, each at the stage that is best on the first network, on networks of one recipe and several
    seeds: a table for each recipe."""
    parts = dict.fromkeys(row["part"] for row in rows if row["part"].startswith("seeds"))
    return "\n\n".join(_of_one_recipe([row for row in rows if row["part"] == part]) for part in parts)


def _of_one_recipe(rows: list[dict]) -> str:
    networks = list(dict.fromkeys(row["network"] for row in rows))
    truths = [as_row(row) for row in rows if row["axis"] == MEAN_SCORE]
    by = {
        (r.network_name, r.method, r.stage): vars(r)
        for name in networks
        for r in evaluation_figures.overall_scores(truths, name)
    }
    body = []
    for first in evaluation_figures.best_stage_per_method(evaluation_figures.overall_scores(truths, networks[0])):
        own = [row for name in networks if (row := by.get((name, first.method, first.stage)))]
        if len(own) < len(networks):
            continue  # not for all of them
        values = [row["value"] for row in own]
        body.append((first.method, first.stage, f"{max(values) - min(values):.2f}", *map(_interval, own)))
    return markdown(("method", "stage", "apart", *networks), body)


def as_row(row: dict) -> MethodScoreRow:
    return MethodScoreRow(**{field.name: row[field.name] for field in fields(MethodScoreRow)})


def _by_network(rows: list[dict], networks: Sequence[str]) -> dict[str, dict[str, dict]]:
    """Of each network the best row of each method."""
    return {name: {r["method"]: r for r in _ranked([r for r in rows if r["network"] == name])} for name in networks}


def _ranked(rows: list[dict]) -> list[dict]:
    """TRUTH of each method at its best stage, over all questions or the only one, of one network."""
    some = [as_row(row) for row in rows if row["axis"] == MEAN_SCORE]
    return (
        [
            vars(row)
            for row in evaluation_figures.best_stage_per_method(
                evaluation_figures.overall_scores(some, some[0].network_name)
            )
        ]
        if some
        else []
    )


def _interval(row: dict) -> str:
    return intervals.format_interval(row["value"], row["low"], row["high"])


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2f}" if values else ""
