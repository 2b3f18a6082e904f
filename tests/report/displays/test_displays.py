"""Displays of results: bounded and escaped HTML, data frames and files equal to the tables of the commands, plots."""

import base64
import re
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from vtcav_jax.attribution.integrated import StaticDynamicAttribution
from vtcav_jax.attribution.motion.map_split import change_over_time, change_when_frozen
from vtcav_jax.attribution.motion.measure import MotionResults
from vtcav_jax.attribution.motion.selective_relevance import SelectiveRelevance
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.concepts.candidates import FILTER_STAGES
from vtcav_jax.concepts.config import folder_name
from vtcav_jax.concepts.mining import MiningReport, empty_report
from vtcav_jax.data.encode import encode_jpeg
from vtcav_jax.discovery.run import DiscoveryReport
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.evaluation.world_benchmark.method_scores import MethodScores
from vtcav_jax.pyramid import Edge, Node, Pyramid, Selection
from vtcav_jax.report.displays.actions import view_result
from vtcav_jax.report.displays.notebook_html import MAX_HTML_BYTES, MAX_ROWS, notebook_css
from vtcav_jax.report.figures.matplotlib_figure import draw_with_matplotlib, mark_style
from vtcav_jax.report.figures.png import light_colours
from vtcav_jax.report.figures.svg import Canvas
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.runs.attribution_rows import ClassMotionRow, ClipMotionRow, MotionMapMeanRow, MotionMapRow
from vtcav_jax.runs.discovery_rows import CompletenessRow, DiscoveredRow
from vtcav_jax.runs.evaluation_rows import MethodScoreRow, NotApplicable
from vtcav_jax.runs.pyramid_rows import EdgeRow, NodeRow
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_rows import (
    CalibrationRow,
    ConfounderRow,
    DerivativeRow,
    ScoreRow,
    SteeringRow,
    VectorRow,
)
from vtcav_jax.runtime import PassCounter
from vtcav_jax.tcav.experiment.run import ExperimentResults
from vtcav_jax.training.evaluate import Accuracy

HOSTILE = "<script>alert('x')</script>&\"\t=1+1"
ROWS = {
    "scores": ScoreRow,
    "quality": VectorRow,
    "derivatives": DerivativeRow,
    "steering": SteeringRow,
    "confounders": ConfounderRow,
    "calibration": CalibrationRow,
    "motion_classes": ClassMotionRow,
    "motion": ClipMotionRow,
    "motion_maps": MotionMapRow,
    "motion_map_means": MotionMapMeanRow,
    "pyramid_nodes": NodeRow,
    "pyramid_edges": EdgeRow,
    "discovered": DiscoveredRow,
    "completeness": CompletenessRow,
    "method_scores": MethodScoreRow,
    "not_applicable": NotApplicable,
}


def make_row(row_type, i=0, **values):
    """A row with different numbers in each column; numbers are shares, so that figures can draw them."""
    makers = {
        str: lambda j: f"text {i}",
        int: lambda j: i + j,
        float: lambda j: (i % 7 + j / 3) / 30,
        bool: lambda j: True,
    }
    columns = {field.name: makers[field.type](j) for j, field in enumerate(fields(row_type))}  # type: ignore (scalars)
    return row_type(**(columns | values))


def motion_results(n=3, name="direction"):
    classes = [make_row(ClassMotionRow, i, target=name, answer=f"{name}:{i}" if i else "") for i in range(n)]
    clips = [make_row(ClipMotionRow, i, target=name) for i in range(n)]
    maps = [make_row(MotionMapRow, i) for i in range(n)]
    return MotionResults(tuple(clips), tuple(classes), (), tuple(maps), (make_row(MotionMapMeanRow),))


def experiment_results(n=3, name="left"):
    kinds = dict(negatives="random", comparison="absolute", score_fn="logit", verdict="supports", clip_type="dynamic")
    rows = [make_row(ScoreRow, i, target=name, concept=name, stage=f"layers.{i}", **kinds) for i in range(n)]
    return ExperimentResults(
        Path("runs/none"),
        tuple(rows),
        (make_row(VectorRow, 0), make_row(VectorRow, 1)),
        (make_row(DerivativeRow, 0), make_row(DerivativeRow, 1)),
        (make_row(SteeringRow),),
        (make_row(ConfounderRow),),
        n,
        (make_row(CalibrationRow),),
        PassCounter(),
        {},
        (),
        (),
    )


