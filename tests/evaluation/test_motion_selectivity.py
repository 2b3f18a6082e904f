"""Precision of motion parts on worlds with known motion, compared with single maps and with ideal maps."""

import numpy as np
import pytest

from benchmarks import evaluation_tables
from vtcav_jax import attribution, models, worlds
from vtcav_jax.attribution.motion import map_split
from vtcav_jax.attribution.motion.flow_agreement import flow_agreement
from vtcav_jax.attribution.motion.optical_flow import moving_objects, with_adjacent_frames
from vtcav_jax.evaluation.motion_selectivity import motion_selectivity
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet
from vtcav_jax.stats.intervals import mean_ci
from vtcav_jax.worlds.gates import Gates


@pytest.mark.slow
def test_rows_of_a_network_equal_its_maps():
    network, clips = models.load("worlds_cnn"), worlds.make_clips("small", 6, 3)
    eval_set = EvalSet(network, "small", ("W1", "W2", "W3"), clips, object.__new__(Gates), 3)
    rows = motion_selectivity(eval_set, "cnn", ["gradient_x_input", "gradcam@convs.1"])
    assert {(row.row.target, row.kind) for row in rows} == {("shape", "appearance"), ("direction", "motion")}
    (row,) = [
        row.row
        for row in rows
        if (row.row.target, row.row.method, row.row.measure, row.frames)
        == ("direction", "gradient_x_input", "flow_precision_gain", "adjacent")
    ]
    maps = attribution.attribute(network.model, eval_set.video, eval_set.target("direction"), "gradient_x_input").map
    moving = np.pad(clips.masks["key"] | clips.masks["dis"], ((0, 0), (1, 1), (0, 0), (0, 0)))
    agreement = flow_agreement(map_split.split_by_motion(maps), moving[:, :-2] | moving[:, 1:-1] | moving[:, 2:])
    expected = mean_ci(agreement.precision - agreement.precision_map, units=[str(i) for i in range(6)])
    assert (row.mean, row.low, row.high) == pytest.approx(expected, rel=1e-2, abs=1e-3)
    table = evaluation_tables.motion_selectivity_table([row.to_record() for row in rows])
    assert len(table.splitlines()) == 2 + 2 * 2
    assert "| cnn | direction (motion) | gradcam at convs.1 | absolute |" in table


def test_changes_of_an_ideal_map_are_where_its_objects_come_from_and_go_to():
    clips = worlds.make_clips("small", 8, 3)
    now = moving_objects(clips)
    adjacent = with_adjacent_frames(now)
    split = map_split.split_by_motion(now.astype(np.float32), 1.0)
    of_adjacent, of_same = (flow_agreement(split, masks, clips.video) for masks in (adjacent, now))
    assert (of_adjacent.precision > of_same.precision + 0.1).all()
    np.testing.assert_allclose(of_same.energy_map, 1)
    for i, clip in enumerate(now):
        padded = np.pad(clip, ((1, 1), (0, 0), (0, 0)))
        np.testing.assert_array_equal(adjacent[i], padded[:-2] | padded[1:-1] | padded[2:])
        np.testing.assert_array_equal(with_adjacent_frames(clip), adjacent[i])
