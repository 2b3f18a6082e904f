"""Scores of maps: 0 at chance for any size of the cause, 1 for a perfect map, and low for broken methods."""

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from vtcav_jax import evaluation, models, worlds
from vtcav_jax.attribution import attribute, prepare_explanation
from vtcav_jax.attribution.attention import globally_mixed_stages
from vtcav_jax.cli.commands.evaluate_methods import analytic_rows
from vtcav_jax.evaluation.faithfulness.metric_agreement import spearman_with_interval
from vtcav_jax.evaluation.motion_benchmark import _rank_separation
from vtcav_jax.evaluation.published_scores import published_scores, trust_sentence
from vtcav_jax.evaluation.world_benchmark import analytic_benchmark, world_metrics
from vtcav_jax.evaluation.world_benchmark.entries import (
    METHOD_BUDGETS,
    REFERENCE_MAPS,
    Entry,
    build_entries,
    import_function,
)
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet
from vtcav_jax.evaluation.world_benchmark.readings import better_reading
from vtcav_jax.evaluation.world_benchmark.score_rows import MethodResult, bootstrap_skill, result_rows
from vtcav_jax.evaluation.world_benchmark.scoring import measure_entries
from vtcav_jax.evaluation.world_benchmark.world_metrics import GroundTruth, chance_corrected
from vtcav_jax.runs.evaluation_rows import (
    ANALYTIC_SCORE,
    CROSS_VALIDATED_SCORE,
    MEAN_SCORE,
    STABILITY_SCORE,
    WORLD_METRICS,
)
from vtcav_jax.worlds.gates import Gates

SIZES = (4, 8, 8)


def known(n=200, seed=0, side=2):
    """Return a cause in a box of `side` cells at one step, with 3/4 of the effect, and a distractor."""
    random = np.random.default_rng(seed)
    box, double = np.zeros((n, *SIZES)), np.zeros((n, *SIZES))
    event = np.zeros((n, SIZES[0]), bool)
    for i in range(n):
        y, x = random.integers(0, 8 - side, 2)
        box[i, :, y : y + side, x : x + side] = 1
        double[i, :, (y + 4) % 8, (x + 4) % 8] = 1
        event[i, random.integers(SIZES[0])] = True
    double *= 1 - box
    cause = box * event[:, :, None, None]
    core, rest = world_metrics.core_and_rest(cause, everywhere=False)
    areas = np.stack([cause, double, 1 - cause - double], 1)
    true_map = 0.75 * world_metrics.normalise_mass(cause) + 0.25 / cause[0].size
    other = {"other": world_metrics.normalise_mass(1 - cause)}
    return GroundTruth(true_map, core, rest, areas, box, double, event, (("other", cause),), other)


def skills(cells, about, others=None):
    parts_by_metric = world_metrics.compute_world_metrics(cells, about, {} if others is None else {"other": others})
    return {axis: float(bootstrap_skill(parts, 0)[0]) for axis, parts in parts_by_metric.items()}


@pytest.mark.slow
def test_the_true_map_scores_1_and_no_map_more():
    about = known()
    values = skills(about.true_map, about, about.other_true_maps["other"])
    assert values.keys() == {"WHERE", "WHO", "WHEN", "WHAT-FOR", "EFFECT"}
    assert list(values.values()) == pytest.approx([1] * 5)
    noisy = about.true_map + 0.3 * np.random.default_rng(1).random(about.true_map.shape)
    for cells in (about.areas[:, 0], np.asarray(about.target_boxes), noisy):
        values = skills(cells, about, 1 - about.areas[:, 0])
        assert min(values.values()) > -0.1 and 0.3 < max(values.values()) <= 1


@pytest.mark.slow
def test_scores_depend_only_on_the_order_of_the_cells():
    about = known()
    cells = about.areas[:, 0] + np.random.default_rng(1).random(about.true_map.shape)
    for changed in (cells**3, np.log(cells + 1), 7 * cells):
        assert skills(changed, about, changed) == skills(cells, about, cells)


