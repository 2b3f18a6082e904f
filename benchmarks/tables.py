"""The tables of the pages, written from the results; `python -m benchmarks.tables` does it by hand."""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Any

from vtcav_jax import intervals
from vtcav_jax.report import truth_figures
from vtcav_jax.truth.table import ABLATION, SELECTIVE, TRUTH, Row

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
PAGES = ROOT / "README.md", ROOT / "docs" / "speed.md", ROOT / "docs" / "networks.md", ROOT / "docs" / "truth.md"


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def seconds(row: dict) -> str:
    return f"{time(row['median_s'])} ({time(row['p10_s'])} to {time(row['p90_s'])})"


def time(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def shape(row: dict) -> str:
    return f"{row['batch']} x {' x '.join(map(str, row['clip']))}"


def times(row: dict, key: str) -> str:
    return f"{row[key]:.2f}x" if key in row else "not measured"


def forward_table(rows: list[dict]) -> str:
    head = (
        *("network", "clips", "arithmetic", "forward: median (10 % to 90 %)", "clips/s", "compile", "temporary memory"),
        *("GFLOP", "of the matmul peak", "faster than torchvision", "than torch.compile", "largest difference"),
    )
    body = [
        (
            *(r["preset"], shape(r), r["dtype"], seconds(r), f"{r['batch'] / r['median_s']:.3g}"),
            *(time(r["compile_s"]), f"{r['temp_mib']:.0f} MiB", r["gflop"]),
            f"{100 * r['share_of_peak']:.0f} % of {r['peak_gflops']} GFLOP/s",
            *(times(r, "torchvision_ratio"), times(r, "torchvision_compiled_ratio"), r.get("difference", "")),
        )
        for r in rows
    ]
    return markdown(head, body)


def gradients_table(rows: list[dict]) -> str:
    head = (
        *("network", "clips", "arithmetic", "what", "median (10 % to 90 %)", "in forward passes", "compile"),
        *("temporary memory", "GFLOP", "of the matmul peak", "faster than torch autograd", "largest difference"),
    )
    body = [
        (
            *(
                r["preset"],
                shape(r),
                r["dtype"],
                r["what"],
                seconds(r),
                f"{r['times_forward']:.2f}",
                time(r["compile_s"]),
            ),
            *(f"{r['temp_mib']:.0f} MiB", r["gflop"], f"{100 * r['share_of_peak']:.0f} %"),
            *(times(r, "torchvision_ratio"), r.get("difference", "")),
        )
        for r in rows
    ]
    return markdown(head, body)


def decode_table(rows: list[dict]) -> str:
    head = (
        *("files", "read by", "clips/s (slowest run)", "than decoding all frames", "memory", "of the workers"),
        *("an accelerator waits", "a model on this machine waits", "largest difference"),
    )
    body = [
        (
            *(r["video"], r["reader"], f"{r['clips_per_s']} ({r['slowest_clips_per_s']})"),
            f"{r['times_all_frames']:.2f}x" if "times_all_frames" in r else "",
            *(f"{r['memory_mib']} MiB", f"{r['workers_mib']} MiB", f"{100 * r['waits']:.0f} %"),
            f"{100 * r['model_waits']:.0f} %" if "model_waits" in r else "not measured",
            r.get("difference", ""),
        )
        for r in rows
    ]
    return markdown(head, body)


def tcav_table(rows: list[dict]) -> str:
    head = ("what", "who", "clips or vectors", "time", "times ours", "each clip forward", "largest difference", "more")
    body = []
    for r in rows:
        more = []
        if r.get("extrapolated"):
            more.append("extrapolated from 3 vectors")
        if "times_ours_without_products" in r:
            more.append(f"{r['times_ours_without_products']:.0f}x without our products")
        if "first_s" in r:
            more.append(f"{time(r['first_s'])} with compilation")
        if "backwards_per_target" in r:
            more.append(f"{r['backwards_per_target']:.0f} backward per target")
        if "times_bare" in r:
            more.append(f"{r['times_bare']:.2f}x its bare passes ({time(r['bare_s'])}), {r['tests']} tests")
        if "peak_mib" in r:
            more.append(f"{r['peak_mib']} MiB at its peak")
        if "times_fewer_clips" in r:
            more.append(f"{r['times_fewer_clips']:.2f}x that of a quarter of the clips")
        ratio = f"{r['times_ours']:.0f}x" if "times_ours" in r else ""
        what, who = (r["part"], r["what"]) if r["part"] == "vectors" else (r["what"], r.get("who", "ours"))
        what = "465 vectors of 100,000 features" if r["part"] == "vectors" else what
        forwards = r.get("forwards_per_clip", "")
        cells = (what, who, r.get("clips", r.get("vectors", "")), time(r["total_s"]), ratio, forwards)
        body.append((*cells, r.get("difference", ""), "; ".join(more)))
    return markdown(head, body)


def attribution_table(rows: list[dict]) -> str:
    head = (
        *("network", "clips", "what", "median (10 % to 90 %)", "maps/s", "first call", "against", "faster"),
        *("largest difference", "in units of one Grad-CAM"),
    )
    body = [
        (
            *(r["preset"], shape(r), r["what"], seconds(r), r["maps_per_s"], time(r["compile_s"])),
            *(r.get("peer", ""), f"{r['ratio']:.2f}x" if "ratio" in r else "", r.get("difference", "")),
            f"{r['times_one']:.2f}" if "times_one" in r else "",
        )
        for r in rows
    ]
    return markdown(head, body)


def parity_table(rows: list[dict]) -> str:
    head = ("network", "parameters", "clip", "stages", "largest difference", "at", "median", "logits", "reference")
    body = []
    for r in rows:
        logits = r["differences"]["logits"]
        at = {stage: value for stage, value in r["differences"].items() if stage != "logits"}
        worst, middle = max(at, key=lambda stage: at[stage]), median(at.values())
        size = " x ".join(map(str, r["clip"]))
        cells = (
            f"{r['parameters']:,}",
            size,
            len(at),
            f"{at[worst]:.1e}",
            f"`{worst}`",
            f"{middle:.1e}",
            f"{logits:.1e}",
        )
        body.append((f"`{r['preset']}`", *cells, r["reference"]))
    return markdown(head, body)


def pyramid_table(rows: list[dict]) -> str:
    head = (
        "network",
        "clip",
        "GFLOP",
        "levels",
        "kernels",
        "forward",
        "pyramid, forward included",
        "in forwards",
        "first call",
    )
    body = [
        (
            *(f"`{r['preset']}`", " x ".join(map(str, r["clip"])), r["gflop"], ", ".join(r["levels"]), r["kernels"]),
            *(time(r["forward_s"]), seconds(r), f"{r['in_forwards']:.2f}", time(r["compile_s"])),
        )
        for r in rows
    ]
    return markdown(head, body)


def truth_table(rows: list[dict]) -> str:
    """Every method at its best stage on each network."""
    rows = [row for row in rows if row["part"] == "maps"]
    head = ("network", "method", "stage", "truth (95 %)", *TRUTH_AXES, "forward passes", "ms a clip")
    body = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        for row in _ranked(own):
            same = [r for r in own if (r["method"], r["stage"]) == (row["method"], row["stage"])]
            axes = [_mean([r["value"] for r in same if r["axis"] == axis]) for axis in TRUTH_AXES]
            cost = row["forwards"], f"{1000 * row['seconds']:.3g}"
            body.append((network, row["method"], row["stage"], _interval(row), *axes, *cost))
    return markdown(head, body)


def truth_best(rows: list[dict]) -> str:
    """What nothing beats for as little, and what everyone knows: on the first networks."""
    rows = [row for row in rows if row["part"] == "maps"]
    ranked = _by_network(rows, FIRST)
    first = list(ranked[FIRST[0]].values())
    cheapest = [row.method for row in truth_figures.cheapest([as_row(row) for row in first if row["forwards"]])]
    wanted = [row["method"] for row in first if row["method"] in (*cheapest, *KNOWN)]
    head = ("method, at its best stage", *(f"{name}: truth (95 %)" for name in FIRST), "forward passes")
    body = []
    for method in wanted:
        some = [ranked[name].get(method) for name in FIRST]
        told = [f"{_interval(row)} at {row['stage']}" if row else "not for it" for row in some]
        body.append((method, *told, ranked[FIRST[0]][method]["forwards"]))
    return markdown(head, body)


def truth_metrics(rows: list[dict]) -> str:
    """How well metrics that know no truth put maps in its order, the best first."""
    some = [row for row in rows if row["part"] == "metrics"]
    asked = list(dict.fromkeys((row["network"], row["world"]) for row in some))
    by = {(row["metric"], row["fill"], row["network"], row["world"]): row for row in some}
    kinds = list(dict.fromkeys((row["metric"], row["fill"]) for row in some))
    there = {kind: [by[(*kind, *a)] for a in asked if (*kind, *a) in by] for kind in kinds}
    kinds.sort(key=lambda kind: -sum(row["value"] for row in there[kind]) / len(there[kind]))
    head = ("metric", "filled with", "mean", *(f"{network}, {world}" for network, world in asked))
    body = []
    for kind in kinds:
        told = [_interval(by[(*kind, *a)]) if (*kind, *a) in by else "" for a in asked]
        body.append((*kind, _mean([row["value"] for row in there[kind]]), *told))
    return markdown(head, body)


def truth_concepts(rows: list[dict]) -> str:
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


def truth_kernels(rows: list[dict]) -> str:
    """What the kernels of pyramids are worth, the mean over questions; of each the worst and the best one."""
    some = [row for row in rows if row["part"] == "maps" and row["axis"] in (ABLATION, SELECTIVE)]
    body = []
    for key in dict.fromkeys((row["network"], row["stage"], row["method"]) for row in some):
        own = [row for row in some if (row["network"], row["stage"], row["method"]) == key]
        told = []
        for axis in (ABLATION, SELECTIVE):
            values = [row["value"] for row in own if row["axis"] == axis]
            told.append(f"{_mean(values)} ({min(values):.2f} to {max(values):.2f})")
        body.append((*key, *told, max(row["forwards"] for row in own)))
    return markdown(
        ("network", "stage", "kernels", *(f"{a}, of the questions" for a in (ABLATION, SELECTIVE)), "forward passes"),
        body,
    )


def truth_seeds(rows: list[dict]) -> str:
    """The same methods on networks of one recipe and several seeds."""
    some = [row for row in rows if row["part"] == "seeds"]
    networks = list(dict.fromkeys(row["network"] for row in some))
    ranked = _by_network(some, networks)
    known = [m for m in ranked[networks[0]] if all(m in ranked[name] for name in networks)] if networks else []
    body = []
    for method in known:
        values = [ranked[name][method]["value"] for name in networks]
        told = [f"{_interval(ranked[name][method])} at {ranked[name][method]['stage']}" for name in networks]
        body.append((method, f"{max(values) - min(values):.2f}", *told))
    return markdown(("method, at its best stage", "apart", *networks), body)


TRUTH_AXES = ("WHERE", "WHO", "WHEN", "WHAT-FOR", "EFFECT")
FIRST = ("worlds_swin", "worlds_cnn")
KNOWN = ("gradcam", "integrated_gradients", "rollout", "rise (300)", "occlusion", "frame_difference", "random")


def as_row(row: dict) -> Row:
    return Row(**{field.name: row[field.name] for field in fields(Row)})


def _by_network(rows: list[dict], networks: Sequence[str]) -> dict[str, dict[str, dict]]:
    """Of each network the best row of each method."""
    return {name: {r["method"]: r for r in _ranked([r for r in rows if r["network"] == name])} for name in networks}


def _ranked(rows: list[dict]) -> list[dict]:
    """TRUTH of each method at its best stage, over all questions or the only one, of one network."""
    some = [as_row(row) for row in rows if row["axis"] == TRUTH]
    return [vars(row) for row in truth_figures.best(truth_figures.overall(some, some[0].network))] if some else []


def _interval(row: dict) -> str:
    return intervals.told(row["value"], row["low"], row["high"])


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2f}" if values else ""


