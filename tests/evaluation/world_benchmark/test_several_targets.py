"""Several questions about the same clips share passes without affecting each other's results."""

import threading
import time
from functools import partial

import jax
import numpy as np
import pytest

from tests.support.typed import present
from vtcav_jax import models, worlds
from vtcav_jax.attribution import attribute, registry, static_and_dynamic, temporal_probe
from vtcav_jax.attribution.gradients import smoothgrad_pair
from vtcav_jax.attribution.shared_passes import Targets
from vtcav_jax.attribution.targets import Margin
from vtcav_jax.cli.commands import evaluate_methods as task
from vtcav_jax.cli.commands.evaluate_methods import EvaluationResult, run_jobs
from vtcav_jax.console import progress
from vtcav_jax.evaluation.motion_benchmark import N_SHUFFLES, static_dynamic_share, temporal_probe_share
from vtcav_jax.evaluation.world_benchmark.entries import EXPENSIVE, METHOD_BUDGETS, Entry, build_entries, make_maps
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet, questions_by_world
from vtcav_jax.evaluation.world_benchmark.questions import EVAL_QUESTIONS
from vtcav_jax.worlds.gates import Gates


@pytest.mark.slow
def test_several_targets_share_passes_and_match_single_targets():
    calls = []

    def counted(logits):
        calls.append(len(logits))
        return np.zeros_like(logits)

    def network(video, tap=None):
        logits = (video**2).reshape(len(video), -1)[:, :48].reshape(len(video), 3, 16).sum(-1)
        return logits + jax.pure_callback(counted, jax.ShapeDtypeStruct(logits.shape, logits.dtype), logits)

    video = np.random.default_rng(0).normal(size=(2, 4, 4, 4, 1)).astype(np.float32)
    options = {
        "rise": {"masks": 30, "cells": (2, 2, 2)},
        "occlusion": {"window": (2, 2, 2)},
        "sos": {"window": (2, 2, 2)},
        "frame_shapley": {"groups": 4},
        "lime": {"cells": (2, 2, 2), "masks": 30},
        "kernel_shap": {"cells": (2, 2, 2), "masks": 30},
    }
    for name, explain_together in registry.PERTURBATION_METHODS.items():
        settings = options.get(name, {"cells": (2, 2, 2)})
        calls.clear()
        results = explain_together(network, video, Targets([0, 2]), **settings)
        passes = list(calls)
        for target, shared in zip((0, 2), results):
            calls.clear()
            alone = attribute(network, video, target, name, **settings)
            assert calls == passes and shared.forward_passes == alone.forward_passes == sum(passes) // len(video) > 5
            np.testing.assert_allclose(shared.map, alone.map, atol=1e-5)


@pytest.mark.slow
def test_gradients_of_several_targets_share_passes_and_match_single_targets():
    network = models.load("worlds_cnn")
    video = np.random.default_rng(0).normal(size=(2, 8, 32, 32, 3)).astype(np.float32)
    targets = [Margin(np.array([0, 3]), (0, 4)), Margin(np.array([5, 6]), (4, 8)), Margin(np.array([8, 8]), (8, 12))]
    options = {"integrated_gradients": {"ig_steps": 3}, "expected_gradients": {"references": video[:1], "samples": 3}}
    for name, settings in options.items():
        for target, shared in zip(
            targets, registry.MULTI_TARGET_METHODS[name](network.model, video, Targets(targets), **settings)
        ):
            alone = attribute(network.model, video, target, name, **settings)
            np.testing.assert_allclose(shared.map, alone.map, atol=1e-5 * np.abs(alone.map).max())
            np.testing.assert_allclose(present(shared.completeness_gap), present(alone.completeness_gap), atol=1e-4)
            assert shared.forward_passes == alone.forward_passes
    for target, smoothgrad_maps in zip(targets, smoothgrad_pair(network.model, video, Targets(targets), samples=3)):
        for name, shared in zip(registry.SMOOTHGRAD_METHODS, smoothgrad_maps):
            alone = attribute(network.model, video, target, name, samples=3)
            np.testing.assert_allclose(shared.map, alone.map, atol=1e-5 * np.abs(alone.map).max())
    for target, legs in zip(targets, static_and_dynamic(network.model, video, Targets(targets), frames=2, ig_steps=2)):
        alone = static_and_dynamic(network.model, video, target, frames=2, ig_steps=2)
        for shared, settings in ((legs.static, alone.static), (legs.dynamic, alone.dynamic)):
            np.testing.assert_allclose(shared.map, settings.map, atol=1e-5 * np.abs(settings.map).max())
        np.testing.assert_allclose(legs.score, alone.score, atol=1e-4)


def test_questions_of_a_world_share_the_irrelevant_factor():
    """This lets maps of the redrawn clips for STABLE share passes."""
    for world in {question.world for question in EVAL_QUESTIONS.values()}:
        questions = [question for question in EVAL_QUESTIONS.values() if world == question.world]
        (factor,) = {question.irrelevant_factor for question in questions}
        planted = worlds.WORLDS[world].questions
        assert all(factor not in planted[question.head].factors for question in questions)


