"""Messages about clips that the public functions cannot take."""

import inspect

import numpy as np
import pytest

import vtcav_jax as vtcav
from vtcav_jax import tap
from vtcav_jax.attribution.inputs import resolve_clips


@pytest.fixture(scope="module")
def network():
    return vtcav.load("worlds_cnn")


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((8, 32, 32, 3), "add a batch axis: clips\\[None\\]"),
        ((2, 3, 8, 32, 32), "move the channels last: np.moveaxis\\(clips, 1, -1\\)"),
        ((2, 8, 3, 32, 32), "move the channels last: np.moveaxis\\(clips, 2, -1\\)"),
        ((8, 32, 32), "32\\)"),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_other_axes_are_named(network, shape, hint, dtype):
    clips = np.zeros(shape, dtype)
    with pytest.raises(ValueError, match=rf"expected clips \(b, t, h, w, 3\), got .*{hint}"):
        vtcav.attribute(network, clips, "direction:left")
    with pytest.raises(ValueError, match=hint):
        vtcav.build_pyramid(network, clips, "direction:left")


def test_floats_must_be_normalised(network):
    frames = np.full((1, 8, 32, 32, 3), 255, np.uint8)
    with pytest.raises(ValueError, match=r"normalised \(about .* for this network\), got up to 255; pass uint8"):
        vtcav.attribute(network, frames.astype(np.float32), "direction:left")
    normalised = np.asarray(resolve_clips(network, frames))
    assert resolve_clips(network, 3 * normalised) is not None  # noise and edits may leave the range
    bare_model = network.model
    assert resolve_clips(bare_model, frames.astype(np.float32)) is not None


def test_a_missing_option_is_described(network):
    with pytest.raises(ValueError, match=r"requires references=clips of other videos, shape \(n, t, h, w, 3\)"):
        vtcav.attribute(network, np.zeros((1, 8, 32, 32, 3), np.uint8), "direction:left", "expected_gradients")


def test_a_network_in_place_of_a_model_is_described(network):
    as_pytree = inspect.unwrap(tap.as_pytree)  # users' calls are not checked against annotations
    reason = r"expected a model, got a Network; pass its \.model, or use attribute, which takes a Network"
    with pytest.raises(ValueError, match=reason):
        as_pytree(network)
    assert as_pytree(network.model) is network.model
    with pytest.raises(ValueError, match="expected a callable, got int; pass a function of a video and a tap"):
        as_pytree(1)


def test_results_have_a_short_repr(network):
    clips = vtcav.worlds.make_clips("small", n=2, seed=7)
    maps = vtcav.attribute(network, clips.frames, "direction:left", "saliency")
    assert repr(maps) == "Attribution(saliency at video, 2 clips, 8 x 32 x 32, direction:left)"
    assert repr(clips) == "WorldClips(GlyphWorld, seed 7, 2 clips (8, 32, 32, 3))"
    assert repr(network).startswith("Network(worlds_cnn, clips (8, 32, 32, 3), ") and len(repr(network)) < 200


def test_uint8_clips_and_the_target_stay_with_the_maps(network):
    frames = vtcav.worlds.make_clips("small", n=2, seed=7).frames
    maps = vtcav.attribute(network, frames, "direction", "saliency")
    assert maps.target == "direction" and maps.frames is frames  # not copied
    normalised = vtcav.attribute(network, np.asarray(network.clip_spec.normalise(frames)), 3, "saliency")
    assert normalised.target == "class 3" and normalised.frames is None
