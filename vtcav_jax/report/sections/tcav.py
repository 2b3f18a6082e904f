"""What a page says about a run of Video-TCAV, from its folder: the answer first, then all that it stands on."""

from collections.abc import Sequence

import numpy as np

from vtcav_jax.concepts.config import NEGATIVE
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import effect, number, p_value, percent, plain, signed, span, unit
from vtcav_jax.report.figures import tcav as tcav_figures
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique
from vtcav_jax.report.text import tcav as tcav_text
from vtcav_jax.tcav.experiment.verdicts import Row, found
from vtcav_jax.tcav.previews import ends, telling

MOST_TIMES = 6  # figures over time of each class
LACKS = {
    "frozen": " (one frame for as long)",
    "shuffled": " (the same frames out of order)",
    "jitter": " (a still crop that shakes as the box does)",
}


def sections(run: RunFolder) -> list[Section]:
    if not run.rows:
        return []
    made = (answer, depth, motion, steering, concepts, clips, moments, trust, scores)
    return [section for make in made if (section := make(run)) is not None]


def statistic(run: RunFolder) -> str:
    return run.asked.get("statistic", "step")


def by_target(run: RunFolder) -> dict[str, list[Row]]:
    return {name: [row for row in run.rows if row.target == name] for name in unique([row.target for row in run.rows])}


def by_concept(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [row for row in rows if row.concept == name] for name in unique([row.concept for row in rows])}


def answer(run: RunFolder) -> Section:
    parts = [random_weights_notice.warning(run, "tcav")]
    for one in tcav_text.answers(run):
        told = [*one.found, *([("", one.nothing)] if one.nothing else [])]
        parts.append(html.heading(one.target) + random_weights_notice.answer(run, "tcav", told))
    if warned := tcav_text.cautions(run):
        parts.append(html.box(html.bullets(warned), "warn"))
    for target, rows in by_target(run).items():
        parts.append(html.heading(f"{target}, at a glance") + _glance(rows, statistic(run)))
    parts.append(
        html.paragraph(
            f"Numbers are {_meaning(run)}. Grey ones are not significant, or their test could not tell: the reason"
            " stands beside them, or at the stage, and what it means under “How far to trust it”.",
            "soft",
        )
    )
    return Section("answer", "The answer", "".join(parts))


def _meaning(run: RunFolder) -> str:
    if statistic(run) != "step":
        return "mean derivatives of the class score along the concept's vector of length 1"
    order = "" if run.asked.get("sensitivity") == "finite" else ", to first order"
    return f"what the step from the clips behind the minus sign to those of the concept adds to the class score{order}"


def _glance(rows: Sequence[Row], statistic: str) -> str:
    stages = unique([row.stage for row in rows])
    useless = {stage for stage in stages if all(row.degenerate for row in rows if row.stage == stage)}
    at = {(row.concept, row.kind, row.against, row.stage): row for row in rows}
    lines = []
    for concept, kind, against in unique([(row.concept, row.kind, row.against) for row in rows]):
        cells = [concept, f"{kind} − {against}"]
        for stage in stages:
            row = at.get((concept, kind, against, stage))
            cells.append("" if row is None else _cell(row, statistic))
        lines.append(("", cells))
    heads = [f"{stage} (degenerate)" if stage in useless else stage for stage in stages]
    return html.table(("concept", "compared", *heads), lines)


def _cell(row: Row, statistic: str) -> str:
    value = signed(effect(row, statistic).value)
    if found(row):
        return f"{'up' if row.derivative > 0 else 'down'}\t{value}"
    reason = "" if row.verdict in ("not significant", "degenerate stage") else f" ({row.verdict})"
    return f"faint\t{value}{reason}"


def depth(run: RunFolder) -> Section:
    parts, drawn = [], []
    for target, rows in by_target(run).items():
        what = unit(statistic(run), rows[0].target_fn)
        some = [
            tcav_figures.depth(part, statistic(run), what, rows) for part in by_concept(rows).values() if plain(part)[1]
        ]
        drawn += some
        parts += [html.heading(target), html.figures(some)] if some else []
    parts.insert(
        0,
        html.paragraph(
            "How much each concept moves the class score, from the first stage to the last, with its 95 % interval over"
            " other clips. Grey boxes hold the middle 95 % of what exchanging labels gives by chance; hollow grey"
            " marks are not significant after correction.",
            "soft",
        ),
    )
    return Section("depth", "Effect over depth", "".join(parts), tuple(drawn))


