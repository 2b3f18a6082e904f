"""Presets: numbers of parameters, order of stages, labels, and details that are not visible in shapes."""

import re
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vtcav_jax import models, tap
from vtcav_jax.models import parameters
from vtcav_jax.models.c3d import C3d
from vtcav_jax.models.layers.batch_norm import BatchNorm
from vtcav_jax.models.layers.pooling import max_pool, mean_pool
from vtcav_jax.models.mfnet import MultiFiberUnit
from vtcav_jax.models.resnet3d import ResNet3dBlock
from weights_conversion.key_mapping import reorder_axes

FLOAT = dict(dtype=jnp.float32, param_dtype=jnp.float32)
abstract_model = cache(models.abstract_model)  # tracing a deep network takes seconds; do not mutate

# T, S and B as published (torchvision prints the first three); L and the other heads follow from the architecture.
PARAMETERS = {
    "video_swin_tiny": 310_546,
    "video_swin_tiny_64": 310_546,
    "small_cnn": 173_508,
    "video_swin_t_k400": 28_158_070,
    "video_swin_s_k400": 49_816_678,
    "video_swin_b_k400": 88_048_984,
    "video_swin_l_k400": 196_953_916,
    "video_swin_b_k600": 88_048_984 + 200 * (1024 + 1),
    # 174 classes; 16 instead of 8 time steps in the bias tables of 2, 2, 18, 2 blocks with 4, 8, 16, 32 heads
    "video_swin_b_ssv2": 88_048_984 - 226 * (1024 + 1) + 16 * 13 * 13 * (2 * 4 + 2 * 8 + 18 * 16 + 2 * 32),
    # Counted with the public code
    "c3d": 79_991_015,
    "i3d": 12_697_264,
    "resnet3d_18": 33_409_104,
    "resnet3d_18_a": 33_235_280,
    "resnet3d_34": 63_718_736,
    "resnet3d_34_a": 63_718_736 - 173_824,  # the same difference as between the two networks of 18 layers
    "resnet3d_50": 47_018_576,
    "resnet3d_101": 86_064_720,
    "resnet3d_152": 118_223_440,
    # 64 channels fewer in the first convolution, its norm, and the two convolutions of layer1.0 that read it
    "resnext3d_101": 48_431_376 - 64 * (3 * 7**3 + 2 + 128 + 256),
    "resnext3d_101_stem128": 48_431_376,
    "resnet3d_18_k700": 33_409_104 + 300 * (512 + 1),
    "resnet3d_34_k700": 63_718_736 + 300 * (512 + 1),
    "resnet3d_50_k700": 47_018_576 + 300 * (2048 + 1),
    "resnet3d_101_k700": 86_064_720 + 300 * (2048 + 1),
    "resnet3d_152_k700": 118_223_440 + 300 * (2048 + 1),
    "mfnet": 7_996_368,
    "r3d_18": 33_371_472,
    "mc3_18": 11_695_440,
    "r2plus1d_18": 31_505_325,
    "s3d": 8_320_048,
    "mvit_v1_b": 36_610_672,
    "mvit_v2_s": 34_537_744,
    # Counted with transformers, without the predictor of V-JEPA 2
    "videomae_tiny": 233_956,
    "videomae_s_k400": 22_033_936,
    "videomae_b_k400": 86_534_800,
    "videomae_l_k400": 304_270_736,
    "videomae_h_k400": 632_119_440,
    "videomae_s_ssv2": 22_033_936 - 226 * (384 + 1),
    "videomae_b_ssv2": 86_534_800 - 226 * (768 + 1),
    "timesformer_b_k400": 121_566_352,
    "timesformer_b_ssv2": 121_566_352 - 226 * (768 + 1),
    "vivit_b_k400": 88_954_000,
    "vjepa2_l_ssv2": 353_399_982,
    "vjepa2_h_ssv2": 708_942_254,
    "vjepa2_g_ssv2": 1_105_668_142,
}


def test_every_preset_is_pinned():
    assert PARAMETERS.keys() == models.PRESETS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("preset", models.PRESETS)
def test_the_number_of_parameters(preset):
    model, _ = abstract_model(preset)
    assert parameters.count_parameters(model) == PARAMETERS[preset]


# Presets that have more blocks, or another number of classes, than one that is traced
SAME_STAGES = re.compile("_[lh]_k400|_[hg]_ssv2|resnet3d_(101|152)|stem128|_k[67]00")


@pytest.mark.slow
@pytest.mark.parametrize("preset", [preset for preset in models.PRESETS if not SAME_STAGES.search(preset)])
def test_stages(preset):
    """Stages of the abstract network: the order of tap calls, and one name per value."""
    model, entry = abstract_model(preset)
    seen = {}

    def note(name, value):
        assert name not in seen
        seen[name] = value.shape
        return value

    video = jax.ShapeDtypeStruct((2, *entry.clip_spec.shape), jnp.float32)
    logits = jax.eval_shape(lambda m, v: m(v, note), model, video)
    assert tuple(seen) == tap.stages_of(model)
    assert logits.shape == (2, entry.num_classes) and {shape[0] for shape in seen.values()} == {2}


