"""What a page says about how much of each decision is motion: the verdicts, shares by class and by clip."""

import math
from collections.abc import Sequence

import numpy as np

from vtcav_jax.attribution.motion.summary import MAX_STATIC_SHARE, MIN_MOTION_SHARE, motion_verdict
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import format_number, format_percent
from vtcav_jax.report.figures import motion as motion_figures
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.runs.attribution_rows import ClassMotionRow, ClipMotionRow
from vtcav_jax.stats import intervals

MAX_ANSWER_SENTENCES = 13  # of a question, and its answers
MAX_MOTION_TABLE_ROWS = 400  # of the table in the page
FLOW_TEXTS = {"flow_precision": "of the changing part lies on what moves", "flow_recall": "of what moves lies in it"}


def motion_sections(run: RunFolder) -> list[Section]:
    if not run.class_motion_rows:
        return []
    parts, class_figures, clip_figures = [random_weights_notice.random_weights_warning(run, "motion")], [], []
    for target in unique_in_order([row.target for row in run.class_motion_rows]):
        rows = [row for row in run.class_motion_rows if row.target == target]
        clip_rows = [row for row in run.clip_motion_rows if row.target == target]
        sentences = [(lead.replace("-", "−"), rest.replace("-", "−")) for lead, rest in map(motion_verdict, rows)]
        parts += [
            html.heading(target),
            random_weights_notice.answer_callout(
                run, "motion", [*sentences[:MAX_ANSWER_SENTENCES], ("Clip by clip:", _clip_summary(clip_rows))]
            ),
        ]
        if rest := sentences[MAX_ANSWER_SENTENCES:]:
            parts.append(html.details_block(f"{len(rest)} answers more", html.lead_list(rest)))
        class_figures.append(motion_figures.class_motion_figure(rows))
        if any(not math.isnan(row.drop_shuffled) for row in clip_rows):
            clip_figures.append(motion_figures.clip_motion_figure(clip_rows))
    text = (
        "What is lost of a class's score when the same frames come in another order, when the clip stands still, and"
        " when it runs backwards, with 95 % intervals over clips. 0 %: nothing is lost; 100 %: all of it; below 0 the"
        f" changed clip scores higher. Motion is what needs the order of frames:"
        f" {format_percent(MIN_MOTION_SHARE)} and more is called so,"
        f" {format_percent(MAX_STATIC_SHARE)} and less is not; the grey belt lies between. What a still clip lacks"
        f" may also be an event, or"
        " what other moments show."
    )
    parts += [html.heading("By class"), html.paragraph(text, "soft"), html.figure_grid(class_figures)]
    if clip_figures:
        text = (
            "The share of each clip's own score that needs the order of its frames; the interval is that of the mean"
            " over the orders that were tried. Of one clip it cannot be taken off what the network says of any clip so"
            " changed, as is done by class: these shares are rougher. Hollow grey: 0 is within."
            " Point at a mark for the clip's name."
        )
        parts += [html.heading("Clip by clip"), html.paragraph(text, "soft"), html.figure_grid(clip_figures)]
    parts += [
        html.heading("In numbers"),
        _class_table(run.class_motion_rows, run.clip_motion_rows),
        _clip_table(run.clip_motion_rows),
    ]
    return [Section("decisions", "How much is motion", "".join(parts), (*class_figures, *clip_figures))]


def _clip_summary(rows: Sequence[ClipMotionRow]) -> str:
    finite = [row for row in rows if not math.isnan(row.drop_shuffled)]
    n_motion = sum(row.drop_shuffled_low >= MIN_MOTION_SHARE for row in finite)
    n_not_motion = sum(row.drop_shuffled_high <= MAX_STATIC_SHARE for row in finite)
    parts = [
        f"{n_motion} are motion by themselves",
        f"{n_not_motion} are not",
        f"{len(finite) - n_motion - n_not_motion} between",
    ]
    if len(finite) < len(rows):
        parts.append(f"of {len(rows) - len(finite)} nothing can be said, their score is not above that of nothing")
    return f"of {len(rows)} clips {', '.join(parts)}."


def _class_table(classes: Sequence[ClassMotionRow], clips: Sequence[ClipMotionRow]) -> str:
    text = (
        "Changing relevance: the share of the map that changes over time faster than the threshold (selective"
        " relevance), and how much of that is beyond the same clip frozen. A thing that moves takes its relevance"
        " along, also where only its look is asked for: by itself this is no sign of motion."
    )
    flows = [name for name in FLOW_TEXTS if any(not math.isnan(getattr(row, name)) for row in clips)]
    lines = []
    for row in classes:
        cells = [
            _share_text(*(getattr(row, name + end) for end in ("", "_low", "_high")))
            for name in ("drop_shuffled", "drop_frozen", "drop_reversed", "changing_mass", "changing_mass_excess")
        ]
        subset = [clip for clip in clips if clip.target == row.target and row.answer in ("", clip.answer)]
        cells += [_share_text(*intervals.mean_ci(np.array([getattr(clip, name) for clip in subset]))) for name in flows]
        lines.append(("", (row.target, row.answer or "all", str(row.n_clips), row.reference, *cells)))
    columns = ("question", "answer", "clips", "score against", "lost shuffled", "frozen", "reversed")
    columns += ("changing relevance", "beyond the frozen clip's", *(FLOW_TEXTS[name] for name in flows))
    return html.paragraph(text, "soft") + html.html_table(columns, lines)


def _share_text(value: float, low: float, high: float) -> str:
    return motion_figures.format_share(value, low, high) if not math.isnan(value) else "cannot be told"


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
    columns = ("clip", "answer", "score", "shuffled", "frozen", "reversed", "lost shuffled", "lost frozen", "excess")
    summary = f"{len(lines)} of {len(rows)} clips; all are in motion.csv" if len(lines) < len(rows) else ""
    return html.details_block(
        summary or f"{len(lines)} clips and questions, one by one", html.html_table(columns, lines)
    )
