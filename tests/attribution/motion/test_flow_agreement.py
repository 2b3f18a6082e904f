"""Motion parts and maps on moving pixels: independent sorting, ties, and known motion of worlds."""

import numpy as np
import pytest

from tests.support.typed import readable
from vtcav_jax.attribution.motion import flow_agreement as fa
from vtcav_jax.attribution.motion import map_split, optical_flow
from vtcav_jax.attribution.videos.clip_windows import stream_windows
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, open_source
from vtcav_jax.data.world_source import WorldSource


@pytest.fixture(scope="module")
def random_clips():
    """Maps of three clips, moving masks at twice their resolution, and frames."""
    rng = np.random.default_rng(3)
    maps = rng.normal(size=(3, 4, 6, 5)).astype(np.float32)
    masks = rng.random((3, 8, 12, 10)) < 0.3
    frames = rng.integers(0, 256, (3, 8, 12, 10, 3)).astype(np.uint8)
    return maps, masks, frames


@pytest.mark.parametrize("threshold_sd", [0.5, 1.5])
def test_map_and_frame_difference_are_compared_at_the_area_of_the_motion_part(random_clips, threshold_sd):
    maps, masks, frames = random_clips
    split = map_split.split_by_motion(maps, threshold_sd)
    agreement = fa.flow_agreement(split, masks, frames)
    change = np.abs(np.diff(frames.astype(float), axis=1)).mean(-1)
    beside = [change[:, max(t - 1, 0) : t + 1].mean(1) for t in range(8)]
    cells = np.stack(beside, 1).reshape(3, 4, 2, 6, 2, 5, 2).mean((2, 4, 6))
    moving = masks.reshape(3, 4, 2, 6, 2, 5, 2).mean((2, 4, 6))
    for i in range(3):
        k = split.mask[i].sum()
        assert 0 < k < 120
        by_map, by_difference = (np.argsort(-x[i].ravel())[:k] for x in (np.abs(maps), cells))
        where = moving[i].ravel()
        assert agreement.precision[i] == pytest.approx(where[split.mask[i].ravel()].mean(), rel=1e-5)
        assert agreement.precision_map[i] == pytest.approx(where[by_map].mean(), rel=1e-5)
        assert agreement.precision_difference[i] == pytest.approx(where[by_difference].mean(), rel=1e-5)
        padded = np.pad(np.abs(maps[i]), ((0, 0), (1, 1), (1, 1)), mode="edge")
        kernel = np.outer([1, 2, 1], [1, 2, 1])
        smooth = np.sum([kernel[y, x] * padded[:, y : y + 6, x : x + 5] for y in range(3) for x in range(3)], 0)
        by_smooth = np.argsort(-smooth.ravel())[:k]
        assert agreement.precision_smoothed[i] == pytest.approx(where[by_smooth].mean(), rel=1e-5)
        size = np.abs(maps[i]).ravel()
        assert agreement.energy_top[i] == pytest.approx((size * where)[by_map].sum() / size[by_map].sum(), rel=1e-5)
        assert agreement.energy_map[i] == pytest.approx((size * where).sum() / size.sum(), rel=1e-5)
        part = np.abs(split.motion[i]).ravel()
        assert agreement.energy[i] == pytest.approx((part * where).sum() / part.sum(), rel=1e-5)
        assert agreement.area[i] == pytest.approx(masks[i].mean(), rel=1e-5)
    assert np.isnan(fa.flow_agreement(split, masks).precision_difference).all()


def test_tied_cells_share_the_last_places():
    values = np.array([[[[3.0, 1.0, 1.0, 1.0]]], [[[0.0, 0.0, 0.0, 0.0]]]], np.float32)
    weights = fa.strongest_cells(values, np.array([2, 0]))
    np.testing.assert_allclose(weights[0, 0, 0], [1, 1 / 3, 1 / 3, 1 / 3])
    assert not weights[1].any()


def test_an_empty_motion_part_has_no_precision(random_clips):
    maps, masks, frames = random_clips
    agreement = fa.flow_agreement(map_split.split_by_motion(maps, 50.0), masks, frames)
    for name in ("precision", "precision_map", "precision_difference", "energy", "energy_top"):
        assert np.isnan(getattr(agreement, name)).all()
    assert not np.isnan(agreement.energy_map).any()


def test_the_motion_of_worlds_is_known_without_opencv(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    source, clip_spec = open_source("worlds:small:3:5"), ClipSpec(frames=8, size=32)
    assert isinstance(source, WorldSource)
    find = optical_flow.moving_pixels_of_windows(source, clip_spec)
    for window in map(readable, stream_windows(source, clip_spec, SamplingConfig(), num_workers=0)):
        masks = source.render(window.read.index).masks
        now = np.pad(masks["key"][0] | masks["dis"][0], ((1, 1), (0, 0), (0, 0)))
        np.testing.assert_array_equal(find(window), now[:-2] | now[1:-1] | now[2:])
    with pytest.raises(ValueError, match="needs OpenCV"):  # at another size, motion has to be estimated
        optical_flow.moving_pixels_of_windows(source, ClipSpec(frames=8, size=64))
