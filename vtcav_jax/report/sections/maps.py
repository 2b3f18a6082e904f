"""What a page says about maps of attribution: in words, as films, over time, method by method."""

import math
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.sanity_checks import MEASURES, LimitRow
from vtcav_jax.attribution.videos.map_store import Row
from vtcav_jax.evaluation.faithfulness.own_clips import AGAIN, OwnRow, title, told, verdicts
from vtcav_jax.evaluation.trivial_maps import MODEL_FREE
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.animation import maps as map_animations
from vtcav_jax.report.effect_sizes import number, percent, signed
from vtcav_jax.report.figures import motion as motion_figures
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import MOST_FILMS, RunFolder, unique
from vtcav_jax.report.text import maps as map_text
from vtcav_jax.stats import intervals

MOST_CLIPS, AT_ONCE = 12, 3  # films of a question, and those that are open
MOST_ROWS = 400  # of the table in the page
SHOWN = {
    "flicker": "changes along what moves",
    "still_flicker": "changes in a frozen clip",
    "direction": "differs when time is reversed",
    "background": "outside of the thing",
    "elsewhere": "volume outside",
    "randomised": "like that of shuffled weights",
}


def sections(run: RunFolder) -> list[Section]:
    if not run.maps:
        return []
    films, drawn = _films(run), []
    parts = [_words(run)]
    if films:
        parts += [html.heading("Clips and maps, as they run"), html.paragraph(_how_to_read(), "soft"), films]
    for target in unique([row.target for row in run.maps]):
        keys = unique([map_text.key(one) for one in run.courses if one.target == target and one.steps > 1])
        drawn += [motion_figures.course([one for one in run.courses if map_text.key(one) == of]) for of in keys]
    if drawn:
        text = (
            "How much of the absolute map lies in each time step: the mean of the clips, with its 95 % interval over"
            " clips as a band. All of it is in profile.csv."
        )
        parts += [html.heading("The maps over time"), html.paragraph(text, "soft"), html.figures(drawn)]
    parts += [html.heading("The methods"), _methods(run)]
    if run.limits:
        parts += [html.heading("What the maps get wrong"), _limits(run)]
    if run.map_metrics:
        parts += [html.heading("What happens to the answer without it"), _metrics(run.map_metrics)]
    parts.append(_clips(run.maps))
    return [Section("maps", "Where and when", "".join(parts), tuple(drawn))]


def _words(run: RunFolder) -> str:
    parts = [random_weights_notice.warning(run, "explain")]
    for target in unique([row.target for row in run.maps]):
        rows = [row for row in run.maps if row.target == target]
        told = [map_text.answered(rows)]
        told += [(f"{of[1]} at {of[2]}:", map_text.told(run, of)) for of in unique([map_text.key(r) for r in rows])]
        parts.append(html.heading(target) + random_weights_notice.answer(run, "explain", told))
    return "".join(parts)


def _how_to_read() -> str:
    return (
        "The clip, then each map laid over it in grey. Red speaks for the answer, blue against it; maps without a sign"
        " go from dark to light. The scale stands above each map and is one for the whole clip. Bars below are the"
        " map's sum at each moment; the black mark is the moment shown."
    )


def _films(run: RunFolder) -> str:
    """Of each question a few clips with every answer, as far as there is room beside the films of the concepts."""
    left = MOST_FILMS - sum(_bytes(run.folder / film.file) for film in run.films)
    questions = unique([row.target for row in run.maps])
    some = {target: chosen([row for row in run.maps if row.target == target]) for target in questions}
    shown: dict[str, list[str]] = {target: [] for target in questions}
    for row in (row for rank in zip_longest(*some.values()) for row in rank if row):
        path = _film(run.folder, row)
        if path is None or (left := left - _bytes(path)) < 0:
            continue
        answer = "" if row.answer == row.target else f", answer {row.answer}"
        shown[row.target].append(html.film(path, f"{row.clip}{answer}, score {signed(row.score, 3)}", "film"))
    parts = []
    for target, films in shown.items():
        total = len({row.clip for row in run.maps if row.target == target})
        parts += [html.heading(target), *films[:AT_ONCE]] if films else []
        if more := films[AT_ONCE:]:
            parts.append(html.details(f"{len(more)} clips more", "".join(more)))
        if 0 < len(films) < total:
            text = f"{len(films)} of {total} clips; films of all of them are in films/."
            parts.append(html.paragraph(text, "soft"))
    return "".join(parts)


def chosen(rows: Sequence[Row]) -> list[Row]:
    """The first clip of each answer, then the second of each, and so on."""
    clips = {row.clip: row for row in reversed(rows)}  # of a video that goes on, its beginning
    by_answer = [[row for row in clips.values() if row.answer == name] for name in unique([r.answer for r in rows])]
    ranked = [row for rank in zip_longest(*(some[::-1] for some in by_answer)) for row in rank if row]
    return ranked[:MOST_CLIPS]


def _film(folder: Path, row: Row) -> Path | None:
    files = (
        folder / "films" / map_animations.file(row.file.removesuffix(".npz"), row.target, kind)
        for kind in ("webp", "mp4")
    )
    return next((path for path in files if path.is_file()), None)


def _bytes(path: Path) -> int:
    return sum(one.stat().st_size for one in {path, path.with_suffix(".jpg")} if one.is_file())


