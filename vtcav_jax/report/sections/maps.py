"""What a page says about maps of attribution: in words, as films, over time, method by method."""

import math
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.sanity_checks import SANITY_MEASURES
from vtcav_jax.evaluation.faithfulness.own_clips import (
    REEXPLAIN_METRICS,
    compare_with_trivial,
    displayed_titles,
    metric_title,
)
from vtcav_jax.evaluation.trivial_maps import TRIVIAL_MAPS
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.animation import maps as map_animations
from vtcav_jax.report.effect_sizes import format_number, format_percent, format_signed
from vtcav_jax.report.figures import motion as motion_figures
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import MAX_ANIMATION_BYTES, RunFolder, unique_in_order
from vtcav_jax.report.text import maps as map_text
from vtcav_jax.runs.attribution_rows import MapRow, OwnMetricRow, SanityRow
from vtcav_jax.runs.directory import ANIMATION_FOLDER
from vtcav_jax.stats import intervals

MAX_MAP_ANIMATIONS, OPEN_ANIMATIONS = 12, 3  # films of a question, and those that are open
MAX_MAP_TABLE_ROWS = 400  # of the table in the page
MEASURE_TEXTS = {
    "flicker": "changes along what moves",
    "static_flicker": "changes in a frozen clip",
    "time_reversal_change": "differs when time is reversed",
    "mass_outside": "outside of the thing",
    "area_outside": "volume outside",
    "randomised_weights_similarity": "like that of shuffled weights",
}


def map_sections(run: RunFolder) -> list[Section]:
    if not run.map_rows:
        return []
    animations, figures = _animation_figures(run), []
    parts = [_describe_questions(run)]
    if animations:
        parts += [html.heading("Clips and maps, as they run"), html.paragraph(_reading_guide(), "soft"), animations]
    for target in unique_in_order([row.target for row in run.map_rows]):
        keys = unique_in_order(
            [map_text.map_key(step) for step in run.profile_rows if step.target == target and step.n_time_steps > 1]
        )
        figures += [
            motion_figures.profile_figure([step for step in run.profile_rows if map_text.map_key(step) == key])
            for key in keys
        ]
    if figures:
        text = (
            "How much of the absolute map lies in each time step: the mean of the clips, with its 95 % interval over"
            " clips as a band. All of it is in profile.csv."
        )
        parts += [html.heading("The maps over time"), html.paragraph(text, "soft"), html.figure_grid(figures)]
    parts += [html.heading("The methods"), _method_table(run)]
    if run.sanity_rows:
        parts += [html.heading("What the maps get wrong"), _sanity_table(run)]
    if run.faithfulness_rows:
        parts += [html.heading("What happens to the answer without it"), _faithfulness_tables(run.faithfulness_rows)]
    parts.append(_clip_table(run.map_rows))
    return [Section("maps", "Where and when", "".join(parts), tuple(figures))]


def _describe_questions(run: RunFolder) -> str:
    parts = [random_weights_notice.random_weights_warning(run, "attribute")]
    for target in unique_in_order([row.target for row in run.map_rows]):
        rows = [row for row in run.map_rows if row.target == target]
        sentences = [map_text.answer_summary(rows)]
        sentences += [
            (f"{key[1]} at {key[2]}:", map_text.describe_map_method(run, key))
            for key in unique_in_order([map_text.map_key(r) for r in rows])
        ]
        parts.append(html.heading(target) + random_weights_notice.answer_callout(run, "attribute", sentences))
    return "".join(parts)


def _reading_guide() -> str:
    return (
        "The clip, then each map laid over it in grey. Red speaks for the answer, blue against it; maps without a sign"
        " go from dark to light. The scale stands above each map and is one for the whole clip. Bars below are the"
        " map's sum at each moment; the black mark is the moment shown."
    )