def pyramid(n=3, name="left"):
    nodes = [make_row(Node, i, level=0, stage="layers.1") for i in range(n)]
    edges = [make_row(Edge, i, parent=-1, child=i) for i in range(n)]
    maps = tuple(np.full((4, 1, 1, 1), float(i)) + np.arange(4.0).reshape(4, 1, 1, 1) for i in range(n))
    parts = (("layers.1",),), tuple(nodes), tuple(edges), np.zeros(4), maps, (0.5,), Selection(), "gradient", 1.0
    return Pyramid(*parts, target=name)


def discovery_report(n=3, name="layers.1/00"):
    rows = [make_row(DiscoveredRow, i, concept=f"{name}{i}", stage="layers.1") for i in range(n)]
    folder = Path("concepts")
    return DiscoveryReport(folder, tuple(rows), empty_report(folder), (make_row(CompletenessRow),), 4, 4)


def method_scores(n=3, name="saliency"):
    kinds = dict(network_name="net", question="W1", n_clips=9)
    rows = [
        make_row(MethodScoreRow, i, method=f"{name}{i}", metric=metric, **kinds)
        for i in range(n)
        for metric in ("TRUTH", "WHERE")
    ]
    return MethodScores(tuple(rows), (NotApplicable("rollout", "net", "it has no attention"),))


def accuracy(n=3, name="direction"):
    return Accuracy(name, (True,) * n, tuple(f"video {i}" for i in range(n)))


MAKERS = (experiment_results, motion_results, pyramid, discovery_report, method_scores, accuracy)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("img", "meta", "path", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "rect", "circle"):
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)


@pytest.mark.parametrize("maker", MAKERS)
def test_the_repr_is_one_line_that_does_not_grow(maker):
    assert repr(maker(3)).startswith(f"{type(maker(3)).__name__}(")
    for result in (maker(3), maker(500)):
        assert "\n" not in repr(result) and len(repr(result)) < 200


@pytest.mark.parametrize("maker", MAKERS)
def test_the_html_is_bounded_escaped_and_well_formed(maker):
    for result in (maker(3), maker(400, HOSTILE), maker(60, "x" * 5000)):
        text = result._repr_html_()
        assert len(text.encode()) <= MAX_HTML_BYTES
        tags = Tags(text)
        assert tags.open == [] and "script" not in tags.tags and "table" in tags.tags
        assert tags.tags.count("tr") <= MAX_ROWS + 1


def test_rows_and_figures_that_are_left_out_are_counted():
    text = motion_results(30)._repr_html_()
    assert "... 10 more rows and " in text and " more columns in to_dataframe()" in text
    assert "Further tables: motion, motion_maps, motion_map_means." in text
    many = MotionResults((), tuple(make_row(ClassMotionRow, i, target=f"head {i}", answer="") for i in range(7)), ())
    assert "3 more figures: plot(&#39;motion_share_head_4&#39;), ..." in many._repr_html_()


def test_every_rule_of_the_style_is_limited_to_displays():
    css = re.sub(r"@media[^{]*\{(.*?\})\s*\}", r"\1", notebook_css())
    selectors = [selector.strip() for rule in re.findall(r"([^{}]+)\{", css) for selector in rule.split(",")]
    assert len(selectors) > 30
    assert [selector for selector in selectors if ".vtcav" not in selector] == []
    assert '[data-jp-theme-light="false"] .vtcav' in css and light_colours()["paper"] in css


@pytest.mark.parametrize("maker", MAKERS[:-1])
def test_tables_are_those_of_the_commands(maker, tmp_path):
    pytest.importorskip("pandas", reason="data frames need pandas (extra notebook)")
    result = maker(4, "=left")
    for name, make_table in view_result(result).tables.items():
        table = make_table()
        path = result.save(tmp_path / f"{name}.csv", name)
        expected = tmp_path / "expected.csv"
        columns = [field.name for field in fields(ROWS[name])]
        rows = [ROWS[name](**dict(zip(columns, line))) for line in table.lines]
        write_rows(expected, ROWS[name], rows)
        assert path.read_bytes() == expected.read_bytes() and len(rows) > 0
        frame = result.to_dataframe(name)
        assert list(frame.columns) == columns and [tuple(line) for line in frame.itertuples(index=False)] == [
            tuple(getattr(row, column) for column in columns) for row in rows
        ]
    assert result.to_dataframe().equals(result.to_dataframe(next(iter(view_result(result).tables))))
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv"}  # no temporary file is left


