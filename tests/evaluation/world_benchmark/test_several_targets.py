"""What is asked of the same clips for several questions: passes are shared, and nothing else is."""

import threading
import time
from functools import partial

import jax
import numpy as np
import pytest

from vtcav_jax import models, worlds
from vtcav_jax.attribution import explain, registry, static_and_dynamic, temporal_probe
from vtcav_jax.attribution.gradients import smoothgrad_pair
from vtcav_jax.attribution.integrated import static_and_dynamic_many
from vtcav_jax.attribution.perturbation import MULTI_TARGET_PERTURBATIONS
from vtcav_jax.attribution.targets import Margin
from vtcav_jax.cli.commands import evaluate_methods as task
from vtcav_jax.cli.commands.evaluate_methods import EvaluationResult, run_jobs
from vtcav_jax.console import progress
from vtcav_jax.evaluation.motion_benchmark import N_SHUFFLES, static_dynamic_share, temporal_probe_share
from vtcav_jax.evaluation.world_benchmark.entries import EXPENSIVE, Entry, build_entries, make_maps
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet, questions_by_world
from vtcav_jax.evaluation.world_benchmark.questions import EVAL_QUESTIONS
from vtcav_jax.worlds.gates import Gates


@pytest.mark.slow
def test_several_targets_share_passes_and_get_what_each_gets_alone():
    calls = []

    def counted(one):
        calls.append(1)
        return np.zeros_like(one)

    def network(video, tap=None):
        logits = (video**2).reshape(len(video), -1)[:, :48].reshape(len(video), 3, 16).sum(-1)
        return logits + jax.pure_callback(counted, jax.ShapeDtypeStruct((), logits.dtype), logits[0, 0])

    video = np.random.default_rng(0).normal(size=(2, 4, 4, 4, 1)).astype(np.float32)
    options = {"rise": {"masks": 30, "cells": (2, 2, 2)}, "occlusion": {"window": (2, 2, 2)}}
    for name, together in MULTI_TARGET_PERTURBATIONS.items():
        own = options.get(name, {"groups": 4} if name == "frame_shapley" else {"players": (2, 2, 2)})
        calls.clear()
        both = together(network, video, [0, 2], **own)
        passes = len(calls)
        for target, found in zip((0, 2), both):
            calls.clear()
            alone = explain(network, video, target, name, **own)
            assert len(calls) == passes > 5
            np.testing.assert_allclose(found.map, alone.map, atol=1e-5)
            assert found.forward_passes == alone.forward_passes


@pytest.mark.slow
def test_gradients_of_several_targets_share_forward_passes_and_get_what_each_gets_alone():
    loaded = models.load("worlds_cnn")
    video = np.random.default_rng(0).normal(size=(2, 8, 32, 32, 3)).astype(np.float32)
    targets = [Margin(np.array([0, 3]), (0, 4)), Margin(np.array([5, 6]), (4, 8)), Margin(np.array([8, 8]), (8, 12))]
    options = {"integrated_gradients": {"ig_steps": 3}, "expected_gradients": {"references": video[:1], "samples": 3}}
    for name, own in options.items():
        for target, found in zip(targets, registry.MULTI_TARGET_METHODS[name](loaded.model, video, targets, **own)):
            alone = explain(loaded.model, video, target, name, **own)
            np.testing.assert_allclose(found.map, alone.map, atol=1e-5 * np.abs(alone.map).max())
            np.testing.assert_allclose(found.completeness_gap, alone.completeness_gap, atol=1e-4)
            assert found.forward_passes == alone.forward_passes
    for target, both in zip(targets, smoothgrad_pair(loaded.model, video, targets, samples=3)):
        for name, found in zip(registry.SMOOTHGRAD_METHODS, both):
            alone = explain(loaded.model, video, target, name, samples=3)
            np.testing.assert_allclose(found.map, alone.map, atol=1e-5 * np.abs(alone.map).max())
    for target, legs in zip(targets, static_and_dynamic_many(loaded.model, video, targets, frames=2, ig_steps=2)):
        alone = static_and_dynamic(loaded.model, video, target, frames=2, ig_steps=2)
        for found, own in ((legs.static, alone.static), (legs.dynamic, alone.dynamic)):
            np.testing.assert_allclose(found.map, own.map, atol=1e-5 * np.abs(own.map).max())
        np.testing.assert_allclose(legs.score, alone.score, atol=1e-4)


def test_questions_of_a_world_share_what_is_irrelevant():
    """So that maps for the second clips of STABLE share their passes."""
    for world in {question.world for question in EVAL_QUESTIONS.values()}:
        some = [question for question in EVAL_QUESTIONS.values() if world == question.world]
        (factor,) = {question.irrelevant_factor for question in some}
        planted = worlds.WORLDS[world].questions
        assert all(factor not in planted[question.head].factors for question in some)