def _animation_figures(run: RunFolder) -> str:
    """Of each question a few clips with every answer, as far as there is room beside the films of the concepts."""
    bytes_left = MAX_ANIMATION_BYTES - sum(
        _size_in_bytes(run.folder / animation.file) for animation in run.animation_rows
    )
    questions = unique_in_order([row.target for row in run.map_rows])
    candidates = {
        target: select_map_clips([row for row in run.map_rows if row.target == target]) for target in questions
    }
    figures_by_question: dict[str, list[str]] = {target: [] for target in questions}
    for row in (row for rank in zip_longest(*candidates.values()) for row in rank if row):
        path = _animation_path(run.folder, row)
        if path is None or (bytes_left := bytes_left - _size_in_bytes(path)) < 0:
            continue
        answer = "" if row.answer == row.target else f", answer {row.answer}"
        figures_by_question[row.target].append(
            html.embed_media(path, f"{row.clip}{answer}, score {format_signed(row.score, 3)}", "film")
        )
    parts = []
    for target, figures in figures_by_question.items():
        total = len({row.clip for row in run.map_rows if row.target == target})
        parts += [html.heading(target), *figures[:OPEN_ANIMATIONS]] if figures else []
        if further := figures[OPEN_ANIMATIONS:]:
            parts.append(html.details_block(f"{len(further)} clips more", "".join(further)))
        if 0 < len(figures) < total:
            text = f"{len(figures)} of {total} clips; films of all of them are in {ANIMATION_FOLDER}/."
            parts.append(html.paragraph(text, "soft"))
    return "".join(parts)


def select_map_clips(rows: Sequence[MapRow]) -> list[MapRow]:
    """The first clip of each answer, then the second of each, and so on."""
    clips = {row.clip: row for row in reversed(rows)}  # of a video that goes on, its beginning
    by_answer = [
        [row for row in clips.values() if row.answer == name] for name in unique_in_order([r.answer for r in rows])
    ]
    ranked = [row for rank in zip_longest(*(group[::-1] for group in by_answer)) for row in rank if row]
    return ranked[:MAX_MAP_ANIMATIONS]


def _animation_path(folder: Path, row: MapRow) -> Path | None:
    files = (
        folder
        / ANIMATION_FOLDER
        / map_animations.map_animation_name(row.map_file.removesuffix(".npz"), row.target, suffix)
        for suffix in ("webp", "mp4")
    )
    return next((path for path in files if path.is_file()), None)


def _size_in_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in {path, path.with_suffix(".jpg")} if file.is_file())


