"""Benchmark of concept discovery: measures with known values, and a small run on a shipped network."""

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.evaluation_tables import discovery_table
from vtcav_jax import models, tap
from vtcav_jax.discovery.completeness import fit_readout, prediction_share
from vtcav_jax.discovery.dictionaries import Dictionary
from vtcav_jax.discovery.importance import head_ranges, importance_of, weigh_by_codes, weighted_gradients
from vtcav_jax.evaluation.discovery_benchmark import concepts, measures, run
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet, quantise_and_normalise
from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.report.sections import discovery_benchmark as discovery_sections
from vtcav_jax.runs.evaluation_rows import DISCOVERY_BENCHMARK_CSV, DiscoveryBenchmarkRow
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.worlds.gates import Gates
from vtcav_jax.worlds.render import make_clips

STAGE = "convs.1"
EQUAL = np.ones((1, 200))


@pytest.fixture(scope="module")
def network():
    return models.load("worlds_cnn")


@pytest.fixture(scope="module")
def clips():
    return make_clips("small", 4, seed=1)


def test_concepts_are_matched_to_values_and_scored_on_them():
    random = np.random.default_rng(0)
    labels = random.integers(4, size=200)
    scores = random.random((200, 6))
    order = [5, 2, 0, 3]  # the concept of each value
    for value, concept in enumerate(order):
        scores[:, concept] += 2 * (labels == value)
    is_value = [labels == value for value in range(4)]
    assert measures.match_concepts(scores, is_value).tolist() == order
    assert measures.auroc_draws(scores[:, order], is_value, EQUAL)[0] == 1
    assert measures.auroc_draws(np.zeros((200, 4)), is_value, EQUAL)[0] == 0.5


def test_recovery_is_relative_to_supervised_vectors():
    ceiling = {(factor, "AUROC"): np.array([0.9]) for factor in concepts.KEY_FACTORS}
    draws = {key: np.array([0.7]) for key in ceiling} | {("shape", "AUROC"): np.array([0.9])}
    recovery = run.recovery(draws, ceiling)
    assert recovery["shape", "RECOVERY"][0] == 1
    assert recovery["scene", "RECOVERY"][0] == pytest.approx(0.5)
    assert recovery["all", "RECOVERY"][0] == pytest.approx((1 + 3 * 0.5) / 4)


def test_completeness_is_the_share_of_predictions_that_a_readout_reproduces():
    random = np.random.default_rng(0)
    predictions = random.integers(4, size=400) + 3
    separable = np.eye(4)[predictions - 3] + 0.01 * random.standard_normal((400, 4))
    noise = random.standard_normal((400, 4))
    assert measures.readout_draws(separable, predictions, EQUAL)[0] == 1
    assert abs(measures.readout_draws(noise, predictions, EQUAL)[0]) < 0.2
    videos = [f"v{i}" for i in range(400)]
    row = prediction_share(separable, predictions, videos, stage="convs.1", head="shape", seed=0)
    assert row is not None and row.share == 1 and 0.2 < row.chance < 0.4


def test_a_channel_that_is_almost_always_0_does_not_take_the_readout():
    random = np.random.default_rng(0)
    labels = random.integers(4, size=200)
    x = np.eye(4)[labels] + random.standard_normal((200, 4))
    x = np.concatenate([x, 1e-6 * random.standard_normal((200, 1))], 1)
    shares = []
    for min_scale in (0.0, 0.1):
        slopes = fit_readout(x, labels, 4, min_scale)[0]
        shares.append((slopes[-1] ** 2 / (slopes**2).sum(0)).max())
    assert shares[0] > 0.9 and shares[1] < 1e-6


def test_stability_does_not_depend_on_the_order_of_directions():
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    assert measures.one_to_one_cosines(directions, directions[::-1]) == pytest.approx(1)
    assert measures.one_to_one_cosines(directions[:4], directions[4:]) == pytest.approx(0, abs=1e-6)


def test_rank_correlation_is_that_of_mean_importance_with_mean_loss():
    random = np.random.default_rng(0)
    effect = np.arange(24.0)
    importance, losses = (effect + 0.1 * random.standard_normal((n, 24)) for n in (200, 100))
    equal = (EQUAL, np.ones((1, 100)))
    assert measures.rank_draws(importance, losses, equal)[0] == pytest.approx(1)
    assert measures.rank_draws(importance, -losses, equal)[0] == pytest.approx(-1)


def test_the_interval_of_a_rank_correlation_contains_it():
    lower_draws = np.concatenate([[0.9], np.linspace(0.7, 0.8, 101)])
    value, low, high = run.measure_interval("RANK", lower_draws)
    assert (value, low, high) == pytest.approx((0.9, 0.8525, 0.9475))
    assert run.measure_interval("USE", lower_draws)[1:] == pytest.approx((0.7025, 0.7975))


