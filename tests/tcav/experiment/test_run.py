"""A whole experiment on a network whose answers are known: what it finds, what it refuses, how it is continued."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, replace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts import read_sets
from vtcav_jax.data import SamplingConfig, open_source
from vtcav_jax.data.encode import encode_lossless_mp4
from vtcav_jax.models import Network
from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tap import identity_tap, steered_logits
from vtcav_jax.tcav.experiment import comparisons, fill_cache
from vtcav_jax.tcav.experiment import run as experiment_run
from vtcav_jax.tcav.experiment.comparisons import Comparison
from vtcav_jax.tcav.experiment.config import ExperimentConfig, resolve_stages
from vtcav_jax.tcav.experiment.plan import plan_experiment
from vtcav_jax.tcav.experiment.verdicts import is_finding as is_found
from vtcav_jax.tcav.features.cache import Cache, CachedFeatures, load_features
from vtcav_jax.tcav.score_clips import score_clips
from vtcav_jax.tcav.vector_file import load_vectors

GEOMETRY = ClipSpec(frames=4, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
COLUMNS = (
    "target,stage,concept,kind,against,n_targets,score,score_low,score_high,derivative,derivative_low,derivative_high,"
    "p,p_adjusted,verdict"
).split(",")
QUICK = ExperimentConfig(
    permutations=499,
    estimator="mean_difference",
    bootstrap_draws=50,
    calibration_trials=6,
    max_target_clips=6,
    correction="bh",
    batch_size=4,
    export_vectors=False,
)


class Planted(nnx.Module):
    """`red` is raised by red and lowered by blue, `moves` by what changes, `flat` is linear, `deaf` hears nothing."""

    stages = ("features", "pool")

    def __init__(self):
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, video, tap=identity_tap):
        change = jnp.sqrt(jnp.square(video[:, 1:] - video[:, :-1]) + 1e-3)
        x = tap("features", self.scale[...] * jnp.concatenate([video[:, 1:], change], -1))
        x = tap("pool", x.mean((1, 2, 3)))
        red, moves = jnp.tanh(x[:, 0]) - jnp.tanh(2 * x[:, 2]), jnp.tanh(x[:, 3] * x[:, 4] + x[:, 5])
        return jnp.stack([red, moves, x[:, 1] - x[:, 2], 0 * red], -1)


CLASSES = ("red", "moves", "flat", "deaf")
MODEL = Network(Planted(), "small_cnn", {"label": CLASSES})
COLOURS = {"red": (90, 0, 0), "blue": (0, 0, 90), "random": (0, 0, 0)}


def video(rng, name, flicker):
    """A shade of its own over noise, that changes from frame to frame or does not."""
    picture = rng.integers(80, 120, (1, 16, 16, 3)) + rng.integers(-15, 16, 3) + np.array(COLOURS[name])
    frames = picture + (rng.integers(-40, 41, (4, 16, 16, 3)) if flicker else np.zeros((4, 1, 1, 1), int))
    return np.clip(frames, 0, 255).astype(np.uint8)


def write(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_lossless_mp4(frames))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("planted")
    for name in ("red", "blue"):
        for i in range(8):
            dynamic = video(rng, name, True)
            write(folder / f"concepts/{name}/static/{i}.mp4", video(rng, name, False))
            write(folder / f"concepts/{name}/dynamic/{i}.mp4", dynamic)
            write(folder / f"concepts/{name}/frozen/{i}.mp4", dynamic[2:3].repeat(4, 0))
    for s in range(3):
        for i in range(6):
            for kind in ("static", "dynamic"):
                write(folder / f"concepts/random_{s}/{kind}/{i}.mp4", video(rng, "random", kind == "dynamic"))
    for name in CLASSES:
        for i in range(7):
            write(folder / f"targets/{name}/{i}.mp4", video(rng, "random", True))
    return folder


def ask(made, folder, settings=QUICK, targets=CLASSES, sets=None, **more):
    sets = sets or read_sets(made / "concepts")
    source = open_source(made / "targets")
    return experiment_run.run(MODEL, targets, source, sets, settings, folder, clip_spec=GEOMETRY, **more)


@pytest.fixture(scope="module")
def done(made, tmp_path_factory):
    return ask(made, tmp_path_factory.mktemp("runs") / "one", replace(QUICK, export=True))


CLIPS, TARGETS = 2 * 3 * 8 + 3 * 2 * 6, 4 * 6


def test_what_was_planted_is_found_and_nothing_else(done):
    rows = {(r.target, r.stage, r.concept, r.kind, r.against): r for r in done.rows}
    for stage in Planted.stages:
        for kind in ("static", "dynamic"):
            assert rows["red", stage, "red", kind, "random"].verdict == "supports"
            assert rows["red", stage, "blue", kind, "random"].verdict == "opposes"
            assert rows["red", stage, "red", kind, "random"].score == 1
            assert rows["red", stage, "blue", kind, "random"].score == 0
            left, right = (rows["red", stage, name, kind, "others"].derivative for name in ("red", "blue"))
            assert left == pytest.approx(-right, rel=1e-5)
        assert rows["moves", stage, "red", "dynamic", "frozen"].verdict == "motion: +"
        assert rows["moves", stage, "red", "static", "random"].verdict == "no derivative"
        assert rows["red", stage, "red", "dynamic", "frozen"].verdict in ("not significant", "not encoded")
        assert all(r.verdict == "no gradient" for r in done.rows if r.target == "deaf")
    assert all(r.verdict == "degenerate stage" for r in done.rows if r.target == "flat")
    assert all(r.derivative_low <= r.derivative <= r.derivative_high for r in done.rows if r.target == "red")
    assert done.family == len(done.rows) == 80

    first = rows["red", "features", "red", "static", "random"]
    assert (first.sets, first.n_concept, first.n_against, first.n_targets) == (3, 8, 18, 6)
    assert first.sets_low <= first.sets_high and first.p_smallest == 1 / 500
    assert {check.kind for check in done.self_check} == {"static", "dynamic"}


def test_the_run_folder_has_everything_in_full_precision(done):
    with (done.folder / "scores.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[: len(COLUMNS)] == COLUMNS and len(table) == len(done.rows)
    for line, row in zip(table, done.rows):
        assert line["target"] == row.target and float(line["derivative"]) == row.derivative
    about = json.loads((done.folder / "run.json").read_text())
    assert about["work"] | {"micro_batch": 4} == {"forwards": CLIPS + TARGETS, "backwards": TARGETS, "micro_batch": 4}
    assert about["family"]["tests"] == done.family and set(about["seconds"]) >= {"concept clips", "statistics"}
    with (done.folder / "quality.csv").open(newline="") as file:
        quality = list(csv.DictReader(file))
    assert len(quality) == 2 * 10 and all(line["converged"] == "True" for line in quality)
    with (done.folder / "derivatives.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))
    assert len(clips) == len(done.rows) * 6
    some = [float(c["derivative"]) for c in clips[:6]]
    assert np.mean(some) == pytest.approx(next(r for r in done.rows if r.target == clips[0]["target"]).derivative)


@pytest.mark.slow
def test_the_same_again_asks_the_network_nothing(made, done):
    before = (done.folder / "scores.csv").read_bytes()
    again = ask(made, done.folder, replace(QUICK, export=True))
    assert (again.passes.forwards, again.passes.backwards) == (0, 0)
    assert (done.folder / "scores.csv").read_bytes() == before
    other = ask(made, done.folder.parent / "two", replace(QUICK, seed=1, stages=("pool",)), ("red",))
    assert other.passes.forwards <= 6  # the cache is for all runs beside it; with another seed other targets are drawn
    with pytest.raises(ValueError, match="permutations was 499, is 999"):
        ask(made, done.folder, replace(QUICK, permutations=999, export=True))


@pytest.mark.slow
def test_one_changed_clip_is_encoded_anew_and_no_other(made, done, tmp_path):
    shutil.copytree(made / "concepts", tmp_path / "concepts")
    write(tmp_path / "concepts/red/static/3.mp4", video(np.random.default_rng(9), "red", False))
    found = ask(made, tmp_path / "run", sets=read_sets(tmp_path / "concepts"), cache=done.folder.parent / "cache")
    assert (found.passes.forwards, found.passes.backwards) == (1, 0)


SCRIPT = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, "tests")
import test_experiment as t
from vtcav_jax.tcav import experiment, products, steered
from vtcav_jax.tcav.cache import Cache
made, run, phase, left = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def killed(*args, **more):
    os.kill(os.getpid(), signal.SIGKILL)

def limited(self, key, value, put=Cache.put):
    global left
    left -= 1
    (killed if left < 0 else put)(self, key, value)

Cache.put = limited
places = {"products": (products, "gram"), "statistics": (products, "measure"), "steering": (steered, "steer")}
places |= {"tables": (experiment, "write_rows")}
if phase in places:
    setattr(*places[phase], killed)
t.ask(made, run, t.KILLED, ("red", "moves"))
"""
KILLED = replace(QUICK, stages=("pool",), steering=2)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["activations", "gradients", "products", "statistics", "steering", "tables"])
def test_a_killed_run_continues_and_encodes_nothing_twice(made, tmp_path, phase):
    """By SIGKILL, which nothing can catch."""
    whole = ask(made, tmp_path / "whole/run", KILLED, ("red", "moves"))
    left = {"activations": 30, "gradients": CLIPS + 9}.get(phase, 10**9)
    command = [sys.executable, "-c", SCRIPT, *map(str, (made, tmp_path / "part/run", phase, left))]
    killed = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "part/run/scores.csv").exists()
    found = ask(made, tmp_path / "part/run", KILLED, ("red", "moves"))
    steered = 0 if phase == "tables" else whole.passes.forwards - CLIPS - 12
    missing = {"activations": (CLIPS - 30 + 12, 12), "gradients": (12 - 4, 12 - 4)}.get(phase, (0, 0))
    assert (found.passes.forwards - steered, found.passes.backwards) == missing
    for name in ("scores.csv", "steering.csv", "quality.csv"):
        assert (found.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_what_can_find_nothing_is_refused_before_anything_is_encoded(made, tmp_path, monkeypatch):
    def never(*args, **more):
        raise AssertionError("nothing may be encoded")

    monkeypatch.setattr(fill_cache, "stream", never)
    with pytest.raises(ValueError, match="the smallest p possible is 0.05.* 1599 permutations would do"):
        ask(made, tmp_path / "run", replace(QUICK, permutations=19, correction="bonferroni"))
    with pytest.raises(ValueError, match="random sets would do"):
        ask(made, tmp_path / "run", replace(QUICK, null="sets", tests=("absolute",)))
    few = replace(QUICK, tests=("motion",), permutations=None, correction="bonferroni")  # 8 pairs: 128 choices
    with pytest.raises(ValueError, match="different ways of exchanging labels, which takes more clips of a concept"):
        ask(made, tmp_path / "run", few)
    with pytest.raises(ValueError, match="did you mean features"):
        ask(made, tmp_path / "run", replace(QUICK, stages=("feature", "pool")))
    with pytest.raises(ValueError, match="no target named 'rad'.*did you mean red"):
        ask(made, tmp_path / "run", targets=("rad",))
    shutil.copytree(made / "concepts", tmp_path / "concepts")
    shutil.copy(made / "targets/red/0.mp4", tmp_path / "concepts/red/static/9.mp4")
    with pytest.raises(ValueError, match="red/static/9.mp4 is the target"):
        ask(made, tmp_path / "run", replace(QUICK, n_targets=None), sets=read_sets(tmp_path / "concepts"))
    assert not (tmp_path / "run").exists()


def test_the_plan_says_what_would_be_done_and_does_nothing(made, tmp_path, monkeypatch):
    (tmp_path / "concepts").symlink_to(made / "concepts")
    sets, source, store = read_sets(made / "concepts"), open_source(made / "targets"), Cache(tmp_path / "cache")
    found = plan_experiment(MODEL, ("red", "moves"), source, sets, replace(QUICK, permutations=None), store, GEOMETRY)
    assert found.family_size == 2 * 2 * 10 and f"{CLIPS} concept clips and 12 targets" in found.text
    assert "backwards      12" in found.text and not store.folder.exists()
    holm = plan_experiment(
        MODEL, ("red",), source, sets, ExperimentConfig(stages=("*",), max_target_clips=None), store, GEOMETRY
    )
    assert holm.config.permutations == 999 and len(holm.clips.targets) == 7
    assert holm.config.num_permutations(100) == 999 and ExperimentConfig().num_permutations(100) == 3999
    few = plan_experiment(MODEL, ("red",), source, sets, ExperimentConfig(permutations=19), store, GEOMETRY)
    assert "REFUSED" in few.text


@pytest.mark.slow
def test_a_clip_that_cannot_be_read_is_reported_and_the_rest_goes_on(made, tmp_path):
    shutil.copytree(made / "concepts", tmp_path / "concepts")
    path = tmp_path / "concepts/red/static/3.mp4"
    path.write_bytes(path.read_bytes()[:200])
    found = ask(made, tmp_path / "run", replace(QUICK, stages=("pool",)), ("red",), read_sets(tmp_path / "concepts"))
    about = json.loads((found.folder / "run.json").read_text())
    assert list(about["unreadable"]) == ["red/static/3.mp4"]
    assert {r.n_concept for r in found.rows if (r.concept, r.clip_type) == ("red", "static")} == {7}


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


def test_questions_have_seeds_of_their_own_and_stages_are_globs():
    one = Comparison("absolute", "red", "static", "random", (0, 1), (2, 3))
    assert one.seed != replace(one, kind="dynamic").seed and one.seed == replace(one, positive=(5, 6)).seed
    known = ("patch_embed", "layers.0.blocks.0", "layers.0", "layers.1", "pool")
    assert resolve_stages((), known) == ("layers.0", "layers.1")
    assert resolve_stages(("*",), known) == known
    assert resolve_stages(("pool", "layers.?"), known) == ("layers.0", "layers.1", "pool")
    assert [field.name for field in fields(ScoreRow)][: len(COLUMNS)] == COLUMNS
    with pytest.raises(ValueError, match="correction is one of.*; .*lam must be above 0"):
        ExperimentConfig(correction="none", l2=0.0)


@pytest.mark.slow
def test_new_clips_are_explained_by_vectors_that_are_there(made, done):
    vectors, source = load_vectors(done.folder), open_source(made / "targets")
    assert set(vectors.norm) == set(vectors.arrays) and vectors.pool == "space"
    rows, moments, failed = score_clips(MODEL, vectors, source, ("red", "moves"), clip_spec=GEOMETRY)
    assert not failed and len(rows) == 28 * 2 * 20
    known = {(c.target, c.stage, f"{c.concept}/{c.kind}/{c.against}", c.clip): c for c in done.clips}
    some = [
        (row, known[key]) for row in rows if (key := (row.target, row.stage, row.concept_vector, row.clip)) in known
    ]
    assert len(some) == 2 * 6 * 20
    for row, clip in some:
        assert row.derivative == pytest.approx(clip.derivative, abs=1e-4 * clip.length + 1e-9)
        assert row.class_score == pytest.approx(clip.class_score, abs=1e-6)
    first = rows[0]
    parts = [
        m for m in moments if (m.clip, m.stage, m.concept_vector) == (first.clip, first.stage, first.concept_vector)
    ]
    assert sum(m.projection for m in parts) == pytest.approx(first.projection) and len(parts) == 3
    reds, blues = (open_source(made / "concepts" / name / "static") for name in ("red", "blue"))
    for name, source in (("red", reds), ("blue", blues)):
        inside = [
            r
            for r in score_clips(MODEL, vectors, source, ("red",), clip_spec=GEOMETRY)[0]
            if "/static/" in r.concept_vector
        ]
        assert all(r.classifier_logit > 0 for r in inside if r.concept_vector.startswith(name))
        assert all(
            r.classifier_logit < 0
            for r in inside
            if r.concept_vector.endswith("others") and not r.concept_vector.startswith(name)
        )
    other = Planted()
    other.scale[...] = 2 * jnp.ones(())
    with pytest.raises(ValueError, match="of another network"):
        score_clips(replace(MODEL, model=other), vectors, reds, ("red",), clip_spec=GEOMETRY)


SMALL = replace(QUICK, stages=("pool",), tests=("absolute",), permutations=99, self_check=0)


@pytest.mark.slow
def test_a_finite_step_is_what_really_happens(made, tmp_path):
    """And its p is that of the same step along vectors of permuted labels."""
    found = ask(made, tmp_path / "run", replace(SMALL, sensitivity="finite", export=True), ("red", "moves"))
    rows = {(r.target, r.concept, r.clip_type): r for r in found.rows}
    assert {r.sensitivity for r in found.rows} == {"finite"}
    assert rows["red", "red", "static"].verdict == "supports" and rows["red", "blue", "static"].verdict == "opposes"
    assert rows["moves", "red", "static"].verdict == "no derivative"
    assert found.passes.forwards > CLIPS + 12 + 100 * 12
    row, vectors = rows["red", "red", "static"], load_vectors(found.folder)
    length, v = row.step_effect / row.derivative, vectors.arrays["pool|red/static/random"]
    source = open_source(made / "targets")
    clips = {
        clip.clip: clip
        for clip in found.derivatives
        if (clip.target, clip.concept, clip.clip_type) == ("red", "red", "static")
    }
    assert len(clips) == 6
    for i, item in enumerate(source.items):
        if item.name in clips:
            video = source.read(i, GEOMETRY, SamplingConfig()).video[:1]
            up, down = (steered_logits(MODEL.model, video, "pool", v, sign * length)[0, 0] for sign in (1, -1))
            assert clips[item.name].derivative == pytest.approx(float(up - down) / (2 * length), rel=1e-3)
    shared = {"cache": tmp_path / "cache"}
    gradient = ask(made, tmp_path / "gradient", SMALL, ("red",), **shared)
    assert gradient.passes.forwards == 0  # the cache has them, gradients are the same
    again = next(r for r in gradient.rows if (r.concept, r.clip_type) == ("red", "static"))
    assert again.derivative > 1.02 * row.derivative > 0  # tanh bends
    same = ask(
        made, tmp_path / "same", replace(SMALL, sensitivity="finite"), ("red", "moves"), cache=tmp_path / "cache"
    )
    assert same.passes.forwards == 0 and same.rows == found.rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"sensitivity": "integrated"}, False),
        ({"target_fn": "log_prob"}, False),
        ({"target_fn": "margin"}, True),  # the best other class is the deaf one, and stays where it is
        ({"pool": "none", "stages": ("features",)}, False),
        ({"pool": "time", "stages": ("features",)}, False),
        ({"pool": "all", "stages": ("features",)}, True),  # which is what the next stage does
    ],
)
def test_ways_of_reading_go_through_a_whole_run(made, done, tmp_path, change, same):
    found = ask(made, tmp_path / "run", replace(SMALL, **change), ("red",))
    about = json.loads((found.folder / "run.json").read_text())["asked"]
    assert {name: tuple(about[name]) if name == "stages" else about[name] for name in change} == change
    rows = {(r.concept, r.clip_type): r for r in found.rows}
    assert rows["red", "static"].verdict == "supports" and rows["blue", "static"].verdict == "opposes"
    usual = next(r for r in done.rows if (r.target, r.stage, r.concept, r.kind) == ("red", "pool", "red", "static"))
    assert (rows["red", "static"].derivative == pytest.approx(usual.derivative, rel=1e-4)) == same
    assert {r.score_fn for r in found.rows} == {change.get("target_fn", "logit")}


