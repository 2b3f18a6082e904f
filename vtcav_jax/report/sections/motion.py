"""What a page says about how much of each decision is motion: the verdicts, shares by class and by clip."""

import math
from collections.abc import Sequence

import numpy as np

from vtcav_jax.attribution.motion.reliance import Motion
from vtcav_jax.attribution.motion.summary import HIGH, LOW, ClassMotion, verdict
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import number, percent
from vtcav_jax.report.figures import motion as motion_figures
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique
from vtcav_jax.stats import intervals

MOST_TOLD = 13  # of a question, and its answers
MOST_ROWS = 400  # of the table in the page
FLOW = {"flow_precision": "of the changing part lies on what moves", "flow_recall": "of what moves lies in it"}


def sections(run: RunFolder) -> list[Section]:
    if not run.motion_classes:
        return []
    parts, classes, clips = [random_weights_notice.warning(run, "motion")], [], []
    for target in unique([row.target for row in run.motion_classes]):
        rows = [row for row in run.motion_classes if row.target == target]
        each = [row for row in run.motions if row.target == target]
        told = [(lead.replace("-", "−"), rest.replace("-", "−")) for lead, rest in map(verdict, rows)]
        parts += [
            html.heading(target),
            random_weights_notice.answer(run, "motion", [*told[:MOST_TOLD], ("Clip by clip:", _each(each))]),
        ]
        if rest := told[MOST_TOLD:]:
            parts.append(html.details(f"{len(rest)} answers more", html.leads(rest)))
        classes.append(motion_figures.by_class(rows))
        if any(not math.isnan(row.order) for row in each):
            clips.append(motion_figures.by_clip(each))
    text = (
        "What is lost of a class's score when the same frames come in another order, when the clip stands still, and"
        " when it runs backwards, with 95 % intervals over clips. 0 %: nothing is lost; 100 %: all of it; below 0 the"
        f" changed clip scores higher. Motion is what needs the order of frames: {percent(HIGH)} and more is called so,"
        f" {percent(LOW)} and less is not; the grey belt lies between. What a still clip lacks may also be an event, or"
        " what other moments show."
    )
    parts += [html.heading("By class"), html.paragraph(text, "soft"), html.figures(classes)]
    if clips:
        text = (
            "The share of each clip's own score that needs the order of its frames; the interval is that of the mean"
            " over the orders that were tried. Of one clip it cannot be taken off what the network says of any clip so"
            " changed, as is done by class: these shares are rougher. Hollow grey: 0 is within."
            " Point at a mark for the clip's name."
        )
        parts += [html.heading("Clip by clip"), html.paragraph(text, "soft"), html.figures(clips)]
    parts += [html.heading("In numbers"), _table(run.motion_classes, run.motions), _clips(run.motions)]
    return [Section("decisions", "How much is motion", "".join(parts), (*classes, *clips))]


def _each(rows: Sequence[Motion]) -> str:
    known = [row for row in rows if not math.isnan(row.order)]
    motion = sum(row.order_low >= HIGH for row in known)
    not_motion = sum(row.order_high <= LOW for row in known)
    told = [
        f"{motion} are motion by themselves",
        f"{not_motion} are not",
        f"{len(known) - motion - not_motion} between",
    ]
    if len(known) < len(rows):
        told.append(f"of {len(rows) - len(known)} nothing can be said, their score is not above that of nothing")
    return f"of {len(rows)} clips {', '.join(told)}."


def _table(classes: Sequence[ClassMotion], clips: Sequence[Motion]) -> str:
    text = (
        "Changing relevance: the share of the map that changes over time faster than the threshold (selective"
        " relevance), and how much of that is beyond the same clip frozen. A thing that moves takes its relevance"
        " along, also where only its look is asked for: by itself this is no sign of motion."
    )
    flows = [name for name in FLOW if any(not math.isnan(getattr(row, name)) for row in clips)]
    lines = []
    for row in classes:
        cells = [
            _share(*(getattr(row, name + end) for end in ("", "_low", "_high")))
            for name in ("order", "still", "backwards", "moving", "excess")
        ]
        own = [one for one in clips if one.target == row.target and row.answer in ("", one.answer)]
        cells += [_share(*intervals.mean(np.array([getattr(one, name) for one in own]))) for name in flows]
        lines.append(("", (row.target, row.answer or "all", str(row.clips), row.against, *cells)))
    columns = ("question", "answer", "clips", "score against", "lost shuffled", "frozen", "reversed")
    columns += ("changing relevance", "beyond the frozen clip's", *(FLOW[name] for name in flows))
    return html.paragraph(text, "soft") + html.table(columns, lines)


def _share(value: float, low: float, high: float) -> str:
    return motion_figures.share(value, low, high) if not math.isnan(value) else "cannot be told"


def _clips(rows: Sequence[Motion]) -> str:
    lines = [
        (
            "" if row.order == row.order and not row.order_low <= 0 <= row.order_high else "faint",
            (
                *(row.clip, row.answer, *map(number, (row.score, row.shuffled, row.frozen, row.reversed))),
                *(_share(row.order, row.order_low, row.order_high), _share(row.still, row.still_low, row.still_high)),
                percent(row.excess),
            ),
        )
        for row in rows[:MOST_ROWS]
    ]
    columns = ("clip", "answer", "score", "shuffled", "frozen", "reversed", "lost shuffled", "lost frozen", "excess")
    more = f"{len(lines)} of {len(rows)} clips; all are in motion.csv" if len(lines) < len(rows) else ""
    return html.details(more or f"{len(lines)} clips and questions, one by one", html.table(columns, lines))
