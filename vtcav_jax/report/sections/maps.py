"""Section of attribution maps: findings, animations, temporal profiles, and tables of methods and checks."""

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
from vtcav_jax.names import count_noun
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.animation import maps as map_animations
from vtcav_jax.report.effect_sizes import format_number, format_percent, format_signed
from vtcav_jax.report.figures import motion as motion_figures
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import MAX_ANIMATION_BYTES, RunFolder, unique_in_order
from vtcav_jax.report.sections import gallery
from vtcav_jax.report.text import maps as map_text
from vtcav_jax.runs.attribution_rows import MapRow, OwnMetricRow, SanityRow
from vtcav_jax.runs.directory import ANIMATION_FOLDER
from vtcav_jax.stats import intervals

MAX_MAP_ANIMATIONS, OPEN_ANIMATIONS = 12, 3  # films of a page, and how many of them are not folded
MAX_MAP_TABLE_ROWS = 400  # in the page
MEASURE_TEXTS = {
    "flicker": "flicker",
    "static_flicker": "flicker, frozen clip",
    "time_reversal_change": "change when reversed",
    "mass_outside": "map outside the object",
    "area_outside": "volume outside the object",
    "randomised_weights_similarity": "similarity, shuffled weights",
}
ANIMATION_GUIDE = (
    "Left: the clip; then each map over the clip in grey. Signed maps: red raises the score, blue lowers it. Maps"
    " without sign: dark is low, light is high. The colour scale above each map is the same for the whole clip and,"
    " with several questions, for the maps of all classes by one method, so that they can be compared. Bars: sum of the"
    " map at each frame; the black mark is the current frame."
)


def map_sections(run: RunFolder) -> list[Section]:
    if not run.map_rows:
        return []
    animations, figures = _animation_figures(run), []
    introduction = (
        "An [[attribution map]] says how much each place and time step contributes to the [[score]]. The findings"
        " below summarise the maps of each method over all clips; intervals are 95 % bootstrap intervals over clips."
    )
    warning = random_weights_notice.random_weights_warning(run, "attribute")
    parts = [warning, linked_paragraph(introduction), _describe_questions(run)]
    if animations:
        parts += [html.heading("Animated maps"), html.paragraph(ANIMATION_GUIDE, "soft"), animations]
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
            "Share of the absolute map in each time step. Line: mean over clips; band: 95 % interval over clips;"
            " dashed: a uniform map. All values are in profile.csv."
        )
        parts += [html.heading("Temporal profiles"), html.paragraph(text, "soft"), html.figure_grid(figures)]
    parts += [html.heading("Maps by method"), _method_table(run)]
    if run.sanity_rows:
        parts += [html.heading("Sanity checks"), _sanity_table(run)]
    if run.faithfulness_rows:
        parts += [html.heading("Faithfulness metrics"), _faithfulness_tables(run.faithfulness_rows)]
    parts.append(_clip_table(run.map_rows))
    sections = [Section("maps", "Attribution maps", "".join(parts), tuple(figures))]
    through = gallery.gallery_section(run)
    return [through, *sections] if through else sections


def _describe_questions(run: RunFolder) -> str:
    parts = []
    for target in unique_in_order([row.target for row in run.map_rows]):
        rows = [row for row in run.map_rows if row.target == target]
        sentences = [map_text.answer_summary(rows)]
        sentences += [
            (f"{key[1]} at {key[2]}:", map_text.describe_map_method(run, key))
            for key in unique_in_order([map_text.map_key(r) for r in rows])
        ]
        parts.append(html.heading(target) + random_weights_notice.answer_callout(run, "attribute", sentences))
    return "".join(parts)


def _animation_figures(run: RunFolder) -> str:
    """Return the films of a few clips with every prediction, within the size limit of a page."""
    other_bytes = sum(_size_in_bytes(run.folder / animation.file) for animation in run.animation_rows)
    bytes_left = MAX_ANIMATION_BYTES - other_bytes - gallery.gallery_bytes(run)
    candidates = [
        select_map_clips([row for row in run.map_rows if row.target == target])
        for target in unique_in_order([row.target for row in run.map_rows])
    ]
    names = unique_in_order([row.clip for rank in zip_longest(*candidates) for row in rank if row])
    films = []
    for name in names[:MAX_MAP_ANIMATIONS]:
        rows = [row for row in run.map_rows if row.clip == name and row.clip_index == 0]
        path = _animation_path(run.folder, rows[0])
        if path is None or (bytes_left := bytes_left - _size_in_bytes(path)) < 0:
            continue
        films.append(html.embed_media(path, film_description(rows), "film"))
    parts = [f'<div class="playing">{"".join(films[:OPEN_ANIMATIONS])}</div>'] if films else []
    if further := films[OPEN_ANIMATIONS:]:
        inside = f'<div class="playing">{"".join(further)}</div>'
        parts.append(html.details_block(f"{count_noun(len(further), 'more clip')}", inside))
    total = len({row.clip for row in run.map_rows})
    if 0 < len(films) < total:
        text = f"{len(films)} of {total} clips; the animations of all clips are in {ANIMATION_FOLDER}/."
        parts.append(html.paragraph(text, "soft"))
    return "".join(parts)


def film_description(rows: Sequence[MapRow]) -> str:
    """Return the caption of a clip's film: the score of each target, and the predictions where they are others."""
    scores = {row.target: (row.answer, row.score) for row in reversed(rows)}
    parts = []
    for target in unique_in_order([row.target for row in rows]):
        answer, score = scores[target]
        prediction = "" if answer == target else f", prediction {answer}"
        parts.append(f"{target}: score {format_signed(score, 3)}{prediction}")
    return f"{rows[0].clip}; {'; '.join(parts)}"