def test_maps_without_information_score_0():
    about = known()
    for maps in (np.ones((200, *SIZES)), np.zeros((200, *SIZES))):
        values = skills(maps, about, maps)
        assert values.pop("WHAT-FOR") == 0  # a map that ignores the target
        assert list(values.values()) == pytest.approx([0] * 4, abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("side", [1, 6])
def test_random_maps_score_0_on_average_for_any_size_of_the_cause(side):
    about, random = known(1000, side=side), np.random.default_rng(1)
    voxels = (1000, 2 * SIZES[0], 4 * SIZES[1], 4 * SIZES[2])
    maps, others = (
        world_metrics.read_map(random.random(voxels, np.float32), voxels[1:], SIZES, "net") for _ in range(2)
    )
    values = skills(maps, about, others)
    if side == 6:
        assert np.isnan(values.pop("WHO"))  # the box hides the distractor
    assert len(values) >= 4 and all(abs(value) < 0.05 for value in values.values())


def test_the_wrong_place_is_worse_than_chance():
    about = known()
    values = skills(np.asarray(about.distractor_boxes), about, about.areas[:, 0])
    assert values["WHAT-FOR"] == pytest.approx(-1)
    assert values["WHERE"] < 0 and values["WHO"] < -0.3 and values["EFFECT"] < 0


def test_maps_of_time_only_are_scored_on_when():
    about = known()
    event = np.asarray(about.event)[:, :, None, None].astype(np.float64)
    assert skills(event + 0.1, about) == pytest.approx({"WHEN": 1})
    assert skills(1 - event, about)["WHEN"] < -0.3


def test_each_half_of_the_clips_counts_in_the_reading_that_is_better_on_the_other():
    good, bad = (np.tile([[value], [0.5]], (1, 1, 40)) for value in (0.9, 0.6))
    assert good.shape == (1, 2, 40)
    reading, merged = better_reading({"net": {"W1": {"WHERE": bad}}, "gross": {"W1": {"WHERE": good}}})
    assert reading == "gross" and (merged["W1"]["WHERE"] == good).all()
    mixed = bad.copy()
    mixed[..., 0, ::2] = 1  # better on one half alone, which therefore selects it for the other half
    _, merged = better_reading({"net": {"W1": {"WHERE": mixed}}, "gross": {"W1": {"WHERE": good}}})
    assert (merged["W1"]["WHERE"][0, 0, 1::2] == 0.6).all() and (merged["W1"]["WHERE"][0, 0, ::2] == 0.9).all()


def test_skill_is_0_at_chance_and_1_at_the_best_and_a_loss_is_not_stretched():
    np.testing.assert_allclose(chance_corrected(np.array([1.0, 0.6, 0.2, 0.0]), np.full(4, 0.2)), [1, 0.5, 0, -0.25])
    np.testing.assert_allclose(chance_corrected(np.array([1.0, 0.9, 0.45, 0.0]), np.full(4, 0.9)), [1, 0, -0.5, -1])
    np.testing.assert_allclose(chance_corrected(np.array([0.0, 1.0]), np.array([1.0, 1.0])), [-1, 0])


def test_cells_next_to_the_cause_in_space_but_not_in_time_are_left_out():
    mask = np.zeros((1, *SIZES))
    mask[0, 1, 3, 3] = 0.1
    core, rest = world_metrics.core_and_rest(mask, everywhere=False)
    assert core.sum() == 1 and (~rest[0, 1]).sum() == 9 and rest[0, 0].all()
    core, rest = world_metrics.core_and_rest(1 - mask * 6, everywhere=True)
    assert core.sum() == core.size - 1 and rest.sum() == 1


def test_intervals_hold_the_value_and_shrink_with_clips():
    about = known()
    noisy = about.areas[:, 0] + 3 * np.random.default_rng(2).random((200, *SIZES))
    widths = []
    for n in (20, 200):
        true_map, core, rest, areas = (m[:n] for m in (about.true_map, about.core, about.rest, about.areas))
        part = GroundTruth(true_map, core, rest, areas, areas[:, 0], areas[:, 1])
        result = MethodResult(
            "m",
            "video",
            "W2",
            3,
            0.1,
            world_metrics.compute_world_metrics(noisy[:n], part, {}),
        )
        (row,) = (row for row in result_rows([result], "net") if row.metric == MEAN_SCORE)
        assert row.low < row.value < row.high and row.n_clips == n
        widths.append(row.high - row.low)
    assert widths[1] < widths[0] / 2


def test_truth_is_the_mean_of_the_axes_without_stability():
    parts = {axis: np.stack([np.full(5, 0.5 + 0.1 * i), np.full(5, 0.5)])[None] for i, axis in enumerate(WORLD_METRICS)}
    parts[STABILITY_SCORE] = np.stack([np.ones(5), np.zeros(5)])[None]
    values = {row.metric: row.value for row in result_rows([MethodResult("m", "s", "W1", 1, 0.0, parts)], "net")}
    assert values[MEAN_SCORE] == pytest.approx(np.mean([0, 0.2, 0.4, 0.6, 0.8])) and values[STABILITY_SCORE] == 1


def test_rank_separation_of_shares_of_motion():
    random = np.random.default_rng(0)
    a, b = random.normal(size=60), random.normal(size=60)
    a[0] = np.nan
    expected = 2 * roc_auc_score([1] * 59 + [0] * 60, np.concatenate([a[1:], b])) - 1
    assert _rank_separation(a, b)[0] == pytest.approx(expected)
    assert _rank_separation(b + 9, b)[0] == 1 and (_rank_separation(b, b + 9) == -1).all()


def rows_of(method):
    score = analytic_benchmark.score_on_analytic(Entry(method), n_clips=24)
    (row,) = result_rows(
        [MethodResult(method, score.stage, "W0", score.forward_passes, 0.0, {ANALYTIC_SCORE: score.parts})],
        analytic_benchmark.ANALYTIC_NETWORK,
    )
    return row


@pytest.mark.slow
def test_methods_that_approximate_shapley_values_are_exact_on_w0():
    assert rows_of("integrated_gradients").value == pytest.approx(1, abs=1e-3)
    assert abs(rows_of("random").value) < 0.1 and rows_of("gradient_x_input").value > 0.5


def test_errors_are_sentences():
    loaded = models.load("worlds_cnn")
    with pytest.raises(ValueError, match=r"no method named 'grad_cam' .did you mean gradcam"):
        build_entries(loaded, ["grad_cam"])
    with pytest.raises(ValueError, match=r"expected package.module:function"):
        import_function("nowhere:function")
    with pytest.raises(ValueError, match="unknown question W99"):
        evaluation.score_method("gradcam", loaded, ["W99"])
    assert set(METHOD_BUDGETS) <= {entry.method_name for entry in build_entries(loaded)}


@pytest.fixture(scope="module")
def about():
    clips = worlds.make_clips("small", 60, 5)
    return EvalSet(models.load("worlds_cnn"), "small", ("W2", "W3"), clips, object.__new__(Gates), 5)


def shifted(model, clips, target):
    """Return maps shifted by eight pixels, away from the key."""
    return np.roll(attribute(model, clips, target, "lrp_gamma").map, (8, 8), (2, 3))


def of_another_question(model, clips, target):
    first = (np.asarray(target.head_range[0]) + 8) % 16
    other = type(target)(first + np.zeros(len(clips), int), (int(first), int(first) + 4))
    return attribute(model, clips, other, "lrp_gamma").map


def constant(model, clips, target):
    return np.ones(clips.shape[:4])


@pytest.mark.slow
def test_broken_methods_score_low(about):
    """Each is compared with the same method unbroken."""
    entries = {"whole": Entry("lrp_gamma")}
    entries |= {f.__name__: Entry(f.__name__, function=f) for f in (shifted, of_another_question, constant)}
    values = {
        name: {(r.question, r.metric): r.value for r in result_rows(measure_entries(about, [entry]), "worlds_cnn")}
        for name, entry in entries.items()
    }
    whole = values["whole"]
    assert whole["W2", MEAN_SCORE] > 0.5 and whole["W2", "WHERE"] > 0.6 and whole["W3", "WHEN"] > 0.5
    assert values["shifted"]["W2", "WHERE"] < 0.1 and values["shifted"]["W2", "WHO"] < 0.3
    assert values["shifted"]["W3", "WHEN"] == pytest.approx(whole["W3", "WHEN"], abs=0.1)  # time was not touched
    assert values["of_another_question"]["W2", "WHAT-FOR"] < 0 < whole["W2", "WHAT-FOR"]
    for (_, axis), value in values["constant"].items():
        assert value == pytest.approx(1 if axis == STABILITY_SCORE else 0, abs=0.1), axis


@pytest.mark.slow
def test_the_oracle_scores_1_and_changes_of_a_map_alone_gain_nothing(about):
    """Sharpening, thresholding and smoothing; on the former scale, squaring alone gained up to 0.05."""

    def changed(change):
        def make(model, clips, target):
            return change(attribute(model, clips, target, "attn_lrp").map.astype(np.float64))

        make.__name__ = "changed"
        return make

    changes = {
        "none": lambda x: x,
        "sharpened": lambda x: np.sign(x) * x**2,
        "thresholded": lambda x: np.where(x >= np.quantile(x, 0.9, (1, 2, 3), keepdims=True), x, 0),
        "smoothed": lambda x: gaussian_filter(x, (0, 0.7, 1.5, 1.5), mode="wrap"),
    }
    entries = [Entry(name) for name in REFERENCE_MAPS]
    entries += [Entry(name, function=changed(change)) for name, change in changes.items()]
    scores = {}
    for entry in entries:
        rows = result_rows(measure_entries(about, [entry]), "worlds_cnn")
        scores[entry.method] = np.mean(
            [row.value for row in rows if row.metric == MEAN_SCORE and row.question != "all"]
        )
    assert scores["oracle"] == pytest.approx(1)
    assert scores["none"] < scores["exact_box"] < 1
    assert all(scores[name] < scores["none"] + 0.03 for name in changes)


@pytest.mark.slow
def test_stages_of_one_pass_score_as_if_measured_alone(about):
    together = measure_entries(about, [Entry("gradcam", "convs.1"), Entry("layercam", "convs.0")])
    alone = measure_entries(about, [Entry("layercam", "convs.0")])
    assert jax.tree.map(np.shape, alone[0].metrics) == jax.tree.map(np.shape, together[-2].metrics)
    for single, other in zip(alone, [m for m in together if m.method == "layercam"]):
        for axis, parts in single.metrics.items():
            np.testing.assert_allclose(parts, other.metrics[axis], atol=1e-5)


def test_rank_correlation_of_a_metric_with_the_ground_truth():
    random = np.random.default_rng(0)
    truth_of_maps = random.normal(size=30)
    same = spearman_with_interval(np.stack([np.exp(truth_of_maps), truth_of_maps], 1))
    assert same == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    against = spearman_with_interval(np.stack([-truth_of_maps, truth_of_maps], 1))
    assert against[0] == pytest.approx(-1)
    value, low, high = spearman_with_interval(random.normal(size=(30, 2)))
    assert low < value < high and abs(value) < 0.4


def test_the_trust_sentence_names_scores_and_stages():
    said = trust_sentence("attn_lrp", "video")
    (row,) = (
        r for r in published_scores() if (r.method, r.network_name, r.stage) == ("attn_lrp", "worlds_swin", "video")
    )
    assert f"{row.value:.2f} (95 % CI over clips of one trained network {row.low:.2f} to" in said and "3D CNN" in said
    assert (
        "at norm on a Video Swin" in trust_sentence("gradcam", "layers.3") and trust_sentence("unknown", "video") == ""
    )
    assert "the last stage, on a 3D CNN" in trust_sentence("gradcam", "layers.3")


def test_stages_whose_windows_span_the_frame():
    loaded = models.load("worlds_swin")
    swin = prepare_explanation(loaded.model, np.zeros((1, 8, 32, 32, 3), np.float32), 0)
    assert globally_mixed_stages(swin) == ["layers.1.blocks.0", "layers.1.blocks.1", "layers.1", "norm"]
    cnn = prepare_explanation(models.load("worlds_cnn").model, np.zeros((1, 8, 32, 32, 3), np.float32), 0)
    assert globally_mixed_stages(cnn) == []


def of_a_stage(model, clips, target):
    return attribute(model, clips, target, "gradcam", "convs.1")


def of_another_shape(model, clips, target):
    return np.ones((len(clips), 4))


def no_array(model, clips, target):
    return {"maps": clips}


def sobel(model, clips, target):
    """Custom function with the name of a trivial map that overwrites its clips."""
    values = np.abs(clips).mean(-1) + 1
    clips *= 0
    return values


def only_when(model, clips, target):
    """Return maps that vary over time only, and are empty for some clips."""
    frame_numbers = np.arange(8, dtype=np.float32)[None, :, None, None] * (clips[:, :1, :1, :1, 0] > 0)
    return np.broadcast_to(frame_numbers, clips.shape[:4])


@pytest.mark.slow
def test_a_custom_function_may_have_any_name_and_cannot_change_clips():
    clips = worlds.make_clips("small", 30, 0)
    about = EvalSet(models.load("worlds_cnn"), "small", ("W2", "W3"), clips, object.__new__(Gates), 0)
    before = about.video.copy()
    own_results = measure_entries(about, [Entry("sobel", function=sobel)])
    np.testing.assert_array_equal(about.video, before)
    free = measure_entries(about, [Entry("sobel", "video")])
    for own_result, other in zip(own_results, free, strict=True):
        assert (
            own_result.metrics["WHERE"] != other.metrics["WHERE"]
        ).any() and other.forward_passes == 0 < own_result.forward_passes
    assert (
        own_results[0].forward_passes == own_results[1].forward_passes < 10
    )  # computing a mean takes no longer than the network
    about.video[25:] = -np.abs(about.video[25:])  # a batch with empty maps
    assert [set(result.metrics) for result in measure_entries(about, [Entry("when", function=only_when)])] == [
        set(),
        {"WHEN"},
    ]
    assert (
        len(build_entries(about.network, ["gradcam"], ["numpy:ones", "numpy:ones"]))
        == len(build_entries(about.network, ["gradcam"])) + 1
    )


def test_mean_scores_only_over_questions_with_where():
    parts = np.random.default_rng(0).random((3, 2, 20))
    results = [MethodResult("m", "video", "W2", 1, 0.1, {"WHEN": parts})]
    results += [MethodResult("m", "video", name, 1, 0.1, {"WHERE": parts, "WHEN": parts}) for name in ("W3", "W1")]
    n_clips = {(r.question, r.metric): r.n_clips for r in result_rows(results, "net")}
    assert n_clips["all", MEAN_SCORE] == 20 and ("W2", MEAN_SCORE) not in n_clips


def test_cross_validated_stage_selection_is_unbiased():
    """The best of many uninformative stages scores above 0 on the clips that select it."""
    random = np.random.default_rng(0)
    chance = np.full((1, 100), 0.5)
    results = [
        MethodResult("noise", f"s{i}", "W2", 1, 0.1, {"WHERE": np.stack([random.random((1, 100)), chance], 1)})
        for i in range(30)
    ]
    results += [
        MethodResult("sure", f"s{i}", "W2", 1, 0.1, {"WHERE": np.stack([chance + 0.1 * i, chance], 1)})
        for i in range(3)
    ]
    rows_by_stage = {(r.method, r.metric, r.stage): r for r in result_rows(results, "net")}
    best = max(
        (r for r in rows_by_stage.values() if r.method == "noise" and r.metric == MEAN_SCORE), key=lambda r: r.value
    )
    left = rows_by_stage["noise", CROSS_VALIDATED_SCORE, best.stage]
    assert best.low > 0 and left.value < 0.6 * best.value and left.low < 0 < left.high
    assert (
        rows_by_stage["sure", CROSS_VALIDATED_SCORE, "s2"].value == pytest.approx(0.4)
        and rows_by_stage["sure", CROSS_VALIDATED_SCORE, "s2"].n_clips == 100
    )


def half_as_fine(model, clips, target):
    return np.asarray(clips)[:, ::2, ::2, ::2, 0]


def test_a_custom_function_need_not_apply_to_w0():
    for function, message in (
        (of_a_stage, "no stage named"),
        (of_another_shape, "must return finite maps"),
        (no_array, "must return maps .* got dict, which is not an array"),
    ):
        with pytest.raises(ValueError, match=message):
            analytic_benchmark.score_on_analytic(Entry("mine", function=function), 8)
        rows, refused = analytic_rows([Entry("mine", function=function)], 8, 0)
        assert not rows and [failure.method for failure in refused] == ["mine"]
    score = analytic_benchmark.score_on_analytic(Entry("mine", function=half_as_fine), 8)
    assert np.isfinite(score.parts).all() and -1 <= score.parts.min() <= score.parts.max() <= 1
