"""Section of sensitivity to time over depth: figures by stage (layer), the stage that reads motion, channels."""

import math
from collections.abc import Sequence
from itertools import zip_longest

from vtcav_jax.attribution.motion.reliance import TIME_EDITS
from vtcav_jax.attribution.motion.summary import MAX_STATIC_SHARE, MIN_MOTION_SHARE
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.names import count_noun
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import format_number, format_percent, format_range
from vtcav_jax.report.figures.motion import format_share
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.figures.tcav import slug
from vtcav_jax.report.figures.tcav_groups import StageMark, stage_figure
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.runs.time_sensitivity_rows import ACTIVATION_CHANGE, CARRIED_SCORE, SCORE_LOSS, TimeSensitivityRow

MAX_LISTED_CHANNELS = 8  # per target and stage
INPUT_NAME = "input"
DRAWING_ORDER = "frozen", "shuffled", "reversed"  # for the colours of the figures of lost scores
EDIT_MEANINGS = {"shuffled": "in random order", "frozen": "one time step repeated", "reversed": "backwards"}


def time_sensitivity_sections(run: RunFolder) -> list[Section]:
    rows = run.time_sensitivity_rows
    if not rows:
        return []
    figures = depth_figures(rows)
    intro = (
        "The first figure shows what editing the clip does to each [[stage]]: the squared change of its activation,"
        " averaged over time, relative to the squared difference to clips of other videos. A network that processes"
        " each frame by itself would have 0 everywhere. The other figures show what editing the activation itself along"
        " time does to the [[score]], while the rest of the network runs on: at the input this is the loss of the"
        " edited clip; where it has fallen, the network has turned motion into features that no longer depend on when"
        f" they occur. Edits: {', '.join(f'{edit} ({EDIT_MEANINGS[edit]})' for edit in TIME_EDITS)}. From"
        f" {count_noun(rows[0].n_clips, 'clip')} of {count_noun(rows[0].n_videos, 'source video')}; bars:"
        " 95 % bootstrap intervals over source videos."
    )
    answers = [(f"{target}:", reading_sentence(rows, target)) for target in _targets(rows)]
    parts = [
        linked_paragraph(intro),
        random_weights_notice.answer_callout(run, "motion", answers),
        html.figure_grid(figures),
        _channel_table(rows),
    ]
    return [Section("time-depth", "Sensitivity to time by layer", "".join(parts), tuple(figures))]


def time_sensitivity_comparison_sections(runs: Sequence[RunFolder], labels: Sequence[str]) -> list[Section]:
    """Show the figures of several runs side by side; their stages may differ."""
    if not all(run.time_sensitivity_rows for run in runs):
        return []
    by_run = [depth_figures(run.time_sensitivity_rows, label) for run, label in zip(runs, labels)]
    figures = [figure for panel in zip_longest(*by_run) for figure in panel if figure]
    leads = [
        (f"{label}, {target}:", reading_sentence(run.time_sensitivity_rows, target))
        for run, label in zip(runs, labels)
        for target in _targets(run.time_sensitivity_rows)
    ]
    body = html.callout(html.lead_list(leads), "answer") + html.figure_grid(figures)
    return [Section("time-depth", "Sensitivity to time by layer", body, tuple(figures))]


def depth_figures(rows: Sequence[TimeSensitivityRow], run_name: str = "") -> list[Figure]:
    """Draw the change of the activation, and the loss of score for each target, by stage."""
    whole = [row for row in rows if row.channel < 0 and not row.answer]
    panels = [(ACTIVATION_CHANGE, "", "change of the activation when the clip is edited")]
    panels += [(SCORE_LOSS, target, "loss of score when the stage is edited") for target in _targets(rows)]
    figures = []
    for quantity, target, unit in panels:
        title = ": ".join(filter(None, (run_name, target or "activations")))
        rows_of_edit = [
            [row for row in whole if (row.quantity, row.target, row.edit) == (quantity, target, edit)]
            for edit in DRAWING_ORDER
        ]
        marks = [_mark(row) for part in rows_of_edit for row in part]
        figures.append(
            stage_figure(
                slug("time_depth", run_name, quantity, target), f"{title}: {unit}, by stage", title, unit, marks
            )
        )
    return figures


