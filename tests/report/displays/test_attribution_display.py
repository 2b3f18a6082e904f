"""Displays of attribution maps: their animation, arrays, numbers and plots."""

import base64
import importlib.util
import re

import numpy as np
import pytest

from vtcav_jax.attribution.result import Attribution, concatenate_attributions
from vtcav_jax.attribution.videos.map_store import half_mass_fraction
from vtcav_jax.report.displays.attribution import attribution_table, clip_profiles, displayed_frames
from vtcav_jax.report.displays.notebook_html import MAX_HTML_BYTES

RANDOM = np.random.default_rng(0)


def make_maps(n=3, size=16, steps=4, *, with_frames=True):
    frames = RANDOM.integers(0, 256, (n, 2 * steps, size, size, 3), np.uint8) if with_frames else None
    maps = RANDOM.normal(size=(n, steps, size, size)).astype(np.float32)
    gap = np.arange(n, dtype=np.float32)
    return Attribution(maps, "video", True, 3, "attn_lrp", gap, target="direction", frames=frames)


def test_the_repr_has_method_stage_sizes_and_target():
    assert repr(make_maps()) == "Attribution(attn_lrp at video, 3 clips, 4 x 16 x 16, direction)"
    assert repr(make_maps(1)[:1]) == "Attribution(attn_lrp at video, 1 clip, 4 x 16 x 16, direction)"


def test_frames_follow_the_clips():
    maps = make_maps(4)
    assert maps.frames is not None
    part = maps[1:3]
    assert part.frames is not None and (part.frames == maps.frames[1:3]).all()
    joined = concatenate_attributions([maps[:1], maps[1:]])
    assert joined.frames is not None and (joined.frames == maps.frames).all()
    assert concatenate_attributions([maps, make_maps(1, with_frames=False)]).frames is None


@pytest.mark.slow
def test_the_html_has_an_animation_of_the_first_clips_in_bounds():
    from PIL import Image

    maps = make_maps(2)
    text = maps._repr_html_()
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', text)
    assert len(text.encode()) <= MAX_HTML_BYTES
    import io

    with Image.open(io.BytesIO(base64.b64decode(data))) as animation:
        assert getattr(animation, "n_frames", 1) == 8  # those of the clips
    large = make_maps(40, 224, 16)._repr_html_()
    assert len(large.encode()) <= MAX_HTML_BYTES
    assert "webp" in large or "1 picture too large for a notebook" in large


def test_without_pyav_the_table_remains(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "vtcav_jax.report.displays.attribution.find_spec", lambda name: None if name == "av" else find(name)
    )
    text = make_maps()._repr_html_()
    assert "<img" not in text and "Animations need PyAV" in text and "<td>attn_lrp</td>" in text


def test_maps_without_frames_are_on_grey():
    maps = make_maps(2, 8, with_frames=False)
    frames = displayed_frames(maps, 2)
    assert frames.shape == (2, 4, 64, 64, 3) and (frames == frames[0, 0, 0, 0]).all()
    assert "their frames are unknown" in maps._repr_html_() and maps.plot().axes


def test_the_numbers_are_those_of_the_maps():
    maps = make_maps()
    table = attribution_table(maps)
    profile = np.abs(maps.map.astype(np.float64)).sum((2, 3))
    for i, line in enumerate(table.lines):
        row = dict(zip(table.columns, line))
        assert (row["clip_index"], row["target"], row["completeness_gap"]) == (i, "direction", float(i))
        assert row["map_sum"] == pytest.approx(float(maps.map[i].sum()), rel=1e-5)
        assert row["peak_step"] == profile[i].argmax()
        assert row["peak_share"] == pytest.approx(profile[i].max() / profile[i].sum())
        assert row["temporal_half_mass"] == pytest.approx(half_mass_fraction(profile[i]))
    np.testing.assert_allclose(clip_profiles(maps), profile / profile.sum(1, keepdims=True))
    empty = Attribution(np.zeros((1, 2, 2, 2), np.float32), "norm", False, 1, "cam")
    assert np.isnan(clip_profiles(empty)).all() and empty._repr_html_().count("<tr>") == 2


@pytest.mark.slow
def test_arrays_animations_and_figures_can_be_saved(tmp_path):
    maps = make_maps(2)
    with np.load(maps.save(tmp_path / "maps.npz"), allow_pickle=False) as stored:
        assert (stored["map"] == maps.map).all() and (stored["frames"] == maps.frames).all()
        assert str(stored["target"]) == "direction" and bool(stored["signed"]) and "standard_error" not in stored
    starts = {".webp": b"RIFF", ".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml", ".csv": b"clip_index,target"}
    for suffix, start in starts.items():
        assert maps.save(tmp_path / f"maps{suffix}").read_bytes().startswith(start)
    assert b"ftyp" in maps.save(tmp_path / "maps.mp4").read_bytes()[:32]
    assert maps.save(tmp_path / "profile.png", "profile").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(ValueError, match=r"ends in \.npz, \.webp, \.mp4, \.csv"):
        maps.save(tmp_path / "maps.gif")


def test_a_plot_has_a_row_per_clip_and_a_column_per_step():
    maps = make_maps(3, steps=12)
    figure = maps.plot()
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 3 * 8 and [axes.get_ylabel() for axes in pictures[::8]] == ["clip 0", "clip 1", "clip 2"]
    assert pictures[0].get_title() == "step 1" and pictures[7].get_title() == "step 12"
    lines = maps.plot("profile").axes[0].lines
    np.testing.assert_allclose(lines[1].get_ydata(), clip_profiles(maps)[1])