def motion(run: RunFolder) -> Section | None:
    if not any(row.test == "motion" for row in run.rows) and len({row.kind for row in run.rows}) < 2:
        return None
    parts, drawn = [], []
    for target, rows in by_target(run).items():
        what = unit(statistic(run), rows[0].target_fn)
        some = [tcav_figures.ladder(part, statistic(run), what) for part in by_concept(rows).values()]
        drawn += some
        parts += [html.heading(target), html.figures(some)]
    copies = [f"{name}{LACKS.get(name, '')}" for name in unique([r.against for r in run.rows if r.test == "motion"])]
    text = (
        f"Still clips, moving ones, and moving ones against copies of themselves that only lack the motion:"
        f" {', '.join(copies)}. Only what stands out against these copies is evidence of motion."
        if copies
        else "Still clips and moving ones. This run has no copies of the moving clips that only lack the motion, so"
        " nothing here is evidence of motion."
    )
    return Section("motion", "Look or motion?", html.paragraph(text, "soft") + "".join(parts), tuple(drawn))


def steering(run: RunFolder) -> Section | None:
    """Where --steering has moved the clips; a finding that does not hold there is greyed."""
    if not run.steering:
        return None
    lines = [
        (
            "" if one.p <= 0.05 else "faint",
            (
                *(one.target, one.stage, f"{one.concept}, {one.kind} − {one.against}", signed(one.step, 1)),
                *(signed(one.change), signed(one.expected), span(one.random_low, one.random_high), p_value(one.p)),
            ),
        )
        for one in run.steering
    ]
    text = (
        "Clips of the class moved at the stage, by so many times the step from the others to the concept: where the"
        " class score goes, where the derivative says it should, and where steps of the same length lead in random"
        " directions."
    )
    columns = ("class", "stage", "along", "steps", "change", "expected", "random directions", "p")
    return Section("steering", "Where scores really go", html.paragraph(text, "soft") + html.table(columns, lines))


def concepts(run: RunFolder) -> Section | None:
    sheets = [film for film in run.films if film.role == "concept"]
    if not sheets:
        return None
    parts = []
    for name in unique([film.name for film in sheets]):
        title = "random clips, which concepts are told apart from" if name == NEGATIVE else name
        some = [
            html.film(run.folder / film.file, f"{film.kind}: {film.shown} of {film.total} clips")
            for film in sheets
            if film.name == name
        ]
        parts += [html.heading(title), f'<div class="grid">{"".join(some)}</div>']
    return Section("concepts", "The concepts, as the network saw them", "".join(parts))


def clips(run: RunFolder) -> Section | None:
    films = {film.name: run.folder / film.file for film in run.films if film.role == "target"}
    parts = []
    for row in telling(run.rows):
        high, low = ends(row, run.clips)
        shown = [
            html.film(films[clip.clip], f"{signed(clip.derivative)} {clip.clip}")
            for clip in [*high, *low]
            if clip.clip in films
        ]
        if shown:
            title = f"{row.target}: {row.concept} ({row.kind}) against {row.against}, {row.stage}"
            parts += [html.heading(title), f'<div class="films">{"".join(shown)}</div>']
    if not parts:
        return None
    text = (
        "For the strongest finding of each concept, or of a class without any the test with the smallest p, the clips"
        " whose score it moves most and least: the derivative along the concept's vector, then the clip's name. What"
        " they have in common is a hint and no test."
    )
    inside = html.paragraph(text, "soft") + "".join(parts)
    return Section("clips", "Clips with the highest and the lowest derivative", inside)


def moments(run: RunFolder) -> Section | None:
    parts, drawn = [], []
    for target in by_target(run):
        some = []
        for row in [row for row in telling(run.rows) if row.target == target][:MOST_TIMES]:
            values = _over_time(run, row)
            if values is not None:
                some.append(tcav_figures.over_time(row, values))
        drawn += some
        parts += [html.heading(target), html.figures(some)] if some else []
    if not parts:
        return None
    text = (
        "The derivative of each clip is a sum over the moments of the clip. The line is the mean over the clips of the"
        " class, the band holds the middle half of them; all of it is in over_time.npz."
    )
    return Section("moments", "When in the clip", html.paragraph(text, "soft") + "".join(parts), tuple(drawn))