TABLES: dict[str, Callable[[list[dict]], str]] = {
    "forward": forward_table,
    "gradients": gradients_table,
    "decode": decode_table,
    "tcav": tcav_table,
    "attribution": attribution_table,
    "parity": parity_table,
    "pyramid": pyramid_table,
    "truth": truth_table,
    "truth:best": truth_best,
    "truth:metrics": truth_metrics,
    "truth:kernels": truth_kernels,
    "truth:seeds": truth_seeds,
    "truth:concepts": truth_concepts,
}


def results(name: str) -> str:
    """Every device's table, each under a line that says where it was measured; BENCHMARK, or BENCHMARK:TABLE."""
    parts = []
    for path in sorted(RESULTS.glob(f"{name.partition(':')[0]}_*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        first = rows[0]
        versions = ", ".join(f"{package} {number}" for package, number in first["versions"].items())
        place = f"{first['device']}, {first['cores']} CPU cores, Python {first['python']}, {versions}, {first['date']}"
        parts.append(f"{place}:\n\n{TABLES[name](rows)}")
    return "\n\n".join(parts)


def filled(text: str) -> str:
    """`text` with what stands between `<!-- table: NAME -->` and `<!-- end -->` made anew."""
    for name in TABLES:
        start, end = f"<!-- table: {name} -->", "<!-- end -->"
        before, _, rest = text.partition(start)
        if not rest:
            continue
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n\n{results(name)}\n\n{end}{after}"
    return text


def update_pages() -> str:
    """Writes the tables; returns the pages' names."""
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    return ", ".join(str(page.relative_to(ROOT)) for page in PAGES)


if __name__ == "__main__":
    update_pages()
