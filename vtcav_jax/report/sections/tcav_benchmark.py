"""What a page says about tests of concepts that were held against known causes."""

from collections.abc import Sequence

from vtcav_jax.evaluation.tcav_benchmark.table import FILE, LEVEL, MEASURES, Row
from vtcav_jax.report import html
from vtcav_jax.report.effect_sizes import number, percent, span
from vtcav_jax.report.figures.svg import Canvas, Figure, Scale
from vtcav_jax.report.figures.tcav import WIDTH, slug
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, read_rows, unique

COLOURS = ("one", "two", "three", "four")
HOW = (
    "Concepts are clips that share a value of a planted factor, moving, or frozen at one frame. A value is a cause of"
    " the class whose answer it is; the second glyph's values and sets drawn at random are causes of nothing. All"
    " procedures judge the same clips. Power: the share of causes found, with the right sign; false positives: the"
    " share found of what is no cause; null: of the drawn sets alone, where a test promises 5 %. AUROC: how often a"
    " cause has the higher score. Intervals are 95 %, and allow for classes that share a concept's clips."
)


def sections(run: RunFolder) -> list[Section]:
    rows = read_rows(run.folder / FILE, Row)
    if not rows:
        return []
    networks = unique([row.network for row in rows])
    drawn = tuple(power_against_errors(rows, network) for network in networks)
    parts = [html.box(html.leads([said for network in networks for said in told(rows, network)]), "answer")]
    parts += [html.paragraph(HOW, "soft"), html.figures(drawn), _table(rows)]
    return [Section("truth-concepts", "Which test of concepts to believe", "".join(parts), drawn)]


def shown(rows: Sequence[Row], network: str) -> str:
    """The stage where causes stand out most, by the mean AUROC of all procedures."""
    some = [row for row in rows if row.network == network and row.measure == "AUROC" and row.kind == "both"]
    each = {stage: [row.value for row in some if row.stage == stage] for stage in unique([row.stage for row in some])}
    return max(each, key=lambda stage: sum(each[stage]) / len(each[stage]))


def told(rows: Sequence[Row], network: str) -> list[tuple[str, str]]:
    """What each procedure finds, and what it finds that is not there; then moving clips against still ones."""
    stage = shown(rows, network)
    some = {(r.procedure, r.kind, r.measure): r for r in rows if r.network == network and r.stage == stage}

    def said(name: str) -> str:
        power, wrong = some[name, "both", "POWER"], some[name, "both", "FALSE_POSITIVES"]
        found, errors = (f"{percent(r.value)} ({percent(r.low)} to {percent(r.high)})" for r in (power, wrong))
        return f"{found} of the causes and {errors} of what is none"

    others = [name for name in unique([procedure for procedure, *_ in some]) if name != "ours"]
    still, moving = (some["ours", kind, "AUROC"] for kind in ("static", "dynamic"))
    return [
        (
            f"{network} at {stage}: our test finds {said('ours')};",
            "; ".join(f"{name}: {said(name)}" for name in others) + ".",
        ),
        (
            f"A cause has the higher score in {percent(moving.value)} of comparisons with moving clips, in"
            f" {percent(still.value)} with still ones;",
            f"{span(moving.low, moving.high)} and {span(still.low, still.high)}, by our test.",
        ),
    ]


def power_against_errors(rows: Sequence[Row], network: str) -> Figure:
    """Each procedure at each stage: what it finds over what it finds wrongly; small: corrected for the family."""
    some = {(r.procedure, r.stage, r.measure): r for r in rows if r.network == network and r.kind == "both"}
    names = unique([procedure for procedure, *_ in some])
    plain = [name for name in names if (name, shown(rows, network), "AUROC") in some]
    canvas = Canvas(WIDTH, 262 + 16 * len(plain))
    x, y = Scale(0, 1, 44, WIDTH - 14), Scale(0, 1, 216, 34)
    canvas.text(8, 16, f"{network}: power against false positives", "title", most=48)
    for value in (0, 0.25, 0.5, 0.75, 1):
        canvas.line(44, y(value), WIDTH - 14, y(value), "axis")
        canvas.text(38, y(value) + 4, f"{value:g}", "soft", "end")
        canvas.text(x(value), 232, f"{value:g}", "soft", "middle")
    canvas.line(x(LEVEL), 34, x(LEVEL), 216, "zero", "what a test at 5 % promises")
    canvas.text(WIDTH - 14, 248, "share found of what is no cause", "soft", "end")
    for (name, stage, measure), power in some.items():
        if measure != "POWER":
            continue
        wrong = some[name, stage, "FALSE_POSITIVES"]
        kind, size = COLOURS[_own(name, plain) % len(COLOURS)], 4.5 if name in plain else 2.5
        canvas.line(x(wrong.value), y(power.low), x(wrong.value), y(power.high), f"thin {kind}")
        canvas.line(x(wrong.low), y(power.value), x(wrong.high), y(power.value), f"thin {kind}")
        title = f"{name} at {stage}: power {number(power.value)} ({span(power.low, power.high)}), false positives"
        canvas.dot(
            x(wrong.value), y(power.value), kind, f"{title} {number(wrong.value)} ({span(wrong.low, wrong.high)})", size
        )
    for i, name in enumerate(plain):
        canvas.dot(50, 262 + 16 * i, COLOURS[i % len(COLOURS)], name)
        variants = [other.partition(", ")[2] for other in names if other != name and _own(other, plain) == i]
        canvas.text(60, 266 + 16 * i, name + (f" (small: {', '.join(variants)})" if variants else ""), most=46)
    return canvas.figure(
        slug("truth_concepts", network), f"{network}: power of concept tests over their false positives"
    )


def _own(name: str, plain: Sequence[str]) -> int:
    """The procedure that this is, or is a corrected verdict of."""
    return plain.index(name if name in plain else name.partition(", ")[0])


def _table(rows: Sequence[Row]) -> str:
    keys = unique([(r.network, r.stage, r.kind, r.procedure) for r in rows])
    lines = []
    for key in keys:
        own = {r.measure: r for r in rows if (r.network, r.stage, r.kind, r.procedure) == key}
        cells = [f"{number(r.value)} ({span(r.low, r.high)})" if (r := own.get(m)) else "" for m in MEASURES]
        lines.append(("", [*key, *cells]))
    head = [
        "network",
        "stage",
        "clips",
        "procedure",
        "AUROC",
        "power at 5 % false positives",
        "power",
        "false positives",
        "null",
    ]
    return html.details(f"all {len(lines)} rows", html.table(head, lines))