def test_the_rows_of_a_result_are_in_its_tables():
    results = motion_results()
    tables = view_result(results).tables
    for name, rows in (("motion", results.clips), ("motion_classes", results.classes), ("motion_maps", results.maps)):
        assert [line[0] for line in tables[name]().lines] == [next(iter(vars(row).values())) for row in rows]
    nodes = view_result(pyramid()).tables["pyramid_nodes"]()
    assert nodes.lines[2][:2] == ("left", 2) and nodes.lines[2][-1] == "3|2|1"  # clips with the largest contributions
    (line,) = view_result(accuracy(5)).tables["accuracy"]().lines
    assert line[:2] == ("direction", 1.0) and line[4:] == (5, 5, 5)


def test_markdown_and_latex_escape_their_marks(tmp_path):
    results = motion_results(2, "a|b_c%\\")
    markdown = results.save(tmp_path / "t.md").read_text().splitlines()
    assert len(markdown) == 4 and markdown[2].startswith("| a\\|b_c%\\ |  | ")
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in markdown}) == 1
    latex = results.save(tmp_path / "t.tex").read_text()
    assert "a|b\\_c\\%\\textbackslash{} & " in latex and latex.startswith("\\begin{tabular}{llrr")
    assert latex.count("\\\\\n") == 3


@pytest.mark.parametrize("maker", MAKERS)
def test_a_plot_has_the_marks_and_texts_of_the_figure_of_the_page(maker, tmp_path):
    result = maker(4)
    figure = view_result(result).figures()[0]
    plot = result.plot()
    root = ElementTree.fromstring(figure.svg)
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("}text")]
    marks = [element for element in root.iter() if element.tag.rpartition("}")[2] in ("path", "rect", "circle")]
    axes = plot.axes[0]
    assert [text.get_text() for text in axes.texts] == texts and len(axes.patches) == len(marks)
    assert plot.get_size_inches() == pytest.approx((figure.width / 96, figure.height / 96))
    assert result.plot(figure.name).get_size_inches() == pytest.approx(plot.get_size_inches())
    for suffix, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<svg")):
        assert result.save(tmp_path / f"figure{suffix}").read_bytes().startswith(start)
    assert plot._repr_png_().startswith(b"\x89PNG")


def test_marks_have_the_colours_and_places_of_the_page():
    canvas = Canvas(100, 50)
    canvas.dot(20, 30, "two", "")
    canvas.dot(40, 30, "faint", "")
    canvas.line(0, 10, 100, 10, "zero")
    canvas.path([(1, 1), (9, 1), (9, 9)], "fill band one", closed=True)
    canvas.elements.append('<g transform="translate(50.0 20.0) rotate(-60)">')
    canvas.text(0, 0, "turned $1", "soft")
    canvas.elements.append("</g>")
    axes = draw_with_matplotlib(canvas.figure("marks", "")).axes[0]
    import matplotlib.colors as mcolors

    dot, hollow, line, band = axes.patches
    assert mcolors.to_hex(dot.get_facecolor()) == light_colours()["two"].lower()
    assert mcolors.to_hex(hollow.get_facecolor()) in (light_colours()["paper"], "#ffffff")
    assert line.get_linestyle() != "-" and band.get_alpha() is None and band.get_facecolor()[3] == pytest.approx(0.18)
    assert dot.get_path().transformed(dot.get_transform() - axes.transData).get_extents().p0 == pytest.approx(
        (20 - 4.5, 30 - 4.5), abs=1e-3
    )
    (text,) = axes.texts
    assert text.get_position() == pytest.approx((50, 20)) and text.get_rotation() == pytest.approx(60)
    assert mark_style({"plus"}).fill == light_colours()["up"]


def test_discovered_concepts_have_their_pictures(tmp_path):
    rows = [make_row(DiscoveredRow, i, concept=f"layers.1/0{i}", label=HOSTILE) for i in range(6)]
    report = DiscoveryReport(tmp_path, tuple(rows), empty_report(tmp_path), (), 4, 4)
    assert "<img" not in report._repr_html_()
    (tmp_path / "overviews").mkdir()
    picture = encode_jpeg(np.full((16, 16, 3), 40, np.uint8))
    for row in rows[1:]:
        (tmp_path / "overviews" / f"{folder_name(row.concept)}.jpg").write_bytes(picture)
    text = report._repr_html_()
    assert text.count("<img") == 4 and Tags(text).open == [] and "script" not in Tags(text).tags
    assert base64.b64encode(picture).decode() in text
    (tmp_path / "overviews" / f"{folder_name(rows[1].concept)}.jpg").write_bytes(b"x" * MAX_HTML_BYTES)
    assert "1 picture too large for a notebook" in report._repr_html_()


