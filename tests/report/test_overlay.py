"""Pictures of maps: colours even to the eye, letters that can be read, values where they belong."""

import av
import numpy as np
import pytest

from vtcav_jax.data.encode import write_animation
from vtcav_jax.report import colormaps
from vtcav_jax.report.animation import lettering, overlay


def test_steps_of_colour_look_equal_and_exist_on_a_screen():
    for lab in (colormaps.SEQUENTIAL_LAB, colormaps.DIVERGING_LAB):
        assert lab.shape == (256, 3) and colormaps.rgb(lab).min() > -1e-3 and colormaps.rgb(lab).max() < 1 + 1e-3
        steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
        half = steps[: 127 if lab is colormaps.DIVERGING_LAB else 255]
        np.testing.assert_allclose(half, half.mean(), rtol=0.03)
    assert (np.diff(colormaps.SEQUENTIAL_LAB[:, 0]) > 0).all()
    cold, warm = colormaps.DIVERGING_LAB[:128, 0], colormaps.DIVERGING_LAB[:127:-1, 0]
    np.testing.assert_allclose(cold, warm, atol=1e-6)
    assert np.abs(colormaps.DIVERGING_LAB[[127, 128], 1:]).max() < 1e-6  # the middle has no colour


def test_oklab_is_what_it_says():
    """White, black, and the red of sRGB, whose OKLab coordinates are known."""
    found = colormaps.rgb(np.array([[1.0, 0, 0], [0, 0, 0], [0.627955, 0.224863, 0.125846]]))
    np.testing.assert_allclose(found, [[1, 1, 1], [0, 0, 0], [1, 0, 0]], atol=2e-3)


def test_values_have_their_colours():
    signed = colormaps.coloured(np.array([-2.0, -1, 0, 1, 5]), 1.0, signed=True)
    np.testing.assert_array_equal(signed[[0, 1, 3, 4]], colormaps.DIVERGING[[0, 0, 255, 255]])
    assert np.ptp(signed[2].astype(int)) <= 2
    np.testing.assert_array_equal(
        colormaps.coloured(np.array([0.0, 1]), 1.0, signed=False), colormaps.SEQUENTIAL[[0, 255]]
    )
    np.testing.assert_array_equal(colormaps.coloured(np.zeros(2), 0.0, signed=False), colormaps.SEQUENTIAL[[0, 0]])


def test_letters():
    shapes = {name: tuple(map(tuple, lettering.lettered(name))) for name in lettering.GLYPHS}
    assert len(set(shapes.values())) == len(shapes) >= 45  # no two look alike
    np.testing.assert_array_equal(lettering.lettered("ab"), lettering.lettered("AB"))
    assert lettering.lettered("a b").shape == (7, lettering.width("a b")) and not lettering.lettered(" ").any()
    np.testing.assert_array_equal(lettering.lettered("\N{SNOWMAN}"), lettering.lettered("?"))
    picture = np.full((10, 40, 3), 255, np.uint8)
    lettering.write(picture, "a long title", 2, 1, (0, 0, 0), most=30)
    assert (picture[:, 32:] == 255).all() and (picture[1:8, 2:32] == 0).any()


@pytest.fixture(scope="module")
def film():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def test_a_map_lies_where_and_when_it_is(film):
    """A coarse map whose second step has one positive and one negative cell."""
    values = np.zeros((2, 4, 4), np.float32)
    values[1, 0, 0], values[1, 3, 3] = 1, -1
    one = overlay.Panel("gradcam @norm", values, np.array([0.5, 2.5]), True)
    assert one.scale_limit == 1
    out = overlay.overlay_maps(film, [one], "a clip")
    side = 32 * 6
    assert out.shape[0] == 4 and out.shape[1] % 2 == out.shape[2] % 2 == 0
    y, x = 2 * overlay.PANEL_GAP + lettering.HEIGHT + overlay.TITLE_HEIGHT, overlay.PANEL_GAP
    np.testing.assert_array_equal(out[:, y : y + side : 6, x : x + side : 6], film)
    panel = out[:, y : y + side, x + side + overlay.PANEL_GAP :][:, :, :side].astype(int)
    redness = panel[..., 0] - panel[..., 2]
    assert redness[3, 10, 10] > 60 and redness[3, -10, -10] < -60 and abs(redness[3, 96, 96]) < 5
    assert np.abs(redness[0]).max() < 12 < redness[2, 10, 10]  # before the middle of the first step nothing, then more
    bars = out[:, y + side : y + side + overlay.BAR_HEIGHT, x + side + overlay.PANEL_GAP :][:, :, :side].astype(int)
    red = bars[0, ..., 0] - bars[0, ..., 2] > 40
    blue = bars[0, ..., 2] - bars[0, ..., 0] > 40
    assert not (red | blue)[:, : side // 2 - 1].any() and red[:, side // 2 :].any() and blue[:, side // 2 :].any()
    marks = [(frame[1] < 60).all(-1).nonzero()[0].mean() for frame in bars]
    assert (np.diff(marks) > 0).all()


def test_pixels_stay_pixels_and_cells_are_mixed():
    fine = np.random.default_rng(1).random((32, 32))
    np.testing.assert_array_equal(overlay._enlarge(fine, (64, 96)), fine.repeat(2, 0).repeat(3, 1))
    ramp = overlay._enlarge(np.array([[0.0, 1.0]] * 2), (4, 8))
    np.testing.assert_allclose(ramp[0], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


@pytest.mark.parametrize("suffix", [".webp", ".mp4"])
def test_films_can_be_played(tmp_path, film, suffix):
    whole = overlay.overlay_maps(film, [], "caption")
    write_animation(tmp_path / f"film{suffix}", whole, 4.0)
    assert [path.name for path in tmp_path.iterdir()] == [f"film{suffix}"]
    if suffix == ".mp4":
        with av.open(tmp_path / "film.mp4") as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert float(container.streams.video[0].average_rate) == 4
        assert len(frames) == 4
        assert np.abs(frames[0].astype(float) - whole[0]).mean() < 20
    else:
        data = (tmp_path / "film.webp").read_bytes()
        assert data[:4] == b"RIFF" and b"ANIM" in data[:80] and data.count(b"ANMF") == 4


def test_a_film_of_no_known_kind_is_refused(tmp_path, film):
    with pytest.raises(ValueError, match="an animation is .mp4 or .webp, got film.gif"):
        write_animation(tmp_path / "film.gif", film, 4.0)
