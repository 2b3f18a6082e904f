"""Animations of maps: colour maps, text and positions of values."""

import tracemalloc
from dataclasses import replace

import av
import numpy as np
import pytest

from vtcav_jax.data.encode import write_animation
from vtcav_jax.report import colormaps
from vtcav_jax.report.animation import lettering, overlay
from vtcav_jax.report.animation import maps as map_films


def test_luminance_orders_the_values_and_zero_is_neutral():
    """Luminance in sRGB: sequential colours get lighter, diverging ones darker away from the middle."""
    tables = {signed: colormaps.color_table(signed=signed).astype(int) for signed in (False, True)}
    assert all(table.shape == (colormaps.LEVELS, 3) for table in tables.values())
    sequential, diverging = (tables[signed] @ (0.2126, 0.7152, 0.0722) for signed in (False, True))
    assert (np.diff(sequential[::5]) > 0).all()  # single steps are rounded to 8 bits
    assert (np.diff(diverging[:128:5]) > 0).all() and (np.diff(diverging[128::5]) < 0).all()
    assert np.ptp(tables[True][127:129], axis=1).max() <= 4
    assert tables[True][20, 2] > tables[True][20, 0] and tables[True][-20, 0] > tables[True][-20, 2]


def test_values_have_their_colours():
    sequential, diverging = (colormaps.color_table(signed=signed) for signed in (False, True))
    signed = colormaps.apply_colormap(np.array([-2.0, -1, 0, 1, 5]), 1.0, signed=True)
    np.testing.assert_array_equal(signed[[0, 1, 3, 4]], diverging[[0, 0, 255, 255]])
    assert np.ptp(signed[2].astype(int)) <= 4
    np.testing.assert_array_equal(colormaps.apply_colormap(np.array([0.0, 1]), 1.0, signed=False), sequential[[0, 255]])
    np.testing.assert_array_equal(colormaps.apply_colormap(np.zeros(2), 0.0, signed=False), sequential[[0, 0]])


def written(text, most=60):
    picture = np.full((16, 70, 3), 255, np.uint8)
    lettering.write(picture, text, 2, 1, (0, 0, 0), most=most)
    return picture


def test_letters():
    signs = (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,_-+:/=()@%&#'?−→é\N{CYRILLIC SMALL LETTER ZHE}"
    )
    shapes = {sign: written(sign).tobytes() for sign in signs}
    assert len(set(shapes.values())) == len(signs)  # all distinct
    assert (written(" ") == 255).all() and (written("") == 255).all()
    for sign in signs:
        rows, columns = np.nonzero((written(sign) < 255).any(-1))
        assert rows.min() >= 1 and rows.max() <= lettering.HEIGHT and columns.max() <= 2 + lettering.width(sign)
    long = written("a long title", most=30)
    assert (long[:, 32:] == 255).all() and (long[1 : 1 + lettering.HEIGHT, 2:32] < 128).any()
    np.testing.assert_array_equal(written("two\nlines"), written("two lines"))
    assert (written("wide", most=3) == 255).all()


@pytest.mark.parametrize("most", [1, 30, 55, 90, 1000])
def test_wrapped_text_is_complete_and_fits(most):
    texts = [
        "direction:left vs direction:right",
        "a_very_long_name_of_a_layer.blocks.11.mlp",
        "x" * 90,
        "a b",
        "ab  cd",
    ]
    for text in texts:
        lines = lettering.wrap(text, most)
        assert "".join("".join(lines).split()) == "".join(text.split())
        assert all(lettering.width(line) <= most or len(line) == 1 for line in lines)
    assert lettering.wrap("one\ntwo", 1000) == ["one", "two"] and lettering.wrap("", most) == [""]
    assert lettering.wrap("direction:left vs direction:right", 70) == ["direction:left", "vs direction:", "right"]


