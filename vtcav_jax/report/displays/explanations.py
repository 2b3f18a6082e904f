"""Displays of concept tests, motion tests, feature pyramids and discovered concepts."""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import escape

from vtcav_jax.attribution.motion.measure import MotionResults
from vtcav_jax.attribution.motion.summary import motion_sentences
from vtcav_jax.concepts.concept_sets import OVERVIEW_FOLDER
from vtcav_jax.concepts.config import folder_name
from vtcav_jax.discovery.run import DiscoveryReport
from vtcav_jax.json_file import load_json
from vtcav_jax.pyramid.graph import Pyramid
from vtcav_jax.report.displays.result_view import ResultTable, ResultView, TableMaker
from vtcav_jax.report.effect_sizes import effect_size as effect_of
from vtcav_jax.report.effect_sizes import effect_unit, format_effect, format_p, format_percent
from vtcav_jax.report.figures.estimates import Estimate, estimate_figure
from vtcav_jax.report.figures.motion import class_motion_figure, clip_motion_figure
from vtcav_jax.report.figures.pyramid import pyramid_graph_figure, select_displayed
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.figures.tcav import depth_figure
from vtcav_jax.runs import directory
from vtcav_jax.runs.attribution_rows import ClassMotionRow, ClipMotionRow, MotionMapMeanRow, MotionMapRow
from vtcav_jax.runs.discovery_rows import CompletenessRow, DiscoveredRow
from vtcav_jax.runs.pyramid_rows import EdgeRow, NodeRow, PyramidFacts
from vtcav_jax.runs.tcav_rows import (
    CalibrationRow,
    ConfounderRow,
    DerivativeRow,
    ScoreRow,
    SteeringRow,
    VectorRow,
)
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.run import ExperimentResults

SCORE_COLUMNS = ("target", "concept", "clip_type", "negatives", "stage", "step_effect", "p_adjusted", "verdict")
MOTION_COLUMNS = (
    *("target", "answer", "n_clips", "n_videos", "drop_shuffled", "drop_shuffled_low", "drop_shuffled_high"),
    *("drop_frozen", "drop_reversed"),
)
NODE_COLUMNS = (
    *("level", "stage", "channel", "relevance", "relevance_low", "relevance_high", "activation_excess", "frequency"),
    "unexplained",
)
DISCOVERED_COLUMNS = (
    *("concept", "label", "label_auc", "label_auc_low", "label_auc_high", "explained_share", "importance"),
    *("importance_p", "n_videos"),
)
MAX_TOP_CLIPS = 3
MAX_OVERVIEWS = 4


def _table(row_type: type, rows: Sequence[object]) -> TableMaker:
    return lambda: ResultTable.of_rows(row_type, rows)


def view_experiment(result: ExperimentResults) -> ResultView:
    statistic = _experiment_statistic(result.folder)
    notes = [
        f"{row.concept} ({row.clip_type} vs {row.negatives}) {'raises' if row.derivative > 0 else 'lowers'} the"
        f" score of {row.target} at {row.stage}: {format_effect(effect_of(row, statistic))}, adjusted p"
        f" {format_p(row.p_adjusted)}."
        for row in result.findings
    ]
    return ResultView(
        heading=repr(result),
        notes=tuple(notes or ["No test is significant and conclusive."]),
        tables={
            "scores": _table(ScoreRow, result.rows),
            "quality": _table(VectorRow, result.vectors),
            "derivatives": _table(DerivativeRow, result.derivatives),
            "steering": _table(SteeringRow, result.steering),
            "confounders": _table(ConfounderRow, result.confounders),
            "calibration": _table(CalibrationRow, result.calibration),
        },
        columns=SCORE_COLUMNS,
        figures=lambda: tcav_depth_figures(result.rows, statistic),
    )


def _experiment_statistic(folder: Path) -> str:
    """Return the test statistic of the run, which its record has."""
    path, _ = directory.record_paths(folder, "tcav")
    return load_json(path)["request"]["statistic"] if path.is_file() else ExperimentConfig.statistic


def tcav_depth_figures(rows: Sequence[ScoreRow], statistic: str) -> list[Figure]:
    """Return the effect by stage of each concept on each class."""
    figures = []
    for target in dict.fromkeys(row.target for row in rows):
        of_target = [row for row in rows if row.target == target]
        for concept in dict.fromkeys(row.concept for row in of_target):
            subset = [row for row in of_target if row.concept == concept]
            figures.append(depth_figure(subset, statistic, effect_unit(statistic, subset[0].score_fn), of_target))
    return figures


