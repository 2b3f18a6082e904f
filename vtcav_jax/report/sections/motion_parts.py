"""Section of selective relevance: animations of motion parts, what they contain, and their agreement with motion."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from vtcav_jax.attribution.motion.summary import interleave_classes
from vtcav_jax.names import count_noun
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import format_signed
from vtcav_jax.report.figures.motion_parts import threshold_figures
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import MAX_ANIMATION_BYTES, RunFolder, unique_in_order
from vtcav_jax.report.text.motion_parts import (
    VARIANT_TEXTS,
    describe_parts,
    describe_selectivity,
    points_text,
    prediction_text,
    share_text,
)
from vtcav_jax.runs.attribution_rows import (
    KNOWN_MOTION,
    MOTION_MAP_MEANS_CSV,
    MOTION_PARTS_FOLDER,
    ClipMotionRow,
    MotionMapMeanRow,
)
from vtcav_jax.runs.tables import read_rows

MAX_BYTES_BESIDE_OTHERS = 2_000_000  # of animations, if the page has those of other tasks
OPEN_ANIMATIONS = 2  # per target
ANIMATION_GUIDE = (
    "Animations, from left to right: the clip; the map over the clip in grey; its motion part; its static part; one row"
    " per method. The two parts add up to the map and have its colour scale, which is printed above and is the same for"
    " the whole clip. Signed maps: red raises the score, blue lowers it. Maps without sign: dark is low, light is high."
    " Bars: sum at each frame; the black mark is the current frame."
)
MOVING_TEXTS = {
    True: "those that a moving object covers in this, the previous or the next frame, known since the clips are"
    " synthetic",
    False: "those that move relative to the background in this, the previous or the next frame, by optical flow",
}
COLUMNS = {
    "motion_share": "motion part, share of the map",
    "frozen_share": "same, frozen clip",
    "excess": "difference (points)",
    "area": "share of the voxels",
    "flow_precision": "motion part's cells on moving pixels",
    "flow_precision_map": "map's strongest cells on moving pixels",
    "flow_precision_gain": "difference (points)",
    "flow_precision_smoothed": "smoothed map's strongest cells",
    "flow_precision_smoothed_gain": "difference (points)",
    "flow_precision_difference": "cells where frames differ most",
    "flow_area": "all pixels",
    "flow_energy": "motion part's relevance on moving pixels",
    "flow_energy_top": "relevance of the map's strongest cells",
    "flow_energy_gain": "difference (points)",
    "flow_energy_map": "relevance of the whole map",
    "flow_recall": "moving pixels in the motion part",
}
MapId = tuple[str, str, str]  # target, method, stage


def motion_part_sections(run: RunFolder) -> list[Section]:
    rows = read_rows(run.folder / MOTION_MAP_MEANS_CSV, MotionMapMeanRow)
    if not rows:
        return []
    record = run.task_record("motion")
    config = record.config if record else {}
    threshold, variant = float(config.get("motion_threshold_sd", 1)), config.get("motion_variant", "absolute")
    introduction = (
        f"Selective relevance splits each [[attribution map]] into two parts that add up to it."
        f" {VARIANT_TEXTS[variant].format(sd=_deviations(threshold))} A moving object takes its relevance along even"
        " if only its appearance matters, so the motion part shows where relevance changes; whether the decision needs"
        " motion is measured by the losses of score above. Intervals are 95 % bootstrap intervals over source videos."
    )
    parts = [random_weights_notice.random_weights_warning(run, "motion"), linked_paragraph(introduction)]
    moving_text = MOVING_TEXTS[config.get("moving_pixels") == KNOWN_MOTION]
    animations, figures = _animations(run), []
    parts += [html.paragraph(ANIMATION_GUIDE, "soft")] if animations else []
    at_threshold = {row_id: {} for row_id in map(_map_id, rows)}
    for row in rows:
        if row.threshold_sd == threshold and not row.answer:
            at_threshold[_map_id(row)][row.measure] = row
    for target in unique_in_order([row.target for row in rows]):
        leads = [
            (
                f"{method} at {stage}:",
                " ".join(filter(None, (describe_parts(by_measure), describe_selectivity(by_measure)))),
            )
            for (row_target, method, stage), by_measure in at_threshold.items()
            if row_target == target
        ]
        parts += [html.heading(target), random_weights_notice.answer_callout(run, "motion", leads)]
        if films := animations.get(target):
            parts += films[:OPEN_ANIMATIONS]
            if further := films[OPEN_ANIMATIONS:]:
                parts.append(html.details_block(count_noun(len(further), "more clip"), "".join(further)))
    for map_id in at_threshold:
        figures += threshold_figures([row for row in rows if _map_id(row) == map_id and not row.answer])
    if figures:
        text = (
            "How much of the map the motion part has at each threshold, and how much of the frozen clip's map the same"
            " threshold selects; with optical flow, also how much of the motion part is on moving pixels, compared with"
            " as many other cells. Bars: 95 % interval over source videos."
        )
        parts += [html.heading("Motion parts by threshold"), html.paragraph(text, "soft"), html.figure_grid(figures)]
    parts += [html.heading("Motion parts by method and class"), _table(rows, threshold, moving_text)]
    if any(row.parts_file for row in run.clip_motion_rows):
        text = (
            f"{MOTION_PARTS_FOLDER}/ has the maps, motion parts and static parts of these clips as arrays and"
            " animations; motion.csv names their files in the column parts_file."
        )
        parts.append(html.paragraph(text, "soft"))
    return [
        Section("selective-relevance", "Motion parts of maps (selective relevance)", "".join(parts), tuple(figures))
    ]


def _deviations(threshold: float) -> str:
    return f"{threshold:g} standard deviation{'' if threshold == 1 else 's'}"


def _map_id(row: MotionMapMeanRow) -> MapId:
    return row.target, row.method, row.stage


def _animations(run: RunFolder) -> dict[str, list[str]]:
    """Return figures of the stored examples of each target, within the size limit of a page."""
    bytes_left = MAX_BYTES_BESIDE_OTHERS if run.map_rows or run.animation_rows else MAX_ANIMATION_BYTES
    targets = unique_in_order([row.target for row in run.clip_motion_rows])
    candidates = [
        interleave_classes([row for row in run.clip_motion_rows if row.target == target and row.parts_file])
        for target in targets
    ]
    figures: dict[str, list[str]] = {}
    for row in (row for rank in zip_longest(*candidates) for row in rank if row):
        path = _animation_path(run.folder, row)
        if path is None or (bytes_left := bytes_left - _size_in_bytes(path)) < 0:
            continue
        text = prediction_text(row)
        prediction = f", prediction {text}" if text else ""
        caption = f"{row.clip}{prediction}, score {format_signed(row.score, 3)}"
        figures.setdefault(row.target, []).append(html.embed_media(path, caption, "film"))
    return figures


def _animation_path(folder: Path, row: ClipMotionRow) -> Path | None:
    paths = ((folder / row.parts_file).with_suffix(suffix) for suffix in (".webp", ".mp4"))
    return next((path for path in paths if path.is_file()), None)


def _size_in_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in {path, path.with_suffix(".jpg")} if file.is_file())


def _table(rows: Sequence[MotionMapMeanRow], threshold: float, moving_text: str) -> str:
    rows = [row for row in rows if row.threshold_sd == threshold]
    columns = {name: title for name, title in COLUMNS.items() if any(row.measure == name for row in rows)}
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        key = row.target, row.answer or "all", row.method, row.stage
        text = points_text(row) if row.measure.endswith(("excess", "gain")) else share_text(row)
        lines.setdefault(key, {})[row.measure] = text
    text = "Share of the map: of its absolute values. In brackets: 95 % CI over source videos."
    if "flow_precision" in columns:
        text += (
            f" Moving pixels: {moving_text}. Each cell counts by its share of them; of the map, of the map"
            " smoothed over 3 x 3 places like the change over time, and of the difference between frames, as many of"
            " the strongest cells as the motion part has. Relevance on moving pixels: the"
            " same, with cells weighted by their absolute values."
        )
    header = ("question", "prediction", "method", "stage", *columns.values())
    body = [("", (*key, *(cells.get(name, "undefined") for name in columns))) for key, cells in lines.items()]
    return html.paragraph(text, "soft") + html.html_table(header, body)