def _method_table(run: RunFolder) -> str:
    lines = []
    for key in unique_in_order([map_text.map_key(row) for row in run.map_rows]):
        rows = [row for row in run.map_rows if map_text.map_key(row) == key]
        half, low, high = map_text.mean_temporal_half_mass(rows)
        place_half = map_text.mean_spatial_half_mass(rows)
        median, worst = map_text.relative_completeness_gaps(rows)
        steps = next((step.n_time_steps for step in run.profile_rows if map_text.map_key(step) == key), 0)
        lines.append(
            (
                "",
                (
                    *key,
                    "pixels" if key[2] == VIDEO else "places of the stage",
                    "for and against" if rows[0].signed else "how much",
                    *(f"{rows[0].forward_passes}", f"{steps}", motion_figures.format_share(half, low, high)),
                    "" if math.isnan(place_half[0]) else motion_figures.format_share(*place_half),
                    "owes it no sum"
                    if math.isnan(median)
                    else f"{format_percent(median)}, at worst {format_percent(worst)}",
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
    return html.paragraph(text, "soft") + html.html_table(columns, lines)


def _sanity_table(run: RunFolder) -> str:
    lines = []
    for key in unique_in_order([map_text.map_key(row) for row in run.sanity_rows]):
        by_measure = {row.measure: row for row in run.sanity_rows if map_text.map_key(row) == key}
        lines.append(("", (*key, *(_format_cell(by_measure.get(name)) for name in SANITY_MEASURES))))
    text = (
        f"Measured on {max(row.n_clips for row in run.sanity_rows)} clips. Changes are in units of the map, shares"
        f" are of its"
        " absolute values; reversed: 1 less the correlation with the map of the clip played backwards; shuffled"
        " weights: the rank correlation with the map of a network that knows nothing."
    )
    columns = ("question", "method", "stage", *(MEASURE_TEXTS[name] for name in SANITY_MEASURES))
    return html.paragraph(text, "soft") + html.html_table(columns, lines)


REEXPLAIN_TEXT = (
    "Made again, less is better. Max sensitivity: how far noise that no one sees moves the map, in units of its length."
    " Random logit: the rank correlation with the map of another class (1.00: it does not ask which)."
    " Randomisation: that with maps of the network while it loses what it learnt, stage by stage from the head (1.00:"
    " it does not ask what was learnt)."
)


def _faithfulness_tables(rows: Sequence[OwnMetricRow]) -> str:
    """Question by question what each map beats, then the numbers; maps that ask no network are faint."""
    text = (
        f"Measured on {max(row.n_clips for row in rows)} clips, with 95 % intervals over them. Parts of a clip are"
        f" taken"
        " out, the map's strongest first, and filled as it says; how far the answer falls is no number by itself, since"
        " whatever is taken out disturbs a network: it counts how far a map is from those that ask no network (faint)."
        " Relevance gain: what the score loses more when the strongest go first than when the weakest do."
        " Comprehensiveness, sufficiency: what the probability loses without a map's strongest parts (more is better),"
        " and with these alone (less is better). Splice: two clips of different answers one after the other; how"
        " often more of the map lies on the clip whose answer is asked for, where chance is 0.50. Where the truth is"
        " known, relevance gain, comprehensiveness, sufficiency and insertion less deletion put maps in its order;"
        " average drop does not. All others are in faithfulness.csv."
    )
    parts = [html.paragraph(text, "soft")]
    for target in unique_in_order([row.target for row in rows]):
        subset = [row for row in rows if row.target == target]
        leads = [(name.replace("@", " at "), f"{text}.") for name, text in compare_with_trivial(subset)]
        parts += [html.heading(target), html.lead_list(leads), _metric_table(subset, displayed_titles(subset))]
        if reexplained := displayed_titles(subset, REEXPLAIN_METRICS):
            parts += [html.paragraph(REEXPLAIN_TEXT, "soft"), _metric_table(subset, reexplained)]
    return "".join(parts)


def _metric_table(rows: Sequence[OwnMetricRow], columns: Sequence[str]) -> str:
    """A line for each map; those that ask no network are faint."""
    lines = []
    for name in unique_in_order([row.map for row in rows]):
        cells = [
            next((one for one in rows if one.map == name and metric_title(one) == column), None) for column in columns
        ]
        lines.append(("faint" if name in TRIVIAL_MAPS else "", (name.replace("@", " at "), *map(_format_cell, cells))))
    return html.html_table(("map", *columns), lines)


def _format_cell(row: SanityRow | OwnMetricRow | None) -> str:
    return intervals.format_interval(row.mean, row.low, row.high).replace("-", "−") if row and row.n_clips else ""


def _clip_table(rows: Sequence[MapRow]) -> str:
    lines = [
        (
            "",
            (
                *(row.clip, f"{row.start:.2f} to {row.end:.2f} s", row.answer, format_number(row.score)),
                *(f"{row.method} at {row.stage}", format_number(row.map_sum)),
                *(
                    "" if math.isnan(row.completeness_gap) else format_number(row.completeness_gap),
                    f"{row.peak_time:.2f} s",
                ),
                format_percent(row.peak_share),
            ),
        )
        for row in rows[:MAX_MAP_TABLE_ROWS]
    ]
    columns = ("clip", "seconds", "answer", "score", "method", "sum", "misses", "fullest moment", "its share")
    summary = f"{len(lines)} of {len(rows)} maps; all of them are in maps.csv" if len(lines) < len(rows) else ""
    return html.details_block(summary or f"{len(lines)} maps, one by one", html.html_table(columns, lines))
