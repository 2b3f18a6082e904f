"""Metrics for maps of the user's own clips: pairs of clips, rows and verdicts."""

import jax.numpy as jnp
import numpy as np
import pytest

from vtcav_jax import models, worlds
from vtcav_jax.attribution import METHODS as EXPLAINERS
from vtcav_jax.attribution import Margin, attribute_many
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.cli.commands.attribute import faithfulness_table
from vtcav_jax.evaluation.faithfulness import own_clips, reexplain
from vtcav_jax.evaluation.faithfulness.metrics import FAITHFULNESS_METRICS, MetricBudget, evaluate_maps
from vtcav_jax.evaluation.faithfulness.randomisation import cascade, random_logit
from vtcav_jax.evaluation.faithfulness.robustness import max_sensitivity
from vtcav_jax.evaluation.faithfulness.splice import splice_test
from vtcav_jax.evaluation.trivial_maps import TRIVIAL_MAPS
from vtcav_jax.report.sections import maps as map_sections
from vtcav_jax.runs.attribution_rows import OwnMetricRow

METHODS = (("attn_lrp", None), ("gradcam", "convs.2"))
QUICK = MetricBudget(fractions=(0.0, 0.5, 1.0), n_random_maps=1)


@pytest.fixture(scope="module")
def network():
    return models.load("worlds_cnn")


@pytest.fixture(scope="module")
def clips(network):
    return network.clip_spec.normalise((255 * worlds.make_clips("small", 6, 5).video).round().astype(np.uint8))


@pytest.fixture(scope="module")
def logits(network, clips):
    return np.asarray(network.model(jnp.asarray(clips)))


@pytest.fixture(scope="module")
def rows(network, clips, logits):
    (question,) = parse_targets(network, ["direction"])
    batches = own_clips.own_clip_metrics(
        network.model, clips, question, logits, METHODS, {}, batch_size=4, budget=QUICK
    )
    return [row for batch in batches for row in batch]


@pytest.mark.slow
def test_every_map_and_trivial_map_has_every_metric(rows):
    maps = {"attn_lrp@video", "gradcam@convs.2", *TRIVIAL_MAPS}
    for metric in (*own_clips.DISPLAYED_METRICS, "average_drop", "gini"):
        metric_rows = [row for row in rows if row.metric == metric]
        assert {row.map for row in metric_rows} == maps, metric
        assert all(row.n_clips and row.low <= row.mean <= row.high for row in metric_rows), metric
    assert {row.infill for row in rows if row.metric == "relevance_gain"} == {"blur", "mean"}
    assert {row.target for row in rows} == {"direction"}


@pytest.mark.slow
def test_batches_do_not_change_results(network, clips, logits, rows):
    """The same numbers as from the library, with all clips in one batch."""
    (question,) = parse_targets(network, ["direction"])
    maps = attribute_many(network.model, clips, question.target(logits), METHODS)
    named = {f"{attribution.method}@{attribution.stage}": attribution for attribution in maps}
    known = evaluate_maps(
        *(network.model, clips, question.target(logits), named),
        metrics=["relevance_gain"],
        infills=["mean"],
        budget=QUICK,
    )
    means = {row.map: row.mean for row in rows if (row.metric, row.infill) == ("relevance_gain", "mean")}
    for row in known:
        assert means[row.map] == pytest.approx(row.mean, abs=1e-3), (
            row.map
        )  # rounding differs with the order of summation


@pytest.mark.slow
def test_splices_are_those_of_the_library(network, clips, logits, rows):
    (question,) = parse_targets(network, ["direction"])
    target = question.target(logits)
    pairs = own_clips.pair_by_class(target.classes)
    assert len(pairs)
    row = next(row for row in rows if (row.map, row.metric) == ("random", "splice"))
    assert row.n_clips == len(pairs) and 0 <= row.mean <= 1
    first, second = (Margin(target.classes[side], target.head_range) for side in pairs.T)
    known = splice_test(EXPLAINERS["attn_lrp"], network.model, clips[pairs[:, 0]], clips[pairs[:, 1]], first, second)
    lrp_row = next(row for row in rows if (row.map, row.metric) == ("attn_lrp@video", "splice"))
    assert (lrp_row.mean, lrp_row.low, lrp_row.high) == pytest.approx(known.score)