def view_motion(result: MotionResults) -> ResultView:
    return ResultView(
        heading=repr(result),
        notes=tuple(motion_sentences(result.classes)),
        tables={
            "motion_classes": _table(ClassMotionRow, result.classes),
            "motion": _table(ClipMotionRow, result.clips),
            "motion_maps": _table(MotionMapRow, result.maps),
            "motion_map_means": _table(MotionMapMeanRow, result.map_means),
        },
        columns=MOTION_COLUMNS,
        figures=lambda: motion_figures(result.classes, result.clips),
    )


def motion_figures(classes: Sequence[ClassMotionRow], clips: Sequence[ClipMotionRow]) -> list[Figure]:
    """Return the losses of each question, then those of its clips."""
    targets = dict.fromkeys(row.target for row in classes)
    by_class = [class_motion_figure([row for row in classes if row.target == target]) for target in targets]
    by_clip = (
        [row for row in clips if row.target == target and row.drop_shuffled == row.drop_shuffled] for target in targets
    )
    return by_class + [clip_motion_figure(rows) for rows in by_clip if rows]


def node_rows(result: Pyramid) -> list[NodeRow]:
    """Return the nodes with the numbers of the clips that they contribute to most."""
    rows = []
    for i, node in enumerate(result.nodes):
        order = np.argsort(-result.maps[i].sum((1, 2, 3)), kind="stable")[:MAX_TOP_CLIPS]
        rows.append(NodeRow(result.target, i, **vars(node), top_clips="|".join(map(str, order.tolist()))))
    return rows


def view_pyramid(result: Pyramid) -> ResultView:
    nodes, edges = node_rows(result), [EdgeRow(result.target, **vars(edge)) for edge in result.edges]
    return ResultView(
        heading=repr(result),
        tables={"pyramid_nodes": _table(NodeRow, nodes), "pyramid_edges": _table(EdgeRow, edges)},
        columns=NODE_COLUMNS,
        figures=lambda: [_graph_figure(result, nodes, edges)],
    )


def _graph_figure(result: Pyramid, nodes: Sequence[NodeRow], edges: Sequence[EdgeRow]) -> Figure:
    facts = PyramidFacts(
        *(result.target or "class score", result.levels, tuple(map(float, result.score)), result.stability, ()),
        *(dict(vars(result.selection)), result.edge_rule, (), False, 0),
    )
    return pyramid_graph_figure(facts, select_displayed(facts, nodes, edges), "node")


def view_discovery(result: DiscoveryReport) -> ResultView:
    notes = [
        f"At {row.stage}, all concepts determine {format_percent(row.share)} of the predictions of {row.head} above"
        f" chance (95 % CI {format_percent(row.low)} to {format_percent(row.high)}), tested on {row.n_videos} videos."
        for row in result.completeness
    ]
    return ResultView(
        heading=repr(result),
        notes=tuple(notes),
        tables={
            "discovered": _table(DiscoveredRow, result.concepts),
            "completeness": _table(CompletenessRow, result.completeness),
        },
        columns=DISCOVERED_COLUMNS,
        figures=lambda: [importance_figure(result.concepts)] if result.concepts else [],
        pictures=lambda: overview_pictures(result),
    )


def importance_figure(rows: Sequence[DiscoveredRow]) -> Figure:
    """Draw the importance of each discovered concept with its interval."""
    estimates = [
        Estimate(
            f"{row.concept} {row.label}".strip(), row.importance, row.importance_low, row.importance_high, row.n_videos
        )
        for row in rows
    ]
    return estimate_figure("importance", "importance of discovered concepts", "lead lost without it", estimates)


def overview_pictures(result: DiscoveryReport) -> list[str]:
    """Return the pictures of the first concepts: a frame of the clips in which each is strongest."""
    paths = {path.stem: path for path in (result.folder / OVERVIEW_FOLDER).glob("*.jpg")}
    pictures = []
    for row in result.concepts:
        path = paths.get(folder_name(row.concept))
        if path is not None and len(pictures) < MAX_OVERVIEWS:
            name = escape(f"{row.concept} {row.label}".strip())
            source = f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"
            pictures.append(f'<figure><img src="{source}" alt="{name}"><figcaption>{name}</figcaption></figure>')
    return pictures
