"""Questions that each network answers, and the masks of their causes."""

import numpy as np
import pytest

from vtcav_jax import evaluation, models
from vtcav_jax.evaluation.world_benchmark import world_metrics
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet, questions_by_world
from vtcav_jax.evaluation.world_benchmark.questions import EVAL_QUESTIONS
from vtcav_jax.worlds import make_clips
from vtcav_jax.worlds.gates import Gates


def test_a_network_answers_the_questions_of_the_world_whose_heads_it_has():
    assert questions_by_world(models.load("worlds_cnn")) == {"small": ("W1", "W2", "W3", "W4")}
    assert questions_by_world(models.load("worlds_shortcut_cnn")) == {"shortcut": ("W7",)}
    with pytest.raises(ValueError, match="does not answer W5"):
        evaluation.score_method("gradcam", "worlds_cnn", ["W5"])
    with pytest.raises(ValueError, match="does not answer W8 either, W8 both"):
        evaluation.score_method("gradcam", "worlds_cnn", ["W8"])


@pytest.mark.parametrize("name", ["W5", "W6", "W7", "W8 either", "W8 both"])
def test_every_question_names_masks_and_factors_of_its_world(name):
    question = evaluation.EVAL_QUESTIONS[name]
    clips = make_clips(question.world, 2, 0)
    assert question.head in clips.world.questions and question.irrelevant_factor in clips.world.factors
    names = [
        *question.cause_mask.split("+"),
        *(question.box_pair or ()),
        *(mask for _, mask in question.contrast_masks),
    ]
    assert set(names) - {"scene"} <= set(clips.masks)
    assert question.event_mask is None or question.event_mask in clips.masks
    assert {head for head, _ in question.contrast_masks} <= set(clips.world.questions)
    planted = clips.world.questions[question.head]
    assert question.irrelevant_factor not in (planted.cause or planted.factors)


def ungated(network, world, *ids):
    """Return clips without gates, which these tests do not need."""
    return EvalSet(models.load(network), world, ids, make_clips(world, 64, 4), object.__new__(Gates), 4)


@pytest.mark.parametrize(("name", "world"), [("events_cnn", "events"), ("shortcut_cnn", "shortcut"), ("cnn", "small")])
def test_each_place_belongs_to_one_entity(name, world):
    about = ungated(f"worlds_{name}", world, *questions_by_world(models.load(f"worlds_{name}"))[world])
    total = np.sum(list(about.areas.values()), 0)
    # Exception: the distractor's core, visible through a hole in the key, is in both boxes
    assert total.min() > 1 - 1e-6 and (total > 1 + 1e-6).mean() < 2e-3


@pytest.mark.slow
def test_of_joint_causes_the_decisive_ones_count():
    about = ungated("worlds_events_cnn", "events", "W8 either", "W8 both")
    key, other = (about.clips.factors[name] for name in ("shape", "dis_shape"))
    for head, special in (("either", 1), ("both", 3)):  # a ring; bars
        result = about._decisive_masks(EVAL_QUESTIONS[f"W8 {head}"])
        decides = (key == special) ^ (other == special)
        np.testing.assert_array_equal(result["key_box"], ~decides | (key == special))
        np.testing.assert_array_equal(result["dis_box"], ~decides | (other == special))
        assert 10 < decides.sum() < 40
        known = about.ground_truth[f"W8 {head}"]
        apart = (
            decides
            & (key == special)
            & (about.cell_shares["key_box"] * about.cell_shares["dis_box"] == 0).all((1, 2, 3))
        )
        assert not (known.core & (about.cell_shares["dis_box"] > 0))[apart].any()
        assert (known.core | ~(about.cell_shares["key_box"] > 0))[key == special].all()
        ((_, mask),) = known.contrast_masks
        np.testing.assert_array_equal(np.isnan(mask).all((1, 2, 3)), ~result["dis_box"])
    perfect = {head: about.read(about.reference_map("oracle", head), "net") for head in ("either", "colours")}
    result = world_metrics.compute_world_metrics(perfect["either"], about.ground_truth["W8 either"], perfect)
    for axis in ("WHERE", "WHAT-FOR"):
        assert np.nanmean(result[axis][:, 0]) > 0.99, axis
