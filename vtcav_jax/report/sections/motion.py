"""Section of the motion test: verdicts, loss of score by class and by clip."""

import math
from collections.abc import Sequence

from vtcav_jax.attribution.motion.summary import (
    MAX_STATIC_SHARE,
    MIN_MOTION_SHARE,
    MIN_VERDICT_VIDEOS,
    motion_verdict,
)
from vtcav_jax.names import count_noun
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import format_number, format_percent
from vtcav_jax.report.figures import motion as motion_figures
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.sections.motion_parts import motion_part_sections
from vtcav_jax.report.text.motion_parts import prediction_text
from vtcav_jax.runs.attribution_rows import ClassMotionRow, ClipMotionRow

MAX_ANSWER_SENTENCES = 13  # per question
MAX_MOTION_TABLE_ROWS = 400  # in the page


def motion_sections(run: RunFolder) -> list[Section]:
    if not run.class_motion_rows:
        return []
    introduction = (
        "The motion test measures how much of the [[score]] is lost when the frames of a clip are shuffled or"
        " reversed, or when one frame is repeated (frozen). A loss under shuffling means that the score depends on the"
        " order of the frames, that is, on motion. Intervals are 95 % bootstrap intervals over source videos."
    )
    parts = [random_weights_notice.random_weights_warning(run, "motion"), linked_paragraph(introduction)]
    class_figures, clip_figures = [], []
    for target in unique_in_order([row.target for row in run.class_motion_rows]):
        rows = [row for row in run.class_motion_rows if row.target == target]
        clip_rows = [row for row in run.clip_motion_rows if row.target == target]
        sentences = [(lead.replace("-", "−"), rest.replace("-", "−")) for lead, rest in map(motion_verdict, rows)]
        parts += [
            html.heading(target),
            random_weights_notice.answer_callout(
                run, "motion", [*sentences[:MAX_ANSWER_SENTENCES], ("Single clips:", _clip_summary(clip_rows))]
            ),
        ]
        if rest := sentences[MAX_ANSWER_SENTENCES:]:
            parts.append(html.details_block(f"Other predicted classes ({len(rest)})", html.lead_list(rest)))
        class_figures.append(motion_figures.class_motion_figure(rows))
        if any(not math.isnan(row.drop_shuffled) for row in clip_rows):
            clip_figures.append(motion_figures.clip_motion_figure(clip_rows))
    text = (
        "[[Loss of score|loss of score]] of each class when the frames are shuffled, when the clip is frozen and when"
        f" it is reversed. Bars: 95 % interval over source videos. Verdicts use the loss under shuffling: at least"
        f" {format_percent(MIN_MOTION_SHARE)} is called motion, at most {format_percent(MAX_STATIC_SHARE)} is not; the"
        f" grey band lies between; fewer than {MIN_VERDICT_VIDEOS} source videos get no verdict. A loss in"
        " frozen clips may also be due to an event or to what other frames show."
    )
    parts += [html.heading("Loss of score by class"), linked_paragraph(text), html.figure_grid(class_figures)]
    if clip_figures:
        text = (
            "Loss of each clip's score when its frames are shuffled. Bars: 95 % interval over the frame orders that"
            " were tried. Classes are compared with clips of other classes under the same edit, which cancels a"
            " network's bias for edited clips; single clips are not, so these values are less reliable. Hollow grey:"
            " the interval contains 0. Hover over a mark to see the name of the clip."
        )
        parts += [html.heading("Loss of score by clip"), html.paragraph(text, "soft"), html.figure_grid(clip_figures)]
    parts += [
        html.heading("Tables of the motion test"),
        _class_table(run.class_motion_rows),
        _clip_table(run.clip_motion_rows),
    ]
    figures = (*class_figures, *clip_figures)
    section = Section("decisions", "Contribution of motion to class scores", "".join(parts), figures)
    return [section, *motion_part_sections(run)]


def _clip_summary(rows: Sequence[ClipMotionRow]) -> str:
    finite = [row for row in rows if not math.isnan(row.drop_shuffled)]
    n_motion = sum(row.drop_shuffled_low >= MIN_MOTION_SHARE for row in finite)
    n_not_motion = sum(row.drop_shuffled_high <= MAX_STATIC_SHARE for row in finite)
    parts = [
        f"{n_motion} depend on motion",
        f"{n_not_motion} do not",
        f"{len(finite) - n_motion - n_not_motion} are in between or uncertain",
    ]
    if len(finite) < len(rows):
        parts.append(f"{len(rows) - len(finite)} are undefined, because their score is not above 0")
    return f"of {count_noun(len(rows), 'clip')}, {', '.join(parts)}."


def _class_table(classes: Sequence[ClassMotionRow]) -> str:
    text = (
        "Changing relevance: motion part of the map (selective relevance, by the first method) as a share of the map;"
        " excess: the same minus that of the frozen clip. Relevance follows a moving object even if only its appearance"
        " matters, so these two columns are no evidence of motion by themselves. Score: relative to clips of other"
        " classes, or to no preference among classes. In brackets: 95 % CI over source videos."
    )
    lines = []
    for row in classes:
        cells = [
            _share_text(*(getattr(row, name + end) for end in ("", "_low", "_high")))
            for name in ("drop_shuffled", "drop_frozen", "drop_reversed", "changing_mass", "changing_mass_excess")
        ]
        counts = str(row.n_clips), str(row.n_videos)
        lines.append(("", (row.target, row.answer or "all", *counts, row.reference, *cells)))
    columns = (
        "question",
        "prediction",
        "clips",
        "source videos",
        "score relative to",
        "loss, shuffled",
        "loss, frozen",
        "loss, reversed",
        "changing relevance",
        "excess changing relevance",
    )
    return html.paragraph(text, "soft") + html.html_table(columns, lines)


def _share_text(value: float, low: float, high: float) -> str:
    return motion_figures.format_share(value, low, high) if not math.isnan(value) else "undefined"


def _clip_table(rows: Sequence[ClipMotionRow]) -> str:
    lines = [
        (
            ""
            if row.drop_shuffled == row.drop_shuffled and not row.drop_shuffled_low <= 0 <= row.drop_shuffled_high
            else "faint",
            (
                *(
                    row.clip,
                    row.answer,
                    prediction_text(row),
                    *map(format_number, (row.score, row.score_shuffled, row.score_frozen, row.score_reversed)),
                ),
                *(
                    _share_text(row.drop_shuffled, row.drop_shuffled_low, row.drop_shuffled_high),
                    _share_text(row.drop_frozen, row.drop_frozen_low, row.drop_frozen_high),
                ),
                format_percent(row.changing_mass_excess),
            ),
        )
        for row in rows[:MAX_MOTION_TABLE_ROWS]
    ]
    columns = ("clip", "explained class", "prediction", "score", "score, shuffled", "score, frozen")
    columns += ("score, reversed", "loss, shuffled", "loss, frozen", "excess changing relevance")
    summary = f"{len(lines)} of {len(rows)} clips; all are in motion.csv" if len(lines) < len(rows) else ""
    return html.details_block(summary or f"Table of {count_noun(len(lines), 'clip')}", html.html_table(columns, lines))
