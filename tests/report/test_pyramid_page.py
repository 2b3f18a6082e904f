"""Class feature pyramids on report pages: text, graph and channel panels match the tables."""

import json
import math
from dataclasses import asdict, replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.report.test_tcav_page import NASTY, run_folder
from tests.support.browser import download_text, open_page
from vtcav_jax.data.encode import write_animation
from vtcav_jax.report import linked_graph
from vtcav_jax.report.build import write_report
from vtcav_jax.report.figures import png
from vtcav_jax.report.figures import pyramid as pyramid_figures
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.report.sections import pyramid as pyramid_sections
from vtcav_jax.report.text import pyramid as pyramid_text
from vtcav_jax.runs import directory
from vtcav_jax.runs.directory import ANIMATION_FOLDER
from vtcav_jax.runs.pyramid_rows import (
    PYRAMID_JSON,
    AblationRow,
    AlignedRow,
    EdgeRow,
    NodeRow,
    PyramidFacts,
    kernel_animation_name,
)
from vtcav_jax.runs.tables import write_rows

NAN = math.nan
LEFT = "direction:left"


def node(number, level, stage, relevance, target=LEFT, **more):
    values: dict[str, Any] = dict(target=target, node=number, level=level, stage=stage, channel=10 + number)
    values |= dict(relevance=relevance, relevance_low=relevance - 0.05, relevance_high=relevance + 0.05)
    values |= dict(activation_excess=0.7, frequency=0.5, response=relevance, unexplained=0.01)
    values |= dict(top_clips=f"clip 1|clip 2 {NASTY}|clip 3")
    return NodeRow(**values | more)


def edge(parent, child, share, target=LEFT, half=0.02):
    return EdgeRow(target, parent, child, share, share - half, share + half)


def cut(level, stage, kernels, drop, p, target=LEFT):
    return AblationRow(level, stage, kernels, 32, drop, drop - 1, drop + 1, 0.5, -0.2, 1.5, p, target)


NODES = [node(0, 0, "convs.1", 0.4), node(1, 0, "convs.1", 0.2), node(2, 1, "convs.0", 0.3, unexplained=NAN)]
NODES += [node(3, 1, "convs.0", 0.03, unexplained=NAN), node(0, 0, "norm", 0.5, NASTY, unexplained=0.4)]
EDGES = [edge(-1, 0, 0.4), edge(-1, 1, 0.2), edge(0, 2, 0.7), edge(1, 2, -0.3), edge(0, 3, 0.01), edge(1, 3, 0.1)]
EDGES += [edge(-1, 0, 0.5, NASTY)]
ABLATIONS = [cut(0, "convs.1", 1, 0.4, 0.6), cut(0, "convs.1", 2, 8.0, 0.025), cut(1, "convs.0", 2, 0.3, 0.7)]
ABLATIONS += [cut(0, "norm", 1, 3.0, 0.025, NASTY)]
CONCEPTS = [AlignedRow(LEFT, 0, "convs.1", 10, f"ring {NASTY}", "static", "random", -0.31, 1, 64, 0.9, 0.01)]
CONCEPTS += [AlignedRow(LEFT, 0, "convs.1", 10, "x", "dynamic", "others", 0.4, 12, 64, 0.6, 0.3)]
FACTS = [
    PyramidFacts(
        target=LEFT,
        levels=(("convs.1",), ("convs.0",)),
        score=(3.0, 5.0),
        stability=(0.21, 0.6),
        noise_stability=((1.0, 0.8), (0.5, 0.5)),
        selection={"rule": "mass", "value": 0.5, "max_channels": 32},
        edge_rule="gradient",
        ablation_clips=("a", "b", "c"),
        same_clips=False,
        n_reference_clips=2,
    )
]
FACTS += [
    replace(
        FACTS[0],
        target=NASTY,
        levels=(("norm",), ("convs.0",)),
        noise_stability=((1.0,), (NAN,)),
        same_clips=True,
        n_reference_clips=0,
    )
]


def pyramids(folder, concepts=True):
    """Write a run folder as --task=pyramid does; not all channels have an animation."""
    directory.open_run(folder, {"task": "pyramid", "model": "m", "videos": "v", "targets": [LEFT, NASTY], "depth": 2})
    (folder / ANIMATION_FOLDER).mkdir(exist_ok=True)
    video = np.random.default_rng(0).integers(0, 256, (4, 24, 72, 3), np.uint8)
    for row in NODES[:3]:
        write_animation(
            folder / ANIMATION_FOLDER / kernel_animation_name(row.target, row.stage, row.channel), video, 4.0
        )
    for name, kind, rows in (
        ("nodes", NodeRow, NODES),
        ("edges", EdgeRow, EDGES),
        ("ablation", AblationRow, ABLATIONS),
    ):
        write_rows(folder / f"pyramid_{name}.csv", kind, rows)
    if concepts:
        write_rows(folder / "pyramid_concepts.csv", AlignedRow, CONCEPTS)
    (folder / PYRAMID_JSON).write_text(json.dumps([asdict(facts) for facts in FACTS]))
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(pyramids(tmp_path_factory.mktemp("runs") / "pyramid"))


