"""Clips made from noise raise the score that they are made for, by its planted cause."""

import jax.numpy as jnp
import numpy as np
import pytest

import vtcav_jax as vtcav
from vtcav_jax import tap
from vtcav_jax.adapters import from_function
from vtcav_jax.attribution.synthesis import _pixels, synthesise_clips
from vtcav_jax.attribution.targets import Class, ConceptTarget
from vtcav_jax.clip_spec import ClipSpec

SPEC = ClipSpec(frames=6, size=12)


def brightness_of_halves(video, tap=tap.identity_tap):
    """Score the early and the late frames' brightness."""
    x = tap("frames", video.mean((2, 3))[:, :, None, None])
    return jnp.stack([x[:, :3].mean((1, 2, 3, 4)), x[:, 3:].mean((1, 2, 3, 4))], -1)


NETWORK = from_function(brightness_of_halves, clip=SPEC, classes=("early", "late"))


def brightness(clips):
    frames = clips.frames.astype(float).mean((2, 3, 4))
    return frames[:, :3].mean(), frames[:, 3:].mean()


def test_the_cause_of_a_class_appears_and_the_curve_rises():
    early, late = (
        synthesise_clips(NETWORK, name, n=2, steps=60, noise=0.0, coherence=0.0) for name in ("early", "late")
    )
    for clips, (bright, dark) in ((early, brightness(early)), (late, brightness(late)[::-1])):
        assert clips.frames.shape == (2, *SPEC.shape) and bright > dark + 60
        assert clips.curve[-1] > clips.curve[0] + 0.3 and clips.curve.shape == (60,)
        logits = np.asarray(tap.compute_logits(NETWORK.model, SPEC.normalise(clips.frames)))
        np.testing.assert_allclose(clips.scores, np.abs(logits[:, 0] - logits[:, 1]), rtol=1e-4)
    assert not np.array_equal(early.frames[0], early.frames[1])


def test_a_concept_vector_is_maximised_and_the_seed_decides():
    target = ConceptTarget("frames", np.array([1, 0, -1], np.float32))
    clips, same, other = (
        synthesise_clips(NETWORK, target, n=1, steps=30, coherence=0.0, seed=seed) for seed in (3, 3, 4)
    )
    red, _, blue = clips.frames.astype(float).mean((0, 1, 2, 3))
    assert red > blue + 25
    assert np.array_equal(clips.frames, same.frames) and not np.array_equal(clips.frames, other.frames)


def test_coherence_makes_consecutive_frames_alike():
    steps = [
        np.abs(np.diff(synthesise_clips(NETWORK, "early", n=1, steps=40, coherence=w).frames.astype(float), axis=1))
        for w in (0.0, 30.0)
    ]
    assert steps[1].mean() < 0.5 * steps[0].mean()


def test_waves_are_real_and_long_waves_are_strong():
    pixels = np.asarray(
        _pixels(jnp.asarray(np.random.default_rng(0).normal(size=(8, 6, 12, 7, 3, 2)), jnp.float32), SPEC)
    )
    assert pixels.shape == (8, *SPEC.shape) and (pixels > 0).all() and (pixels < 1).all()
    logits = np.log(pixels / (1 - pixels))
    neighbours = [np.corrcoef(np.ravel(logits[:, :-n]), np.ravel(logits[:, n:]))[0, 1] for n in (1, 3)]
    assert neighbours[0] > 0.3 > neighbours[1]


@pytest.mark.slow
def test_the_cnn_of_the_worlds_needs_motion_in_the_direction_of_the_class():
    network = vtcav.load("worlds_cnn")
    shifts = {}
    for name in ("up", "down"):
        frames = synthesise_clips(network, f"direction:{name}", n=2, seed=1).frames.astype(float).mean(-1)
        shifts[name] = [np.mean([np.sum((np.roll(f[:-1], d, 1) - f[1:]) ** 2) for f in frames]) for d in (-1, 1)]
    assert shifts["up"][0] < shifts["up"][1] and shifts["down"][0] > shifts["down"][1]


def test_errors_name_the_expected_values():
    with pytest.raises(ValueError, match="at least one clip and one step, got 0 and 4"):
        synthesise_clips(NETWORK, "early", n=0, steps=4)
    with pytest.raises(ValueError, match="did you mean early"):
        synthesise_clips(NETWORK, "earl", n=1, steps=1)
    with pytest.raises(ValueError, match="there is no class 7"):
        synthesise_clips(NETWORK, Class(7), n=1, steps=1)
