"""Section of channels and concepts: how much of a class's relevance passes along them, in which clips, and where."""

import math
from collections.abc import Sequence
from dataclasses import replace

from vtcav_jax.names import count_noun
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import format_number, format_signed
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.runs.conditional_rows import GALLERY_FOLDER, MOMENTS_CSV, SHARES_CSV, MomentRow, ShareRow
from vtcav_jax.runs.tables import read_rows

MAX_GALLERY_BYTES = 4_000_000  # of pictures, as files
MAX_RANKED = 10  # channels and concepts of each kind in the table of a class
MAX_TABLES = 8  # classes of a stage; all are in the CSV file
INTRODUCTION = (
    "The [[score]] of a class is traced back to a [[stage]] of the network as relevance, which says how much each"
    " activation contributes. Here only the relevance along one channel or concept is traced further back to the video:"
    " the maps show where, and the clips when, this channel or concept contributes to the class. Each class is shown"
    " with the clips that the network predicts as this class."
)
PICTURE_TEXT = (
    "Crops: half of the frame's side, around the place and moment with the most relevance through the channel or"
    " concept; below, the time in the video. Animations: the clip, the map of all relevance, that of the relevance"
    " through the channel or concept, and the same relevance at the stage, where after attention each place can hold"
    " information from the whole frame. Red raises the score, blue lowers it; each map has its own scale, printed above"
    " it. Bars: sum of the map at each frame; the black mark is the current frame."
)
SHARE_TEXT = (
    "Share: the relevance along the channel or concept divided by all relevance at the stage, both summed over the"
    " clips of the class, with 95 % intervals over source videos. A negative share counts against the class. The"
    " channels of a stage sum to 100 %; concepts need not, since they overlap. Random directions: mean share and the"
    " range of 95 % of 400 directions drawn uniformly at random; directions in which activations are large are outside"
    " this range more easily. Intervals are not corrected for the choice of the largest"
    " shares. A share describes how this score is computed, to first order; it does not prove that the network needs"
    " the channel or concept."
)


def gallery_section(run: RunFolder) -> Section | None:
    """Return the section of a run with `--through`, or None."""
    shares = read_rows(run.folder / SHARES_CSV, ShareRow)
    if not shares:
        return None
    all_moments = read_rows(run.folder / MOMENTS_CSV, MomentRow)
    moments = _rows_that_fit(run, all_moments)
    parts = [random_weights_notice.random_weights_warning(run, "attribute"), linked_paragraph(INTRODUCTION)]
    parts += [html.paragraph(PICTURE_TEXT, "soft")] if moments else []
    if left_out := sum(bool(row.animation) for row in all_moments) - sum(bool(row.animation) for row in moments):
        text = f"{count_noun(left_out, 'animation')} did not fit into the page; see {GALLERY_FOLDER}/."
        parts.append(html.paragraph(text, "soft"))
    chosen = sorted((row for row in shares if row.chosen), key=_share_order)
    for concept in unique_in_order([row.concept for row in chosen]):
        rows = [row for row in shares if row.concept == concept]
        parts.append(html.heading(_capitalised(rows[0].title)))
        sentences = [(f"{row.answer}:", _describe(row)) for row in sorted(rows, key=_share_order)]
        parts.append(random_weights_notice.answer_callout(run, "attribute", sentences))
        parts += [_gallery(run, row, moments, i == 0) for i, row in enumerate(sorted(rows, key=_share_order))]
    parts += [html.heading("Largest shares"), html.paragraph(SHARE_TEXT, "soft")]
    for stage in unique_in_order([row.stage for row in shares]):
        tables = _tables([row for row in shares if row.stage == stage])
        parts += [table if i < 1 else html.details_block(name, table) for i, (name, table) in enumerate(tables)]
    return Section("gallery", "Channels and concepts", "".join(parts))


def gallery_bytes(run: RunFolder) -> int:
    """Return the size of the files of the section, which leave less room for other animations."""
    rows = _rows_that_fit(run, read_rows(run.folder / MOMENTS_CSV, MomentRow))
    return sum(_size(run, row.picture) + (_size(run, row.animation) if row.animation else 0) for row in rows)


