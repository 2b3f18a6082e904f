"""Resize and crop against torchvision, whose presets the networks were trained with."""

from dataclasses import replace

import numpy as np
import pytest

from vtcav_jax import models
from vtcav_jax.data import resize
from weights_conversion.torch_reference import video_models

KINETICS = models.get_preset("video_swin_t_k400").clip_spec
SIZES = [(240, 320), (256, 340), (720, 1280), (101, 67), (172, 172), (240, 426), (480, 270), (256, 256), (300, 301)]


def as_torch(frames):
    import torch

    video_models()  # makes torchvision importable
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def exact(frame, shape, antialias):
    """Resize in float64 by dense matrices of triangle filters, which antialias widens when shrinking."""
    for axis, out in enumerate(shape):
        size = frame.shape[axis]
        centre = (np.arange(out)[:, None] + 0.5) * size / out - 0.5
        if not antialias:
            centre = np.clip(centre, 0, size - 1)
        weights = np.maximum(1 - np.abs(np.arange(size) - centre) / (max(size / out, 1) if antialias else 1), 0)
        weights /= weights.sum(1, keepdims=True)
        frame = np.moveaxis(np.tensordot(weights, frame, (1, axis)), 0, axis)
    return frame


def assert_equal_but_for_ties(ours, theirs, unrounded, size):
    """Assert equal grey levels, except for sums that float32 cannot distinguish from the middle between two levels.

    Positions in a frame are exact to its length times epsilon, and grey levels to 255 times that.
    """
    reach = 255 * max(unrounded.shape + size) * np.finfo(np.float32).eps
    differ = ours != theirs
    off_middle = np.abs(unrounded[differ] % 1 - 0.5)
    assert (off_middle <= reach).all(), f"{off_middle.max():.2e} from a tie"
    assert (np.abs(ours.astype(int) - theirs)[differ] == 1).all()
    assert differ.sum() <= max(4, 2e-5 * differ.size), f"{differ.sum()} ties of {differ.size} went the other way"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_preprocessing_equals_the_torchvision_preset(size):
    frames = np.random.default_rng(sum(size)).integers(0, 256, (4, *size, 3), np.uint8)
    tensor = as_torch(frames)
    from torchvision.transforms._presets import VideoClassification

    for geometry in (KINETICS, replace(KINETICS, size=112, resize=128)):
        square, side = (geometry.size, geometry.size), geometry.resize
        assert side is not None
        mean, std = geometry.mean, geometry.std
        theirs = VideoClassification(crop_size=square, resize_size=(side,), mean=mean, std=std)(tensor)
        theirs = theirs.permute(1, 2, 3, 0).numpy()
        squares = np.concatenate([resize.square_views(frame, geometry) for frame in frames])
        ours = geometry.normalise(squares)
        assert ours.dtype == np.float32
        levels = np.rint((theirs * np.array(std) + mean) * 255)
        same = squares == levels
        error = np.abs(ours - theirs)[same].max()
        assert error <= 1e-6, f"largest difference {error:.2e}"
        assert (~same).sum() <= max(4, 2e-5 * same.size)  # ties; see the next test
        assert (np.abs(squares - levels)[~same] == 1).all()


def test_the_preset_is_that_of_the_published_weights():
    transforms = video_models().swin_transformer.Swin3D_T_Weights.KINETICS400_V1.transforms
    square, side = (KINETICS.size, KINETICS.size), (KINETICS.resize,)
    assert transforms.keywords == dict(crop_size=square, resize_size=side, mean=KINETICS.mean, std=KINETICS.std)


def test_without_the_aspect_ratio_both_sides_are_resized():
    frame = np.random.default_rng(0).integers(0, 256, (96, 171, 3), np.uint8)
    geometry = replace(KINETICS, size=48, resize=64, keep_aspect=False)
    expected = resize.resize(frame, (64, 64))[8:56, 8:56]
    np.testing.assert_array_equal(resize.square_views(frame, geometry)[0], expected)
    wide = resize.square_views(frame, replace(geometry, keep_aspect=True))
    assert not np.array_equal(wide[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resize_equals_torchvision_with_and_without_antialias(size, antialias):
    frames = np.random.default_rng(sum(size) + 1).integers(0, 256, (2, *size, 3), np.uint8)
    tensor = as_torch(frames)
    from torchvision.transforms import functional

    for target in (resize.shorter_side(size, 256), (32, 32), (96, 61)):
        theirs = functional.resize(tensor, list(target), antialias=antialias).permute(0, 2, 3, 1).numpy()
        ours = np.stack([resize.resize(frame, target, antialias=antialias) for frame in frames])
        assert_equal_but_for_ties(ours, theirs, np.stack([exact(frame, target, antialias) for frame in frames]), size)
        window = (slice(3, 20), slice(7, 31))
        part = resize.resize(frames[0], target, antialias=antialias, window=window)
        np.testing.assert_array_equal(part, ours[0][window])


@pytest.mark.parametrize("size", [(240, 426), (480, 270), (224, 224)], ids=str)
def test_three_crops_are_along_the_longer_side(size):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    views = resize.square_views(frame, KINETICS, "three_crop")
    whole = resize.resize(frame, resize.shorter_side(size, 224))
    step = (max(whole.shape[:2]) - 224) // 2
    along = int(np.argmax(whole.shape[:2]))
    for i, view in enumerate(views):
        expected = np.take(whole, np.arange(i * step, i * step + 224), axis=along)
        np.testing.assert_array_equal(view, expected)
