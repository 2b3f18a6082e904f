"""How much of the truth maps tell, and what they cost."""

import math
from collections.abc import Sequence

from vtcav_jax.evaluation.world_benchmark.tables import ALL, AXES, TRUTH, Row
from vtcav_jax.report.effect_sizes import number, span
from vtcav_jax.report.figures.svg import Canvas, Figure, Scale, tick
from vtcav_jax.report.figures.tcav import WIDTH, slug

WIDE = 2 * WIDTH
COLOURS = ("one", "two", "three", "four")
ROOM, LETTER = 13, 6.4  # pixels between labels, and of a letter
KNOWN = ("gradcam", "integrated_gradients", "occlusion", "rise (300)", "rollout", "frame_difference", "random")
LEAST = -0.35  # where an axis begins; what is worse is drawn there, and told in the table


def overall(rows: Sequence[Row], network: str) -> list[Row]:
    """TRUTH over all questions of a network, or over the only one; the best first."""
    some = [row for row in rows if row.network == network and row.axis == TRUTH]
    found = [row for row in some if row.world == ALL] or some
    return sorted(found, key=lambda row: -row.value)


def best(rows: Sequence[Row]) -> list[Row]:
    """Of each method its best stage."""
    kept: dict[str, Row] = {}
    for row in rows:
        kept.setdefault(row.method, row)
    return list(kept.values())


