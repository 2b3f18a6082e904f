"""Windows: size and place of the part of the frame that a clip shows."""

import numpy as np
import pytest

from vtcav_jax.concepts.windows import place_window, relative_side, transfer_window, window_around

FRAME = (100, 160)  # height and width


def test_a_window_has_context_on_all_sides():
    assert window_around((60, 40, 100, 60), FRAME, 1.5) == (50, 20, 110, 80)
    assert window_around((60, 40, 100, 60), FRAME, 1) == (60, 30, 100, 70)


def test_a_window_is_moved_into_the_frame():
    assert window_around((0, 80, 40, 100), FRAME, 1.5) == (0, 40, 60, 100)
    assert window_around((130, 0, 160, 20), FRAME, 2) == (100, 0, 160, 60)


def test_a_window_has_less_context_rather_than_leave_the_frame():
    assert window_around((30, 10, 110, 60), FRAME, 1.5) == (20, 0, 120, 100)


def test_a_track_longer_than_the_frame_is_high_has_equal_bars():
    assert window_around((10, 40, 150, 60), FRAME, 1.5) == (10, -20, 150, 120)


def test_every_window_is_a_square_with_the_whole_track():
    random = np.random.default_rng(0)
    for _ in range(300):
        (x1, x2), (y1, y2) = (np.sort(random.choice(length + 1, 2, replace=False)).tolist() for length in (160, 100))
        left, top, right, bottom = window_around((x1, y1, x2, y2), FRAME, random.choice([1, 1.3, 1.5, 3]).item())
        assert right - left == bottom - top and left <= x1 and top <= y1 and right >= x2 and bottom >= y2
        assert left >= 0 and right <= 160 and (bottom - top <= 100 or abs(top + bottom - 100) <= 1)


def test_a_window_is_moved_as_far_as_an_object_needs():
    assert place_window(40, (30, 30), FRAME, hold=(20, 20, 45, 45)) == (10, 10, 50, 50)
    assert place_window(40, (30, 30), FRAME, hold=(80, 0, 100, 10)) == (60, 0, 100, 40)


def test_a_window_takes_the_same_part_of_another_frame():
    window = (50, 20, 110, 80)
    side, centre = transfer_window(window, FRAME, (200, 320))
    assert place_window(side, centre, (200, 320)) == (100, 40, 220, 160)
    assert relative_side((100, 40, 220, 160), (200, 320)) == pytest.approx(relative_side(window, FRAME)) == 0.6
    for window in ((0, 0, 33, 33), (7, 60, 47, 100), (10, -20, 150, 120)):
        side, centre = transfer_window(window, FRAME, FRAME)
        assert place_window(side, centre, FRAME) == window
