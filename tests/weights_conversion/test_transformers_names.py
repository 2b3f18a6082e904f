"""Parameters of VideoMAE, TimeSformer, ViViT and V-JEPA 2 under all public names, and the presets' sizes."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.models.test_video_transformers import CONFIGS, assert_close, randomised
from vtcav_jax import models
from vtcav_jax.models import hub, parameters
from weights_conversion import convert
from weights_conversion.__main__ import run_conversion
from weights_conversion.key_mapping import FAMILIES, our_tensors
from weights_conversion.transformers_reference import config_of, transformers_network

TINY = dict(model_type="videomae", image_size=32, patch_size=4, num_frames=8, hidden_size=96, num_labels=4) | dict(
    num_hidden_layers=3, num_attention_heads=3, intermediate_size=192
)


@pytest.fixture(scope="module")
def tiny() -> Any:
    return randomised(transformers_network(TINY))


def own_code_names(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return VideoMAE's parameters as its own code names them, with joint weights of queries, keys and values."""
    renamed = {}
    for name, value in state_dict.items():
        if name.endswith("attention.query.weight"):
            stem = name.removesuffix("query.weight")
            value = torch.cat([state_dict[f"{stem}{part}.weight"] for part in ("query", "key", "value")])
            name = f"{stem}qkv.weight"
        elif name.endswith(("attention.key.weight", "attention.value.weight")):
            continue
        for theirs, original in {
            "videomae.encoder.layer": "blocks",
            "videomae.embeddings.patch_embeddings.projection": "patch_embed.proj",
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
            "attention.attention.query.bias": "attn.q_bias",
            "attention.attention.value.bias": "attn.v_bias",
            "attention.attention": "attn",
            "attention.output.dense": "attn.proj",
            "intermediate.dense": "mlp.fc1",
            ".output.dense": ".mlp.fc2",
            "classifier": "head",
        }.items():
            name = name.replace(theirs, original)
        renamed[name] = value
    return renamed