def _over_time(run: RunFolder, row: Row) -> np.ndarray | None:
    key, name = f"{row.stage}|{row.target}", f"{row.concept}/{row.kind}/{row.against}"
    names = run.over_time.get(f"{row.stage}|vectors")
    if names is None or key not in run.over_time or name not in names:
        return None
    values = run.over_time[key][int(np.flatnonzero(names == name)[0])]
    return values if values.shape[1] > 1 else None


def trust(run: RunFolder) -> Section:
    parts = [random_weights_notice.warning(run, "tcav"), html.bullets(tcav_text.trust(run))]
    seen = unique([row.verdict for row in run.rows])
    parts.append(
        html.details("What the verdicts mean", html.definitions((v, tcav_text.VERDICTS.get(v, "")) for v in seen))
    )
    drawn = []
    for stage in unique([one.stage for one in run.cosines]):
        for test in ("absolute", "relative"):
            some = [one for one in run.cosines if one.stage == stage and one.test == test]
            if names := unique([one.left for one in some]):
                grid = np.full((len(names), len(names)), np.nan)
                for one in some:
                    grid[names.index(one.left), names.index(one.right)] = one.cosine
                short = [name.rpartition("/")[0].replace("/", ", ") for name in names]
                drawn.append(tcav_figures.heat(short, grid, stage, test))
    if drawn:
        parts += [
            html.heading("Entanglement"),
            html.paragraph(
                "Cosines between the vectors of different concepts, trained for the same test. Where two are far from"
                " 0, what is said of one concept is partly said of the other.",
                "soft",
            ),
            html.figures(drawn),
        ]
    if run.vectors:
        lines = [
            (
                "faint" if v.auc <= 0.5 or v.auc_p > 0.05 else "",
                (
                    *(v.stage, f"{v.concept} ({v.kind}) − {v.against}", f"{v.n_concept} / {v.n_against}"),
                    *(number(v.auc, 2), p_value(v.auc_p)),
                    f"{number(v.split_half, 2)} ({span(round(v.split_half_low, 2), round(v.split_half_high, 2))})",
                    f"{v.nearest} {number(v.nearest_cosine, 2)}" if v.nearest else "",
                ),
            )
            for v in run.vectors
        ]
        columns = ("stage", "vector", "clips", "AUC", "its p", "split-half cosine", "most like")
        parts += [
            html.heading("Quality of the vectors"),
            html.paragraph(
                "AUC: how well clips that the vector was not trained on are told apart (0.5 is chance). Split-half: how"
                " alike two vectors are that were trained on one half of the clips each.",
                "soft",
            ),
            html.details(f"{len(lines)} vectors", html.table(columns, lines)),
        ]
    return Section("trust", "How far to trust it", "".join(parts), tuple(drawn))


def scores(run: RunFolder) -> Section:
    parts = [
        html.paragraph(
            "The field's usual picture: the share of clips of the class whose derivative along the concept is positive."
            " It says how many clips agree, not how much, and with one vector it is near 0 or 1 even by chance: colours"
            " follow the tests above, and grey bars prove nothing.",
            "soft",
        )
    ]
    drawn = []
    for target, rows in by_target(run).items():
        some = [
            tcav_figures.bars([row for row in rows if row.stage == stage])
            for stage in unique([row.stage for row in rows])
            if plain([row for row in rows if row.stage == stage])[1]
        ]
        drawn += some
        parts += [html.heading(target), html.figures(some)] if some else []
    lines = [("" if found(row) else "faint", _numbers(row, statistic(run))) for row in run.rows]
    columns = ("class", "stage", "concept", "compared", "effect", "interval", "score", "p", "adjusted", "verdict")
    parts += [html.heading("All tests"), html.details(f"{len(lines)} tests", html.table(columns, lines))]
    return Section("scores", "TCAV scores", "".join(parts), tuple(drawn))


def _numbers(row: Row, statistic: str) -> tuple[str, ...]:
    e = effect(row, statistic)
    return (
        *(row.target, row.stage, row.concept, f"{row.kind} − {row.against}", signed(e.value, 3), span(e.low, e.high)),
        *(percent(row.score), p_value(row.p), p_value(row.p_adjusted), row.verdict),
    )