def test_rise_finds_the_voxel_that_counts_and_is_noise_elsewhere():
    def network(video, tap=None):
        here = video[:, 1, 2, 3].sum(-1)
        return jax.numpy.stack([here, 0 * here], 1)

    video = np.ones((1, 4, 8, 8, 3), np.float32)
    found = explain(network, video, 0, "rise", masks=600, cells=(4, 4, 4)).map[0]
    place = np.unravel_index(found.argmax(), found.shape)
    assert np.abs(np.array(place) - (1, 2, 3)).max() <= 1
    far = found[:, 5:, 6:]
    assert abs(far.mean()) < 0.05 * found.max() and found.max() > 0.5
    with pytest.raises(ValueError, match="at least 2 masks"):
        explain(network, video, 0, "rise", masks=1)
    with pytest.raises(ValueError, match="cannot be cut"):
        explain(network, video, 0, "rise", cells=(9, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cnn", "swin"])
def test_networks_of_one_architecture_share_what_is_compiled(kind):
    found = []
    for name in models.shipped_networks():
        if name.endswith(kind):
            loaded = models.load(name)
            world = next(iter(questions_by_world(loaded)))
            about = EvalSet(loaded, world, (), worlds.make_clips(world, 2, 0), object.__new__(Gates), 0)
            logits, own = (
                np.asarray(jax.jit(lambda m, v: m(v))(m.model, about.video)) for m in (about.padded_network, loaded)
            )
            np.testing.assert_allclose(logits[:, : len(loaded.labels)], own, atol=1e-5)
            assert not logits[:, len(loaded.labels) :].any() and about.padded_network.head_slices == loaded.head_slices
            found.append(
                (
                    jax.tree.structure(about.padded_network.model),
                    [a.shape for a in jax.tree.leaves(about.padded_network.model)],
                )
            )
    assert len(found) >= 3 and all(one == found[0] for one in found)


def test_networks_are_scored_side_by_side_and_in_order():
    both, told = threading.Barrier(2, timeout=20), []

    def job(number, tell):
        both.wait()  # one after the other they would wait in vain
        tell(3)
        told.append(number)
        return EvaluationResult([], [], str(number), [], [], [])

    found = run_jobs([partial(job, 0), partial(job, 1)], 6)
    assert [one.gates for one in found] == ["0", "1"] and sorted(told) == [0, 1]


def test_within_a_step_the_line_moves(monkeypatch):
    """As a metric takes minutes."""
    moved = []

    def watched(units, *of, **options):
        for count in units:
            moved.append(count)
            yield count

    def job(tell):
        list(progress(range(5), 5, "passes", size=lambda _: 1))
        tell(2)
        return EvaluationResult([], [], "", [], [], [])

    monkeypatch.setattr(task, "progress", watched)
    run_jobs([job], 2)
    assert moved == [0] * 5 + [2]


@pytest.mark.parametrize("inside", [False, True], ids=["between steps", "within one"])
def test_a_network_that_fails_ends_the_others_with_what_they_are_at(inside):
    failed, steps = threading.Event(), []

    def fails(tell):
        failed.set()
        raise ValueError("no such network")

    def goes_on(tell):
        failed.wait(20)
        for step in progress(range(10_000), 10_000, "passes", size=lambda _: 1) if inside else range(10_000):
            if not inside:
                tell(1)
            steps.append(step)
            time.sleep(0.01)

    with pytest.raises(ValueError, match="no such network"):
        run_jobs([fails, goes_on, goes_on], 20_000)
    assert len(steps) < 1000


@pytest.mark.slow
def test_shares_of_motion_of_several_questions_are_those_of_each():
    loaded = models.load("worlds_cnn")
    video = np.asarray(worlds.make_clips("small", 3, 0).video, np.float32)
    targets = [Margin(np.array([4, 5, 6]), (4, 8)), Margin(np.array([0, 3, 1]), (0, 4))]
    for target, found in zip(targets, temporal_probe_share(loaded, video, targets)):
        probe = temporal_probe(loaded.model, video, target, shuffles=N_SHUFFLES)
        np.testing.assert_allclose(found["frozen"].values, probe.drop_frozen, atol=1e-4)
        np.testing.assert_allclose(found["shuffled"].values, probe.drop_shuffled, atol=1e-4)
    for target, found in zip(targets, static_dynamic_share(loaded, video, targets)):
        legs = static_and_dynamic(loaded.model, video, target, frames=2, ig_steps=8)
        still, moving = (one.positive.sum((1, 2, 3)) for one in (legs.static, legs.dynamic))
        np.testing.assert_allclose(found["two_leg_integrated_gradients"].values, moving / (moving + still), atol=1e-4)


@pytest.mark.slow
def test_logits_that_stand_behind_change_no_map():
    loaded = models.load("worlds_dots_cnn")
    about = EvalSet(loaded, "dots", (), worlds.make_clips("dots", 2, 0), object.__new__(Gates), 0)
    for name in ("lrp_gamma", "integrated_gradients", "gradcam"):
        entry = Entry(name, None, {"ig_steps": 2} if name == "integrated_gradients" else {})
        one, other = (
            make_maps(m, [entry], about.video, [about.target("form")], {})[0][0].map
            for m in (loaded, about.padded_network)
        )
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(one).max())
    other_type = models.load("worlds_dots_cnn", dtype=jax.numpy.bfloat16)
    about = EvalSet(other_type, "dots", (), about.clips, object.__new__(Gates), 0)
    assert about.padded_network is other_type  # of another type: not made anew as float32


def test_large_budgets_are_for_those_who_name_the_method():
    loaded = models.load("worlds_cnn")
    assert not {entry.method for entry in build_entries(loaded)} & set(EXPENSIVE)
    assert {entry.method for entry in build_entries(loaded, ["rise", "shapley", "integrated_gradients"])} >= set(
        EXPENSIVE
    )
