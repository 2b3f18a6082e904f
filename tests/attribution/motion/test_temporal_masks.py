"""Temporal windows and masks find the steps at which a network reads motion."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.typed import present
from vtcav_jax.attribution.motion.temporal_masks import edited_order, temporal_mask, temporal_windows
from vtcav_jax.attribution.targets import Class
from vtcav_jax.report.figures.temporal_windows import temporal_windows_figure
from vtcav_jax.tap import identity_tap

CLIPS = np.zeros((2, 8, 2, 2, 1), np.float32)
CLIPS[0, 5:] = 1  # rises between frames 4 and 5
CLIPS[1, 2:] = 3  # rises between frames 1 and 2


def rise(video, tap=identity_tap):
    """Score the largest rise of brightness between consecutive frames."""
    brightness = video.mean((2, 3, 4))
    return jnp.stack([(brightness[:, 1:] - brightness[:, :-1]).max(1), 0 * brightness[:, 0]], -1)


def test_the_shortest_window_contains_the_motion():
    frozen = temporal_windows(rise, CLIPS, Class(0), edit="frozen")
    assert frozen.shortest() == [(5, 8), (2, 8)]  # a shorter window only moves the rise to its end
    reversed_windows = temporal_windows(rise, CLIPS, Class(0), edit="reversed")
    assert reversed_windows.windows[-1].tolist() == [0, 8] and len(reversed_windows.windows) == 36
    for clip, window in enumerate(reversed_windows.shortest()):
        start, end = present(window)
        order = edited_order(8, start, end, "reversed")
        brightness = CLIPS[clip, order].mean((1, 2, 3))
        assert np.diff(brightness).max() <= 0.1 * np.diff(CLIPS[clip].mean((1, 2, 3))).max()


def test_scores_and_losses_are_those_of_the_edited_clips():
    result = temporal_windows(rise, CLIPS, Class(0), edit="reversed", groups=4)
    assert result.windows.tolist()[:5] == [[0, 2], [2, 4], [4, 6], [6, 8], [0, 4]]
    for column, (start, end) in enumerate(result.windows.tolist()):
        edited = CLIPS.copy()
        edited[:, start:end] = CLIPS[:, start:end][:, ::-1]
        expected = np.asarray(rise(jnp.asarray(edited)))[:, 0]
        np.testing.assert_allclose(result.edited_scores[:, column], expected)
    np.testing.assert_allclose(result.losses[:, -1], 1)


def test_a_clip_without_motion_has_no_window():
    still = temporal_windows(rise, np.ones_like(CLIPS), Class(0))
    assert still.shortest() == [None, None] and np.isnan(still.losses).all()


@pytest.mark.parametrize("edit", ["frozen", "reversed"])
def test_the_optimised_mask_lowers_the_score_with_few_frames(edit):

    def step_to_frame_5(video, tap=identity_tap):
        brightness = video.mean((2, 3, 4))
        return jnp.stack([brightness[:, 5] - brightness[:, 4], 0 * brightness[:, 0]], -1)

    clips = np.repeat(CLIPS[:1], 2, 0) * np.array([1, 3], np.float32).reshape(2, 1, 1, 1, 1)
    result = temporal_mask(step_to_frame_5, clips, Class(0), edit=edit)
    assert (result.edited_scores <= 0.2 * result.scores).all()
    assert result.mask[:, 5].all() and (result.mask.sum(1) <= 4).all()
    np.testing.assert_allclose(result.scores, [1, 3])
    np.testing.assert_allclose(result.fully_edited_scores, 0, atol=1e-6)


def test_the_figure_has_every_window_and_names_the_shortest():
    figure = temporal_windows_figure(temporal_windows(rise, CLIPS, Class(0)), 0, "rise")
    assert sum('class="null"' in element for element in figure.elements) == 36
    assert any("shortest" in element and "6 to 8" in element for element in figure.elements)


def test_errors_name_the_expected_values():
    with pytest.raises(ValueError, match="frozen or reversed, got 'shuffled'"):
        temporal_windows(rise, CLIPS, Class(0), edit="shuffled")
    with pytest.raises(ValueError, match="between 1 and 8 groups of frames, got 9"):
        temporal_windows(rise, CLIPS, Class(0), groups=9)