def test_unknown_names_and_suffixes_are_refused_with_the_known_ones(tmp_path):
    results = motion_results()
    with pytest.raises(ValueError, match=r"ends in \.csv, \.md, \.tex, \.png, \.svg, \.pdf, \.html; got maps\.xlsx"):
        results.save(tmp_path / "maps.xlsx")
    with pytest.raises(ValueError, match=r"no table named 'motion_class' .*did you mean motion_classes"):
        results.save(tmp_path / "a.csv", "motion_class")
    with pytest.raises(ValueError, match=r"expected a figure from 0 to 1 .*got 9"):
        results.plot(9)
    with pytest.raises(ValueError, match="no figure named 'x'"):
        results.plot("x")
    assert list(tmp_path.iterdir()) == []


def test_the_display_can_be_saved_as_a_document(tmp_path):
    text = motion_results().save(tmp_path / "motion.html").read_text()
    assert text.startswith("<!doctype html>") and "<svg" in text and Tags(text.partition("\n")[2]).open == []


def test_missing_packages_are_named_with_the_extra(monkeypatch):
    results = motion_results()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"data frames need pandas; pip install 'vtcav-jax\[notebook\]'"):
        results.to_dataframe()
    from vtcav_jax.report.figures import matplotlib_figure

    matplotlib_figure.figure_class.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"figures need matplotlib; pip install 'vtcav-jax\[notebook\]'"):
        results.plot()
    assert "<table>" in results._repr_html_()  # SVG needs neither


def test_a_run_folder_gives_its_tables_and_the_figures_of_its_page(tmp_path):
    pytest.importorskip("pandas", reason="data frames need pandas (extra notebook)")
    results = motion_results(4, "=direction")
    (tmp_path / "run.json").write_text('{"request": {"task": "motion", "model": "net"}}')
    write_rows(tmp_path / "motion_classes.csv", ClassMotionRow, results.classes)
    write_rows(tmp_path / "motion.csv", ClipMotionRow, results.clips)
    write_rows(tmp_path / "empty.csv", NotApplicable, [])
    run = open_run_folder(tmp_path)
    assert repr(run) == f"RunFolder({tmp_path}: motion; 3 tables)"
    assert run.to_dataframe().equals(results.to_dataframe()) and run.to_dataframe("motion").target[0] == "=direction"
    assert list(run.to_dataframe("empty").columns) == ["method", "network_name", "reason"]
    text = run._repr_html_()
    assert len(text.encode()) <= MAX_HTML_BYTES and "<svg" in text and Tags(text).open == []
    assert run.plot("motion_share__direction").axes[0].texts
    copy = run.save(tmp_path / "copies" / "classes.csv", "motion_classes")
    assert copy.read_bytes() == (tmp_path / "motion_classes.csv").read_bytes()


def test_something_else_is_no_result():
    class Other(DisplayedResult):
        pass

    with pytest.raises(TypeError, match=r"expected a result, one of Attribution, .*got Other"):
        Other()._repr_html_()


def parts_of_maps(frames=None):
    """Return a map of two clips split by motion: a cell that moves along the diagonal, and one that stays."""
    values = np.zeros((2, 4, 6, 6), np.float32)
    values[:, :, 5, 0] = 2.0
    for step in range(4):
        values[0, step, step, step] = 1.0
    attribution = Attribution(values, "video", True, 3, "saliency", target="direction:left", frames=frames)
    change = change_over_time(values)
    return SelectiveRelevance(attribution, change, change_when_frozen(np.zeros_like(values), change), 1.0)


def legs_of_maps():
    legs = [
        Attribution(np.full((3, 2, 4, 4), value, np.float32), "video", True, 9, name)
        for value, name in ((0.5, "a"), (1.0, "b"))
    ]
    baseline, frozen, clip = np.array([[0.0, 1.0, 2.0], [17.0, 18.0, 19.0], [50.0, 52.0, 54.0]])
    return StaticDynamicAttribution(legs[0], legs[1], baseline, frozen, clip)


