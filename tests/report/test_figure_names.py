"""Names in figures are complete, inside the figure and apart from each other, however long they are."""

from dataclasses import replace
from typing import get_type_hints

import numpy as np
import pytest

from tests.report.test_maps_page import class_row, clip_row
from tests.report.test_tcav_page import row
from tests.support.figure_geometry import (
    crossed_texts,
    drawn_parts,
    overlapping_texts,
    texts_outside,
    written,
)
from vtcav_jax.report import text_width
from vtcav_jax.report.figures import confusion, estimates, labels, motion, tcav, tcav_groups
from vtcav_jax.report.figures.pyramid import pyramid_graph_figure, select_displayed
from vtcav_jax.report.figures.svg import Canvas
from vtcav_jax.runs.accuracy_rows import ClassAccuracyRow, ConfusionRow
from vtcav_jax.runs.attribution_rows import ProfileRow
from vtcav_jax.runs.pyramid_rows import EdgeRow, NodeRow, PyramidFacts

LONG = [f"pushing something {middle} so that it almost falls off but doesn't" for middle in ("left", "right", "up")]
SHORT = ["bars", "ring", "x"]
WORD = ["a" * 60 + end for end in "bcd"]
STAGES = ["layers.0.blocks.11.attn.qkv", "layers.1.blocks.11.attn.qkv", "pool"]


def score():
    return row("left", "static", "random", 1.0, "supports")


def example_row(row_type, **values):
    """Return a row with these values, and 0, 0.5 or "" for others."""
    fillers = {int: 0, float: 0.5, str: "", bool: False}
    return row_type(**{name: fillers[kind] for name, kind in get_type_hints(row_type).items()} | values)


def assert_complete(figure, names):
    assert not texts_outside(figure)
    assert not overlapping_texts(figure)
    text = written(figure)
    for name in names:
        assert "".join(name.split()) in text


@pytest.mark.parametrize("names", [SHORT, LONG, WORD, LONG + WORD + [f"{name} again" for name in LONG]])
def test_heat_maps_of_cosines_have_complete_names(names):
    cosines = np.linspace(-1, 1, len(names) ** 2).reshape(len(names), -1)
    assert_complete(tcav.cosine_heatmap(names, cosines, STAGES[0], "absolute"), names)


def confusion_rows(names, groups=None):
    classes = [
        example_row(ClassAccuracyRow, class_name=name, group=groups[i] if groups else "")
        for i, name in enumerate(names)
    ]
    cells = [
        example_row(ConfusionRow, true_class=a, predicted_class=b, n_clips=1 + (i + j) % 3)
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i == j or (i + j) % 5 == 0
    ]
    return classes, cells


@pytest.mark.parametrize("names", [SHORT, LONG, WORD, [f"{name} {i}" for i in range(13) for name in LONG]])
def test_confusion_matrices_have_complete_names(names):
    figure = confusion.confusion_figure(confusion.class_matrix("verb", *confusion_rows(names)))
    assert_complete(figure, names)


def test_names_of_crowded_groups_are_complete():
    """Of groups of one class, every name is there, although neighbours are closer than letters are high."""
    names = [f"class {i}" for i in range(200)]
    groups = [f"{LONG[0]} {i}" if i < 20 else "everything else" for i in range(200)]
    figure = confusion.confusion_figure(confusion.class_matrix("verb", *confusion_rows(names, groups)))
    assert_complete(figure, [*groups[:20], "everything else"])


@pytest.mark.parametrize("names", [SHORT, LONG, WORD])
def test_the_summary_of_classes_and_concepts_has_complete_names(names):
    rows = [
        replace(score(), target=target, concept=concept, clip_type=clip_type)
        for target in names
        for concept in names
        for clip_type in ("static", "dynamic")
    ]
    (figure,) = tcav_groups.class_concept_figures(rows, "step_effect")
    assert_complete(figure, names)
    assert "".join(f"{names[0]}, static".split()) in written(figure)


@pytest.mark.parametrize("names", [SHORT, LONG, WORD])
def test_other_figures_have_complete_names(names):
    stage_rows = [replace(score(), stage=stage, concept=names[0], target=names[1]) for stage in STAGES]
    assert_complete(tcav.depth_figure(stage_rows, "step_effect", "change of the logit"), [*names[:2], *STAGES])
    assert_complete(tcav.static_dynamic_figure(stage_rows, "step_effect", "change"), [*names[:2], *STAGES])
    concept_rows = [replace(score(), concept=name, clip_type=kind) for name in names for kind in ("static", "dynamic")]
    assert_complete(tcav.sign_count_figure(concept_rows), names)
    values = [estimates.Estimate(name, 0.5, 0.2, 0.7, 9) for name in names]
    assert_complete(estimates.estimate_figure("n", names[0], "lead", values), names)
    rows = [replace(class_row(), answer=name, target=names[0]) for name in ("", *names)]
    assert_complete(motion.class_motion_figure(rows), names)
    assert_complete(motion.compared_motion_figure(names[0], names, [rows, rows, rows]), names)
    clips = [replace(clip_row(i), target=names[0]) for i in range(4)]
    assert_complete(motion.clip_motion_figure(clips), names[:1])
    profile = [ProfileRow(names[0], "gradcam", STAGES[0], i, 4, 0.25, 0.2, 0.3, 5) for i in range(4)]
    assert_complete(motion.profile_figure(profile), [names[0], STAGES[0]])
    deep = [f"encoder.layer.{i}.a_very_long_name.of_a_stage.with_many.parts_in_it" for i in range(30)]
    many_stages = [tcav_groups.StageMark(stage, "a", 0.3, 0.2, 0.4, "") for stage in deep]
    assert_complete(tcav_groups.stage_figure("n", "l", names[0], "change", many_stages), [names[0], deep[0]])
    marks = [tcav_groups.StageMark(stage, name, 0.3, 0.2, 0.4, "") for stage in STAGES for name in names]
    assert_complete(tcav_groups.stage_figure("n", "l", names[0], "change", marks), [*names, *STAGES])