def _methods(run: RunFolder) -> str:
    lines = []
    for of in unique([map_text.key(row) for row in run.maps]):
        rows = [row for row in run.maps if map_text.key(row) == of]
        part, low, high = map_text.half(rows)
        where = map_text.places(rows)
        median, most = map_text.missed(rows)
        steps = next((one.steps for one in run.courses if map_text.key(one) == of), 0)
        lines.append(
            (
                "",
                (
                    *of,
                    "pixels" if of[2] == VIDEO else "places of the stage",
                    "for and against" if rows[0].signed else "how much",
                    *(f"{rows[0].cost}", f"{steps}", motion_figures.share(part, low, high)),
                    "" if math.isnan(where[0]) else motion_figures.share(*where),
                    "owes it no sum" if math.isnan(median) else f"{percent(median)}, at worst {percent(most)}",
                ),
            )
        )
    columns = (
        "question",
        "method",
        "stage",
        "a value for",
        "it says",
        "passes",
        "steps",
        "time of half",
        "place of half",
    )
    columns += ("misses",)
    text = (
        "Passes: forward passes of a clip that a map takes by itself, a backward one as two; maps that can share them"
        " did. Time of half: the part of the clip in which half of the map lies; place of half: the part of a frame"
        " that has half of what lies in it; 50 % is spread evenly. Misses: what its sum lacks of what the method"
        " promises, as a share of the score, in the middle clip and the worst."
    )
    return html.paragraph(text, "soft") + html.table(columns, lines)


def _limits(run: RunFolder) -> str:
    lines = []
    for of in unique([map_text.key(one) for one in run.limits]):
        found = {one.measure: one for one in run.limits if map_text.key(one) == of}
        lines.append(("", (*of, *(_cell(found.get(name)) for name in MEASURES))))
    text = (
        f"Measured on {max(one.clips for one in run.limits)} clips. Changes are in units of the map, shares are of its"
        " absolute values; reversed: 1 less the correlation with the map of the clip played backwards; shuffled"
        " weights: the rank correlation with the map of a network that knows nothing."
    )
    columns = ("question", "method", "stage", *(SHOWN[name] for name in MEASURES))
    return html.paragraph(text, "soft") + html.table(columns, lines)


MADE_AGAIN = (
    "Made again, less is better. Max sensitivity: how far noise that no one sees moves the map, in units of its length."
    " Random logit: the rank correlation with the map of another class (1.00: it does not ask which)."
    " Randomisation: that with maps of the network while it loses what it learnt, stage by stage from the head (1.00:"
    " it does not ask what was learnt)."
)


def _metrics(rows: Sequence[OwnRow]) -> str:
    """Question by question what each map beats, then the numbers; maps that ask no network are faint."""
    text = (
        f"Measured on {max(row.clips for row in rows)} clips, with 95 % intervals over them. Parts of a clip are taken"
        " out, the map's strongest first, and filled as it says; how far the answer falls is no number by itself, since"
        " whatever is taken out disturbs a network: it counts how far a map is from those that ask no network (faint)."
        " Relevance gain: what the score loses more when the strongest go first than when the weakest do."
        " Comprehensiveness, sufficiency: what the probability loses without a map's strongest parts (more is better),"
        " and with these alone (less is better). Splice: two clips of different answers one after the other; how"
        " often more of the map lies on the clip whose answer is asked for, where chance is 0.50. Where the truth is"
        " known, relevance gain, comprehensiveness, sufficiency and insertion less deletion put maps in its order;"
        " average drop does not. All others are in map_metrics.csv."
    )
    parts = [html.paragraph(text, "soft")]
    for target in unique([row.target for row in rows]):
        some = [row for row in rows if row.target == target]
        leads = [(name.replace("@", " at "), f"{text}.") for name, text in verdicts(some)]
        parts += [html.heading(target), html.leads(leads), _of_maps(some, told(some))]
        if again := told(some, AGAIN):
            parts += [html.paragraph(MADE_AGAIN, "soft"), _of_maps(some, again)]
    return "".join(parts)


def _of_maps(rows: Sequence[OwnRow], columns: Sequence[str]) -> str:
    """A line for each map; those that ask no network are faint."""
    lines = []
    for name in unique([row.map for row in rows]):
        cells = [next((one for one in rows if one.map == name and title(one) == of), None) for of in columns]
        lines.append(("faint" if name in MODEL_FREE else "", (name.replace("@", " at "), *map(_cell, cells))))
    return html.table(("map", *columns), lines)


def _cell(row: LimitRow | OwnRow | None) -> str:
    return intervals.told(row.mean, row.low, row.high).replace("-", "−") if row and row.clips else ""


def _clips(rows: Sequence[Row]) -> str:
    lines = [
        (
            "",
            (
                *(row.clip, f"{row.start:.2f} to {row.end:.2f} s", row.answer, number(row.score)),
                *(f"{row.method} at {row.stage}", number(row.total)),
                *("" if math.isnan(row.residual) else number(row.residual), f"{row.peak:.2f} s"),
                percent(row.peak_share),
            ),
        )
        for row in rows[:MOST_ROWS]
    ]
    columns = ("clip", "seconds", "answer", "score", "method", "sum", "misses", "fullest moment", "its share")
    more = f"{len(lines)} of {len(rows)} maps; all of them are in explain.csv" if len(lines) < len(rows) else ""
    return html.details(more or f"{len(lines)} maps, one by one", html.table(columns, lines))