@pytest.mark.parametrize("preset", models.PRESETS)
def test_labels_match_the_head(preset):
    entry = models.PRESETS[preset]
    assert entry.labels is None or len(set(entry.labels)) == entry.num_classes


def batch_norms(preset):
    return [part for _, part in nnx.iter_graph(abstract_model(preset)[0]) if isinstance(part, BatchNorm)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "epsilon", "count"),
    [("i3d", 1e-3, 57), ("s3d", 1e-3, 77), ("mfnet", 1e-5, 70), ("resnet3d_50", 1e-5, 53), ("r2plus1d_18", 1e-5, 37)],
)
def test_epsilon_of_every_batch_norm(preset, epsilon, count):
    assert [norm.epsilon for norm in batch_norms(preset)] == [epsilon] * count


def test_a_batch_norm_is_its_formula_and_keeps_its_statistics():
    norm = BatchNorm(2, epsilon=0.5, rngs=nnx.Rngs(0), **FLOAT)
    norm.scale[...], norm.bias[...] = jnp.array([2.0, 3.0]), jnp.array([1.0, -1.0])
    norm.mean[...], norm.var[...] = jnp.array([4.0, 0.0]), jnp.array([3.5, 0.5])
    x = jnp.array([8.0, 2.0]).reshape(1, 1, 1, 1, 2)
    np.testing.assert_allclose(norm(x).ravel(), [2 * 4 / 2 + 1, 3 * 2 - 1], rtol=1e-6)
    slopes = jax.grad(lambda n: n(x).sum())(norm)
    assert not slopes.mean[...].any() and not slopes.var[...].any() and slopes.scale[...].all()


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "before"), [("i3d", 2), ("resnet3d_18", 3)])
@pytest.mark.parametrize("cpu", [True, False])
def test_where_the_first_convolution_of_seven_begins(float64, preset, before, cpu, monkeypatch):
    """For eight positions, seven taps and a stride of two, TensorFlow pads 2 and 3 zeros, torch's networks 3 and 3."""
    monkeypatch.setattr("vtcav_jax.models.layers.convolution.on_cpu", lambda: cpu)
    model: Any = nnx.clone(abstract_model(preset)[0])
    conv = model.Conv3d_1a_7x7.conv3d if preset == "i3d" else model.conv1
    conv.dtype = jnp.float64  # whose rounding in Winograd's basis is below the tolerance
    conv.kernel.set_value(jnp.zeros((7, 7, 7, 3, 64)).at[3, 3].set(1.0))  # sums along the width only
    seen = conv(jnp.ones((1, 8, 8, 8, 3)))[0, 2, 2, :, 0] / 3
    expected = [sum(0 <= 2 * i - before + k < 8 for k in range(7)) for i in range(4)]
    np.testing.assert_allclose(seen, expected)


def test_pools_pad_the_end_too():
    x = jnp.arange(4.0).reshape(1, 1, 1, 4, 1) * jnp.ones((1, 1, 1, 1, 1))
    np.testing.assert_array_equal(max_pool(-x, (1, 1, 3), (1, 1, 2), "SAME").ravel(), [0, -2])
    np.testing.assert_array_equal(max_pool(-x, (1, 1, 3), (1, 1, 2), (0, 0, 1)).ravel(), [0, -1])
    np.testing.assert_array_equal(mean_pool(x, (2, 1, 3)).ravel(), [1, 2])  # one frame, hence its mean


def test_the_first_linear_layer_of_c3d_reads_channels_last():
    w = np.arange(3 * 32, dtype=np.float32).reshape(3, 32)  # two channels of 1 x 4 x 4
    ours = reorder_axes("fc6.weight", w)
    for channel, row, column in ((0, 0, 0), (1, 0, 0), (0, 1, 2), (1, 3, 3)):
        np.testing.assert_array_equal(ours[:, (4 * row + column) * 2 + channel], w[:, 16 * channel + 4 * row + column])


def test_c3d_reads_red_first_although_it_was_trained_with_blue_first():
    w = np.random.default_rng(0).normal(size=(64, 3, 3, 3, 3))
    np.testing.assert_array_equal(reorder_axes("conv1.weight", w)[:, 0], w[:, 2])
    other = np.zeros((64, 3, 7, 7, 7)) + np.arange(3)[:, None, None, None]
    np.testing.assert_array_equal(reorder_axes("conv1.weight", other), other)


@pytest.mark.parametrize(
    ("preset", "mean", "black", "white"),
    [
        # 0..255 minus ActivityNet's mean, according to the author of the weights with 400 classes
        ("resnet3d_50", (114.7748, 107.7354, 99.4750), -114.7748, 140.2252),
        ("resnet3d_50_k700", (110.7975, 103.3005, 96.2625), -0.4345 / 0.2768, 0.5655 / 0.2768),
        ("c3d", (101.41, 97.66, 90.25), -101.41, 153.59),
        ("i3d", (127.5, 127.5, 127.5), -1, 1),
        ("mfnet", (124, 117, 104), -124 * 0.0167, 131 * 0.0167),
        ("vivit_b_k400", (127.5, 127.5, 127.5), -1, 1),
        ("timesformer_b_k400", (114.75, 114.75, 114.75), -2, 0.55 / 0.225),
    ],
)
def test_preprocessing_of_colours(preset, mean, black, white):
    geometry = models.PRESETS[preset].clip_spec
    seen = geometry.normalise(np.array([mean, (0, 0, 0), (255, 255, 255)]))
    np.testing.assert_allclose(seen[0], 0, atol=1e-3)
    np.testing.assert_allclose(seen[1:, 0], [black, white], rtol=1e-4)