def mined(n_sets=3, n_failures=1):
    counts = {(f"{HOSTILE} {i}", kind): 10 + i for i in range(n_sets) for kind in ("static", "dynamic")}
    counts |= {("random0", "static"): 40}
    thresholds = {names: {stage: i for i, stage in enumerate(FILTER_STAGES)} for names in counts}
    failures = {f"video {i} {HOSTILE}": f"reason {i}" for i in range(n_failures)}
    return MiningReport(Path("concepts"), thresholds, counts, failures, (f"a note {HOSTILE}",), 9, 100, 1.5)


@pytest.mark.parametrize("make", [parts_of_maps, legs_of_maps, mined])
def test_further_results_display_themselves(make, tmp_path):
    pandas = pytest.importorskip("pandas")
    result = make()
    assert isinstance(result, DisplayedResult)
    assert repr(result).startswith(f"{type(result).__name__}(") and "\n" not in repr(result) and len(repr(result)) < 200
    text = result._repr_html_()
    assert len(text.encode()) <= MAX_HTML_BYTES and "<script" not in text
    view = view_result(result)
    for name in view.tables:
        frame = result.to_dataframe(name)
        assert isinstance(frame, pandas.DataFrame) and len(frame) == len(view.tables[name]().lines)
    for figure in (*(drawn.name for drawn in view.figures()), *view.plots):
        result.plot(figure).savefig(tmp_path / f"{figure}.pdf")
    assert result.save(tmp_path / "a.csv").read_text().count("\n") == len(result.to_dataframe()) + 1
    for suffix in ("md", "tex", "html", "png", "svg", *(suffix[1:] for suffix in view.writers)):
        assert result.save(tmp_path / f"result.{suffix}").stat().st_size > 100
    with pytest.raises(ValueError, match="no table named 'x'"):
        result.to_dataframe("x")


def test_displayed_numbers_of_motion_parts_are_those_of_the_result(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 24, 24, 3), np.uint8)
    result = parts_of_maps(frames)
    table = result.to_dataframe()
    np.testing.assert_allclose(table["motion_share"], result.clip_split.motion_share)
    np.testing.assert_allclose(table["excess"], result.excess)
    assert table["motion_share"][0] > 0 == table["motion_share"][1] and table["target"][0] == "direction:left"
    profile = result.to_dataframe("profile")
    np.testing.assert_allclose(profile.groupby("clip_index")[["motion_mass", "static_mass"]].sum().sum(axis=1), 1.0)
    with np.load(result.save(tmp_path / "a.npz")) as arrays:
        np.testing.assert_allclose(arrays["motion"] + arrays["static"], arrays["map"])
        np.testing.assert_array_equal(arrays["frames"], frames)
    assert "mean motion share" in repr(result) and "on grey" not in result._repr_html_()
    assert "on grey" in parts_of_maps()._repr_html_() and "data:image/webp" in result._repr_html_()


def test_displayed_numbers_of_legs_and_mining_are_those_of_the_result():
    legs = legs_of_maps().to_dataframe()
    np.testing.assert_allclose(legs["static_gap"], [17 - 16, 17 - 16, 17 - 16])
    np.testing.assert_allclose(legs["dynamic_gap"], [33 - 32, 34 - 32, 35 - 32])
    np.testing.assert_allclose(legs["dynamic_share"], [33 / 50, 34 / 51, 35 / 52])
    report = mined()
    counts, filters = report.to_dataframe("counts"), report.to_dataframe("filters")
    assert counts["clips"].sum() == sum(report.counts.values()) and counts["set"].iloc[-1] == "random0"
    assert filters.columns.tolist() == ["concept", "clip_type", *FILTER_STAGES] and len(filters) == 7
    assert report.to_dataframe("failures")["reason"].tolist() == ["reason 0"]
    assert repr(report) == "MiningReport(concepts: 3 concepts, 106 clips, 9 videos, 1 not read)"
    many = mined(400, 3000)
    assert len(many._repr_html_().encode()) <= MAX_HTML_BYTES and "without 761 more" in many._repr_html_()
    assert repr(empty_report(Path("x"))) == "MiningReport(x: 0 concepts, 0 clips, 0 videos)"
    assert "<table" in empty_report(Path("x"))._repr_html_()
