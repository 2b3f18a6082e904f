"""Tables of speed and of agreement with other implementations, from the rows in benchmarks/results."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from vtcav_jax.stats.intervals import format_interval


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def format_timing(row: dict) -> str:
    return f"{format_seconds(row['median_s'])} ({format_seconds(row['p10_s'])} to {format_seconds(row['p90_s'])})"


def format_seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def format_shape(row: dict) -> str:
    return f"{row['batch']} x {' x '.join(map(str, row['clip']))}"


def format_ratio(row: dict, key: str) -> str:
    return f"{row[key]:.2f}x" if key in row else "not measured"


def forward_table(rows: list[dict]) -> str:
    head = (
        *("network", "clips", "arithmetic", "forward: median (10 % to 90 %)", "clips/s", "compile", "temporary memory"),
        *("GFLOP", "share of matmul peak", "torch original", "speed-up over eager", "over torch.compile"),
        *("over torchax", "largest difference"),
    )
    body = [
        (
            *(f"`{r['preset']}`", format_shape(r), r["dtype"], format_timing(r), f"{r['batch'] / r['median_s']:.3g}"),
            *(format_seconds(r["compile_s"]), f"{r['temp_mib']:.0f} MiB", r["gflop"]),
            f"{100 * r['share_of_peak']:.0f} % of {r['peak_gflops']} GFLOP/s",
            r.get("reference", ""),
            *(format_ratio(r, f"{name}_ratio") for name in ("torch", "torch_compiled", "torchax")),
            r.get("difference", ""),
        )
        for r in rows
    ]
    return markdown(head, body)


def gradients_table(rows: list[dict]) -> str:
    head = (
        *("network", "clips", "arithmetic", "computation", "median (10 % to 90 %)", "time / forward pass", "compile"),
        *("temporary memory", "GFLOP", "share of matmul peak", "torch original", "speed-up over torch autograd"),
        "largest difference",
    )
    body = [
        (
            *(f"`{r['preset']}`", format_shape(r), r["dtype"], r["what"], format_timing(r)),
            *(f"{r['times_forward']:.2f}", format_seconds(r["compile_s"])),
            *(f"{r['temp_mib']:.0f} MiB", r["gflop"], f"{100 * r['share_of_peak']:.0f} %", r.get("reference", "")),
            *(format_ratio(r, "torch_ratio"), r.get("difference", "")),
        )
        for r in rows
    ]
    return markdown(head, body)


def decode_table(rows: list[dict]) -> str:
    head = (
        *("video size", "reader", "clips/s (slowest run)", "speed-up over decoding all frames"),
        *("memory of the main process", "memory of the workers", "accelerator idle", "model on this machine idle"),
        "largest difference",
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
    head = (
        *("task", "implementation", "clips or vectors", "time", "time / ours", "forward passes per clip"),
        *("largest difference", "notes"),
    )
    body = []
    for r in rows:
        more = []
        if r.get("extrapolated"):
            more.append("extrapolated from 3 vectors")
        if "times_ours_without_products" in r:
            more.append(f"{r['times_ours_without_products']:.0f}x without the time of our products")
        if "first_s" in r:
            more.append(f"{format_seconds(r['first_s'])} including compilation")
        if "backwards_per_target" in r:
            more.append(
                f"{r['backwards_per_target']:.0f} backward pass{'es' * (r['backwards_per_target'] != 1)} per target"
            )
        if "times_bare" in r:
            more.append(f"{r['times_bare']:.2f}x the passes alone ({format_seconds(r['bare_s'])}), {r['tests']} tests")
        if "peak_mib" in r:
            more.append(f"peak memory {r['peak_mib']} MiB")
        if "times_fewer_clips" in r:
            more.append(f"{r['times_fewer_clips']:.2f}x the peak with a quarter of the clips")
        ratio = f"{r['times_ours']:.0f}x" if "times_ours" in r else ""
        what, who = (r["part"], r["what"]) if r["part"] == "vectors" else (r["what"], r.get("who", "ours"))
        what = "465 vectors of 100,000 features" if r["part"] == "vectors" else what
        forwards = r.get("forwards_per_clip", "")
        cells = (what, who, r.get("clips", r.get("vectors", "")), format_seconds(r["total_s"]), ratio, forwards)
        body.append((*cells, r.get("difference", ""), "; ".join(more)))
    return markdown(head, body)


def attribution_table(rows: list[dict]) -> str:
    head = (
        *("network", "clips", "maps", "median (10 % to 90 %)", "maps/s", "first call", "compared with", "speed-up"),
        *("largest difference", "time / one Grad-CAM"),
    )
    body = [
        (
            *(
                r["preset"],
                format_shape(r),
                r["what"],
                format_timing(r),
                r["maps_per_s"],
                format_seconds(r["compile_s"]),
            ),
            *(r.get("peer", ""), f"{r['ratio']:.2f}x" if "ratio" in r else "", r.get("difference", "")),
            f"{r['times_one']:.2f}" if "times_one" in r else "",
        )
        for r in rows
    ]
    return markdown(head, body)


def parity_table(rows: list[dict]) -> str:
    head = (
        "network",
        "parameters",
        "clip",
        "stages",
        "largest difference",
        "at",
        "median",
        "logits",
        "gradient",
        "reference",
    )
    body = []
    for r in rows:
        logits = r["differences"]["logits"]
        stage_differences = {stage: value for stage, value in r["differences"].items() if stage != "logits"}
        worst, middle = (
            max(stage_differences, key=lambda stage: stage_differences[stage]),
            median(stage_differences.values()),
        )
        size = " x ".join(map(str, r["clip"]))
        cells = (
            f"{r['parameters']:,}",
            size,
            len(stage_differences),
            f"{stage_differences[worst]:.1e}",
            f"`{worst}`",
            f"{middle:.1e}",
            f"{logits:.1e}",
            f"{r['gradient']:.1e}" if "gradient" in r else "not measured",
        )
        body.append((f"`{r['preset']}`", *cells, r["reference"]))
    return markdown(head, body)


def pyramid_table(rows: list[dict]) -> str:
    head = (
        "network",
        "clip",
        "GFLOP",
        "levels",
        "channels",
        "forward pass",
        "pyramid, including forward pass",
        "time / forward pass",
        "first call",
    )
    body = [
        (
            *(f"`{r['preset']}`", " x ".join(map(str, r["clip"])), r["gflop"], ", ".join(r["levels"]), r["kernels"]),
            *(
                format_seconds(r["forward_s"]),
                format_timing(r),
                f"{r['in_forwards']:.2f}",
                format_seconds(r["compile_s"]),
            ),
        )
        for r in rows
    ]
    return markdown(head, body)


def method_costs_table(rows: list[dict]) -> str:
    """Return the forward passes and seconds of each method's default, by network and clip."""
    presets = {
        row["preset"]: f"`{row['preset']}`, {' x '.join(map(str, row['clip']))} (forward pass"
        f" {format_seconds(row['forward_s'])})"
        for row in rows
    }
    by_key = {(row["preset"], row["method"]): row for row in rows}
    head = ["method"]
    head += [
        f"{text}, {name}" for name in presets.values() for text in ("passes", "seconds", "per pass / forward pass")
    ]
    body = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells: list[Any] = [method]
        for preset in presets:
            row = by_key[preset, method]
            if "unsuitable" in row:
                cells += ["", "does not suit the network", ""]
                continue
            seconds = format_seconds(row["passes"] * row["forward_s"] * row.get("ratio", 1.0))
            cells += [row["passes"], seconds, f"{row['ratio']:.2f}" if "ratio" in row else "not timed"]
        body.append(cells)
    return markdown(head, body)