def select_map_clips(rows: Sequence[MapRow]) -> list[MapRow]:
    """Order clips of one target so that every prediction appears once before any appears twice."""
    clips = {row.clip: row for row in reversed(rows)}  # the first clip of each video
    by_answer = [
        [row for row in clips.values() if row.answer == name] for name in unique_in_order([r.answer for r in rows])
    ]
    ranked = [row for rank in zip_longest(*(group[::-1] for group in by_answer)) for row in rank if row]
    return ranked


def _animation_path(folder: Path, row: MapRow) -> Path | None:
    files = (
        folder / ANIMATION_FOLDER / map_animations.map_animation_name(row.map_file.removesuffix(".npz"), suffix)
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
                    "pixels" if key[2] == VIDEO else "positions of the stage",
                    "yes" if rows[0].signed else "no",
                    *(f"{rows[0].forward_passes}", f"{steps}", motion_figures.format_share(half, low, high)),
                    "" if math.isnan(place_half[0]) else motion_figures.format_share(*place_half),
                    "not defined" if math.isnan(median) else f"{format_percent(median)} ({format_percent(worst)})",
                ),
            )
        )
    columns = (
        "question",
        "method",
        "stage",
        "resolution",
        "signed",
        "forward passes",
        "time steps",
        "half mass in time",
        "half mass in space",
    )
    columns += ("completeness gap, median (worst)",)
    text = (
        "Forward passes: cost of one map of one clip if computed alone; a backward pass counts as two. Half mass in"
        " time (in space): smallest share of the clip's time (of a frame) that holds half of the absolute map; 50 % if"
        " uniform. Completeness gap: difference between the sum of the map and the value that the method guarantees, as"
        " a share of the score; not defined for methods without such a guarantee."
    )
    return html.paragraph(text, "soft") + html.html_table(columns, lines)


def _sanity_table(run: RunFolder) -> str:
    lines = []
    for key in unique_in_order([map_text.map_key(row) for row in run.sanity_rows]):
        by_measure = {row.measure: row for row in run.sanity_rows if map_text.map_key(row) == key}
        lines.append(("", (*key, *(_format_cell(by_measure.get(name)) for name in SANITY_MEASURES))))
    text = (
        f"Mean over at most {count_noun(max(row.n_clips for row in run.sanity_rows), 'clip')}, with its 95 % interval"
        " over clips."
        " Flicker: absolute change of the map between time steps along the motion, relative to the map; in a frozen"
        " clip it should be 0. Change when reversed: 1 minus the correlation with the map of the reversed clip; 0 means"
        " that the map ignores the direction of time. Map outside the object: share of the absolute map outside the"
        " object in question; a uniform map has the share “volume outside the object”. Similarity, shuffled weights:"
        " rank correlation with the map of a network with shuffled weights; it should be near 0."
    )
    columns = ("question", "method", "stage", *(MEASURE_TEXTS[name] for name in SANITY_MEASURES))
    return html.paragraph(text, "soft") + html.html_table(columns, lines)


REEXPLAIN_TEXT = (
    "Checks with recomputed maps; lower is better. Max sensitivity: largest change of the map under imperceptible"
    " noise, relative to the length of the map. Random logit: rank correlation with the map of another class (1.00: the"
    " map does not depend on the class). Randomisation: mean rank correlation with maps of the network while its stages"
    " are randomised one after another from the head (1.00: the map does not depend on the weights)."
)


def _faithfulness_tables(rows: Sequence[OwnMetricRow]) -> str:
    """Per question: which trivial maps each map outperforms, then the metrics; trivial maps are grey."""
    text = (
        f"Mean over at most {count_noun(max(row.n_clips for row in rows), 'clip')}, with its 95 % interval over"
        " clips. The metrics"
        " remove parts of a clip in the order of the map and replace them by the fill in parentheses. Any removal"
        " disturbs a network, so compare each map with the trivial maps, which do not use the network (grey). Relevance"
        " gain: how much more the score falls when the strongest parts are removed first than when the weakest are."
        " Comprehensiveness: loss of probability without the strongest parts (higher is better). Sufficiency: loss of"
        " probability with the strongest parts alone (lower is better). Splice: two clips of different classes one"
        " after the other; how often more of the map lies on the clip of the explained class (chance: 0.50). On clips"
        " with a known cause, relevance gain, comprehensiveness, sufficiency and insertion minus deletion rank maps by"
        " their ground-truth score; average drop does not. All metrics are in faithfulness.csv."
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
    """Return one row per map; trivial maps are grey."""
    lines = []
    for name in unique_in_order([row.map for row in rows]):
        cells = [
            next((row for row in rows if row.map == name and metric_title(row) == column), None) for column in columns
        ]
        lines.append(("faint" if name in TRIVIAL_MAPS else "", (name.replace("@", " at "), *map(_format_cell, cells))))
    return html.html_table(("map", *(column.replace(" less ", " minus ") for column in columns)), lines)


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
    columns = ("clip", "time", "prediction", "score", "method", "sum of the map", "completeness gap", "peak time")
    columns += ("share at the peak",)
    summary = f"{len(lines)} of {len(rows)} maps; all maps are in maps.csv" if len(lines) < len(rows) else ""
    return html.details_block(summary or f"Table of {count_noun(len(lines), 'map')}", html.html_table(columns, lines))