def test_rise_finds_the_relevant_voxel_and_is_noise_elsewhere():
    def network(video, tap=None):
        here = video[:, 1, 2, 3].sum(-1)
        return jax.numpy.stack([here, 0 * here], 1)

    video = np.ones((1, 4, 8, 8, 3), np.float32)
    importance = attribute(network, video, 0, "rise", masks=600, cells=(4, 4, 4)).map[0]
    place = np.unravel_index(importance.argmax(), importance.shape)
    assert np.abs(np.array(place) - (1, 2, 3)).max() <= 1
    far = importance[:, 5:, 6:]
    assert abs(far.mean()) < 0.05 * importance.max() and importance.max() > 0.5
    with pytest.raises(ValueError, match="masks of at least 2"):
        attribute(network, video, 0, "rise", masks=1)
    with pytest.raises(ValueError, match="cannot be cut"):
        attribute(network, video, 0, "rise", cells=(9, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cnn", "swin"])
def test_networks_of_one_architecture_share_compiled_code(kind):
    structures = []
    for name in models.shipped_networks():
        if name.endswith(kind):
            network = models.load(name)
            world = next(iter(questions_by_world(network)))
            about = EvalSet(network, world, (), worlds.make_clips(world, 2, 0), object.__new__(Gates), 0)
            logits, expected = (
                np.asarray(jax.jit(lambda m, v: m(v))(m.model, about.video)) for m in (about.padded_network, network)
            )
            np.testing.assert_allclose(logits[:, : len(network.labels)], expected, atol=1e-5)
            assert (
                not logits[:, len(network.labels) :].any() and about.padded_network.head_slices == network.head_slices
            )
            structures.append(
                (
                    jax.tree.structure(about.padded_network.model),
                    [a.shape for a in jax.tree.leaves(about.padded_network.model)],
                )
            )
    assert len(structures) >= 3 and all(structure == structures[0] for structure in structures)


def test_networks_are_scored_in_parallel_and_reported_in_order():
    barrier, finished = threading.Barrier(2, timeout=20), []

    def job(number, tell):
        barrier.wait()  # deadlocks if jobs run one after the other
        tell(3)
        finished.append(number)
        return EvaluationResult([], [], str(number), [], [], [], [])

    results = run_jobs([partial(job, 0), partial(job, 1)], 6)
    assert [result.gates for result in results] == ["0", "1"] and sorted(finished) == [0, 1]


def test_progress_is_reported_within_a_step(monkeypatch):
    """A single metric can take minutes."""
    counts = []

    def watched(units, *of, **options):
        for count in units:
            counts.append(count)
            yield count

    def job(tell):
        list(progress(range(5), 5, "passes", size=lambda _: 1))
        tell(2)
        return EvaluationResult([], [], "", [], [], [], [])

    monkeypatch.setattr(task, "progress", watched)
    run_jobs([job], 2)
    assert counts == [0] * 5 + [2]


@pytest.mark.parametrize("inside", [False, True], ids=["between steps", "within one"])
def test_a_failure_stops_the_other_networks(inside):
    failed, steps = threading.Event(), []

    def fails(tell):
        failed.set()
        raise ValueError("no such network")

    def goes_on(tell) -> EvaluationResult:
        failed.wait(20)
        for step in progress(range(10_000), 10_000, "passes", size=lambda _: 1) if inside else range(10_000):
            if not inside:
                tell(1)
            steps.append(step)
            time.sleep(0.01)
        return EvaluationResult([], [], "", [], [], [], [])

    with pytest.raises(ValueError, match="no such network"):
        run_jobs([fails, goes_on, goes_on], 20_000)
    assert len(steps) < 1000


@pytest.mark.slow
def test_shares_of_motion_of_several_questions_match_single_questions():
    network = models.load("worlds_cnn")
    video = np.asarray(worlds.make_clips("small", 3, 0).video, np.float32)
    targets = [Margin(np.array([4, 5, 6]), (4, 8)), Margin(np.array([0, 3, 1]), (0, 4))]
    for target, shares in zip(targets, temporal_probe_share(network, video, targets)):
        probe = temporal_probe(network.model, video, target, shuffles=N_SHUFFLES)
        np.testing.assert_allclose(shares["frozen"].values, probe.drop_frozen, atol=1e-4)
        np.testing.assert_allclose(shares["shuffled"].values, probe.drop_shuffled, atol=1e-4)
    for target, shares in zip(targets, static_dynamic_share(network, video, targets)):
        legs = static_and_dynamic(network.model, video, target, frames=2, ig_steps=8)
        static, dynamic = (leg.positive.sum((1, 2, 3)) for leg in (legs.static, legs.dynamic))
        np.testing.assert_allclose(
            shares["two_leg_integrated_gradients"].values, dynamic / (dynamic + static), atol=1e-4
        )


@pytest.mark.slow
def test_padded_logits_change_no_map():
    network = models.load("worlds_dots_cnn")
    about = EvalSet(network, "dots", (), worlds.make_clips("dots", 2, 0), object.__new__(Gates), 0)
    for name in ("lrp_gamma", "integrated_gradients", "gradcam"):
        entry = Entry(name, None, {"ig_steps": 2} if name == "integrated_gradients" else {})
        unpadded, padded = (
            make_maps(m, [entry], about.video, [about.target("form")], {})[0][0].map
            for m in (network, about.padded_network)
        )
        np.testing.assert_allclose(unpadded, padded, atol=1e-5 * np.abs(unpadded).max())
    other_type = models.load("worlds_dots_cnn", dtype=jax.numpy.bfloat16)
    about = EvalSet(other_type, "dots", (), about.clips, object.__new__(Gates), 0)
    assert about.padded_network is other_type  # another type than the preset: not padded


def test_large_budgets_need_the_method_by_name():
    network = models.load("worlds_cnn")
    assert not {entry.method for entry in build_entries(network)} & set(EXPENSIVE)
    methods = {name for name, budgets in METHOD_BUDGETS.items() if set(budgets) & set(EXPENSIVE)}
    assert {entry.method for entry in build_entries(network, list(methods))} >= set(EXPENSIVE)
