"""Tests of complete experiments on a network with known causes: findings, errors, caching and continuation."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, replace

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.planted_experiment import (
    CLIPS,
    GEOMETRY,
    KILLED,
    NETWORK,
    QUICK,
    TARGETS,
    Planted,
    run_experiment,
    video,
    write,
)
from vtcav_jax.concepts import read_concepts
from vtcav_jax.data import SamplingConfig, open_source
from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tap import steered_logits
from vtcav_jax.tcav.experiment import comparisons, fill_cache
from vtcav_jax.tcav.experiment.comparisons import Comparison
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.plan import plan_experiment
from vtcav_jax.tcav.experiment.verdicts import is_finding as is_found
from vtcav_jax.tcav.features.cache import Cache, CachedFeatures, load_features
from vtcav_jax.tcav.score_clips import score_clips
from vtcav_jax.tcav.vector_file import load_vectors

COLUMNS = [
    "target",
    "stage",
    "concept",
    "clip_type",
    "negatives",
    "n_clips",
    "tcav_score",
    "tcav_score_low",
    "tcav_score_high",
    "derivative",
    "derivative_low",
    "derivative_high",
    "p",
    "p_adjusted",
    "verdict",
]


def test_only_known_causes_are_significant(finished):
    rows = {(r.target, r.stage, r.concept, r.clip_type, r.negatives): r for r in finished.rows}
    for stage in Planted.stages:
        for kind in ("static", "dynamic"):
            assert rows["red", stage, "red", kind, "random"].verdict == "supports"
            assert rows["red", stage, "blue", kind, "random"].verdict == "opposes"
            assert rows["red", stage, "red", kind, "random"].tcav_score == 1
            assert rows["red", stage, "blue", kind, "random"].tcav_score == 0
            # With two concepts, one relative comparison answers for both
            assert rows["red", stage, "blue", kind, "others"].verdict == "opposes"
            assert ("red", stage, "red", kind, "others") not in rows
        assert rows["moves", stage, "red", "dynamic", "frozen"].verdict == "motion_supports"
        # Freezing removes the changes of blue clips too, as it does for random ones: nothing about blue
        assert rows["moves", stage, "blue", "dynamic", "frozen"].verdict in ("not significant", "not encoded")
        assert rows["moves", stage, "red", "static", "random"].verdict == "no derivative"
        assert rows["red", stage, "red", "dynamic", "frozen"].verdict in ("not significant", "not encoded")
        assert all(r.verdict == "no gradient" for r in finished.rows if r.target == "deaf")
        assert rows["flat", stage, "blue", "static", "random"].verdict == "opposes"
    assert all(r.degenerate for r in finished.rows if r.target == "flat")
    assert all(r.derivative_low <= r.derivative <= r.derivative_high for r in finished.rows if r.target == "red")
    assert finished.family_size == len(finished.rows) == 64

    first = rows["red", "features", "red", "static", "random"]
    assert (first.n_random_sets, first.n_concept, first.n_negatives, first.n_clips) == (3, 8, 18, 6)
    assert first.single_set_min <= first.single_set_max and first.p_min_attainable == 1 / 500
    assert {row.clip_type for row in finished.calibration} == {"static", "dynamic"}


def test_the_run_folder_has_all_results_in_full_precision(finished):
    with (finished.folder / "scores.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[: len(COLUMNS)] == COLUMNS and len(table) == len(finished.rows)
    for line, row in zip(table, finished.rows):
        assert line["target"] == row.target and float(line["derivative"]) == row.derivative
    run_info = json.loads((finished.folder / "run.json").read_text())
    work = {"forwards": CLIPS + TARGETS, "backwards": TARGETS, "batch_size": 4}
    assert run_info["work"] | {"batch_size": 4} == work
    assert run_info["family"]["tests"] == finished.family_size and set(run_info["seconds"]) >= {
        "concept clips",
        "statistics",
    }
    assert run_info["family"]["permutations"] == 499 and len(repr(finished)) < 200 + len(str(finished.folder))
    with (finished.folder / "quality.csv").open(newline="") as file:
        quality = list(csv.DictReader(file))
    assert len(quality) == 2 * 8 and all(line["converged"] == "True" for line in quality)
    with (finished.folder / "derivatives.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))
    assert len(clips) == len(finished.rows) * 6
    first_derivatives = [float(c["derivative"]) for c in clips[:6]]
    assert np.mean(first_derivatives) == pytest.approx(
        next(r for r in finished.rows if r.target == clips[0]["target"]).derivative
    )


@pytest.mark.slow
def test_a_repeated_run_needs_no_forward_passes(clip_folder, finished):
    before = (finished.folder / "scores.csv").read_bytes()
    seconds = json.loads((finished.folder / "run.json").read_text())["seconds"]
    again = run_experiment(clip_folder, finished.folder, replace(QUICK, export_vectors=True))
    assert json.loads((finished.folder / "run.json").read_text())["seconds"] == seconds
    assert (again.passes.forwards, again.passes.backwards) == (0, 0)
    assert (finished.folder / "scores.csv").read_bytes() == before
    other = run_experiment(
        clip_folder, finished.folder.parent / "two", replace(QUICK, seed=1, stages=("pool",)), ("red",)
    )
    assert other.passes.forwards <= 6  # the cache is shared; another seed draws other targets
    with pytest.raises(ValueError, match="permutations was 499, is 999"):
        run_experiment(clip_folder, finished.folder, replace(QUICK, permutations=999, export_vectors=True))


@pytest.mark.slow
def test_only_a_changed_clip_is_encoded_again(clip_folder, finished, tmp_path):
    shutil.copytree(clip_folder / "concepts", tmp_path / "concepts")
    write(tmp_path / "concepts/red/static/3.mp4", video(np.random.default_rng(9), "red", False))
    results = run_experiment(
        clip_folder,
        tmp_path / "run",
        sets=read_concepts(tmp_path / "concepts"),
        cache_dir=finished.folder.parent / "cache",
    )
    assert (results.passes.forwards, results.passes.backwards) == (1, 0)


SCRIPT = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, os.getcwd())
from tests.support import planted_experiment as t
from vtcav_jax.tcav.experiment import run as experiment, stage_grams
from vtcav_jax.tcav.features.cache import Cache
from vtcav_jax.tcav.steering import steering_check
clip_folder, run, phase, left = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def killed(*args, **more):
    os.kill(os.getpid(), signal.SIGKILL)

def limited(self, key, value, put=Cache.put):
    global left
    left -= 1
    (killed if left < 0 else put)(self, key, value)

Cache.put = limited
places = {"products": (stage_grams, "compute_gram"), "statistics": (stage_grams, "evaluate_stage")}
places |= {"steering": (steering_check, "steer")}
places |= {"tables": (experiment, "write_rows")}
if phase in places:
    setattr(*places[phase], killed)
t.run_experiment(clip_folder, run, t.KILLED, ("red", "moves"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["activations", "gradients", "products", "statistics", "steering", "tables"])
def test_a_killed_run_continues_and_encodes_nothing_twice(clip_folder, tmp_path, phase):
    """Kill the run by SIGKILL, which cannot be caught."""
    whole = run_experiment(clip_folder, tmp_path / "whole/run", KILLED, ("red", "moves"))
    left = {"activations": 30, "gradients": CLIPS + 9}.get(phase, 10**9)
    command = [sys.executable, "-c", SCRIPT, *map(str, (clip_folder, tmp_path / "part/run", phase, left))]
    killed = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "part/run/scores.csv").exists()
    results = run_experiment(clip_folder, tmp_path / "part/run", KILLED, ("red", "moves"))
    steered = 0 if phase == "tables" else whole.passes.forwards - CLIPS - 12
    missing = {"activations": (CLIPS - 30 + 12, 12), "gradients": (12 - 4, 12 - 4)}.get(phase, (0, 0))
    assert (results.passes.forwards - steered, results.passes.backwards) == missing
    for name in ("scores.csv", "steering.csv", "quality.csv"):
        assert (results.folder / name).read_bytes() == (whole.folder / name).read_bytes()


@pytest.mark.slow
def test_underpowered_runs_fail_before_encoding(clip_folder, tmp_path, monkeypatch):
    def never(*args, **more):
        raise AssertionError("nothing may be encoded")

    monkeypatch.setattr(fill_cache, "stream", never)
    with pytest.raises(ValueError, match=r"smallest attainable p is 0.05.* at least 1279 permutations are needed"):
        run_experiment(clip_folder, tmp_path / "run", replace(QUICK, permutations=19, correction="bonferroni"))
    with pytest.raises(ValueError, match="random sets are needed"):
        run_experiment(clip_folder, tmp_path / "run", replace(QUICK, permute="sets", comparisons=("absolute",)))
    few = replace(QUICK, comparisons=("freezing",), permutations=None, correction="bonferroni")  # 8 pairs: 128 choices
    with pytest.raises(ValueError, match=r"distinct label assignments \(clips from more source videos"):
        run_experiment(clip_folder, tmp_path / "run", few)
    with pytest.raises(ValueError, match="did you mean features"):
        run_experiment(clip_folder, tmp_path / "run", replace(QUICK, stages=("feature", "pool")))
    with pytest.raises(ValueError, match=r"no target named 'rad'.*did you mean red"):
        run_experiment(clip_folder, tmp_path / "run", targets=("rad",))
    shutil.copytree(clip_folder / "concepts", tmp_path / "concepts")
    shutil.copy(clip_folder / "targets/red/0.mp4", tmp_path / "concepts/red/static/9.mp4")
    with pytest.raises(ValueError, match=r"red/static/9.mp4 is the target"):
        run_experiment(
            clip_folder,
            tmp_path / "run",
            replace(QUICK, max_target_clips=None),
            sets=read_concepts(tmp_path / "concepts"),
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_planning_does_not_encode(clip_folder, tmp_path, monkeypatch):
    (tmp_path / "concepts").symlink_to(clip_folder / "concepts")
    sets, source, store = (
        read_concepts(clip_folder / "concepts"),
        open_source(clip_folder / "targets"),
        Cache(tmp_path / "cache"),
    )
    plan = plan_experiment(NETWORK, ("red", "moves"), source, sets, replace(QUICK, permutations=None), store)
    assert plan.family_size == 2 * 2 * 8 and f"{CLIPS} concept clips and 12 targets" in plan.text
    assert "red, static: 8 from 8 source videos; needs 5" in plan.text  # of 18 random videos, for 32 tests
    assert "target clips of moves: 6 from 6 source videos; needs 5" in plan.text
    assert "backwards      12" in plan.text and not store.folder.exists()
    holm = plan_experiment(
        NETWORK, ("red",), source, sets, ExperimentConfig(stages=("*",), max_target_clips=None), store
    )
    assert holm.config.permutations == 999 and len(holm.clips.targets) == 7
    assert holm.config.num_permutations(100) == 999 and ExperimentConfig().num_permutations(100) == 3999
    few = plan_experiment(NETWORK, ("red",), source, sets, ExperimentConfig(permutations=19), store)
    assert "REFUSED" in few.text


@pytest.mark.slow
def test_unreadable_clips_are_reported_and_left_out(clip_folder, tmp_path):
    shutil.copytree(clip_folder / "concepts", tmp_path / "concepts")
    path = tmp_path / "concepts/red/static/3.mp4"
    path.write_bytes(path.read_bytes()[:200])
    results = run_experiment(
        clip_folder, tmp_path / "run", replace(QUICK, stages=("pool",)), ("red",), read_concepts(tmp_path / "concepts")
    )
    run_info = json.loads((results.folder / "run.json").read_text())
    assert list(run_info["unreadable"]) == ["red/static/3.mp4"]
    assert {r.n_concept for r in results.rows if (r.concept, r.clip_type) == ("red", "static")} == {7}


def test_activations_that_do_not_fit_are_read_in_blocks(tmp_path):
    rng, store = np.random.default_rng(0), Cache(tmp_path)
    rows = rng.normal(size=(6, 10, 100)).astype(np.float32)
    for i, row in enumerate(rows):
        store.put(f"{i:064d}", row)
    keys = [f"{i:064d}" for i in range(6)]
    whole = load_features(store, keys, (10, 100), np.float32, 10**6, 6)
    parts = load_features(store, keys, (10, 100), np.float32, 10**4, 6)
    assert isinstance(parts, CachedFeatures) and not isinstance(whole, CachedFeatures) and len(parts.columns) == 4
    np.testing.assert_array_equal(np.concatenate(list(parts.blocks()), 1), rows.reshape(6, -1))
    np.testing.assert_array_equal(np.concatenate(list(whole.blocks()), 1), rows.reshape(6, -1))


def test_comparisons_have_independent_seeds():
    comparison = Comparison("absolute", "red", "static", "random", (0, 1), (2, 3))
    assert comparison.seed != replace(comparison, clip_type="dynamic").seed
    assert comparison.seed == replace(comparison, positive_clips=(5, 6)).seed
    assert [field.name for field in fields(ScoreRow)][: len(COLUMNS)] == COLUMNS
    with pytest.raises(
        ValueError, match=r"l2: expected more than 0, got 0; correction: expected one of .*, got 'none'"
    ):
        ExperimentConfig(correction="none", l2=0.0)


@pytest.mark.slow
def test_new_clips_are_scored_by_exported_vectors(clip_folder, finished):
    vectors, source = load_vectors(finished.folder), open_source(clip_folder / "targets")
    assert set(vectors.norm) == set(vectors.arrays) and vectors.pool == "space"
    rows, moments, failed = score_clips(NETWORK, vectors, source, ("red", "moves"))
    assert not failed and len(rows) == 28 * 2 * 16
    known = {(c.target, c.stage, f"{c.concept}/{c.clip_type}/{c.negatives}", c.clip): c for c in finished.derivatives}
    both = [
        (row, known[key]) for row in rows if (key := (row.target, row.stage, row.concept_vector, row.clip)) in known
    ]
    assert len(both) == 2 * 6 * 16
    for row, clip in both:
        assert row.derivative == pytest.approx(clip.derivative, abs=1e-4 * clip.gradient_norm + 1e-9)
        assert row.class_score == pytest.approx(clip.class_score, abs=1e-6)
    first = rows[0]
    parts = [
        m for m in moments if (m.clip, m.stage, m.concept_vector) == (first.clip, first.stage, first.concept_vector)
    ]
    assert sum(m.projection for m in parts) == pytest.approx(first.projection) and len(parts) == 3
    reds, blues = (open_source(clip_folder / "concepts" / name / "static") for name in ("red", "blue"))
    for name, source in (("red", reds), ("blue", blues)):
        inside = [r for r in score_clips(NETWORK, vectors, source, ("red",))[0] if "/static/" in r.concept_vector]
        assert all(r.classifier_logit > 0 for r in inside if r.concept_vector.startswith(name))
        assert all(
            r.classifier_logit < 0
            for r in inside
            if r.concept_vector.endswith("others") and not r.concept_vector.startswith(name)
        )
    other = Planted()
    other.scale[...] = 2 * jnp.ones(())
    with pytest.raises(ValueError, match="belong to another network"):
        score_clips(replace(NETWORK, model=other), vectors, reds, ("red",))


SMALL = replace(QUICK, stages=("pool",), comparisons=("absolute",), permutations=99, calibration_trials=0)


@pytest.mark.slow
def test_finite_steps_match_forward_passes(clip_folder, tmp_path):
    """Compare a finite step with forward passes; permuted labels take the same step."""
    results = run_experiment(
        clip_folder, tmp_path / "run", replace(SMALL, sensitivity="finite", export_vectors=True), ("red", "moves")
    )
    rows = {(r.target, r.concept, r.clip_type): r for r in results.rows}
    assert {r.sensitivity for r in results.rows} == {"finite"}
    assert rows["red", "red", "static"].verdict == "supports" and rows["red", "blue", "static"].verdict == "opposes"
    assert rows["moves", "red", "static"].verdict == "no derivative"
    assert results.passes.forwards > CLIPS + 12 + 100 * 12
    row, vectors = rows["red", "red", "static"], load_vectors(results.folder)
    length, v = row.step_effect_in_sample / row.derivative, vectors.arrays["pool|red/static/random"]
    source = open_source(clip_folder / "targets")
    clips = {
        clip.clip: clip
        for clip in results.derivatives
        if (clip.target, clip.concept, clip.clip_type) == ("red", "red", "static")
    }
    assert len(clips) == 6
    for i, item in enumerate(source.items):
        if item.name in clips:
            video = source.read(i, GEOMETRY, SamplingConfig()).video[:1]
            up, down = (steered_logits(NETWORK.model, video, "pool", v, sign * length)[0, 0] for sign in (1, -1))
            assert clips[item.name].derivative == pytest.approx(float(up - down) / (2 * length), rel=1e-3)
    shared = {"cache_dir": tmp_path / "cache"}
    gradient = run_experiment(clip_folder, tmp_path / "gradient", SMALL, ("red",), **shared)
    assert gradient.passes.forwards == 0  # finite steps have stored the same gradients in the cache
    again = next(r for r in gradient.rows if (r.concept, r.clip_type) == ("red", "static"))
    assert again.derivative > 1.02 * row.derivative > 0  # tanh is nonlinear
    same = run_experiment(
        clip_folder,
        tmp_path / "same",
        replace(SMALL, sensitivity="finite"),
        ("red", "moves"),
        cache_dir=tmp_path / "cache",
    )
    assert same.passes.forwards == 0 and same.rows == results.rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"sensitivity": "integrated"}, False),
        ({"score_fn": "log_prob"}, False),
        ({"score_fn": "margin"}, True),  # the highest other logit is that of deaf, which is constant
        ({"pool": "none", "stages": ("features",)}, False),
        ({"pool": "time", "stages": ("features",)}, False),
        ({"pool": "all", "stages": ("features",)}, True),  # the next stage does the same
    ],
)
def test_settings_apply_to_a_complete_run(clip_folder, finished, tmp_path, change, same):
    results = run_experiment(clip_folder, tmp_path / "run", replace(SMALL, **change), ("red",))
    request = json.loads((results.folder / "run.json").read_text())["request"]
    assert {name: tuple(request[name]) if name == "stages" else request[name] for name in change} == change
    rows = {(r.concept, r.clip_type): r for r in results.rows}
    assert rows["red", "static"].verdict == "supports" and rows["blue", "static"].verdict == "opposes"
    usual = next(
        r for r in finished.rows if (r.target, r.stage, r.concept, r.clip_type) == ("red", "pool", "red", "static")
    )
    assert (rows["red", "static"].derivative == pytest.approx(usual.derivative, rel=1e-4)) == same
    assert {r.score_fn for r in results.rows} == {change.get("score_fn", "logit")}


@pytest.mark.slow
def test_findings_are_steered_and_the_scores_follow(clip_folder, tmp_path):
    results = run_experiment(
        clip_folder, tmp_path / "run", replace(SMALL, steering_clips=20, steering_controls=19), ("red", "moves")
    )
    verdicts = {(r.target, r.concept, r.clip_type): r for r in results.rows}
    assert {(s.target, s.concept, s.clip_type) for s in results.steering} == {
        k for k, r in verdicts.items() if is_found(r)
    }
    assert {s.step_units for s in results.steering} == {-1.0, 1.0} and len(results.steering) >= 8
    for moved in results.steering:
        row = verdicts[moved.target, moved.concept, moved.clip_type]
        assert (
            moved.predicted_change == pytest.approx(moved.step_units * row.step_effect_in_sample, rel=1e-5)
            and moved.score_change * moved.predicted_change > 0
        )
        assert 0.05 <= moved.p_random_directions <= 1 and moved.random_low <= moved.random_high
    with (results.folder / "steering.csv").open(newline="") as file:
        assert [float(line["score_change"]) for line in csv.DictReader(file)] == [
            s.score_change for s in results.steering
        ]


@pytest.mark.slow
def test_pair_and_group_comparisons(clip_folder, tmp_path):
    results = run_experiment(
        clip_folder,
        tmp_path / "run",
        replace(SMALL, comparisons=("pairs", "group", "relative"), permutations=499),
        ("red",),
    )
    rows = {(r.comparison, r.concept, r.clip_type, r.negatives): r for r in results.rows}
    assert set(rows) == {
        *(("group", name, kind, "group") for name in ("red", "blue") for kind in ("static", "dynamic")),
        *(("relative", "blue", kind, "others") for kind in ("static", "dynamic")),  # and red only mirrors it
        *(("pairs", "blue", kind, "red") for kind in ("static", "dynamic")),
    }
    assert rows["group", "red", "static", "group"].verdict == "supports"
    assert (
        rows["pairs", "blue", "static", "red"].verdict == rows["group", "blue", "static", "group"].verdict == "opposes"
    )
    group_row = rows["group", "red", "static", "group"]
    assert (group_row.n_concept, group_row.n_negatives) == (8, 8 + 18)
    sets = read_concepts(clip_folder / "concepts")
    question = comparisons.build_comparisons(sets.clips, replace(SMALL, comparisons=("group",))).entries[0]
    signed, names = question.label_vector(len(sets.clips)), np.array([clip.concept for clip in sets.clips])
    assert question.concept == "blue" and signed[signed > 0].sum() == 8
    assert signed[names == "red"].sum() == pytest.approx(-4) == signed[np.char.startswith(names, "random")].sum()


@pytest.mark.slow
def test_damaged_cache_entries_are_computed_again_and_counted(clip_folder, finished, tmp_path):
    shutil.copytree(finished.folder.parent / "cache", tmp_path / "cache")
    flip = lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]  # noqa: E731
    damages = (lambda data: b"", lambda data: b"foreign", lambda data: data[: len(data) // 2], flip)
    for suffix in (".npy", ".npz", ".json"):  # the cache also has entries of other runs
        for i, path in enumerate(sorted((tmp_path / "cache").rglob(f"*{suffix}"))):
            path.write_bytes(damages[i % 4](path.read_bytes()))
    config = replace(QUICK, export_vectors=True)
    results = run_experiment(clip_folder, tmp_path / "run", config, cache_dir=tmp_path / "cache")
    (note,) = [note for note in results.notes if "damaged" in note]
    assert re.match(r"\d+ damaged entries of the cache were computed again, such as", note)
    assert results.passes.forwards > 0
    assert (tmp_path / "run/scores.csv").read_bytes() == (finished.folder / "scores.csv").read_bytes()


@pytest.mark.slow
def test_clips_with_overflowing_activations_are_left_out_with_their_stage(clip_folder, tmp_path, monkeypatch):
    original = fill_cache.stream_activations

    def overflowing(model, clips, stages, *rest):
        for start, activations in original(model, clips, stages, *rest):
            if start == 0:
                activations["pool"] = activations["pool"].copy()
                activations["pool"][1] = np.inf
            yield start, activations

    monkeypatch.setattr(fill_cache, "stream_activations", overflowing)
    results = run_experiment(clip_folder, tmp_path / "run", replace(QUICK, stages=("pool",)), ("red",))
    (failure,) = results.failures
    assert failure.failure == f"{failure.item.name} is left out: the activations at pool have NaN or infinite values"
