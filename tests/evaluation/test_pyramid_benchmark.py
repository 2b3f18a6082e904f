"""Selected channels of pyramids, where the relevant channels are known."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from vtcav_jax import models, worlds
from vtcav_jax.evaluation import pyramid_benchmark
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet
from vtcav_jax.evaluation.world_benchmark.score_rows import bootstrap_interval
from vtcav_jax.runs.evaluation_rows import ABLATION_SCORE
from vtcav_jax.worlds.gates import Gates


def material(clips, network=None):
    """Return clips of the small world without gates, which these tests do not need."""
    network = network or models.load("worlds_cnn")
    return EvalSet(network, "small", ("W1",), worlds.make_clips("small", clips, 3), object.__new__(Gates), 3)


def test_both_halves_make_and_judge_and_share_no_clip(capsys):
    sides = list(pyramid_benchmark._sides(material(40), "shape"))
    assert len(sides) == 8
    for side, other_side in zip(sides[::2], sides[1::2]):
        np.testing.assert_array_equal(side.pyramid_clips, other_side.held_out_clips)
        np.testing.assert_array_equal(side.reference_clips, other_side.held_out_reference)
        pyramid_pixels, held_out_pixels = (
            np.asarray(video).reshape(len(video), -1) for video in (side.pyramid_clips, side.held_out_clips)
        )
        assert (
            len(pyramid_pixels) == len(held_out_pixels)
            and not (pyramid_pixels[:, None] == held_out_pixels[None]).all(-1).any()
        )
    assert len({len(side.pyramid_clips) for side in sides}) == 1
    assert pyramid_benchmark.pyramid_benchmark(material(6), "mine") == [] and "add --max_clips" in "".join(
        capsys.readouterr()
    )


def test_the_best_channels_score_1_and_all_score_0():
    random = np.random.default_rng(0)
    class_values, other_values = random.normal(size=(2, 40, 2, 2, 2, 24)).astype(np.float32)
    class_values[..., [3, 7]] += 2
    class_values[..., 9] -= 2  # separates the class by low values
    class_values, other_values = jnp.asarray(class_values), jnp.asarray(other_values)
    for channels, expected in (([3, 7, 9], 1.0), (list(range(24)), 0.0), ([], 0.0)):
        value, low, high = bootstrap_interval(
            pyramid_benchmark._skill(*pyramid_benchmark._separation(class_values, other_values, channels, 0))
        )
        assert value == pytest.approx(expected, abs=1e-6) and low <= value <= high
    value, low, high = bootstrap_interval(
        pyramid_benchmark._skill(*pyramid_benchmark._separation(class_values, other_values, [3, 4, 5], 0))
    )
    assert 0.1 < low < value < high < 0.5  # one of three channels separates


@pytest.mark.slow
def test_relevant_channels_are_selected_and_active_ones_are_not():
    """The head reads eight random channels, whatever their activation; the pyramid selects these."""
    network = models.load("worlds_cnn")
    model: Any = network.model
    head = model.head
    channels = head.kernel.shape[0]
    random = np.random.default_rng(1)
    reads = np.sort(random.choice(channels, pyramid_benchmark.CHANNELS_PER_STAGE, replace=False))
    weights = np.zeros(head.kernel.shape, np.float32)
    weights[reads] = np.asarray(head.kernel[...])[reads]
    head.kernel[...] = jnp.asarray(weights)
    about = material(40, network)
    rows = pyramid_benchmark.pyramid_benchmark(about, "mine")
    value = {(row.method, row.stage, row.metric): row.value for row in rows}
    assert {row.question for row in rows} == {"W1"} and all(row.low <= row.value <= row.high for row in rows)
    assert value["pyramid", "convs.2", ABLATION_SCORE] > 0.7
    assert value["strongest kernels", "convs.2", ABLATION_SCORE] < 0.5
    side = next(iter(pyramid_benchmark._sides(about, "shape")))
    named, _ = pyramid_benchmark.gradient_pyramid(network.model, side.pyramid_clips, side.reference_clips, side.target)
    assert set(named["convs.2"]) <= set(reads.tolist()) and len(named) == pyramid_benchmark.BENCHMARK_PYRAMID_DEPTH