@pytest.mark.slow
def test_findings_are_steered_and_the_scores_follow(made, tmp_path):
    found = ask(made, tmp_path / "run", replace(SMALL, steering=19), ("red", "moves"))
    verdicts = {(r.target, r.concept, r.clip_type): r for r in found.rows}
    assert {(s.target, s.concept, s.clip_type) for s in found.steering} == {
        k for k, r in verdicts.items() if is_found(r)
    }
    assert {s.step_units for s in found.steering} == {-1.0, 1.0} and len(found.steering) >= 8
    for one in found.steering:
        row = verdicts[one.target, one.concept, one.clip_type]
        assert (
            one.predicted_change == pytest.approx(one.step_units * row.step_effect, rel=1e-5)
            and one.score_change * one.predicted_change > 0
        )
        assert 0.05 <= one.p_random_directions <= 1 and one.random_low <= one.random_high
    with (found.folder / "steering.csv").open(newline="") as file:
        assert [float(line["change"]) for line in csv.DictReader(file)] == [one.score_change for one in found.steering]


@pytest.mark.slow
def test_concepts_against_each_other_and_one_among_k(made, tmp_path):
    found = ask(
        made, tmp_path / "run", replace(SMALL, tests=("pairs", "group", "relative"), permutations=499), ("red",)
    )
    rows = {(r.comparison, r.concept, r.clip_type, r.negatives): r for r in found.rows}
    assert set(rows) == {
        *(("group", name, kind, "group") for name in ("red", "blue") for kind in ("static", "dynamic")),
        *(("relative", name, kind, "others") for name in ("red", "blue") for kind in ("static", "dynamic")),
        *(("pairs", "blue", kind, "red") for kind in ("static", "dynamic")),
    }
    assert rows["group", "red", "static", "group"].verdict == "supports"
    assert (
        rows["pairs", "blue", "static", "red"].verdict == rows["group", "blue", "static", "group"].verdict == "opposes"
    )
    one = rows["group", "red", "static", "group"]
    assert (one.n_concept, one.n_negatives) == (8, 8 + 18)
    sets = read_sets(made / "concepts")
    question = comparisons.build_comparisons(sets.clips, replace(SMALL, tests=("group",))).entries[0]
    signed, names = question.label_vector(len(sets.clips)), np.array([clip.concept for clip in sets.clips])
    assert question.concept == "blue" and signed[signed > 0].sum() == 8
    assert signed[names == "red"].sum() == pytest.approx(-4) == signed[np.char.startswith(names, "random")].sum()