def test_text_matches_the_tables(page):
    run = open_run_folder(page.parent.parent)
    points = dict(pyramid_text.pyramid_points(run, run.pyramid_facts[0]))
    assert points["4 channels at 2 levels contribute to direction:left."] == (
        "From 2 clips with a mean score of +4. Selection: per level, the fewest channels with 50 % of all positive"
        " shares, at most 32."
    )
    assert points["convs.1: ablation lowers the score."] == (
        "Without 2 of 32 channels the score falls by 8 (95 % CI 7 to 9, over 3 clips); without as many random channels"
        " of the stage by 0.5 (middle 95 % of draws −0.2 to 1.5); p 0.025, not corrected for the number of stages."
        " Channels by share of the target: #10 40 %, #11 20 %."
    )
    assert "by 0.3 (95 % CI −0.7 to 1.3" in points["convs.0: ablation does not significantly lower the score."]
    agreement, noise = points["Agreement between clips:"], points["Stability under noise:"]
    assert "21 % at convs.1, 60 % at convs.0; single clips would select different channels" in agreement
    assert points["Alignment with concept vectors:"] == (
        f"convs.1 #10 (more active than in the reference) is the largest entry of the vector of ring {NASTY}, static vs"
        " random: −0.31."
    )
    assert "the selection changes" in noise and "90 % at convs.1" in noise
    assert points["Limits:"] == (
        "At convs.1, ablating only the top 1 has no significant effect. Not shown that the channels of convs.0 matter"
        " more than random ones. For 1 of 4 channels the 95 % interval of the share contains 0. For 1 of 4 edges"
        " between channels the 95 % interval contains 0 (dashed lines)."
    )
    other = dict(pyramid_text.pyramid_points(run, run.pyramid_facts[1]))["Limits:"]
    assert "1 requested level without a channel" in other and "For 1 channel, more than 20 %" in other
    assert "effects are optimistic" in other and "activity is measured from 0" in other
    weak = replace(NODES[0], activation_excess=-0.2)
    assert "convs.1 #10 (less active" in pyramid_text.alignment_text(CONCEPTS, [weak])
    assert "no channel of the pyramid" in pyramid_text.alignment_text(CONCEPTS[1:], [weak])
    assert pyramid_text.activity_text(-0.2, 3) == "mean 0.2 below that in the reference clips"
    assert pyramid_text.activity_text(0.2, 0) == "mean 0.2"
    assert [pyramid_text.ordinal(i) for i in (1, 2, 3, 4, 11, 12, 21, 113)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "12th",
        "21st",
        "113th",
    ]


def test_small_shares_keep_their_digits():
    assert pyramid_text.format_node_share(0.0123, -0.004, 0.21) == "1.2 % (−0.4 to 21 %)"
    assert pyramid_text.format_node_share(0.9996) == "100 %" and pyramid_text.format_node_share(0.0) == "0 %"
    assert pyramid_text.format_node_share(NAN) == "unknown"


def test_the_graph_links_to_every_channel_panel(page):
    text = page.read_text()
    links = {line.partition('"')[0] for line in text.split('href="#')[1:]}
    for i, numbers in enumerate(((0, 1, 2, 3), (0,))):
        for number in numbers:
            assert f"kernel-{i}-{number}" in links and text.count(f'id="kernel-{i}-{number}"') == 1
    assert all(f'id="{link}"' in text for link in links)
    assert NASTY not in text and "<script" not in text
    assert text.count('class="part first"') == 2 and text.count('src="data:image/webp') == 3
    assert "Entry of this channel in concept vectors of length 1 (uniform vector: 0.125):" in text
    assert (
        "x, dynamic vs others +0.4, 12th largest of 64; not encoded there" in text
        and "−0.31, 1st largest of 64" in text
    )
    assert "channels that contribute to direction:left and" in text
    assert "pyramid_edges.csv" in text and "pyramid_concepts.csv" in text
    assert (
        "convs.0 #12</a> 70 % (68 to 72 %)" in text and "convs.0 #13</a> 1 % (−1 to 3 %), interval contains 0" in text
    )


