"""Metrics that need no ground truth: known values for linear scores, captum's results, and cost."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import stats

from tests.support.typed import statistic
from vtcav_jax import models, worlds
from vtcav_jax.attribution import Channel, Class, Contrast, Group, Margin, attribute_many, gradient_x_input, saliency
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.evaluation.faithfulness import (
    additivity,
    insertion_deletion,
    masked_inference,
    partition,
    robustness,
    single_removal,
)
from vtcav_jax.evaluation.faithfulness import metrics as faithfulness_metrics
from vtcav_jax.evaluation.faithfulness.masked_inference import prepare_masking, score_masked
from vtcav_jax.evaluation.trivial_maps import TRIVIAL_MAPS, clip_seeds
from vtcav_jax.tap import identity_tap

SHAPE = (3, 4, 4, 6, 2)
SIZES = SHAPE[1:4]
TWELFTHS = tuple(np.linspace(0, 1, 13).tolist())
CUT = partition.grid_partition(SIZES, (2, 2, 3))  # 12 cells of 2 x 2 x 2


def linear(weights, video, tap=identity_tap):
    score = tap("product", video * weights).sum((1, 2, 3, 4))
    return jnp.stack([score, 0 * score], -1)


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(1).normal(size=(1, *SHAPE[1:])).astype(np.float32) / 4


@pytest.fixture(scope="module")
def model(weights):
    return Partial(linear, jnp.asarray(weights))


@pytest.fixture(scope="module")
def masked(model, clips):
    return prepare_masking(model, clips, Margin(np.zeros(3, int)), infill="grey", partition=CUT, batch_size=7)


@pytest.fixture(scope="module")
def exact(clips, weights):
    return (clips * weights).sum(-1)


def of_cells(maps):
    return maps.reshape(3, 2, 2, 2, 2, 3, 2).sum((2, 4, 6)).reshape(3, 12).astype(np.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_curves_of_a_linear_score(masked, exact):
    curves = insertion_deletion.measure_curves(masked, {"exact": exact, "against": -exact}, fractions=TWELFTHS)
    assert curves.names == ("exact", "against") and curves.counts.tolist() == list(range(13)) and curves.cost == 22
    worth = of_cells(exact)
    for m, order in enumerate((-np.sort(-worth, -1), np.sort(worth, -1))):
        shown = np.pad(order.cumsum(-1), ((0, 0), (1, 0)))
        removed = shown[:, -1:] - shown
        np.testing.assert_allclose(curves.shown_score[m], shown, atol=1e-4)
        np.testing.assert_allclose(curves.removed_score[m], removed, atol=1e-4)
        np.testing.assert_allclose(curves.insertion[m], np.trapezoid(sigmoid(shown), dx=1 / 12), atol=1e-5)
        np.testing.assert_allclose(curves.deletion[m], np.trapezoid(sigmoid(removed), dx=1 / 12), atol=1e-5)
        np.testing.assert_allclose(curves.aopc[m], shown.mean(-1), atol=1e-4)
        np.testing.assert_allclose(curves.flipping[m], removed.mean(-1), atol=1e-4)
        # Least relevant first equals the reversed insertion curve
        least = shown[:, ::-1]
        np.testing.assert_allclose(curves.relevance_gain[m], (least - removed).mean(-1), atol=1e-4)
    np.testing.assert_allclose(curves.relevance_gain[0], -curves.relevance_gain[1], atol=1e-4)
    assert (curves.relevance_gain[0] > 0).all() and (curves.insertion_less_deletion[0] > 0).all()
    low, high = sigmoid(0), sigmoid(worth.sum(-1))
    expected = np.where(high > low, (curves.insertion[0] - low) / (high - low), np.nan)
    np.testing.assert_allclose(curves.insertion_of_rise[0], expected, rtol=1e-3)


def test_least_relevant_first_is_the_reversed_curve_of_the_negated_map(masked, exact):
    curves = insertion_deletion.measure_curves(masked, {"a": exact, "b": -exact})
    np.testing.assert_allclose(curves.shown_score[0][:, ::-1], curves.removed_score[1], atol=1e-4)


def test_means_do_not_depend_on_the_points_of_curves(masked, exact):
    curves = insertion_deletion.measure_curves(masked, {"a": exact}, fractions=TWELFTHS)
    straight = insertion_deletion.RemovalCurves(
        *(getattr(curves, f) for f in ("names", "counts")),
        *(  # straight lines between three points
            np.interp(curves.counts, [0, 4, 12], [1, 3, 0.0]) * np.ones((1, 3, 1)) for _ in range(4)
        ),
    )
    straight_few = insertion_deletion.RemovalCurves(
        straight.names, np.array([0, 4, 12]), *(4 * (np.array([1, 3, 0.0]) * np.ones((1, 3, 1)),))
    )
    for name in ("insertion", "flipping", "aopc"):
        np.testing.assert_allclose(getattr(straight, name), getattr(straight_few, name), rtol=1e-6)


def test_minimal_shares(masked, exact):
    curves = insertion_deletion.measure_curves(masked, {"a": exact}, fractions=TWELFTHS)
    for i in range(3):
        p = curves.shown_probability[0, i]
        assert curves.minimal_shown(0.8)[0, i] == pytest.approx(np.flatnonzero(p >= 0.8 * p[-1])[0] / 12)
        q = curves.removed_probability[0, i]
        below = np.flatnonzero(q <= 0.2 * q[0])
        smallest = curves.minimal_removed(0.8)[0, i]
        assert smallest == pytest.approx(below[0] / 12) if len(below) else np.isnan(smallest)


def test_curve_points():
    counts = insertion_deletion.curve_points(256)
    assert len(counts) == 33 and counts[0] == 0 and counts[-1] == 256
    assert set(256 - counts) == set(counts) and {3, 13, 26, 51, 128} <= set(counts.tolist())
    assert insertion_deletion.curve_points(8).tolist() == list(range(9))
    assert len(insertion_deletion.curve_points(50176)) == 33


def test_comprehensiveness_and_sufficiency(masked, exact):
    curves = insertion_deletion.measure_curves(masked, {"a": exact})
    order = -np.sort(-of_cells(exact), -1)
    whole, tops = sigmoid(order.sum(-1)), [max(round(q * 12), 1) for q in insertion_deletion.REMOVAL_LEVELS]
    needed = np.mean([whole - sigmoid(order[:, k:].sum(-1)) for k in tops], 0)
    enough = np.mean([whole - sigmoid(order[:, :k].sum(-1)) for k in tops], 0)
    np.testing.assert_allclose(single_removal.comprehensiveness(curves)[0], needed, atol=1e-5)
    np.testing.assert_allclose(single_removal.sufficiency(curves)[0], enough, atol=1e-5)
    with pytest.raises(ValueError, match="no point at 8 cells"):
        single_removal.sufficiency(
            insertion_deletion.measure_curves(masked, {"a": exact}, fractions=(0.0, 1.0)), (0.67,)
        )


def test_a_clip_dimmed_by_its_map(masked, exact):
    worth = of_cells(exact)
    drops = single_removal.average_drop(masked, {"a": exact, "flat": np.full(SHAPE[:4], 0.3, np.float32)})
    span = np.ptp(worth, axis=-1, keepdims=True)
    shares = (worth - worth.min(-1, keepdims=True)) / span
    before, after = sigmoid(worth.sum(-1)), sigmoid((shares * worth).sum(-1))
    np.testing.assert_allclose(drops.drop[0], np.maximum(before - after, 0) / before, atol=1e-5)
    np.testing.assert_array_equal(drops.increase[0], after > before)
    np.testing.assert_allclose(drops.gain[0], np.maximum(after - before, 0) / (1 - before), atol=1e-5)
    np.testing.assert_allclose(drops.complexity[0], shares.mean(-1), rtol=1e-5)
    assert not drops.drop[1].any() and (drops.complexity[1] == 1).all()  # complexity reveals constant maps
    assert single_removal.adcc(*np.array([[[0.5]], [[0.25]], [[0.5]]], np.float32))[0, 0] == pytest.approx(
        3 / (2 + 4 / 3 + 2)
    )
    with pytest.raises(ValueError, match="within 0 and 1"):
        single_removal.adcc(*np.array([[[-0.5]], [[0.25]], [[0.5]]], np.float32))


def test_the_map_of_a_dimmed_clip(masked, model, exact):
    def explainer(model, clips, target):
        return gradient_x_input(model, clips, target)

    whole_map = explainer(model, masked.context.video, masked.context.score_model.target)
    np.testing.assert_allclose(whole_map.map, exact, atol=1e-5)
    shares = single_removal.min_max_normalise(partition.pool_to_cells([whole_map], CUT, 3))[0]
    dimmed = exact * shares[:, CUT.cell_ids[0]]  # grey is 0
    expected = [(1 + statistic(stats.pearsonr(a.ravel(), b.ravel()))) / 2 for a, b in zip(exact, dimmed)]
    np.testing.assert_allclose(single_removal.coherency(explainer, masked, whole_map), expected, rtol=1e-4)


def test_an_area_between_chance_and_the_oracle():
    normalised = insertion_deletion.normalise_to_oracle(
        *np.array([[[0.5, 0.2, 0.5]], [[0.4, 0.4, 0.5]], [[0.6, 0.8, 0.5]]], np.float32)
    )
    np.testing.assert_allclose(normalised, [[0.5, -0.5, np.nan]], rtol=1e-5)


def test_the_exact_map_of_a_linear_score_is_perfect(masked, exact):
    flat = np.ones_like(exact)
    maps = {"exact": exact, "scaled": 7 * exact, "against": -exact, "flat": flat}
    np.testing.assert_allclose(
        additivity.mu_fidelity(masked, maps, subsets=40)[:3, :], [[1] * 3, [1] * 3, [-1] * 3], atol=1e-3
    )
    sensitivity = additivity.sensitivity_n(masked, maps, subsets=30)
    np.testing.assert_allclose(sensitivity.correlation[:2], 1, atol=1e-4)
    np.testing.assert_allclose(sensitivity.mean[2], -1, atol=1e-4)
    assert sensitivity.sizes.tolist() == [1, 2, 4, 6, 10]
    infidelity = additivity.infidelity(masked, maps, draws=50)
    np.testing.assert_allclose(infidelity.explained_share[:2], 1, atol=1e-5)
    np.testing.assert_allclose(infidelity.scale[0], 1, rtol=1e-4)  # sums are cell means times volume
    np.testing.assert_allclose(infidelity.scale[1], 1 / 7, rtol=1e-4)
    np.testing.assert_array_equal(infidelity.explained_share[2], 0)  # an inverted map explains nothing
    # A constant map cannot distinguish sets of one size
    assert not additivity.mu_fidelity(masked, maps, subsets=40)[3].any() and not sensitivity.mean[3].any()


def test_random_subsets_and_cuboids():
    random = np.random.default_rng(0)
    subsets = additivity._draw_subsets(random, 400, 3, 12)
    assert (subsets.sum(1) == 3).all() and np.abs(subsets.mean(0) - 0.25).max() < 0.09
    boxes = additivity._draw_cuboids(random, 300, (4, 6, 6)).reshape(300, 4, 6, 6)
    for box in boxes:
        along = [box.any(tuple(a for a in range(3) if a != axis)) for axis in range(3)]
        assert box.sum() == np.prod([line.sum() for line in along])
        assert all(1 <= line.sum() <= n // 2 for line, n in zip(along, (4, 6, 6)))
    assert boxes.any(0).all()


def test_completeness_is_relative_to_the_known_sum():
    maps = np.ones((2, 1, 2, 2), np.float32)
    attribution = Attribution(maps, "video", True, 1, "x", np.array([1.0, -4.0], np.float32))
    gaps = additivity.completeness(attribution)
    assert gaps[0] == pytest.approx(1 / 5) and np.isnan(gaps[1])
    with pytest.raises(ValueError, match="no known sum"):
        additivity.completeness(Attribution(maps, "video", True, 1, "x"))


def relu(parameters, video, tap=identity_tap):
    hidden = jax.nn.relu(video.reshape(len(video), -1) @ parameters["a"] + parameters["b"][None])
    return hidden @ parameters["c"]


@pytest.fixture(scope="module")
def nets():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(3)
    p = {
        "a": random.normal(size=(np.prod(SHAPE[1:]), 16)).astype(np.float32) / 8,
        "b": random.normal(size=16).astype(np.float32) / 4,
        "c": random.normal(size=(16, 4)).astype(np.float32),
    }
    t = {name: torch.from_numpy(value) for name, value in p.items()}

    def torch_net(video):
        return torch.relu(video.flatten(1) @ t["a"] + t["b"]) @ t["c"]

    return Partial(relu, jax.tree.map(jnp.asarray, p)), torch_net


CLASSES = np.array([2, 0, 3])
DRAWS = 24


@pytest.mark.slow
def test_infidelity_is_captums(nets, clips):
    captum = pytest.importorskip("captum.metrics")
    import torch

    net, torch_net = nets
    maps = {"gradient": gradient_x_input(net, clips, Class(CLASSES)).map, "other": np.abs(clips).mean(-1)}
    video = torch.from_numpy(clips)
    voxels = partition.grid_partition(SIZES, SIZES)
    masked = prepare_masking(net, clips, Class(CLASSES), partition=voxels, infill="mean", seed=5)
    infidelity = additivity.infidelity_noise(masked, maps, draws=DRAWS, size=0.3)
    seeds = [s.spawn(DRAWS) for s in clip_seeds(clips, 5, additivity.INFIDELITY_NOISE_STREAM)]
    noise = np.stack([
        [0.3 * clip.std() * np.random.default_rng(s).standard_normal(SIZES, np.float32) for s in row]
        for clip, row in zip(clips, seeds)
    ]).reshape(-1, *SIZES, 1).astype(np.float32)  # fmt: skip

    def perturbed(inputs):
        step = torch.from_numpy(noise).expand(-1, *SIZES, 2)
        return step, inputs - step

    for m, values in enumerate(maps.values()):
        share = torch.from_numpy(values)[..., None].expand(-1, -1, -1, -1, 2) / 2  # noise is the same in both colours
        options = dict(target=torch.from_numpy(CLASSES), n_perturb_samples=DRAWS, max_examples_per_batch=None)
        theirs = captum.infidelity(torch_net, perturbed, video, share, normalize=True, **options).numpy()
        free = captum.infidelity(torch_net, perturbed, video, share, normalize=False, **options).numpy()
        assert (free > theirs).all()  # the scale matters
        helpful = infidelity.scale[m] > 0
        np.testing.assert_allclose(infidelity.mean_square_error[m][helpful], theirs[helpful], rtol=1e-3)
        assert (infidelity.mean_square_error[m][~helpful] > theirs[~helpful]).all() and (
            infidelity.explained_share[m][~helpful] == 0
        ).all()
    assert (infidelity.scale > 0).any(1).all()


def test_max_sensitivity_is_captums(nets, clips):
    captum = pytest.importorskip("captum.metrics")
    import torch

    net, torch_net = nets
    sensitivity = robustness.max_sensitivity(saliency, net, clips, Class(CLASSES), radius=0.1, draws=DRAWS, seed=2)
    noisy = np.stack(robustness.add_noise(clips, 0.1, DRAWS, 2), 1).reshape(-1, *SHAPE[1:])

    def explained(inputs, target):
        inputs = (inputs[0] if isinstance(inputs, tuple) else inputs).detach().requires_grad_()
        with torch.enable_grad():  # captum turns it off
            score = torch_net(inputs).gather(1, target[:, None]).sum()
            return (torch.autograd.grad(score, inputs)[0].abs().sum(-1),)

    ours = saliency(net, clips, Class(CLASSES)).map
    theirs = explained(torch.from_numpy(clips), torch.from_numpy(CLASSES))[0].numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    largest = captum.sensitivity_max(
        explained,
        torch.from_numpy(clips),
        lambda inputs: (torch.from_numpy(noisy),),
        n_perturb_samples=DRAWS,
        target=torch.from_numpy(CLASSES),
    )
    np.testing.assert_allclose(sensitivity.max_change, largest.numpy(), rtol=1e-3)
    assert (sensitivity.mean_change < sensitivity.max_change).all()


@pytest.mark.slow
def test_probabilities_of_each_kind_of_target(nets, clips):
    net, _ = nets
    logits = np.asarray(net(jnp.asarray(clips)), np.float64)
    own_odds = np.exp(logits[np.arange(3), CLASSES])
    group = Group((1, 3))
    cases = {
        "all": (Class(CLASSES), own_odds / np.exp(logits).sum(1)),
        "head": (Margin(np.array([2, 2, 3]), (2, 4)), sigmoid(np.array([1, 1, -1]) * (logits[:, 2] - logits[:, 3]))),
        "two": (Contrast(CLASSES, np.array([1, 1, 1])), own_odds / (own_odds + np.exp(logits[:, 1]))),
        "group": (group, np.exp(logits[:, [1, 3]]).sum(1) / np.exp(logits).sum(1)),
    }
    for target, expected in cases.values():
        masked = prepare_masking(net, clips, target, partition=CUT, batch_size=4)
        np.testing.assert_allclose(masked.full_scores.probability, expected, rtol=1e-4)
    inner = prepare_masking(Partial(linear, jnp.ones((1, *SHAPE[1:]))), clips, Channel("product", 1), partition=CUT)
    assert np.isnan(inner.full_scores.probability).all()
    np.testing.assert_allclose(inner.full_scores.score, clips[..., 1].mean((1, 2, 3)), atol=1e-5)
    with pytest.raises(ValueError, match="must hold no arrays"):
        prepare_masking(net, clips, Partial(lambda a, logits: logits[:, 0] * a, jnp.ones(3)), partition=CUT)


@pytest.mark.slow
def test_results_do_not_depend_on_batches_or_other_clips(nets, clips):
    net, _ = nets
    maps = {"a": np.abs(clips[..., 0]), "b": -clips[..., 1], "flat": np.zeros(SHAPE[:4], np.float32)}
    budget = faithfulness_metrics.MetricBudget(mu_subsets=10, n_subsets=5, n_sizes=3, infidelity_draws=8)
    options: dict[str, Any] = dict(infills=("mean", "linear"), time_infills=("hold",), partition=CUT, budget=budget)
    large_batches = faithfulness_metrics.evaluate_maps(net, clips, Class(CLASSES), maps, batch_size=16, **options)
    small_batches = faithfulness_metrics.evaluate_maps(net, clips, Class(CLASSES), maps, batch_size=5, **options)
    for a, b in zip(large_batches, small_batches, strict=True):
        assert (a.map, a.metric, a.infill, a.n_clips, a.forward_passes) == (
            b.map,
            b.metric,
            b.infill,
            b.n_clips,
            b.forward_passes,
        )
        np.testing.assert_allclose([a.mean, a.low, a.high], [b.mean, b.low, b.high], rtol=1e-3, atol=1e-4)
    target, last_target = Class(CLASSES), Class(CLASSES[2:])
    for fill in ("mean", "linear"):
        all_clips = prepare_masking(net, clips, target, partition=CUT, infill=fill, batch_size=8)
        last_clip = prepare_masking(net, clips[2:], last_target, partition=CUT, infill=fill, batch_size=8)
        last_maps = {name: values[2:] for name, values in maps.items()}
        for metric in (additivity.mu_fidelity, lambda s, m: insertion_deletion.measure_curves(s, m).relevance_gain):
            np.testing.assert_allclose(
                metric(all_clips, maps)[:, 2:], metric(last_clip, last_maps), rtol=1e-3, atol=1e-4
            )


def test_clips_can_have_different_partitions(model, clips, exact):
    numbers = np.stack([CUT.cell_ids[0], CUT.cell_ids[0], 11 - CUT.cell_ids[0]])
    by_clip = prepare_masking(model, clips, 0, infill="grey", partition=partition.Partition(numbers))
    for_all = prepare_masking(model, clips, 0, infill="grey", partition=CUT)
    a, b = (insertion_deletion.measure_curves(s, {"a": exact}) for s in (by_clip, for_all))
    np.testing.assert_allclose(a.shown_score, b.shown_score, atol=1e-4)
    noise_by_clip, noise_for_all = (
        additivity.infidelity_noise(s, {"a": exact}).mean_square_error for s in (by_clip, for_all)
    )
    np.testing.assert_allclose(noise_by_clip, noise_for_all, rtol=1e-3)
    with pytest.raises(ValueError, match="cuboids are made of the cells of a grid"):
        additivity.infidelity(by_clip, {"a": exact})


PASSED = []


def counted(parameters, video, tap=identity_tap):
    jax.debug.callback(lambda: PASSED.append(len(video)))
    return relu(parameters, video, tap)


@pytest.mark.slow
def test_reported_costs_are_the_actual_passes(nets, clips, monkeypatch):
    """Costs are for each number alone; within one call, equal rows share passes, which is frequent with four frames."""
    net = Partial(counted, nets[0].args[0])
    maps = {"a": np.abs(clips[..., 0]), "b": -clips[..., 1]}
    budget = faithfulness_metrics.MetricBudget(
        mu_subsets=10, n_subsets=5, n_sizes=3, infidelity_draws=8, n_random_maps=2
    )

    def passes(**options):
        PASSED.clear()
        rows = faithfulness_metrics.evaluate_maps(
            net, clips, Class(CLASSES), maps, partition=CUT, batch_size=3, budget=budget, **options
        )
        jax.effects_barrier()
        assert set(PASSED) <= {3}
        return {(row.metric, row.map): row.forward_passes for row in rows}, sum(PASSED) / 3

    assert passes(metrics=["time_insertion"], time_infills=["hold"])[1] == 2 + (2**4 - 2)  # every set of frames once
    monkeypatch.setattr(masked_inference, "_unique_rows", lambda rows: (np.arange(len(rows)), np.arange(len(rows))))
    seven = 2 + 2 + 3  # two given maps, two random maps, three other trivial maps
    for metric in ("mu_fidelity", "sensitivity_n", "infidelity_explained"):
        costs, spent = passes(metrics=[metric], infills=["mean"])
        assert set(costs.values()) == {spent}
    for metric in ("insertion", "average_drop", "time_insertion"):
        costs, spent = passes(metrics=[metric], infills=["mean"], time_infills=["hold"])
        assert costs[metric, "b"] == costs[metric, "sobel"] and spent == 2 + seven * (costs[metric, "b"] - 2)
        assert costs[metric, "random"] == 2 + 2 * (costs[metric, "b"] - 2)
    costs, spent = passes(metrics=["gini"])
    assert not any(costs.values()) and not spent
    _, spent = passes()
    curve, frames = (
        2 * (len(insertion_deletion.curve_points(12)) - 2),
        2 * (len(insertion_deletion.curve_points(4)) - 2),
    )
    shared = 10 + 15 + 8
    assert spent == 3 * 2 + 2 * (seven * (curve + 1) + shared) + 2 * seven * frames  # blur, mean, hold


def test_equal_rows_are_computed_once(nets, clips):
    masked = prepare_masking(Partial(counted, nets[0].args[0]), clips, Class(CLASSES), partition=CUT, batch_size=2)
    rows, clip = np.random.default_rng(0).random((3, 12))[[0, 1, 0, 2, 1]] < 0.5, np.array([0, 1, 0, 1, 2])
    alone = [score_masked(masked, clip[[i]], lambda _, i=i: rows[[i]]).score[0] for i in range(5)]
    PASSED.clear()
    together = score_masked(masked, clip, rows.__getitem__)
    jax.effects_barrier()
    assert PASSED == [2, 2]
    np.testing.assert_allclose(together.score, alone, atol=1e-6)


def test_rows_are_complete_and_include_trivial_maps(nets, clips):
    net, _ = nets
    gradient_map = gradient_x_input(net, clips, Class(CLASSES))
    budget = faithfulness_metrics.MetricBudget(mu_subsets=10, n_subsets=5, n_sizes=3, infidelity_draws=8)
    rows = faithfulness_metrics.evaluate_maps(net, clips, Class(CLASSES), [gradient_map], partition=CUT, budget=budget)
    assert {row.metric for row in rows} == set(faithfulness_metrics.FAITHFULNESS_METRICS)
    for metric in set(faithfulness_metrics.FAITHFULNESS_METRICS) - {"completeness"}:
        metric_rows = [row for row in rows if row.metric == metric]
        by_fill = {row.infill: [r.map for r in metric_rows if r.infill == row.infill] for row in metric_rows}
        assert all(names == ["gradient_x_input", *TRIVIAL_MAPS] for names in by_fill.values())
        group = faithfulness_metrics.FAITHFULNESS_METRICS[metric].group
        fills = {"map": {""}, "time": {"hold", "blur"}}.get(group, {"blur", "mean"})
        assert set(by_fill) == fills
    for row in rows:
        assert row.n_clips < 3 or row.low <= row.mean <= row.high
    bad = dict(one=np.full(SHAPE[:4], np.nan, np.float32))
    with pytest.raises(ValueError, match="one is not finite for clips 0, 1, 2"):
        faithfulness_metrics.evaluate_maps(net, clips, Class(CLASSES), bad)
    with pytest.raises(
        ValueError, match=r"(?s)no metric named 'insertoin'.*insertion.*no infill named 'glue'.*random are"
    ):
        faithfulness_metrics.evaluate_maps(
            net, clips, 0, {"random": gradient_map}, metrics=["insertoin"], infills=["glue"]
        )
    inner = Partial(linear, jnp.ones((1, *SHAPE[1:])))
    with pytest.raises(ValueError, match=r"insertion need a probability.*choose metrics among relevance_gain"):
        faithfulness_metrics.evaluate_maps(
            inner, clips, Channel("product", 1), {"a": gradient_map}, metrics=["insertion", "aopc"]
        )


def test_a_constant_map_is_a_random_one(nets):
    net, _ = nets
    clips = np.random.default_rng(8).normal(size=(60, *SHAPE[1:])).astype(np.float32)
    target = Class(np.arange(60) % 4)
    maps = {"flat": np.full(clips.shape[:4], 2, np.float32)}
    metrics = ["relevance_gain", "insertion", "deletion", "mu_fidelity", "sensitivity_n"]
    rows = faithfulness_metrics.evaluate_maps(
        net, clips, target, maps, partition=CUT, infills=["mean"], metrics=metrics
    )
    by_metric = {(row.metric, row.map): row for row in rows}
    assert by_metric["mu_fidelity", "flat"].mean == 0 == by_metric["sensitivity_n", "flat"].mean
    gain = by_metric["relevance_gain", "flat"]
    assert gain.low < 0 < gain.high
    for metric in ("insertion", "deletion"):
        flat, random = by_metric[metric, "flat"], by_metric[metric, "random"]
        assert flat.low < random.high and random.low < flat.high


def test_masked_scores_match_direct_evaluation(model, clips):
    masked = prepare_masking(model, clips, 0, partition=CUT, batch_size=4)
    rows = np.random.default_rng(0).random((9, 12)) < 0.5
    scores = score_masked(masked, np.arange(9) % 3, rows.__getitem__)
    start = np.asarray(masked.background)
    for i, row in enumerate(rows):
        clip = np.where(row[CUT.cell_ids[0]][..., None], clips[i % 3], start[i % 3])
        assert scores.score[i] == pytest.approx(float(model(jnp.asarray(clip[None]))[0, 0]), abs=1e-4)
    with pytest.raises(ValueError, match="nothing to compare"):
        prepare_masking(model, clips, 0, partition=partition.grid_partition(SIZES, (1, 1, 1)))
    with pytest.raises(ValueError, match="expected cells of clips"):
        prepare_masking(model, clips, 0, partition=partition.grid_partition((4, 4, 4), (2, 2, 2)))


@pytest.mark.slow
def test_the_planted_cause_beats_chance_on_every_metric():
    network = models.load("worlds_swin")
    clips = worlds.make_clips("small", 24, 77)
    video = network.clip_spec.normalise((255 * clips.video).round().astype(np.uint8))
    head = network.head_slices["flash"]
    target = Margin(head.start + clips.labels["flash"], (head.start, head.stop))
    cause = clips.masks["key_event"].astype(np.float32)
    (saliency_map,) = attribute_many(network.model, video, target, [("saliency", None)])
    maps = {"cause": cause, "saliency": saliency_map, "not": 1 - cause}
    curve = ["relevance_gain", "insertion", "deletion", "comprehensiveness", "sufficiency"]
    metrics = [*curve, "mu_fidelity", "sensitivity_n", "infidelity_explained"]
    budget = faithfulness_metrics.MetricBudget(
        fractions=faithfulness_metrics.COARSE_FRACTIONS,
        mu_subsets=60,
        n_subsets=20,
        infidelity_draws=60,
        n_random_maps=2,
    )
    rows = faithfulness_metrics.evaluate_maps(network.model, video, target, maps, metrics=metrics, budget=budget)
    row = {(row.metric, row.infill, row.map): row for row in rows}
    for (metric, fill, name), cause_row in row.items():
        if name == "cause":
            chance, other = row[metric, fill, "random"], row[metric, fill, "not"]
            assert cause_row.higher_is_better * (cause_row.mean - chance.mean) > 0, (metric, fill)
            assert cause_row.higher_is_better * (cause_row.mean - other.mean) > 0, (metric, fill)
    for fill in faithfulness_metrics.DEFAULT_INFILLS:
        assert row["relevance_gain", fill, "cause"].low > row["relevance_gain", fill, "random"].high


def test_rank_correlations_are_scipys():
    random = np.random.default_rng(0)
    sums, falls = random.normal(size=(2, 3, 20)), random.normal(size=(3, 20)).astype(np.float32)
    for correlate, theirs in ((additivity.spearman, stats.spearmanr), (additivity.pearson, stats.pearsonr)):
        correlations = additivity._correlate_sums(sums, falls, correlate)
        for m in range(2):
            for i in range(3):
                assert correlations[m, i] == pytest.approx(statistic(theirs(sums[m, i], falls[i])), abs=1e-5)