@pytest.mark.slow
def test_the_papers_tests_stand_beside_ours_with_a_warning(made, done, tmp_path):
    settings = replace(QUICK, protocol="saha2024", stages=("pool",), tests=("absolute",), permutations=None, alpha=0.1)
    found = ask(made, tmp_path / "run", settings, ("red",))
    with (found.folder / "paper.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    groups = {row["group"]: [r["concept"] + r["kind"] for r in rows if r["group"] == row["group"]] for row in rows}
    assert groups == {
        "static blue, static red, static random": ["bluestatic", "redstatic", "random"],
        "dynamic blue, dynamic red, dynamic random": ["bluedynamic", "reddynamic", "random"],
        "static blue, dynamic blue, dynamic random": ["bluestatic", "bluedynamic", "random"],
        "static red, dynamic red, dynamic random": ["redstatic", "reddynamic", "random"],
    }
    assert {row["note"] for row in rows} == {"runs are not independent"} and {row["runs"] for row in rows} == {"3"}
    red = [row for row in rows if row["concept"] == "red" and "blue" in row["group"]]
    assert len(red) == 2 and all(float(row["score"]) == 1 for row in red)  # at each run, so that nothing varies
    assert all(row["p"] == row["p_adjusted"] == row["p_printed"] == "nan" for row in red)
    known = ("layers.0", "layers.1", "layers.2", "layers.3", "pool")
    assert ExperimentConfig(protocol="saha2024").with_protocol(known).stages == ("layers.1", "layers.2", "pool")
    assert ExperimentConfig(protocol="saha2024", stages=("pool",)).with_protocol(known).stages == ("pool",)
    assert ExperimentConfig(stages=("pool",)).with_protocol(known).pool == "space"