def test_all_layouts_of_videomae_give_the_same_parameters(tiny):
    state = tiny.state_dict()
    ours = convert("videomae_tiny", state)
    saved = {
        name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): value for name, value in state.items()
    }
    assert sum(name.endswith("q_bias") for name in saved) == 3
    own = own_code_names(state)
    assert "blocks.0.attn.qkv.weight" in own and "blocks.2.attn.v_bias" in own and len(own) == len(state) - 6
    for layout in (saved, own, {"module": own}):
        other = convert("videomae_tiny", layout)
        assert other.keys() == ours.keys()
        for name, array in ours.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)
    bias = ours["encoder.layer.2.attention.attention.query.bias"]
    np.testing.assert_array_equal(bias, state["videomae.encoder.layer.2.attention.attention.query.bias"])
    model = parameters.load(partial(models.make, "videomae_tiny"), ours)
    video = np.random.default_rng(0).normal(size=(1, 8, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = tiny(torch.from_numpy(video).permute(0, 1, 4, 2, 3)).logits
    assert_close(model(jnp.asarray(video)), expected, "logits", 1e-5)


@pytest.mark.slow
def test_biases_are_neither_invented_nor_dropped(tiny):
    state = tiny.state_dict()
    bias = "encoder.layer.1.attention.attention.{}.bias"
    without = {name: value for name, value in state.items() if name != "videomae." + bias.format("query")}
    with pytest.raises(ValueError, match=rf"do not match videomae_tiny.*\n  missing {bias.format('query')}$"):
        convert("videomae_tiny", without)
    with pytest.raises(ValueError, match=rf"\n  unexpected {bias.format('key')}$"):
        convert("videomae_tiny", state | {"videomae." + bias.format("key"): torch.zeros(96)})
    with pytest.raises(ValueError, match="contains some parameters twice"):
        convert("videomae_tiny", state | {"encoder.layer.1.attention.attention.q_bias": torch.zeros(96)})
    with pytest.raises(ValueError, match="They match videomae_tiny"):
        convert("small_cnn", own_code_names(state))


def test_the_conversion_program_compares_every_stage(tiny, tmp_path, capsys):
    torch.save({"module": own_code_names(tiny.state_dict())}, tmp_path / "checkpoint.pth")
    run_conversion("videomae_tiny", tmp_path / "checkpoint.pth", tmp_path / "tiny.safetensors")
    printed = capsys.readouterr().out
    assert "the networks agree at every stage" in printed and "encoder.layer.2" in printed and "fc_norm" in printed
    assert models.load(tmp_path / "tiny.safetensors").preset == "videomae_tiny"


@pytest.mark.parametrize("preset", ["timesformer_b_ssv2", "vivit_b_k400", "vjepa2_g_ssv2"])
def test_configs_of_presets_give_the_preset(preset):
    entry = models.PRESETS[preset]
    config = config_of(preset, entry.num_classes)
    assert config is not None
    maker, clip = hub.network_maker(config)
    assert (config["num_labels"], maker.func) == (entry.num_classes, entry.maker.func)
    assert clip[1:] == entry.clip_spec.shape[1:3]
    assert {name: maker.keywords[name] for name in entry.maker.keywords} == entry.maker.keywords


def test_names_of_timesformers_own_code():
    network = randomised(transformers_network(CONFIGS["timesformer"]))
    maker = hub.network_maker(CONFIGS["timesformer"])[0]
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    ours = our_tensors(FAMILIES[maker.func], state)
    renamed = {}
    for name, value in state.items():
        for theirs, original in {
            "timesformer.": "model.",
            "classifier": "model.head",
            "encoder.layer": "blocks",
            "embeddings.patch_embeddings.projection": "patch_embed.proj",
            "embeddings.cls_token": "cls_token",
            "embeddings.position_embeddings": "pos_embed",
            "embeddings.time_embeddings": "time_embed",
            "temporal_layernorm": "temporal_norm1",
            "temporal_dense": "temporal_fc",
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
            "attention.output.dense": "attn.proj",
            "attention.attention": "attn",
            "intermediate.dense": "mlp.fc1",
            ".output.dense": ".mlp.fc2",
            "model.layernorm": "model.norm",
        }.items():
            name = name.replace(theirs, original)
        renamed[name] = value
    assert "model.blocks.1.temporal_attn.qkv.bias" in renamed and "model.norm.weight" in renamed
    same = our_tensors(FAMILIES[maker.func], renamed)
    assert same.keys() == ours.keys() and all(same[name] is value for name, value in ours.items())


BASE = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
HUGE = dict(hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, intermediate_size=5120)
PUBLIC_CONFIGS: dict[str, dict[str, Any]] = {
    "videomae_s_k400": dict(model_type="videomae", hidden_size=384, num_attention_heads=6, intermediate_size=1536),
    "videomae_b_k400": dict(model_type="videomae") | BASE,
    "videomae_l_k400": dict(model_type="videomae") | LARGE,
    "videomae_h_k400": dict(model_type="videomae") | HUGE,
    "timesformer_b_k400": dict(model_type="timesformer") | BASE,
    "vivit_b_k400": dict(model_type="vivit") | BASE,
    "vjepa2_l_ssv2": dict(model_type="vjepa2", hidden_size=1024, num_hidden_layers=24, num_attention_heads=16),
    "vjepa2_h_ssv2": dict(model_type="vjepa2", hidden_size=1280, num_hidden_layers=32, num_attention_heads=16),
    "vjepa2_g_ssv2": dict(model_type="vjepa2", hidden_size=1408, num_hidden_layers=40, num_attention_heads=22)
    | dict(mlp_ratio=48 / 11),
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", PUBLIC_CONFIGS)
def test_presets_take_the_parameters_of_transformers(preset):
    entry = models.PRESETS[preset]
    with torch.device("meta"):
        network = transformers_network(PUBLIC_CONFIGS[preset] | dict(num_labels=entry.num_classes))
    shapes = {name: np.broadcast_to(np.float32(0), value.shape) for name, value in network.state_dict().items()}
    tensors = our_tensors(FAMILIES[entry.maker.func], shapes)
    ours = dict(parameters.to_flax_layout(name, tensor) for name, tensor in tensors.items())
    assert parameters.parameter_mismatches(parameters.named_parameters(models.abstract_model(preset)[0]), ours) == []
    assert entry.maker.keywords["heads"] == network.config.num_attention_heads