def test_edge_width_is_the_share_and_negative_edges_are_grey():
    displayed = pyramid_figures.select_displayed(FACTS[0], NODES[:4], EDGES[:6])
    assert not displayed.omitted
    figure = pyramid_figures.pyramid_graph_figure(FACTS[0], displayed, "k-")
    assert figure.role == "group"
    drawn = list(ElementTree.fromstring(f"<g>{''.join(figure.elements)}</g>").iter("path"))
    by_end = {tuple(sorted(c for c in e.get("class", "").split() if c[0] == "e")): e for e in drawn}
    wide, against, unsure = (by_end[ends] for ends in (("e0", "e2"), ("e1", "e2"), ("e0", "e3")))
    assert float(wide.get("stroke-width", 0)) == pyramid_figures.MAX_EDGE_WIDTH and "one" in wide.get("class", "")
    assert float(against.get("stroke-width", 0)) == pytest.approx(pyramid_figures.MAX_EDGE_WIDTH * 3 / 7, abs=0.1)
    assert "faint" in against.get("class", "") and "unsure" in unsure.get("class", "")
    assert against.findtext("title") == "−30 % (−32 to −28 %) of convs.1 #11 through convs.0 #12"
    sizes = {e.findtext("title", "").split(":")[0]: float(e.get("r", 0)) for e in _circles(figure)}
    assert sizes["convs.1 #10"] > sizes["convs.0 #12"] > sizes["convs.0 #13"] == pyramid_figures.MIN_NODE_RADIUS


def _circles(figure):
    return ElementTree.fromstring(f"<g>{''.join(figure.elements)}</g>").iter("circle")


def test_omitted_channels_and_edges_are_counted(monkeypatch):
    monkeypatch.setattr(pyramid_figures, "MAX_DRAWN_EDGES", 2)
    monkeypatch.setattr(pyramid_figures, "MAX_DRAWN_NODES", 1)
    displayed = pyramid_figures.select_displayed(FACTS[0], NODES[:4], EDGES[:6])
    assert [row.node for row in displayed.kernels] == [0, 2]
    assert [(row.parent, row.child) for row in displayed.edges] == [(-1, 0), (0, 2)]
    assert displayed.omitted[0] == "1 of 2 channels of convs.1"
    pyramid_figures.pyramid_graph_figure(FACTS[0], displayed, "k-")
    monkeypatch.setattr(pyramid_figures, "MAX_DRAWN_NODES", 4)
    displayed = pyramid_figures.select_displayed(FACTS[0], NODES[:4], EDGES[:6])
    assert [(row.parent, row.child) for row in displayed.edges[2:]] == [(0, 2), (1, 2)]
    assert displayed.omitted == ("2 of 4 edges to convs.0",)


def test_animations_without_room_are_links(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid_sections, "MAX_ANIMATION_BYTES", 0)
    monkeypatch.setattr(pyramid_sections, "MIN_PYRAMID_ANIMATION_BYTES", 0)
    folder = pyramids(tmp_path / "full", concepts=False)
    text = write_report(folder).read_text()
    name = kernel_animation_name(LEFT, "convs.1", 10)
    assert "data:image/webp" not in text and f'href="../{ANIMATION_FOLDER}/{name}"' in text
    assert (folder / "report" / ".." / ANIMATION_FOLDER / name).is_file() and "concept vectors" not in text


@pytest.mark.slow
def test_pages_with_other_results_and_damaged_files(tmp_path):
    folder = run_folder(tmp_path / "both")
    pyramids(folder)
    text = write_report(folder).read_text()
    assert 'id="concepts"' in text and 'id="pyramid"' in text
    (folder / PYRAMID_JSON).write_text(json.dumps([{"target": LEFT}]))
    with pytest.raises(ValueError, match="not what `vtcav pyramid` writes"):
        write_report(folder)


def test_panels_escape_names():
    figure = pyramid_figures.stability_figure(FACTS[1])
    panels = linked_graph.linked_panels(
        figure, "k-", [linked_graph.LinkedPanel(3, NASTY, "")]
    ) + linked_graph.link_list(NASTY, [linked_graph.LinkItem(NASTY, NASTY)], "k-")
    assert "<script" not in panels and 'id="k-3"' in panels


@pytest.mark.skipif(not png.possible(), reason="drawing a figure as PNG needs resvg and Pillow")
def test_edges_and_links_in_png(tmp_path):
    from PIL import Image

    figure = pyramid_figures.pyramid_graph_figure(
        FACTS[0], pyramid_figures.select_displayed(FACTS[0], NODES[:4], EDGES[:6]), "k-"
    )
    with Image.open(png.write_png(figure, tmp_path)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    blue = (np.abs(pixels - (0, 0x67, 0xB1)).sum(-1) < 12).sum()
    (least,) = (float(c.get("r", 0)) for c in _circles(figure) if c.findtext("title", "").startswith("convs.1 #10"))
    assert blue > 9 * (math.pi * least**2 + 100 * pyramid_figures.MAX_EDGE_WIDTH)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_a_channel_is_selected_without_a_script(browser, page, width, scheme):
    view = open_page(browser, page, width, scheme)
    visible = (
        "[...document.querySelectorAll('.part')].filter(e => getComputedStyle(e).display != 'none').map(e => e.id)"
    )
    assert view.evaluate(visible) == ["kernel-0-0", "kernel-1-0"]
    view.click(".graph a[href='#kernel-0-2']")
    assert view.evaluate(visible) == ["kernel-0-2", "kernel-1-0"]
    view.click("#kernel-0-2 li a")
    assert view.evaluate(visible) == ["kernel-0-0", "kernel-1-0"]
    assert download_text(view, "pyramid_nodes.csv").startswith("target,")
