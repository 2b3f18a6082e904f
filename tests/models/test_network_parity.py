"""3D networks against torchvision's, or against an independent implementation in plain torch, at every stage.

All values, including statistics of batch norms, are random, with the names and shapes of public state dicts. Tolerances
are relative to the maximum value at the stage: float32 rounding differs by 1e-7 at each of up to about a hundred
layers; float64 shows whether only rounding differs.
"""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from numpy.typing import DTypeLike

from tests.support.random_checkpoints import PRESET_OF_CHECKPOINT, checkpoint_shapes, random_state_dict
from tests.support.torch_networks import expected_stages
from vtcav_jax import models, tap
from vtcav_jax.attribution import attribute
from vtcav_jax.models import i3d, parameters
from vtcav_jax.models.i3d import I3d
from vtcav_jax.models.layers.pooling import max_pool
from vtcav_jax.models.mvit import Mvit, MvitVersion
from vtcav_jax.models.parameters import initial_rngs
from vtcav_jax.models.resnet3d import ResNet3d
from weights_conversion import convert, torch_reference
from weights_conversion.convert import abstract_network, match_parameters
from weights_conversion.key_mapping import family_of, mvit_name, our_tensors

slow = partial(pytest.param, marks=pytest.mark.slow)

CLIPS = {
    "c3d": (16, 112, 112),
    "i3d": (16, 193, 224),
    "s3d": (14, 211, 224),
    "mvit_v1_b": (16, 224, 224),
    "mvit_v2_s": (16, 224, 224),
}
SMALL = (7, 45, 58)  # not a multiple of any stride
# Deeper variants, or networks with a small variant tested below; benchmarks.parity compares all
MORE = ("resnet3d_34", "resnet3d_101", "resnet3d_152", "resnext3d_101_stem128", "mvit_v1_b", "mvit_v2_s")
# Later blocks of a layer repeat those before; the number of each is that of the public state dict
DEPTHS = dict.fromkeys(("resnet3d_50", "resnext3d_101"), (2, 1, 1, 1))
SHORT_DEPTHS = {"resnet3d_18_a": (1, 1, 1, 1), "mfnet": (2, 1, 1, 1)}
BLOCK = re.compile(r"(?:layer|conv)(\d)\.B?(\d+)\.")
KEYS = {preset: key for key, preset in reversed(PRESET_OF_CHECKPOINT.items())}