def random_pyramid(seed, n_stages, n_channels, shares=(0.001, 1.0)):
    """Return a pyramid with parallel stages of long names and an edge from every channel to every one behind it."""
    random = np.random.default_rng(seed)
    levels = [
        tuple(f"layers.{level}.blocks.{i}.a_long_name_of_a_stage" if i else f"l{level}" for i in range(n))
        for level, n in enumerate(n_stages)
    ]
    nodes = []
    for level, stages in enumerate(levels):
        for stage in stages:
            for _ in range(int(random.integers(1, n_channels + 1))):
                share = float(random.uniform(*shares))
                place = dict(node=len(nodes), level=level, stage=stage, channel=int(random.integers(5000)))
                nodes.append(example_row(NodeRow, target="t", relevance=share, relevance_low=share / 2, **place))
    edges = []
    for child in nodes:
        parents = [node.node for node in nodes if node.level == child.level - 1] if child.level else [-1]
        edges += [
            example_row(EdgeRow, target="t", parent=p, child=child.node, share=float(random.uniform(-1, 1)))
            for p in parents
        ]
    facts = PyramidFacts("t", tuple(levels), (1.0,), (0.5,) * len(levels), (), {}, "gradient", (), False, 0)
    return facts, nodes, edges


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n_stages", "n_channels"), [((1, 1), 3), ((1, 2, 3), 6), ((4, 1, 2, 3), 12), ((1,), 40)])
def test_edges_of_a_pyramid_cross_no_label(seed, n_stages, n_channels):
    facts, nodes, edges = random_pyramid(seed, n_stages, n_channels)
    figure = pyramid_graph_figure(facts, select_displayed(facts, nodes, edges), "k-")
    assert len([line for line in drawn_parts(figure)[1] if "route" in line.classes]) >= min(len(edges), 3)
    assert not crossed_texts(figure, "route")
    assert_complete(figure, [stage for level in facts.levels for stage in level])


def test_crossings_are_found_where_there_are_some():
    canvas = Canvas(200, 100)
    canvas.text(50, 50, "a label")
    canvas.line(0, 0, 180, 90, "route", width=3)
    canvas.line(0, 60, 180, 60, "route")
    canvas.line(0, 47, 180, 47, "other")
    canvas.text(60, 52, "another")
    canvas.text(150, 60, "outside of it")
    figure = canvas.figure("n", "l")
    assert crossed_texts(figure, "route").count("a label") == 1 and crossed_texts(figure, "other") == [
        "a label",
        "another",
    ]
    assert overlapping_texts(figure) == [("a label", "another")] and texts_outside(figure) == ["outside of it"]


@pytest.mark.parametrize("text", [*LONG, *WORD, "layers.0.blocks.1 #17 vs x", "一二三四五六七八九十"])
@pytest.mark.parametrize("most", [20, 95.5, 300])
def test_lines_of_a_text_are_complete_and_fit(text, most):
    lines = text_width.wrap_text(text, most)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(text_width.text_width(line) <= most for line in lines)


def test_measured_widths_are_those_of_the_font():
    fonts = pytest.importorskip("PIL.ImageFont")
    from vtcav_jax.report.fonts import font_file

    for name, bold in (("DejaVuSans.ttf", False), ("DejaVuSans-Bold.ttf", True)):
        font = fonts.truetype(font_file(name), 1200)
        for text in (*LONG, *STAGES, "direction:left", "0123456789 %"):
            expected = font.getlength(text) / 100
            assert 0.99 * expected <= text_width.text_width(text, bold=bold) <= (1.08 if bold else 1.01) * expected


def test_spread_labels_keep_their_order_and_distance():
    places = [0.0, 1.0, 2.0, 50.0, 51.0]
    moved = labels.spread_labels(places, 10, -50, 100)
    assert min(np.diff(moved)) == pytest.approx(10) and np.mean(moved[:3]) == pytest.approx(1.0)
    assert labels.spread_labels([0.0, 20.0], 10, 0, 20) == [0.0, 20.0]
    assert labels.spread_labels(places, 10, 0, 55) == [0.0, 10.0, 20.0, 45.0, 55.0]


def test_long_headings_move_the_rest_down():
    short, long = Canvas(200, 100), Canvas(200, 100)
    for canvas, title in ((short, "title"), (long, LONG[0])):
        canvas.text(5, 60, "a text")
        canvas.heading(title, "below")
    lines = len(text_width.wrap_text(LONG[0], 184, bold=True))
    assert long.figure("n", "l").height == 100 + text_width.LINE_HEIGHT * (lines - 1) and lines > 1
    assert_complete(long.figure("n", "l"), [LONG[0], "below", "a text"])
    ((first, *_), _), ((second, *_), _) = (drawn_parts(canvas.figure("n", "l")) for canvas in (short, long))
    assert first.text == "title" and second.text != "title"
