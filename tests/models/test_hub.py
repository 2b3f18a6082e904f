"""Folders written by transformers: weights in one or several files, class names, preprocessing, and error messages."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.test_video_transformers import CONFIGS, assert_close, randomised
from vtcav_jax import models
from vtcav_jax.models import hub
from vtcav_jax.models.hub import load_hub_folder
from weights_conversion.torch_reference import video_models
from weights_conversion.transformers_reference import CLASSIFIERS, transformers_network

LABELS = {"id2label": {0: "run", 1: "jump", 2: "sit"}, "label2id": {"run": 0, "jump": 1, "sit": 2}}
COLOURS = dict(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25])


def processor_of(model_type: str, size: int, **options: Any) -> Any:
    video_models()  # transformers imports torchvision
    import transformers

    name = f"{CLASSIFIERS[model_type]}{'VideoProcessor' if model_type == 'vjepa2' else 'ImageProcessor'}"
    name = name.replace("Timesformer", "VideoMAE")  # as in the published TimeSformers
    crop = size if model_type == "vjepa2" else dict(height=size, width=size)
    return getattr(transformers, name)(**dict(crop_size=crop, size={"shortest_edge": size}) | COLOURS | options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, tuple[Any, Path]]:
    """Return each type's network and the folder that transformers wrote for it."""
    root = tmp_path_factory.mktemp("hub")
    written = {}
    for model_type in CLASSIFIERS:
        network = randomised(transformers_network(CONFIGS[model_type] | LABELS))
        network.save_pretrained(root / model_type)
        processor_of(model_type, 16).save_pretrained(root / model_type)
        written[model_type] = (network, root / model_type)
    return written


@pytest.fixture
def videomae(folders, tmp_path) -> Path:
    """Return a copy of VideoMAE's folder that a test may damage."""
    return Path(shutil.copytree(folders["videomae"][1], tmp_path / "videomae"))


def edit(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", CLASSIFIERS)
def test_a_folder_gives_the_logits_of_transformers(folders, model_type):
    """The frames are random uint8: preprocessing, network and class names are compared at once."""
    reference, folder = folders[model_type]
    network = load_hub_folder(folder)
    assert network.labels == ("run", "jump", "sit") and network.name == model_type
    clip_spec = network.clip_spec
    side, margin = clip_spec.resize or clip_spec.size, ((clip_spec.resize or clip_spec.size) - clip_spec.size) // 2
    frames = np.random.default_rng(0).integers(0, 256, (clip_spec.frames, side, side, 3), np.uint8)
    inputs = processor_of(model_type, 16)(list(frames), return_tensors="pt")
    with torch.no_grad():
        expected = reference(**inputs).logits
    (pixels,) = inputs.values()
    crop = slice(margin, margin + clip_spec.size)
    ours = clip_spec.normalise(frames[:, crop, crop])
    np.testing.assert_allclose(ours, pixels[0].permute(0, 2, 3, 1).numpy(), atol=1e-5)
    assert_close(network.model(jnp.asarray(ours[None])), expected, "logits", 1e-4)


def test_several_files_and_half_precision(folders, videomae, tmp_path):
    reference, folder = folders["videomae"]
    reference.save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    shutil.copy(folder / "preprocessor_config.json", tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    weights = videomae / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(weights).items()}, weights)
    video = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 16, 16, 3)), jnp.float32)
    expected = load_hub_folder(folder).model(video)
    np.testing.assert_array_equal(load_hub_folder(tmp_path / "sharded").model(video), expected)
    rounded = load_hub_folder(videomae).model(video)
    np.testing.assert_allclose(rounded, expected, atol=0.05)
    assert rounded.dtype == jnp.float32 and not np.array_equal(rounded, expected)