def reading_sentence(rows: Sequence[TimeSensitivityRow], target: str) -> str:
    """Say up to which stage the score needs the order of time steps, as far as the intervals show it."""
    losses = [
        row
        for row in rows
        if (row.quantity, row.target, row.answer, row.edit, row.channel) == (SCORE_LOSS, target, "", "shuffled", -1)
    ]
    first = losses[0]
    numbers = format_share(first.value, first.low, first.high)
    if math.isnan(first.value) or math.isnan(first.low):
        return "no statement about depth, because the loss of score in shuffled clips is undefined."
    if first.high <= MAX_STATIC_SHARE:
        return f"shuffling the input costs {numbers} of the score, so that it hardly needs the order of frames."
    if first.low < MIN_MOTION_SHARE:
        return (
            f"shuffling the input costs {numbers} of the score, less than the {format_percent(MIN_MOTION_SHARE)} from"
            " which on a stage that reads motion is named."
        )
    ordered = [row for row in losses if row.low >= MIN_MOTION_SHARE]
    free = [row for row in losses if row.high <= MAX_STATIC_SHARE]
    text = f"shuffling the input costs {numbers} of the score; shuffling the activation of"
    text += f" {_stage_name(ordered[-1].stage)}, the last stage that needs the order of time steps, costs"
    text += f" {format_share(ordered[-1].value, ordered[-1].low, ordered[-1].high)}"
    if free and losses.index(free[0]) > losses.index(ordered[-1]):
        share = format_share(free[0].value, free[0].low, free[0].high)
        return f"{text}, and that of {free[0].stage} costs {share}: between the two, motion has been read."
    return f"{text}; at no later stage is the loss small with certainty."


def _targets(rows: Sequence[TimeSensitivityRow]) -> list[str]:
    return unique_in_order([row.target for row in rows if row.target])


def _stage_name(stage: str) -> str:
    return f"the {INPUT_NAME}" if stage == VIDEO else stage


def _mark(row: TimeSensitivityRow) -> StageMark:
    stage = INPUT_NAME if row.stage == VIDEO else row.stage
    title = f"{row.edit}, {stage}: {format_share(row.value, row.low, row.high)}"
    return StageMark(stage, row.edit, row.value, row.low, row.high, title)


def _channel_table(rows: Sequence[TimeSensitivityRow]) -> str:
    """List the channels that carry most of each target's score, and what edits of the clip do to them."""
    of_channel = {(r.stage, r.channel, r.target, r.quantity, r.edit): r for r in rows if r.channel >= 0}
    lines = []
    for target in _targets(rows):
        for stage in unique_in_order([row.stage for row in rows if row.channel >= 0]):
            carried = [
                row for key, row in of_channel.items() if key[0] == stage and key[2:] == (target, CARRIED_SCORE, "")
            ]
            for row in sorted(carried, key=lambda row: -row.value)[:MAX_LISTED_CHANNELS]:
                name = stage, row.channel, target, SCORE_LOSS
                losses = [of_channel[*name, edit] for edit in TIME_EDITS]
                changes = [of_channel[stage, row.channel, "", ACTIVATION_CHANGE, edit] for edit in TIME_EDITS]
                cells = [f"{format_number(row.value)} ({format_range(row.low, row.high)})"]
                cells += [_share(loss) if row.low > 0 else "" for loss in losses]
                lines.append(("", (target, stage, f"{row.channel}", *cells, *map(_share, changes))))
    columns = ("question", "stage", "channel", "carried score")
    columns += tuple(f"loss, {edit}" for edit in TIME_EDITS) + tuple(f"change, {edit}" for edit in TIME_EDITS)
    text = (
        "Carried score: gradient times the activation minus its mean in other videos, summed over the clip (first-order"
        " estimate of the channel's contribution). Loss: share of it that is lost when the clip is edited; given only"
        " where the carried score is above 0 with certainty. Change: that of the channel's activation, as in the first"
        f" figure. At most {MAX_LISTED_CHANNELS} channels per stage, chosen by the same clips, so that their carried"
        " scores are somewhat too large; more are in time_sensitivity.csv."
    )
    table = html.paragraph(text, "soft") + html.html_table(columns, lines)
    return html.details_block(f"Channels that carry the score ({len(lines)})", table) if lines else ""


def _share(row: TimeSensitivityRow) -> str:
    return "" if math.isnan(row.value) else format_share(row.value, row.low, row.high)