def _describe(row: ShareRow) -> str:
    over = f"{count_noun(row.n_clips, 'clip')} of {count_noun(row.n_videos, 'source video')}"
    if row.n_videos < 2:
        return f"no share, because an interval needs at least two source videos ({over})."
    if math.isnan(row.share):
        return (
            f"no share, because the relevances at {row.stage} cancel, or the sign of their sum is uncertain (mean"
            f" {format_signed(row.relevance)} over {over})."
        )
    kind = "channels" if row.kind == "channel" else f"{row.kind}s"
    against = " It counts against the class." if row.share_high < 0 else ""
    relation = f"{'above' if row.share > row.random_high else 'below'} the range"
    relation = "its interval overlaps the range" if _overlaps_random(row) else relation
    return (
        f"{_percent(row.share)} (95 % CI {_range(row.share_low, row.share_high)}, {over}) of the relevance at"
        f" {row.stage} passes through it, rank {row.rank} of {row.n_ranked} {kind}; {relation} of random"
        f" directions ({_range(row.random_low, row.random_high)}, mean {_percent(row.random_share)}).{against}"
    )


def _gallery(run: RunFolder, row: ShareRow, moments: Sequence[MomentRow], is_open: bool) -> str:
    """Return crops of the strongest clips at their moments, and their animations, the first one unfolded."""
    rows = [m for m in moments if (m.target, m.answer, m.concept) == (row.target, row.answer, row.concept)]
    if not rows:
        return ""
    crops = "".join(html.embed_media(run.folder / m.picture, f"{m.moment:.2f} s") for m in rows)
    clips = f"{len(rows)} clips with the most relevance through it, each of another source video"
    text = f"{row.answer}: the {clips if len(rows) > 1 else 'clip with the most relevance through it'}."
    films = [
        html.embed_media(run.folder / m.animation, f"{m.clip}, {m.moment:.2f} s: {_relevance_text(m)}", "film")
        for m in rows
        if m.animation
    ]
    parts = [html.paragraph(text, "soft"), f'<div class="films">{crops}</div>', *(films[:1] if is_open else ())]
    if folded := films[1:] if is_open else films:
        parts.append(
            html.details_block(
                f"{'More animations' if is_open else 'Animations'}: {count_noun(len(folded), 'clip')}", "".join(folded)
            )
        )
    return "".join(parts)


def _relevance_text(row: MomentRow) -> str:
    return f"relevance {format_signed(row.relevance, 3)} through it, {format_number(row.total)} in all"


def _tables(rows: Sequence[ShareRow]) -> list[tuple[str, str]]:
    """Return a summary and the table of the largest shares of each class, those with the most clips first."""
    keys = unique_in_order([(row.target, row.answer) for row in rows])
    defined = [key for key in keys if any((r.target, r.answer) == key and not math.isnan(r.share) for r in rows)]
    tables = []
    for target, answer in defined[:MAX_TABLES]:
        members = [row for row in rows if (row.target, row.answer) == (target, answer)]
        largest = [row for row in members if row.rank <= MAX_RANKED or row.chosen]
        lines = [
            (
                "faint" if _overlaps_random(row) else "",
                (
                    row.title,
                    f"{row.rank} of {row.n_ranked}",
                    f"{_percent(row.share)} ({_range(row.share_low, row.share_high)})",
                ),
            )
            for row in largest
        ]
        first = members[0]
        name = (
            f"{answer} at {first.stage}: {count_noun(first.n_clips, 'clip')} of"
            f" {count_noun(first.n_videos, 'source video')}; random directions {_percent(first.random_share)} on"
            f" average, 95 % of them {_range(first.random_low, first.random_high)} (grey: interval overlaps it)"
        )
        table = html.html_table(("channel or concept", "rank", "share (95 % CI)"), lines)
        tables.append((name, table if tables else html.paragraph(name, "soft") + table))
    return tables


def _rows_that_fit(run: RunFolder, rows: Sequence[MomentRow]) -> list[MomentRow]:
    """Return the rows without the animations that do not fit into the section, those of the strongest clips first."""
    rows = [row for row in rows if (run.folder / row.picture).is_file()]
    bytes_left, fitting = MAX_GALLERY_BYTES - sum(_size(run, row.picture) for row in rows), []
    for row in sorted(rows, key=lambda row: row.rank):
        size = _size(run, row.animation) if row.animation else 0
        fits = 0 < size <= bytes_left
        bytes_left -= size if fits else 0
        fitting.append(row if fits else replace(row, animation=""))
    return fitting


def _size(run: RunFolder, file: str) -> int:
    path = run.folder / file
    return sum(part.stat().st_size for part in {path, path.with_suffix(".jpg")} if part.is_file())


def _share_order(row: ShareRow) -> float:
    return math.inf if math.isnan(row.share) else -row.share


def _overlaps_random(row: ShareRow) -> bool:
    return row.share_low <= row.random_high and row.share_high >= row.random_low


def _percent(share: float) -> str:
    return f"{_number(share)} %"


def _range(low: float, high: float) -> str:
    return f"{_number(low)} to {_number(high)} %"


def _number(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f}".replace("-", "−")


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
