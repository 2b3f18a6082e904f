"""Networks with weights: heads, targets and files."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.support.typed import module_of, present
from vtcav_jax import models
from vtcav_jax.models import parameters
from vtcav_jax.worlds import WORLDS

HEADS = {"shape": ("plus", "ring"), "direction": ("left", "right", "up")}


@pytest.fixture(scope="module")
def network():
    return models.make("small_cnn", num_classes=5, seed=3)


def network_with_heads(heads):
    return models.Network(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), models.PRESETS["small_cnn"].clip_spec, heads)


def test_logits_of_several_heads_are_concatenated():
    several = network_with_heads(HEADS)
    assert several.labels == ("shape:plus", "shape:ring", "direction:left", "direction:right", "direction:up")
    assert several.head_slices == {"shape": slice(0, 2), "direction": slice(2, 5)}
    assert several.class_index("direction:right") == 3


@pytest.mark.parametrize("text", ["tennis", "label:tennis", "1"])
def test_a_class_of_the_only_head_has_three_names(text):
    assert network_with_heads({"label": ("golf", "tennis")}).class_index(text) == 1


@pytest.mark.parametrize(
    ("heads", "text", "message"),
    [
        (HEADS, "left", r"no target named 'left' \(did you mean direction:left"),
        (HEADS, "shape:left", "no target named 'shape:left'"),
        (HEADS, "3", "no target named '3'"),
        ({"label": ("golf", "tennis")}, "2", "no target named '2'"),
        ({"label": ("golf", "tennis")}, "²", "no target named '²'"),
        ({"label": ("golf", "tennis")}, "tenis", r"did you mean tennis\?"),
    ],
)
def test_an_unknown_target_suggests_similar_names(heads, text, message):
    with pytest.raises(ValueError, match=message):
        network_with_heads(heads).class_index(text)


@pytest.mark.parametrize(
    ("texts", "classes"),
    [
        (("shape",), ("shape:plus", "shape:ring")),
        (("direction:*",), ("direction:left", "direction:right", "direction:up")),
        (("shape:r*", "*:right", "shape:ring"), ("shape:ring", "direction:right")),
        (("*",), ("shape:plus", "shape:ring", "direction:left", "direction:right", "direction:up")),
    ],
)
def test_heads_and_globs_name_several_classes_once(texts, classes):
    assert tuple(network_with_heads(HEADS).expand_classes(texts)) == classes


def test_globs_of_a_network_with_one_head():
    names = tuple(f"class [{i}]" for i in range(400))
    network = network_with_heads({"label": names})
    assert tuple(network.expand_classes(["*"])) == tuple(network.expand_classes(["label"])) == names
    # A class whose name has the characters of a glob, and two names of one class
    assert network.expand_classes(["class [7]", "7", "label:class [7]", "class*"])["class [7]"]
    assert tuple(network.expand_classes(["class [7]", "7"])) == ("class [7]",)
    assert sum(network.expand_classes(["class [7]", "*"]).values()) == 1


def test_all_unknown_targets_are_in_one_message():
    message = (
        r"no target named 'direcion' \(did you mean direction.*\), 'shape:x\*'.*; available: shape, direction, shape"
    )
    with pytest.raises(ValueError, match=message):
        network_with_heads(HEADS).expand_classes(["direcion", "shape:ring", "shape:x*"])


def test_unnamed_classes_are_named_by_index():
    assert models.single_head(3, None) == {"label": ("0", "1", "2")}


@pytest.mark.parametrize("name", ["net.safetensors", "net"])
def test_saved_networks_are_loaded(tmp_path, network, name):
    models.save(tmp_path / "new" / name, network, "small_cnn", HEADS, run="a run")
    again = models.load(tmp_path / "new" / name)
    assert (again.preset, again.heads) == ("small_cnn", HEADS)
    for key, array in parameters.named_parameters(network).items():
        np.testing.assert_array_equal(parameters.named_parameters(module_of(again))[key], array)
    assert models.read_metadata(tmp_path / "new" / name)["source"] == {"run": "a run"}
    assert not [path for path in (tmp_path / "new").iterdir() if ".part" in path.name]
    with pytest.raises(ValueError, match="exists already"):
        models.save(tmp_path / "new" / name, network, "small_cnn", HEADS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": {}}, "heads is {}"),
        ({"heads": {"a:b": ["x", "y"]}}, "invalid name of a head: 'a:b'"),
        ({"heads": {"a": ["x", "x"]}}, "several classes are named x"),
        ({"heads": {"a": [1, 2]}}, "the names of classes"),
        ({"heads": {"a": 5}}, "is damaged"),
        ({"preset": "small_cn"}, "did you mean small_cnn"),
    ],
)
def test_damaged_metadata_is_an_error(tmp_path, network, change, message):
    models.save(tmp_path / "net.safetensors", network, "small_cnn", HEADS)
    about = tmp_path / "net.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        models.load(tmp_path / "net.safetensors")


def test_an_unwritable_path_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="not a writable folder"):
        models.require_absent(tmp_path / "file" / "net.safetensors")


def test_a_preset_without_weights_suggests_trained_networks():
    with pytest.raises(ValueError, match=r"video_swin_tiny is a network without weights.*worlds_swin"):
        models.load("video_swin_tiny")
    with pytest.raises(ValueError, match="did you mean worlds_swin"):
        models.load("worlds_swim")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({"worlds_swin"} | set(models.shipped_networks())))
def test_shipped_networks_have_the_heads_of_their_worlds(name):
    shipped = models.load(name)
    trained_on = models.read_metadata(models.shipped_networks()[name])["source"]["videos"].split(":")
    assert trained_on[0] == "worlds" and shipped.heads == WORLDS[trained_on[1]].heads
    assert models.shipped_networks()[name].stat().st_size <= 1.5e6
    model, preset = models.abstract_model(name)
    assert {key: a.shape for key, a in parameters.named_parameters(model).items()} == {
        key: a.shape for key, a in parameters.named_parameters(module_of(shipped)).items()
    }
    assert preset is models.PRESETS[present(shipped.preset)]


@pytest.mark.slow
def test_the_small_cnn_treats_clips_independently(network):
    video = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 32, 32, 3)), jnp.float32)
    together = np.asarray(network(video))
    alone = np.concatenate([np.asarray(network(video[i : i + 1])) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-6)
