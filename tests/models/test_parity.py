"""Our Video Swin against torchvision's with random weights: values and gradients at every stage.

Tolerances are relative to the maximum value at the stage. In float32, rounding differs by 1e-7 at each of about a
hundred steps, hence 1e-5. In float64, it is 1e-16, hence 1e-10, which detects any difference other than rounding.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from numpy.typing import DTypeLike

from vtcav_jax import models, tap
from vtcav_jax.models import parameters
from weights_conversion import convert, torch_reference
from weights_conversion.convert import match_parameters
from weights_conversion.key_mapping import family_of, official_name, our_tensors

CLIPS = {
    "short_clip_and_padded_windows": (8, 64, 64),
    "nothing_divides": (7, 45, 58),
    "one_frame": (1, 32, 32),
    "long_clip_shifted_in_time": (20, 32, 40),
}

# Of each layer: one without and one with a shift, which later blocks repeat
TWO_BLOCKS = (2, 2, 2, 2)


def randomised(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Return random parameters, including biases and normalisation: zeros and ones would hide omissions."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            scale = 0.5 if name.endswith("bias_table") else 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, scale, generator=generator)
    return network


def pair(preset: str, dtype=jnp.float32, network=None, depths: tuple[int, ...] | None = None):
    """Return torchvision's network and ours with the same weights; `depths` replaces the numbers of blocks."""
    network = network or randomised(torch_reference.torchvision_swin(preset, depths=depths), seed=1)
    entry = models.get_preset(preset)
    options = {} if depths is None else {"depths": depths}

    def make(**dtype):
        return entry.maker(num_classes=entry.num_classes, rngs=parameters.initial_rngs(0), **options, **dtype)

    tensors = our_tensors(family_of(preset), {name: value.numpy() for name, value in network.state_dict().items()})
    arrays = match_parameters(preset, nnx.eval_shape(make), tensors)
    arrays = {name: a.astype(dtype) for name, a in arrays.items()}
    return network.to(getattr(torch, jnp.dtype(dtype).name)), parameters.load(partial(make, dtype=dtype), arrays)


def clip(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(2, *shape, 3)).astype(dtype)


def assert_close(ours, theirs: torch.Tensor, stage: str, tolerance: float) -> None:
    expected = torch_reference.to_our_axes(stage, theirs.detach().numpy())
    assert ours.shape == expected.shape and ours.dtype == expected.dtype
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=stage)


def compare(preset: str, shape: tuple[int, ...], dtype, tolerance: float, network=None, depths=None) -> None:
    network, model = pair(preset, dtype, network, depths)
    video = clip(shape, np.dtype(dtype))
    with torch.no_grad():
        their_logits, theirs = torch_reference.run_swin(network, torch.from_numpy(video))
    stages = tap.stages_of(model)
    logits, ours = tap.activations(model, jnp.asarray(video), stages)
    assert ours.keys() == theirs.keys()
    for stage in stages:
        assert_close(ours[stage], theirs[stage], stage, tolerance)
    assert_close(logits, their_logits, "logits", tolerance)


@pytest.mark.slow
def test_swin_t_float32():
    compare("video_swin_t_k400", CLIPS["nothing_divides"], jnp.float32, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["one_frame", "long_clip_shifted_in_time"])  # the third below, with gradients
def test_swin_t_float64(shape, float64):
    compare("video_swin_t_k400", CLIPS[shape], jnp.float64, 1e-10, depths=TWO_BLOCKS)


@pytest.mark.slow
def test_a_wider_network_with_longer_windows_float32():
    """The other variants differ from it and video_swin_t_k400 only in depth and width (see benchmarks.parity)."""
    compare("video_swin_b_ssv2", CLIPS["short_clip_and_padded_windows"], jnp.float32, 1e-5, depths=TWO_BLOCKS)


@pytest.mark.parametrize("shape", [(8, 32, 32), (11, 37, 50)], ids=["fits", "padded_and_shifted"])
@pytest.mark.slow
def test_tiny_float64(shape, float64):
    compare("video_swin_tiny", shape, jnp.float64, 1e-10)


def compare_gradients(preset: str, shape: tuple[int, ...], depths=None) -> None:
    network, model = pair(preset, jnp.float64, depths=depths)
    video = clip(shape, np.float64)
    target = np.array([3, 1])
    their_logits, theirs = torch_reference.run_swin(network, torch.from_numpy(video))
    score = their_logits[torch.arange(2), torch.from_numpy(target)].sum()
    their_gradients = dict(zip(theirs, torch.autograd.grad(score, list(theirs.values()))))
    stages = tap.stages_of(model)
    tapped = tap.activations_and_gradients(model, jnp.asarray(video), target, stages)
    for stage in stages:
        assert_close(tapped.gradients[stage], their_gradients[stage], stage, 1e-10)
        assert_close(tapped.activations[stage], theirs[stage], stage, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [6, 10])
def test_masks_are_the_references_where_scores_are_large(factor, float64):
    """Scores near 100 exceed the mask of -100, so the value of the mask matters here."""
    network = randomised(torch_reference.torchvision_swin("video_swin_tiny"), seed=1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("qkv.weight"):
                parameter.mul_(factor)
    compare("video_swin_tiny", (8, 32, 32), jnp.float64, 1e-10, network)


@pytest.mark.slow
def test_swin_t_gradients_at_every_stage(float64):
    compare_gradients("video_swin_t_k400", CLIPS["nothing_divides"], TWO_BLOCKS)


@pytest.mark.slow
def test_tiny_gradients_at_every_stage(float64):
    compare_gradients("video_swin_tiny", (11, 37, 50))


@pytest.mark.parametrize("wrap", ["bare", "state_dict", "data_parallel"])
def test_official_names_give_the_same_parameters(wrap):
    state = randomised(torch_reference.torchvision_swin("video_swin_tiny"), seed=1).state_dict()
    window = (4 * 4 * 4,) * 2
    official = {
        name.replace("head.", "cls_head.fc_cls.") if name.startswith("head.") else f"backbone.{official_name(name)}": (
            value.reshape(window) if name.endswith("relative_position_index") else value
        )
        for name, value in state.items()
    }
    assert "backbone.layers.1.blocks.0.mlp.fc2.weight" in official
    wrapped = {
        "bare": official,
        "state_dict": {"meta": {"epoch": 30}, "state_dict": official},
        "data_parallel": {"model_state": {f"module.{name}": value for name, value in official.items()}},
    }[wrap]
    ours, same = convert("video_swin_tiny", state), convert("video_swin_tiny", wrapped)
    assert ours.keys() == same.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, same[name], err_msg=name)