@pytest.fixture(scope="module")
def film():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def test_map_positions_in_space_and_time(film):
    """The second step of a coarse map has one positive and one negative cell."""
    values = np.zeros((2, 4, 4), np.float32)
    values[1, 0, 0], values[1, 3, 3] = 1, -1
    map_panel = overlay.Panel("gradcam @norm", values, np.array([0.5, 2.5]), True)
    assert map_panel.scale_limit == 1
    out = overlay.overlay_maps(film, [map_panel], "a clip")
    side = 32 * 6
    assert out.shape[0] == 4 and out.shape[1] % 2 == out.shape[2] % 2 == 0
    y, x = 2 * overlay.PANEL_GAP + lettering.HEIGHT + overlay.TITLE_HEIGHT, overlay.PANEL_GAP
    np.testing.assert_array_equal(out[:, y : y + side : 6, x : x + side : 6], film)
    panel = out[:, y : y + side, x + side + overlay.PANEL_GAP :][:, :, :side].astype(int)
    redness = panel[..., 0] - panel[..., 2]
    assert redness[3, 10, 10] > 60 and redness[3, -10, -10] < -60 and abs(redness[3, 96, 96]) < 5
    assert np.abs(redness[0]).max() < 12 < redness[2, 10, 10]  # 0 until the centre of the first step, then rising
    bars = out[:, y + side : y + side + overlay.BAR_HEIGHT, x + side + overlay.PANEL_GAP :][:, :, :side].astype(int)
    red = bars[0, ..., 0] - bars[0, ..., 2] > 40
    blue = bars[0, ..., 2] - bars[0, ..., 0] > 40
    assert not (red | blue)[:, : side // 2 - 1].any() and red[:, side // 2 :].any() and blue[:, side // 2 :].any()
    marks = [(frame[1] < 60).all(-1).nonzero()[0].mean() for frame in bars]
    assert (np.diff(marks) > 0).all()


def test_fine_maps_are_repeated_and_coarse_ones_interpolated():
    fine = np.random.default_rng(1).random((32, 32))
    np.testing.assert_array_equal(overlay._enlarge(fine, (64, 96)), fine.repeat(2, 0).repeat(3, 1))
    ramp = overlay._enlarge(np.array([[0.0, 1.0]] * 2), (4, 8))
    np.testing.assert_allclose(ramp[0], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


@pytest.mark.parametrize("suffix", [".webp", ".mp4"])
def test_animations_can_be_played(tmp_path, film, suffix):
    whole = overlay.overlay_maps(film, [], "caption")
    write_animation(tmp_path / f"film{suffix}", whole, 4.0)
    assert [path.name for path in tmp_path.iterdir()] == [f"film{suffix}"]
    if suffix == ".mp4":
        with av.open(str(tmp_path / "film.mp4"), mode="r") as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert container.streams.video[0].average_rate == 4
        assert len(frames) == 4
        assert np.abs(frames[0].astype(float) - whole[0]).mean() < 20
    else:
        data = (tmp_path / "film.webp").read_bytes()
        assert data[:4] == b"RIFF" and b"ANIM" in data[:80] and data.count(b"ANMF") == 4


def test_an_unknown_animation_format_is_refused(tmp_path, film):
    with pytest.raises(ValueError, match=r"an animation named \*.mp4 or \*.webp, got film.gif"):
        write_animation(tmp_path / "film.gif", film, 4.0)


def test_films_have_the_requested_width_and_colours():
    film = np.full((2, 8, 8, 3), 90, np.uint8)
    panel = overlay.Panel("m", np.array([[[0.0, 4.0], [0.0, 0.0]]]), np.array([0.5]), False)
    sizes = [overlay.overlay_maps(film, [panel], "", overlay.OverlayStyle(side)).shape[2] for side in (64, 192)]
    assert sizes[0] < sizes[1] and sizes[0] >= 2 * 64
    plain, hot = (
        overlay.blend_map(film[..., :1].astype(np.float32), panel, overlay.OverlayStyle(colormap=name))
        for name in ("", "hot")
    )
    assert not np.array_equal(plain, hot)
    expected = colormaps.color_table(signed=False, name="hot")[-1] * overlay.MAX_MAP_OPACITY
    background = (1 - overlay.MAX_MAP_OPACITY) * (64 + 0.7 * 90)
    np.testing.assert_allclose(hot[0, 0, -1], expected + background, atol=8)
    with pytest.raises(ValueError, match=r"no colour map named 'hut'.*hot"):
        colormaps.color_table(signed=True, name="hut")


def drawn_text(picture, dark=128):
    """Return the rows of a picture that have letters."""
    return np.flatnonzero((picture < dark).all(-1).any(1))


def test_names_that_differ_only_at_their_ends_look_different_in_a_film(film):
    """Both are far wider than a panel, and one is a prefix of the other."""
    names = ["swinging " + "a very long bat " * 4 + kind for kind in ("left", "right")]
    values = np.ones((1, 2, 2))
    pictures = [
        overlay.OverlayFilm(film, [overlay.PanelGroup([overlay.Panel(name, values, np.zeros(1), True)])], "")[0]
        for name in names
    ]
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()
    lines = lettering.wrap(names[0], 192)
    title = pictures[0][2 * overlay.PANEL_GAP + lettering.HEIGHT :, 2 * overlay.PANEL_GAP + 192 :]
    rows = drawn_text(title[: lettering.HEIGHT * len(lines)])
    assert {row // lettering.HEIGHT for row in rows.tolist()} == set(range(len(lines)))


def test_a_film_shows_the_maps_of_all_targets_by_each_method(film):
    """Rows: methods; beside the clip the targets, with one scale for classes, and an own one for a channel."""
    values = {"left": 4.0, "right": 1.0, "layers.0#3": 100.0}
    panels = {
        target: [overlay.Panel(method, np.full((1, 2, 2), value), np.zeros(1), True) for method in ("lrp", "cam")]
        for target, value in values.items()
    }
    predictions, scores = {"left": "left", "right": "left", "layers.0#3": ""}, {"left": 2.0, "right": -1.0}
    groups = map_films.panel_groups(panels, predictions, scores | {"layers.0#3": 7.5})
    assert [group.heading for group in groups] == ["lrp", "cam"]
    for group in groups:
        assert [panel.title for panel in group.panels] == ["left\nscore 2", "right\nscore -1", "layers.0#3\nscore 7.5"]
        assert [panel.scale_limit for panel in group.panels] == [4.0, 4.0, 100.0]
    assert map_films.film_caption("a clip", predictions, scores) == "a clip  (prediction left)"
    one = overlay.OverlayFilm(film, groups[:1], "a clip")
    both = overlay.OverlayFilm(film, groups, "a clip")
    assert len(both) == len(film) and both[0].shape[1] == one[0].shape[1] == 4 * 192 + 5 * overlay.PANEL_GAP
    n_rows = one[0].shape[0] - 2 * overlay.PANEL_GAP - lettering.HEIGHT
    assert abs(both[0].shape[0] - one[0].shape[0] - n_rows) <= 1
    np.testing.assert_array_equal(both[-1], both[len(film) - 1])
    np.testing.assert_array_equal(np.stack(both[1:3]), np.stack([both[1], both[2]]))
    with pytest.raises(IndexError):
        both[len(film)]
    stages = {"left": panels["left"], "right": [replace(panel, title="other") for panel in panels["right"]]}
    (group, _) = map_films.panel_groups(stages, predictions, scores)  # a default layer that depends on the target
    assert group.heading == "" and [panel.title.split("\n")[1] for panel in group.panels] == ["lrp", "other"]
    assert map_films.panel_groups({"left": panels["left"]}, predictions, scores)[0].panels == panels["left"]


def test_frames_of_a_film_are_drawn_when_they_are_read(tmp_path):
    """A film of many panels takes the memory of a few of its frames."""
    video = np.zeros((200, 64, 64, 3), np.uint8)
    panels = [overlay.Panel(str(i), np.random.default_rng(i).random((4, 4, 4)), np.arange(4.0), True) for i in range(9)]
    tracemalloc.start()
    lazy = overlay.OverlayFilm(video, [overlay.PanelGroup(panels)], "a clip")
    write_animation(tmp_path / "film.mp4", lazy, 25.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lazy[0].nbytes * 12 > peak and len(lazy) == 200
    with av.open(str(tmp_path / "film.mp4"), mode="r") as container:
        assert sum(1 for _ in container.decode(video=0)) == 200