@pytest.mark.parametrize(
    ("model_type", "values", "expected"),
    [
        ("videomae", {}, dict(frames=4, size=16, interval=4, resize=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))),
        ("videomae", dict(size=16), dict(resize=16)),
        ("videomae", dict(size=dict(shortest_edge=20)), dict(resize=20, size=16)),
        ("videomae", dict(size=dict(height=16, width=16), do_center_crop=False), dict(resize=None, size=16)),
        ("videomae", dict(size=dict(height=24, width=24)), dict(resize=24, size=16, keep_aspect=False)),
        ("videomae", dict(do_normalize=False), dict(mean=(0, 0, 0), std=(1, 1, 1))),
        ("timesformer", {}, dict(frames=3, interval=32)),
        # from -1..1, normalised once more: ((2 v - 1) - 0.4) / 0.2 = (v - 0.7) / 0.1
        ("vivit", {}, dict(frames=4, interval=2, mean=(0.7, 0.75, 0.8), std=(0.1, 0.15, 0.125))),
        ("vivit", dict(do_normalize=False), dict(mean=(0.5,) * 3, std=(0.5,) * 3)),
        ("vjepa2", {}, dict(frames=4, interval=4, resize=18, size=16)),
    ],
)
def test_clip_format_of_the_preprocessor(folders, tmp_path, model_type, values, expected):
    folder = Path(shutil.copytree(folders[model_type][1], tmp_path / model_type))
    (file,) = (folder / name for name in hub.PREPROCESSOR_FILES if (folder / name).is_file())
    edit(file, **values)
    clip_spec = load_hub_folder(folder).clip_spec
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(clip_spec, name), value) if value is not None else None
        assert value is not None or getattr(clip_spec, name) is None
    assert load_hub_folder(folder, interval=7).clip_spec.interval == 7


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", dict(model_type="clip"), r"expected a model_type of videomae, .*got 'clip'; use .*from_torch"),
        ("config.json", dict(hidden_act="relu"), r"hidden_act is 'relu', supported is 'gelu'; use .*from_torch"),
        ("config.json", dict(use_mean_pooling=False), "use_mean_pooling is False, supported is True"),
        ("config.json", dict(id2label={"0": "run"}), "id2label of .*: 1 names for 3 classes"),
        ("config.json", dict(qv_bias=False), r"8 parameters do not match|4 parameters do not match"),
        ("config.json", dict(image_size=20), r"reads 20 x 20 pixels, but its preprocessor has .*expected a square"),
        ("preprocessor_config.json", dict(do_center_crop=False), "expected a square of that size"),
        ("preprocessor_config.json", dict(crop_size=dict(height=24, width=16)), "expected a square of that size"),
        ("preprocessor_config.json", dict(size=dict(height=24, width=20)), "expected a square of that size"),
        ("preprocessor_config.json", dict(do_resize=False), "expected a square of that size"),
        ("preprocessor_config.json", dict(image_std=None), "normalises without image_mean or image_std; add both"),
    ],
)
def test_configs_that_are_not_supported(videomae, file, values, message):
    edit(videomae / file, **values)
    with pytest.raises(ValueError, match=message):
        load_hub_folder(videomae)


def test_frames_are_spread_over_videos_of_something_something(tmp_path):
    names = models.PRESETS["videomae_b_ssv2"].labels
    assert names
    bracketed = {i: name.replace("something", "[something]") for i, name in enumerate(names)}
    config = CONFIGS["videomae"] | dict(num_labels=174, id2label=bracketed)
    transformers_network(config).save_pretrained(tmp_path)
    processor_of("videomae", 16).save_pretrained(tmp_path)
    network = load_hub_folder(tmp_path)
    assert network.clip_spec.sampling == "uniform" and network.labels[0] == "Approaching [something] with your camera"
    given = load_hub_folder(tmp_path, interval=3).clip_spec
    assert (given.sampling, given.interval) == ("clip", 3)


def test_parameters_must_match_exactly(videomae):
    weights = videomae / "model.safetensors"
    tensors = load_file(weights)
    bias = "videomae.encoder.layer.1.attention.attention.q_bias"
    save_file({name: tensor for name, tensor in tensors.items() if name != bias}, weights)
    with pytest.raises(ValueError, match=r"1 parameters .*\n  missing encoder.layer.1.attention.attention.query.bias$"):
        load_hub_folder(videomae)
    key_bias = bias.replace("q_bias", "key.bias")
    save_file(tensors | {key_bias: torch.zeros(24)}, weights)
    with pytest.raises(ValueError, match=r"\n  unexpected encoder.layer.1.attention.attention.key.bias$"):
        load_hub_folder(videomae)
    save_file(tensors | {bias.replace("q_bias", "query.bias"): torch.zeros(24)}, weights)
    with pytest.raises(ValueError, match="contains some parameters twice"):
        load_hub_folder(videomae)


def test_incomplete_folders(videomae, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere has no config.json; expected a folder written by save_pretrained"):
        load_hub_folder(tmp_path / "nowhere")
    (videomae / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"model.safetensors is damaged .*; download it again"):
        load_hub_folder(videomae)
    (videomae / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model.safetensors; expected weights as safetensors"):
        load_hub_folder(videomae)
    (videomae / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"has no preprocessor_config.json or video_preprocessor_config.json"):
        load_hub_folder(videomae)
    (videomae / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="contains a list, expected names and values"):
        load_hub_folder(videomae)


@pytest.mark.parametrize("model_type", CLASSIFIERS)
def test_defaults_are_those_of_the_configs_of_transformers(model_type):
    from inspect import signature

    import transformers

    config = getattr(transformers, f"{CLASSIFIERS[model_type]}Config")()
    for name, parameter in signature(hub.HUB_TYPES[model_type].read_config).parameters.items():
        assert parameter.default == getattr(config, name), name