ACCELERATOR_VALUES = (
    *("logits_float32", "worst_stage_bfloat16", "bfloat16", "clips", "tests", "total_s", "times_bare"),
    "clips_per_s_by_reader",
)


def accelerator_table(rows: list[dict]) -> str:
    """Return the steps of the benchmark of accelerators, with what each measured."""
    head = (
        "step",
        "network",
        "batch",
        "clips/s",
        "median (10 % to 90 %)",
        "share of matmul peak",
        "compiled torch / ours",
    )
    body = []
    for row in rows:
        if "median_s" not in row:
            values = {name: value for name, value in row.items() if name in ACCELERATOR_VALUES}
            text = row.get("error") or ", ".join(f"{name}: {value}" for name, value in values.items())
            body.append((row["step"], row["preset"], "", "", text, "", ""))
            continue
        ratio = f"{row['torch_ratio']:.2f}" if "torch_ratio" in row else "torch.compile failed"
        share = f"{100 * row['utilisation']:.0f} %"
        body.append(
            (row["step"], f"`{row['preset']}`", row["batch"], row["clips_per_s"], format_timing(row), share, ratio)
        )
    return markdown(head, body)


def preflight_table(rows: list[dict]) -> str:
    """Return what each program needs on each accelerator, before and after the kernels where both were compiled."""
    head = ("program", "network", "accelerator", "operations", "memory", "memory traffic", "accessed")
    head = (*head, "lower bound of the time", "upper bound of the utilisation")
    columns = {
        "operations": lambda row: f"{row['operations'] / 1e9:.3g} G",
        "memory": lambda row: f"{row['memory_bytes'] / 2**30:.2g} GiB",
        "traffic": lambda row: f"{row['traffic_bytes'] / 1e9:.3g} GB",
        "accessed": lambda row: f"{row['accessed_bytes'] / 1e9:.3g} GB",
        "bound": lambda row: f"{row['bound_seconds'] * 1e3:.3g} ms",
        "utilisation": lambda row: f"{row['utilisation_bound']:.0%}",
    }
    by_program: dict[tuple[str, ...], dict[str, dict]] = {}
    for row in rows:
        by_program.setdefault((row["program"], row["network"], row["target"]), {})[row["version"]] = row
    body = []
    for (program, network, target), versions in sorted(by_program.items()):
        compiled = [versions[name] for name in ("before", "after") if name in versions]
        if errors := [row["error"] for row in compiled if row["error"]]:
            body.append((program, network, target, f"does not compile: {errors[-1]}", *[""] * 5))
            continue
        cells = [" → ".join(dict.fromkeys(map(column, compiled))) for column in columns.values()]
        body.append((program, f"`{network}`" if network else "", target, *cells))
    return markdown(head, body)


def movements_table(rows: list[dict]) -> str:
    """Return the agreement of clusters of movements with planted ones."""
    head = ("videos", "noise", "lost", "`--num_movements`", "`--min_movement`", "agreement (95 % CI)")
    body = [
        (
            *(
                row["videos"],
                f"{row['noise']:g}",
                f"{row['lost']:.0%}",
                row["num_movements"],
                f"{row['min_movement']:g}",
            ),
            format_interval(row["rand_index"], row["low"], row["high"]),
            format_interval(row["moving_index"], row["moving_low"], row["moving_high"]),
            f"{row['named']} of 7",
            f"{row['stability']:.2f}",
        )
        for row in rows
    ]
    return markdown((*head, "without still people", "right names", "stability"), body)