def cheapest(rows: Sequence[Row]) -> list[Row]:
    """Those that nothing beats for as little, the cheapest first."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.forwards, -row.value)):
        if not kept or row.value > kept[-1].value:
            kept.append(row)
    return kept


def against_cost(rows: Sequence[Row], network: str) -> Figure:
    """Every method at its best stage, truth over forward passes; named are those that nothing beats for as little, the
    best that ask no network, and what else there is room for."""
    some = best(overall(rows, network))
    canvas = Canvas(WIDE, 340)
    most = max((row.forwards for row in some), default=1)
    x = Scale(-0.8, math.log10(2 * max(most, 10)), 56, WIDE - 150)
    y = Scale(min(-0.05, *(row.low for row in some)), max(0.2, *(row.high for row in some)) + 0.03, 296, 34)
    canvas.text(8, 16, f"{network}: truth against cost", "title")
    for value in y.ticks:
        canvas.line(56, y(value), WIDE - 150, y(value), "axis" if value else "zero")
        canvas.text(50, y(value) + 4, tick(round(value, 6)), "soft", "end")
    for power in range(math.floor(x.high) + 1):
        canvas.line(x(power), 34, x(power), 296, "axis")
        canvas.text(x(power), 312, f"{10**power:,}", "soft", "middle")
    canvas.text(x(x.low), 312, "none", "soft", "middle")
    canvas.text(WIDE - 150, 332, "forward passes for one clip's map", "soft", "end")
    front = cheapest([row for row in some if not row.free])
    canvas.path([(_at(x, row), y(row.value)) for row in front], "one thin")
    ranked = sorted(some, key=lambda row: (row not in front, row.method not in KNOWN))
    dots = [(_at(x, row), y(row.value)) for row in ranked]
    for row, (cx, cy) in reversed(list(zip(ranked, dots))):
        kind = "faint" if row.free else "one" if row in front else "two"
        canvas.line(cx, y(row.low), cx, y(row.high), f"thin {kind}")
        canvas.dot(cx, cy, kind, said(row))
    taken: list[tuple[float, float]] = []
    for row, (cx, cy) in zip(ranked, dots):
        end = cx + 12 + LETTER * len(row.method)
        free = all(abs(cy - oy) > ROOM or abs(cx - ox) > 160 for ox, oy in taken)
        clear = all(abs(cy - oy) > 8 or not cx + 2 < ox < end for ox, oy in dots)
        if free and (clear or row in front or row.method in KNOWN):
            canvas.text(cx + 8, cy + 4, row.method, "halo" if row in front else "soft halo", most=24)
            taken.append((cx, cy))
    label = f"{network}: how much of the truth each method's maps tell, over what they cost"
    return canvas.figure(slug("truth", "cost", network), label)


def ranking(rows: Sequence[Row], networks: Sequence[str]) -> Figure:
    """Every method at its best stage on each network, with its interval; the best on the first network at the top."""
    found = {network: {row.method: row for row in best(overall(rows, network))} for network in networks}
    names = list(dict.fromkeys(name for some in found.values() for name in some))
    canvas = Canvas(WIDTH + 100, 62 + 17 * len(names))
    every = [value for some in found.values() for row in some.values() for value in (row.low, row.high)]
    x = Scale(min(-0.05, *every), max(0.2, *every), 176, WIDTH + 84)
    for i, network in enumerate(networks):
        canvas.dot(14 + 150 * i, 12, COLOURS[i % 4], network)
        canvas.text(24 + 150 * i, 16, network, "", most=20)
    for value in x.ticks:
        canvas.line(x(value), 28, x(value), canvas.height - 26, "axis" if value else "zero")
        canvas.text(x(value), canvas.height - 8, tick(round(value, 6)), "soft", "middle")
    for j, name in enumerate(names):
        cy = 40 + 17 * j
        canvas.text(168, cy + 4, name, "", "end", most=25)
        for i, some in enumerate(found.values()):
            if row := some.get(name):
                canvas.line(x(row.low), cy, x(row.high), cy, f"bar {COLOURS[i % 4]}")
                canvas.dot(x(row.value), cy, COLOURS[i % 4], said(row), 4)
    return canvas.figure("truth_ranking", "how much of the truth each method's maps tell on each network")


def by_axis(rows: Sequence[Row], network: str, world: str, most: int = 14) -> Figure:
    """The best methods and those that ask no network, axis by axis."""
    some = [row for row in rows if row.network == network and row.world == world]
    ranked = best(sorted((row for row in some if row.axis == TRUTH), key=lambda row: -row.value))
    shown = [row for row in ranked if not row.free][:most] + [row for row in ranked if row.free]
    there = [axis for axis in AXES if any(row.axis == axis for row in some)]
    canvas = Canvas(WIDE, 50 + 18 * len(shown))
    canvas.text(8, 16, f"{network}, {world}", "title")
    wide = (WIDE - 190) / max(len(there), 1)
    for i, axis in enumerate(there):
        left = 182 + wide * i
        x = Scale(LEAST, 1.0, left, left + wide - 14)
        canvas.text(left, 32, axis, "soft")
        canvas.line(x(0), 38, x(0), canvas.height - 6, "zero")
        canvas.line(x(1), 38, x(1), canvas.height - 6, "axis")
        for j, head in enumerate(shown):
            cy = 48 + 18 * j
            if not i:
                canvas.text(174, cy + 4, f"{head.method}", "soft" if head.free else "", "end", most=25)
            row = next((r for r in some if (r.method, r.stage, r.axis) == (head.method, head.stage, axis)), None)
            if row is not None and math.isfinite(row.value):
                value, low, high = (x(max(v, LEAST)) for v in (row.value, row.low, row.high))
                kind = "faint" if row.free else "one"
                canvas.line(low, cy, high, cy, f"bar {kind}")
                canvas.dot(value, cy, kind, said(row), 3.5)
    return canvas.figure(slug("truth", network, world), f"{network}, {world}: every axis of the best methods")


def _at(x: Scale, row: Row) -> float:
    return x(math.log10(row.forwards) if row.forwards else x.low)


def said(row: Row) -> str:
    """All of a row, for whoever points at its mark."""
    return (
        f"{row.method} at {row.stage}, {row.axis} of {row.world}: {number(row.value)} ({span(row.low, row.high)}),"
        f" {row.clips} clips, {row.forwards} forward passes, {number(1e3 * row.seconds)} ms"
    )