@pytest.mark.slow
def test_importance_is_the_loss_of_a_small_part_of_a_concept(network, clips):
    """Against finite differences: the share of the contribution is small, so that the network is nearly linear."""
    video, share = quantise_and_normalise(network, clips.video), 1e-2
    logits, values = tap.activations(network.model, video, STAGE)
    grids = np.asarray(values[STAGE])
    directions = jnp.asarray(np.linalg.qr(np.random.default_rng(0).standard_normal((grids.shape[-1], 5)))[0].T)
    dictionary = Dictionary(directions, jnp.float32(1), jnp.float32(0.03), jnp.zeros_like(directions), jnp.zeros(5))
    mean = grids.mean(0)
    weighted = weighted_gradients(
        *(network.model, jnp.asarray(video), {STAGE: dictionary}, {STAGE: mean}, head_ranges(network), "nmf", False)
    )[STAGE]
    importance = importance_of(np.asarray(weighted), np.asarray(directions))
    codes = np.moveaxis(concepts.encode_clips("nmf", dictionary, grids - mean), -1, 0)
    losses = measures.lead_losses(network, STAGE, grids, share * codes, np.asarray(directions), np.asarray(logits))
    assert np.abs(importance).max() > 0.1
    np.testing.assert_allclose(losses / share, importance, rtol=0.05, atol=0.02)
    gradients = run.read_gradients(network, video, (STAGE,))[STAGE]
    computed = weigh_by_codes(jnp.asarray(np.moveaxis(codes, 0, -1)), jnp.asarray(gradients))
    np.testing.assert_allclose(computed, weighted, rtol=1e-3, atol=1e-4)


def test_a_concept_is_subtracted_at_its_stage(network, clips):
    video = quantise_and_normalise(network, clips.video)
    logits, values = tap.activations(network.model, video, STAGE)
    grids, random = np.asarray(values[STAGE]), np.random.default_rng(0)
    codes = random.random((2, *grids.shape[:-1]), np.float32)
    directions = random.standard_normal((2, grids.shape[-1])).astype(np.float32)
    losses = measures.lead_losses(network, STAGE, grids, codes, directions, np.asarray(logits))
    for j in range(2):
        change = codes[j][..., None] * directions[j]
        expected = tap.steered_logits(network.model, video, STAGE, change, -1.0)
        for h, where in enumerate(network.head_slices.values()):
            before, after = (np.asarray(part)[:, where] for part in (logits, expected))
            rows, predicted = np.arange(4), before.argmax(1)
            loss = (before[rows, predicted] - before.mean(1)) - (after[rows, predicted] - after.mean(1))
            np.testing.assert_allclose(losses[h, :, j], loss, rtol=1e-3, atol=1e-3)
    per_clip = np.broadcast_to(directions[:, None, None, None, None], (2, 4, 1, 1, 1, directions.shape[1]))
    same = measures.lead_losses(network, STAGE, grids, codes, per_clip, np.asarray(logits))
    np.testing.assert_allclose(same, losses, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (("patch_embed", "layers.0.blocks.0", "layers.0", "layers.1", "norm"), ("layers.0", "layers.1")),
        (("convs.0", "convs.1", "convs.2", "pool"), ("convs.1", "convs.2")),
        (("a.0",), ("a.0",)),
    ],
)
def test_stages_are_the_middle_and_the_last(stages, expected):
    assert run.middle_and_last(stages) == expected


def test_stages_without_numbers_are_refused():
    with pytest.raises(ValueError, match="pass stages"):
        run.middle_and_last(("stem", "pool"))


@pytest.fixture(scope="module")
def eval_set(network, clips):
    no_gates = Gates({}, 0, np.zeros(0), {}, {}, {}, np.zeros(0), {}, {}, np.zeros((0, 0), bool))
    return EvalSet(network, "small", ("W1",), clips, no_gates, seed=0)


@pytest.mark.parametrize("options", [{"seeds": (0,)}, {"n_fit": 10}, {"n_scored": 150}])
def test_too_few_clips_or_seeds_are_refused(eval_set, options):
    with pytest.raises(ValueError, match="expected at least 2 seeds"):
        run.discovery_benchmark_rows(eval_set, **options)


@pytest.mark.slow
def test_a_run_scores_methods_between_floor_and_ceiling(eval_set, tmp_path):
    methods = (("nmf", 24), ("random", 24))
    options = {"seeds": (0, 1), "stages": (STAGE,), "methods": methods, "n_fit": 100, "n_scored": 200}
    rows = run.discovery_benchmark_rows(eval_set, "cnn", **options)
    value = {(row.method, row.measure): row.value for row in rows if row.factor == "all"}
    assert all(row.low <= row.value <= row.high for row in rows)
    assert value["supervised", "RECOVERY"] == 1
    assert value["random", "RECOVERY"] < value["nmf", "RECOVERY"] < 1
    assert value["nmf", "USE"] > value["nmf", "USE_RANDOM"] + 0.2
    assert value["nmf", "STABILITY"] > value["random", "STABILITY"] + 0.3
    assert {row.factor for row in rows if row.measure == "WHEN"} == {"flash", "all"}
    write_rows(tmp_path / DISCOVERY_BENCHMARK_CSV, DiscoveryBenchmarkRow, rows)
    (section,) = discovery_sections.discovery_benchmark_sections(RunFolder(tmp_path, ()))
    assert "cnn at convs.1: of the methods compared, nmf with 24 concepts" in section.html
    assert len(discovery_table([vars(row) for row in rows]).splitlines()) == 2 + 3


def test_a_run_folder_without_the_table_has_no_section(tmp_path):
    assert discovery_sections.discovery_benchmark_sections(RunFolder(tmp_path, ())) == []
