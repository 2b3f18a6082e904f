"""`compare_methods`: the rows of single methods on the same clips, with references and refusals."""

import pytest

import vtcav_jax as vtcav
from vtcav_jax import evaluation
from vtcav_jax.report.displays.actions import view_result
from vtcav_jax.runs.evaluation_rows import REFERENCE_MAPS, TRIVIAL_MAPS


@pytest.mark.slow
def test_several_methods_have_the_scores_of_each_alone():
    scores = vtcav.compare_methods("worlds_cnn", ["saliency", "rollout"], ["W1"], n_clips=6)
    alone = evaluation.score_method("saliency", "worlds_cnn", ["W1"], stage="video", n_clips=6)
    ours = {row.metric: row for row in scores.rows if (row.method, row.stage) == ("saliency", "video")}
    assert len(alone) > 3
    for row in alone:
        same = ours[row.metric]
        assert (same.value, same.low, same.high, same.n_clips) == pytest.approx(
            (row.value, row.low, row.high, row.n_clips)
        )
    assert {row.method for row in scores.rows} == {"saliency", *TRIVIAL_MAPS, *REFERENCE_MAPS}
    (refusal,) = scores.not_applicable
    assert refusal.method == "rollout" and refusal.network_name == "worlds_cnn" and refusal.reason
    assert repr(scores) == "MethodScores(1 method on worlds_cnn, at most 6 clips)"
    notes = view_result(scores).notes
    assert notes[0].startswith("worlds_cnn: the highest score is ") and "rollout does not apply" in notes[1]
    (table,) = [make() for name, make in view_result(scores).tables.items() if name == "method_scores"]
    assert len(table.lines) == len(scores.rows)


def test_an_unknown_method_is_refused_before_anything_is_measured():
    with pytest.raises(ValueError, match="no method named 'salency'"):
        vtcav.compare_methods("worlds_cnn", ["salency"], ["W1"])