def first_blocks(preset: str, state: dict[str, torch.Tensor], depths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Return the state dict of a network with fewer blocks per layer."""
    first_layer, first_block = (2, 1) if preset == "mfnet" else (1, 0)

    def is_left_out(name: str) -> bool:
        block = BLOCK.match(name)
        return bool(block) and int(block[2]) - first_block >= depths[int(block[1]) - first_layer]

    return {name: value for name, value in state.items() if not is_left_out(name)}


def pair(preset: str, dtype=jnp.float32, depths: tuple[int, ...] | None = None):
    """Return a random state dict of torch tensors and our network with these weights, of other `depths` if given."""
    state, entry = random_state_dict(KEYS[preset]), models.get_preset(preset)
    options = {} if depths is None else {"depths": depths}

    def make(**dtype):
        return entry.maker(num_classes=entry.num_classes, rngs=initial_rngs(0), **options, **dtype)

    if depths is None:
        arrays = convert(preset, state)
    else:
        state = first_blocks(preset, state, depths)
        tensors = our_tensors(family_of(preset), {name: value.numpy() for name, value in state.items()})
        arrays = match_parameters(preset, nnx.eval_shape(make), tensors)
    arrays = {name: a.astype(dtype) for name, a in arrays.items()}
    state = {name: value.to(getattr(torch, jnp.dtype(dtype).name)) for name, value in state.items()}
    return state, parameters.load(partial(make, dtype=dtype), arrays)


def clip(preset: str, dtype: DTypeLike = np.float32) -> np.ndarray:
    count = 1 if preset in CLIPS else 2
    return np.random.default_rng(2).normal(size=(count, *CLIPS.get(preset, SMALL), 3)).astype(dtype)


def assert_close(ours, reference_value, stage: str, tolerance: float) -> None:
    expected = reference_value.detach().numpy()
    assert ours.shape == expected.shape and ours.dtype == expected.dtype
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=stage)


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset", [slow(preset) if preset != "mc3_18" else preset for preset in KEYS if preset not in MORE]
)
def test_every_stage_in_float32(preset):
    state, model = pair(preset, depths=DEPTHS.get(preset))
    video, stages = clip(preset), tap.stages_of(model)
    with torch.no_grad():
        their_logits, expected = expected_stages(preset, state, torch.from_numpy(video), stages)
    logits, ours = tap.activations(model, jnp.asarray(video), stages)
    assert ours.keys() == expected.keys()
    for stage in stages:
        assert_close(ours[stage], expected[stage], stage, 1e-5)
    assert_close(logits, their_logits, "logits", 1e-5)


def small_mvit(version: MvitVersion):
    """Return torchvision's network with three blocks and random weights, and ours with the same weights."""
    heads, late = (1, 2, 2), version == 2
    mvit = torch_reference.video_models().mvit
    blocks = [
        mvit.MSBlockConfig(
            num_heads=number,
            input_channels=96 * (heads[max(i - 1, 0)] if late else number),
            output_channels=96 * (number if late else heads[min(i + 1, 2)]),
            kernel_q=[3, 3, 3] if late or i == 1 else [],
            kernel_kv=[3, 3, 3],
            stride_q=[1, 2, 2] if i == 1 else [1, 1, 1] if late else [],
            stride_kv=[1, 2 // number, 2 // number],
        )
        for i, number in enumerate(heads)
    ]
    options = dict(residual_pool=late, residual_with_cls_embed=False, rel_pos_embed=late, proj_after_attn=late)
    network = mvit.MViT((64, 64), 6, blocks, num_classes=5, **options).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            wide = 0.3 if parameter.ndim == 1 or "pos" in name else parameter[0].numel() ** -0.5
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, wide, generator=generator)

    def maker() -> Mvit:
        return Mvit(version=version, clip=(6, 64, 64), heads=heads, num_classes=5, rngs=nnx.Rngs(0))

    tensors = {mvit_name(name): value.numpy() for name, value in network.state_dict().items()}
    return network, parameters.load(maker, match_parameters(f"mvit_v{version}", nnx.eval_shape(maker), tensors))


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_a_small_mvit_at_every_stage(version):
    network, model = small_mvit(version)
    stages = tap.stages_of(model)
    video = np.random.default_rng(2).normal(size=(2, 6, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        their_logits, expected = torch_reference.run_with_stages(network, torch.from_numpy(video), stages)
    logits, ours = tap.activations(model, jnp.asarray(video), stages)
    assert ours.keys() == expected.keys()
    for stage in stages:
        assert_close(ours[stage], expected[stage], stage, 1e-5)
    assert_close(logits, their_logits, "logits", 1e-5)
    with pytest.raises(ValueError, match=r"reads clips of \(6, 64, 64\), got \(8, 64, 64\)"):
        model(jnp.zeros((1, 8, 64, 64, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["mvit_v1_b", "mvit_v2_s"])
def test_all_blocks_of_an_mvit_have_the_shapes_of_torchvisions(preset):
    def run(model, video):
        seen = {}
        return model(video, lambda name, value: seen.setdefault(name, value)), seen

    shape = (1, *models.get_preset(preset).clip_spec.shape)
    logits, ours = jax.eval_shape(run, abstract_network(preset, None), jax.ShapeDtypeStruct(shape, jnp.float32))
    with torch.device("meta"), torch.no_grad():
        network = torch_reference.torchvision_network(preset)
        their_logits, expected = torch_reference.run_with_stages(network, torch.empty(shape), tuple(ours))
    assert {name: value.shape for name, value in ours.items()} == {name: v.shape for name, v in expected.items()}
    assert logits.shape == their_logits.shape


def third(model, video):
    logits = model(video)
    return logits[:, 3].sum(), logits


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["resnet3d_18_a", "mfnet"])
def test_logits_and_the_gradient_by_the_video_in_float64(preset, float64):
    state, model = pair(preset, jnp.float64, SHORT_DEPTHS[preset])
    video = clip(preset, np.float64)[:1]
    tensor = torch.from_numpy(video).requires_grad_()
    their_logits, _ = expected_stages(preset, state, tensor, ())
    (gradient,) = torch.autograd.grad(their_logits[:, 3].sum(), tensor)
    (_, logits), ours = jax.jit(jax.value_and_grad(third, argnums=1, has_aux=True))(model, jnp.asarray(video))
    assert_close(logits, their_logits, "logits", 1e-10)
    assert_close(ours, gradient, "gradient by the video", 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [
        ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((2, 2, 2), (2, 2, 2), (0, 1, 1)),
    ],
)
def test_of_equal_values_a_pools_gradient_takes_torchs(window, strides, padding):
    random = np.random.default_rng(0)
    x = np.maximum(random.integers(-2, 3, (2, 5, 7, 8, 3)), 0).astype(np.float32)  # like the output of a ReLU
    tensor = torch.from_numpy(x.transpose(0, 4, 1, 2, 3)).requires_grad_()
    theirs = torch.nn.functional.max_pool3d(tensor, window, strides, padding)
    slope = random.normal(size=theirs.shape).astype(np.float32)
    theirs.backward(torch.from_numpy(slope))
    ours, pullback = jax.vjp(lambda v: max_pool(v, window, strides, padding), jnp.asarray(x))
    assert tensor.grad is not None
    np.testing.assert_array_equal(ours, theirs.detach().permute(0, 2, 3, 4, 1))
    (gradient,) = pullback(jnp.asarray(slope.transpose(0, 2, 3, 4, 1)))
    np.testing.assert_allclose(gradient, tensor.grad.permute(0, 2, 3, 4, 1), atol=1e-6)
    lost = max_pool(jnp.asarray(x).at[0, 2, 3, 3, 0].set(jnp.nan), window, strides, padding)
    assert np.isnan(lost[0, ..., 0]).any() and not np.isnan(lost[..., 1:]).any()


@pytest.mark.slow
@pytest.mark.parametrize("key", PRESET_OF_CHECKPOINT)
def test_every_public_state_dict_is_taken_and_nothing_else(key):
    state = {
        name: torch.zeros(shape, dtype=torch.int64 if name.endswith("num_batches_tracked") else torch.float32)
        for name, shape in checkpoint_shapes()[key].items()
    }
    preset = PRESET_OF_CHECKPOINT[key]
    arrays = convert(preset, {"epoch": 30, "state_dict": {f"module.{name}": value for name, value in state.items()}})
    counts = sum(name.endswith("num_batches_tracked") for name in state)
    assert len(arrays) == len(state) - counts
    assert arrays.keys() == parameters.named_parameters(abstract_network(preset, None)).keys()
    name = next(iter(state))
    with pytest.raises(
        ValueError,
        match=r"do not match .* All parameters .* match.*\n  unexpected other.kernel\n  unexpected other.num",
    ):
        convert(preset, state | {"other.num_batches_tracked": torch.tensor(3), "other.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="\n  missing "):
        convert(preset, {key: value for key, value in state.items() if key != name})


@pytest.mark.slow
def test_both_public_names_of_i3d_give_the_same_parameters():
    state = random_state_dict("i3d_pytorch_i3d")
    new = sorted(checkpoint_shapes()["i3d_kinetics_i3d_pytorch"])
    old = dict(state)
    renamed = {}
    for name in new:
        branch = {"branch_0": "b0", "branch_1.0": "b1a", "branch_1.1": "b1b"}
        branch |= {"branch_2.0": "b2a", "branch_2.1": "b2b", "branch_3.1": "b3b"}
        theirs = name.replace("mixed_", "Mixed_").replace("conv3d_", "Conv3d_").replace("batch3d", "bn")
        for long, short in branch.items():
            theirs = theirs.replace(f".{long}.", f".{short}.")
        renamed[name] = old.pop(theirs.replace("Conv3d_0c_1x1", "logits"))
    assert not old
    ours, same = convert("i3d", state), convert("i3d", renamed)
    assert ours.keys() == same.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, same[name], err_msg=name)


@pytest.mark.slow
def test_weights_of_another_family_are_recognised():
    with pytest.raises(ValueError, match="They match resnet3d_18_a"):
        convert("video_swin_tiny", random_state_dict("3dresnets_resnet18_A"))
    with pytest.raises(ValueError, match="They match mc3_18"):
        convert("r3d_18", random_state_dict("torchvision_mc3_18"))


def random_i3d(monkeypatch: pytest.MonkeyPatch) -> nnx.Module:
    """Return an I3D with each pool, and one block of four branches after all but the first two."""
    blocks = {
        "Mixed_3b": (192, (16, 24, 32, 16, 16, 16)),
        "Mixed_4b": (80, (16, 16, 24, 16, 16, 16)),
        "Mixed_5b": (72, (512, 16, 256, 16, 128, 128)),
    }
    monkeypatch.setattr(i3d, "I3D_MIXED", blocks)
    return with_random_statistics(lambda: I3d(num_classes=5, rngs=nnx.Rngs(0)))


def random_resnet(monkeypatch: pytest.MonkeyPatch) -> nnx.Module:
    sizes: dict[str, Any] = dict(depths=(1, 1, 1, 1), widths=(16, 24, 24, 32), stem=16, shortcut="A", num_classes=5)
    return with_random_statistics(lambda: ResNet3d(**sizes, rngs=nnx.Rngs(0)))


def with_random_statistics(make):
    """Return the network with random parameters, and statistics of batch norms near 1."""
    random = np.random.default_rng(1)
    arrays = {}
    for name, value in parameters.named_parameters(nnx.eval_shape(make)).items():
        draw = random.normal(size=value.shape)
        if name.endswith(".var"):
            draw = 0.5 + random.random(value.shape)
        elif draw.ndim < 2:
            draw = 0.2 * draw + name.endswith(".scale")
        else:
            draw = draw * (1.5 / draw[..., 0].size) ** 0.5
        arrays[name] = draw.astype(np.float32)
    return parameters.load(make, arrays)


@pytest.mark.slow
@pytest.mark.parametrize("make", [random_resnet, random_i3d])
def test_relevance_passes_norms_pools_branches_and_sums(make, monkeypatch):
    """Relevance is conserved if biases receive none, since batch norms are fused with the convolution before them."""
    model = make(monkeypatch)
    video = np.random.default_rng(0).normal(size=(1, 9, 45, 58, 3)).astype(np.float32)
    found = attribute(model, video, np.array([3]), "lrp_z_plus")
    assert found.completeness_gap is not None
    np.testing.assert_allclose(found.completeness_gap, 0, atol=1e-4 * abs(found.map.sum()))
    assert np.abs(found.map).max() > 0