@pytest.mark.slow
def test_recomputed_maps_are_those_of_the_library(network, clips, logits, rows):
    (question,) = parse_targets(network, ["direction"])
    target, lrp = question.target(logits), EXPLAINERS["attn_lrp"]
    layers = ("", "convs.2", "convs.1", "convs.0")
    assert reexplain.top_level_modules(network.model) == layers
    known = {
        "max_sensitivity": max_sensitivity(
            lrp, network.model, clips, target, draws=reexplain.REEXPLAIN_DRAWS
        ).max_change,
        "random_logit": random_logit(lrp, network.model, clips, target),
        "randomisation": cascade(lrp, network.model, clips, target, layers=layers).area,
    }
    by_map_and_metric = {(row.map, row.metric): row for row in rows}
    for metric, values in known.items():
        assert by_map_and_metric["attn_lrp@video", metric].mean == pytest.approx(float(values.mean()), abs=2e-3), metric
    for name in TRIVIAL_MAPS:  # trivial maps do not depend on the network
        assert by_map_and_metric[name, "random_logit"].mean == by_map_and_metric[name, "randomisation"].mean == 1, name
    assert (
        by_map_and_metric["attn_lrp@video", "randomisation"].high < 0.9
        and by_map_and_metric["sobel", "max_sensitivity"].mean < 0.2
    )
    page = map_sections._faithfulness_tables(rows)
    assert "max sensitivity" in page and "recomputed maps" in page


@pytest.mark.parametrize(
    ("classes", "pairs"),
    [
        ([0, 0, 1, 1], 2),
        ([0, 0, 0, 1], 1),
        ([2, 2, 2], 0),
        ([0, 1, 2], 1),
        ([0, 0, 1, 2, 1, 2], 3),  # every clip has a partner
    ],
)
def test_pairs_are_of_different_classes_and_take_a_clip_once(classes, pairs):
    classes = np.array(classes)
    indices = own_clips.pair_by_class(classes)
    assert len(indices) == pairs
    assert (classes[indices[:, 0]] != classes[indices[:, 1]]).all()
    assert len(set(indices.ravel().tolist())) == indices.size


@pytest.mark.slow
def test_a_target_without_a_probability_has_metrics_of_its_score(network, clips, logits):
    (question,) = parse_targets(network, ["convs.1#3"])
    first_rows, repeated_rows = own_clips.own_clip_metrics(
        network.model, clips, question, logits, METHODS[:1], {}, budget=QUICK
    )
    metrics = {row.metric for row in first_rows}
    assert "relevance_gain" in metrics and not any(FAITHFULNESS_METRICS[name].needs_probability for name in metrics)
    assert {row.metric for row in repeated_rows} == {
        "max_sensitivity",
        "randomisation",
    }  # no class, so no metric that needs another class


def row(name, value, low, high, metric="relevance_gain", infill="blur"):
    return OwnMetricRow(name, metric, infill, 1, value, low, high, 9, 10, "direction")


def test_verdicts_compare_intervals():
    free = [row(name, 1.0, 0.5, 1.5) for name in TRIVIAL_MAPS]
    better, same = row("better@video", 2.0, 1.6, 2.4), row("same@<b>", 1.6, 1.2, 2.0)
    hold = [row(name, 0.0, 0.0, 0.0, "time_relevance_gain", "hold") for name in ("better@video", *TRIVIAL_MAPS)]
    verdicts = dict(own_clips.compare_with_trivial([better, same, *free, *hold]))
    assert verdicts["better@video"].startswith("is clearly better than every trivial map on relevance gain (blur)")
    assert ", but not on time relevance gain (hold)" in verdicts["better@video"]
    assert verdicts["same@<b>"] == "is not clearly better than every trivial map on any metric"
    text = faithfulness_table([better, same, *free])
    assert "1.60 (1.20 to 2.00)" in text and "random" in text
    page = map_sections._faithfulness_tables([better, same, *free])
    assert "same at &lt;b&gt;" in page and "<b>" not in page and page.count('class="faint"') == len(TRIVIAL_MAPS)