# Classes whose index published runs state: DeepMind's runs of I3D and PyTorch-MFNet's list
NUMBERED = {
    **{3: "applauding", 48: "catching or throwing baseball", 50: "catching or throwing softball", 51: "celebrating"},
    **{94: "dodgeball", 143: "golf putting", 148: "hammer throw", 153: "hitting baseball", 161: "hurling (sport)"},
    **{166: "javelin throw", 227: "playing cricket", 237: "playing kickball", 245: "playing squash or racquetball"},
    **{246: "playing tennis", 256: "pumping fist", 297: "shooting goal (soccer)", 298: "shot put", 349: "tap dancing"},
    **{357: "throwing ball", 358: "throwing discus", 208: "passing American football (in game)", 399: "zumba"},
}


@pytest.mark.parametrize("preset", ["i3d", "mfnet", "resnet3d_50"])
def test_labels_have_the_indices_of_published_runs(preset):
    labels = models.PRESETS[preset].labels
    assert labels and {number: labels[number] for number in NUMBERED} == NUMBERED


def test_c3d_states_its_clip_size_in_errors():
    model = nnx.eval_shape(lambda: C3d(num_classes=3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"C3D reads clips of 16 frames of 112 x 112.*got \(16, 64, 64\)"):
        jax.eval_shape(lambda m, v: m(v), model, jax.ShapeDtypeStruct((1, 16, 64, 64, 3), jnp.float32))


def drawn(shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_a_shortcut_without_parameters_skips_places_and_adds_channels():
    block = ResNet3dBlock(4, 6, 1, 1, (2, 2, 2), "A", rngs=nnx.Rngs(0), **FLOAT)
    x = drawn((1, 5, 6, 4, 4))
    np.testing.assert_array_equal(block.shortcut(x)[..., :4], x[:, ::2, ::2, ::2])
    assert block.shortcut(x).shape == (1, 3, 3, 2, 6) and not block.shortcut(x)[..., 4:].any()


def seen_in(block, x):
    def run(block, x):
        seen = {}
        block(x, lambda name, value: seen.setdefault(name, value), "unit")
        return seen

    return jax.jit(run)(block, x)


@pytest.mark.slow
def test_a_bottleneck_strides_at_its_second_convolution_and_ends_before_its_relu():
    block: Any = ResNet3dBlock(8, 8, 4, 2, (2, 2, 2), "B", rngs=nnx.Rngs(0), **FLOAT)
    assert block.conv2.kernel.shape == (3, 3, 3, 4, 8)
    seen = seen_in(block, drawn((1, 4, 6, 6, 8)))
    assert seen["unit.conv1"].shape[1:4] == (4, 6, 6) and seen["unit.conv2"].shape[1:4] == (2, 3, 3)
    assert seen["unit.conv2"].min() == 0 and seen["unit.conv3"].min() < 0 and seen["unit.downsample"].min() < 0
    np.testing.assert_array_equal(seen["unit.sum"], seen["unit.conv3"] + seen["unit.downsample"])
    np.testing.assert_array_equal(seen["unit"], jnp.maximum(seen["unit.sum"], 0))


@pytest.mark.slow
def test_a_multi_fiber_unit_is_preactivated_and_its_shortcut_starts_before_its_input():
    unit: Any = MultiFiberUnit(16, 16, (1, 2, 2), rngs=nnx.Rngs(0), **FLOAT)
    x = drawn((1, 2, 6, 6, 16))
    seen = seen_in(unit, x)
    np.testing.assert_allclose(seen["unit.conv_w1"], unit.conv_w1(x), atol=1e-5)
    np.testing.assert_array_equal(seen["unit.x_in"], x + seen["unit.conv_i2"])
    np.testing.assert_allclose(seen["unit.conv_m1"], unit.conv_m1(seen["unit.x_in"]), atol=1e-5)
    np.testing.assert_array_equal(seen["unit"], seen["unit.conv_m2"] + seen["unit.conv_w1"])
    assert all(a.min() < 0 for a in seen.values())  # no part ends in a ReLU
    np.testing.assert_allclose(unit.conv_i1(-jnp.abs(x)), 0)  # each begins with a ReLU
    mfnet: Any = abstract_model("mfnet")[0]
    units = mfnet.units()
    assert [unit.conv_m1.conv.strides for name, unit in units.items() if name.endswith("B01")] == [
        *((2, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))
    ]


def test_remat_is_an_error_for_blocks_with_stages():
    with pytest.raises(ValueError, match=r"r3d_18 has stages within its blocks.*omit remat"):
        models.make("r3d_18", remat=True)
