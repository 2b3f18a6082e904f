"""Tests of several classes in one experiment, and of the tests of Saha et al. (2024) beside ours."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from tests.support.planted_experiment import CLASSES, NETWORK, QUICK, run_experiment
from vtcav_jax import models
from vtcav_jax.data import open_source
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.dataset import clips_by_class
from vtcav_jax.tcav.saha2024 import sign_test_against_half


def test_classes_without_clips_are_reported_together(clip_folder):
    """A head or a glob stands for the classes that have clips; a class that is named itself must have some."""
    network = replace(NETWORK, heads={"label": (*CLASSES, "green", "grey")})
    source = open_source(clip_folder / "targets")
    classes, notes = clips_by_class(network, ["label"], source, 5, 0)
    assert [target.name for target in classes] == list(CLASSES) and notes == [
        f"no clip of {source.spec} has the label green, grey: not tested"
    ]
    assert all(len(target.rows) == 5 and target.is_labelled for target in classes)
    for targets in (["red", "grey", "green"], ["gr*"]):
        with pytest.raises(
            ValueError,
            match=r"no clip of .* has the label gr\w+, gr\w+; use other or more clips, or targets .*red",
        ):
            clips_by_class(network, targets, source, None, 0)
    with pytest.raises(ValueError, match="pass at least one target; the network has red, moves"):
        clips_by_class(network, [], source, None, 0)
    joined = replace(network, heads={"colour": network.heads["label"]})
    classes, notes = clips_by_class(joined, ["red"], source, None, 0)
    assert [len(target.rows) for target in classes] == [7] and classes[0].is_labelled and not notes
    unlabelled = replace(network, heads={"mood": ("calm", "rash", *map(str, range(len(CLASSES))))})
    classes, notes = clips_by_class(unlabelled, ["rash", "r*"], source, None, 0)
    assert [len(target.rows) for target in classes] == [7 * len(CLASSES)] and not classes[0].is_labelled
    assert notes == [f"{source.spec} has no labels for rash: all its clips are used"]


@pytest.mark.slow
def test_saha2024_writes_its_own_table_with_a_warning(clip_folder, finished, tmp_path):
    config = replace(QUICK, protocol="saha2024", pool="none", stages=("pool",), comparisons=("absolute",), alpha=0.1)
    results = run_experiment(clip_folder, tmp_path / "run", config, ("red",))
    with (results.folder / "saha2024.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    groups = {row["group"]: [r["concept"] + r["clip_type"] for r in rows if r["group"] == row["group"]] for row in rows}
    assert groups == {
        "static blue, static red, static random": ["bluestatic", "redstatic", "random"],
        "dynamic blue, dynamic red, dynamic random": ["bluedynamic", "reddynamic", "random"],
        "static blue, dynamic blue, dynamic random": ["bluestatic", "bluedynamic", "random"],
        "static red, dynamic red, dynamic random": ["redstatic", "reddynamic", "random"],
    }
    assert {row["n_runs"] for row in rows} == {"3"}
    assert all(row["note"].startswith("runs are not independent") for row in rows)
    red = [row for row in rows if row["concept"] == "red" and "blue" in row["group"]]
    assert len(red) == 2 and all(float(row["tcav_score"]) == 1 for row in red)  # in every run, so that none varies
    assert all(row["p"] == row["p_adjusted"] == row["p_as_published"] == "nan" for row in red)
    assert all("undefined, since all runs have the same" in r["note"] and float(r["p_sign_test"]) == 0.25 for r in red)
    p = np.array([float(row["p"]) for row in rows])
    count = (~np.isnan(p)).sum()  # Bonferroni counts the tests with a p-value
    np.testing.assert_allclose([float(row["p_adjusted"]) for row in rows], np.minimum(1, count * p))
    # The standard tests keep their settings, which the record states
    record = json.loads((results.folder / "run.json").read_text())
    assert (record["request"]["pool"], record["family"]["correction"], record["stages"]) == ("none", "bh", ["pool"])


def test_saha2024_needs_activations_that_are_not_pooled():
    with pytest.raises(ValueError, match="pool: expected none with protocol saha2024, whose vectors are not pooled"):
        ExperimentConfig(protocol="saha2024")
    assert ExperimentConfig(protocol="saha2024", pool="none").correction == "holm"


def test_the_sign_test_of_runs_is_exact():
    assert sign_test_against_half(np.ones(5)) == 2 / 2**5
    assert sign_test_against_half(np.array([0.0, 0.5, 1.0])) == sign_test_against_half(np.full(3, 0.5)) == 1
    assert sign_test_against_half(np.array([0.9, 0.8, 0.7, 0.6, 0.1])) == pytest.approx(2 * (1 + 5) / 2**5)


def test_classes_of_an_own_network_are_joined_with_labels_by_name():
    source = open_source("worlds:small:24:5")
    network = models.Network(
        models.make("small_cnn"), models.PRESETS["small_cnn"].clip_spec, {"label": ("Up", "left", "right", "other")}
    )
    classes, notes = clips_by_class(network, ["left", "Up"], source, None, 0)
    names = source.heads["direction"]
    for target, name in zip(classes, ("left", "up"), strict=True):
        expected = [i for i, item in enumerate(source.items) if names[item.labels["direction"]] == name]
        assert list(target.rows) == expected and expected and target.is_labelled
    assert notes == []
    with pytest.raises(ValueError, match=r"no clip of .* has the label other"):
        clips_by_class(network, ["other"], source, None, 0)
