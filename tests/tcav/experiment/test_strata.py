"""Comparisons within strata, the check for confounders, and the verdict of the steering check."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.planted_experiment import QUICK, run_experiment, video, write
from vtcav_jax.concepts import read_concepts
from vtcav_jax.concepts.concept_sets import ConceptClip
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.runs.tcav_rows import CONFOUNDERS_CSV, ConfounderRow, SteeringRow
from vtcav_jax.settings import SettingError
from vtcav_jax.tcav.experiment.comparisons import Comparison, Comparisons
from vtcav_jax.tcav.experiment.confounders import largest_difference
from vtcav_jax.tcav.experiment.strata import compare_within, comparisons_within, stratum_values
from vtcav_jax.tcav.experiment.verdicts import is_finding
from vtcav_jax.tcav.steering.steering_check import with_steering_verdicts


def clip(**more) -> ConceptClip:
    return ConceptClip(**{"concept": "a", "clip_type": "dynamic", "path": Path("a"), "sha256": "", "file": "a"} | more)


CLIPS = [
    clip(labels={"direction": "left", "shape": "ring"}, source="x"),
    clip(labels={"direction": "right"}, source="y"),
    clip(labels={"direction": "a:b"}, source="x"),
]


@pytest.mark.parametrize(
    ("within", "expected"),
    [
        ("direction", ("left", "right", "a:b")),
        ("shape", ("ring", "", "")),
        ("direction:left", ("True", "False", "False")),
        ("direction:a:b", ("False", "False", "True")),
        ("shape:ring", ("True", "", "")),
        ("source", ("x", "y", "x")),
    ],
)
def test_strata_are_labels_classes_or_columns(within, expected):
    assert stratum_values(CLIPS, within) == expected


@pytest.mark.parametrize(("within", "message"), [("scene", "direction, shape, source"), ("direction:up", "left")])
def test_unknown_strata_list_the_known_ones(within, message):
    with pytest.raises(ValueError, match=message):
        stratum_values(CLIPS, within)
    nothing = Comparisons((), (), {})
    with pytest.raises(SettingError) as error:
        comparisons_within(nothing, CLIPS, within)
    assert [name for name, _ in error.value.problems] == ["within"]


def test_negatives_are_weighted_to_the_labels_of_the_concept():
    strata = ("l", "l", "l", "r", "", "l", "r", "r", "r", "u")
    comparison = Comparison("absolute", "ring", "dynamic", "random", (0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
    conditioned = compare_within(comparison, strata)
    assert conditioned is not None
    assert conditioned.positive_clips == (0, 1, 2, 3) and conditioned.negative_clips == (5, 6, 7, 8)
    labels = conditioned.label_vector(10)
    for label in "lr":
        rows = [i for i, value in enumerate(strata) if value == label]
        assert labels[rows].sum() == pytest.approx(0)
    codes = conditioned.stratum_codes(10)
    assert codes is not None and codes[0] != codes[3] and codes[5] == codes[0]
    # 4 choices of the one concept clip among those to the left, and 4 to the right
    assert conditioned.min_attainable_p(QUICK, np.arange(10)) == pytest.approx(1 / 16)
    assert compare_within(comparison, ("l",) * 5 + ("r",) * 5) is None


def test_pairs_are_conditioned_together():
    comparison = Comparison(
        "motion", "ring", "dynamic", "frozen", (0, 2), (4, 6, 8), ((0, 1), (2, 3)), (), (), ((4, 5), (6, 7), (8, 9))
    )
    conditioned = compare_within(comparison, ("l", "l", "r", "r", "l", "l", "l", "l", "u", "u"))
    assert conditioned is not None
    assert conditioned.pairs == ((0, 1),) and conditioned.random_pairs == ((4, 5), (6, 7))
    assert conditioned.negative_weights == (0.5, 0.5)


def test_only_differences_beyond_chance_are_confounders():
    comparison = Comparison("absolute", "ring", "dynamic", "random", tuple(range(25)), tuple(range(25, 150)))
    random = [("l", "r", "u", "d")[i % 4] for i in range(125)]
    videos = np.arange(150)
    value = largest_difference(comparison, ["l"] * 20 + ["r"] * 5 + random, videos)
    assert value == ("l", 0.8, pytest.approx(32 / 125))
    assert largest_difference(comparison, ["l"] * 10 + ["r"] * 5 + ["u"] * 10 + random, videos) is None
    # The same shares from five videos may be chance
    assert largest_difference(comparison, ["l"] * 15 + ["r"] * 10 + random, videos // 5) is None
    assert largest_difference(comparison, [""] * 20 + ["r"] * 5 + random, videos) is None  # mostly unknown


@pytest.fixture(scope="module")
def confounded(tmp_path_factory):
    """A folder of clips in which three quarters of `mixed` are red and a quarter of the random clips."""
    folder, rng = tmp_path_factory.mktemp("confounded"), np.random.default_rng(0)
    rows = []
    for concept, n, n_red in (("mixed", 16, 12), ("random_0", 24, 6), ("random_1", 24, 6)):
        for i in range(n):
            colour = "red" if i < n_red else "random"
            file = f"{concept}/static/{i}.mp4"
            write(folder / "concepts" / file, video(rng, colour, False))
            rows.append({"file": file, "source": f"{concept} {i}", "colour": colour})
    with (folder / "concepts/sources.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for i in range(7):
        write(folder / f"targets/red/{i}.mp4", video(rng, "random", True))
    return folder


CONFIG = replace(QUICK, stages=("pool",), comparisons=("absolute",), correction="holm", calibration_trials=0)


def test_columns_of_sources_are_labels(confounded):
    clips = read_concepts(confounded / "concepts").clips
    assert {c.labels["colour"] for c in clips} == {"red", "random"}


@pytest.mark.slow
def test_a_finding_that_a_label_explains_is_flagged_and_vanishes_within_it(confounded, tmp_path):
    plain = run_experiment(confounded, tmp_path / "plain", CONFIG, ("red",))
    (row,) = plain.rows
    assert row.verdict == "supports"
    (confounder,) = read_rows(plain.folder / CONFOUNDERS_CSV, ConfounderRow)
    assert (confounder.kind, confounder.name, confounder.value) == ("label", "colour", "red")
    assert (confounder.share_concept, confounder.share_negatives) == (0.75, 0.25)
    assert confounder.explains and abs(confounder.effect) < 0.3 * row.step_effect
    conditioned = run_experiment(confounded, tmp_path / "within", replace(CONFIG, within="colour"), ("red",))
    (row_within,) = conditioned.rows
    assert not is_finding(row_within) and row_within.p > 0.05
    assert row_within.step_effect == pytest.approx(confounder.effect, abs=0.1 * row.step_effect)
    assert not conditioned.confounders


def test_a_finding_whose_score_moves_the_other_way_is_inconclusive(confounded, tmp_path):
    results = run_experiment(confounded, tmp_path / "run", replace(CONFIG, steering_clips=4), ("red",))
    (row,) = results.rows
    assert row.verdict == "supports" and {step.n_clips for step in results.steering} == {4}
    assert all(s.score_change * s.predicted_change > 0 for s in results.steering)
    assert all(s.score_change_low <= s.score_change <= s.score_change_high for s in results.steering)

    def moved(change: float) -> list[SteeringRow]:
        return [replace(s, score_change=s.step_units * change) for s in results.steering]

    assert with_steering_verdicts([row], moved(0.1)) == [row]
    assert with_steering_verdicts([row], moved(-0.1))[0].verdict == "contradicted by steering"
    assert with_steering_verdicts([row], []) == [row]
