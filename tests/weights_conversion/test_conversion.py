"""Conversion: strict checks of names, shapes, buffers and files; runs no code and leaves no partial output."""

import hashlib
import json
import os
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.typed import module_of
from vtcav_jax import models
from vtcav_jax.models import parameters
from vtcav_jax.tap import stages_of
from weights_conversion import convert, download, torch_reference
from weights_conversion.__main__ import class_names, parse_heads, run_conversion
from weights_conversion.checkpoint_reader import read_checkpoint
from weights_conversion.convert import join_heads

PRESET = "video_swin_tiny"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return torch_reference.torchvision_swin(PRESET).state_dict()


def refusal(state, message, preset=PRESET, **options):
    with pytest.raises(ValueError, match=message) as error:
        convert(preset, state, **options)
    return str(error.value)


def test_layouts(state):
    arrays = convert(PRESET, state)
    proj = state["patch_embed.proj.weight"].numpy()
    np.testing.assert_array_equal(arrays["patch_embed.proj.kernel"][1, 2, 3, 0], proj[:, 0, 1, 2, 3])
    np.testing.assert_array_equal(arrays["head.kernel"], state["head.weight"].numpy().T)
    np.testing.assert_array_equal(arrays["layers.0.downsample.norm.scale"], state["features.1.norm.weight"])
    assert all(a.flags.c_contiguous for a in arrays.values())


def test_half_precision_is_widened(state):
    half = {name: v.bfloat16() if v.is_floating_point() else v for name, v in state.items()}
    arrays = convert(PRESET, half)
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(arrays["head.bias"], half["head.bias"].float())


@pytest.mark.slow
def test_one_error_lists_missing_unexpected_and_misshapen_parameters(state):
    wrong = dict(state)
    del wrong["norm.weight"]
    wrong["extra.weight"] = torch.zeros(3)
    wrong["patch_embed.proj.bias"] = torch.zeros(47)
    text = refusal(wrong, "do not match video_swin_tiny")
    assert (
        "missing norm.scale" in text
        and "unexpected extra.scale" in text
        and "patch_embed.proj.bias is float32[47]" in text
    )


def test_another_preset_is_recognised(state):
    assert "They match video_swin_tiny." in refusal(state, "do not match video_swin_t_k400", preset="video_swin_t_k400")
    assert "did you mean video_swin_tiny" in refusal(state, "no preset named", preset="video_swin_tyni")


def test_another_class_count(state):
    wider = state | {"head.weight": torch.zeros(9, 96), "head.bias": torch.zeros(9)}
    assert "--num_classes=9" in refusal(wider, "The checkpoint has 9 classes, expected 4")
    assert convert(PRESET, wider, num_classes=9)["head.bias"].shape == (9,)


def test_buffers_are_compared(state):
    name = "features.0.1.attn.relative_position_index"
    other = state | {name: state[name].flip(0)}
    refusal(other, r"layers.0.blocks.1.attn.relative_position_index does not match a window of \(4, 4, 4\)")
    refusal(state | {"features.7.1.attn.relative_position_index": state[name]}, "unexpected layers.3")


def test_numbers_must_be_finite(state):
    refusal(state | {"norm.bias": torch.full((96,), torch.nan)}, "norm.bias contains non-finite values")


def test_no_tensors(state):
    refusal({}, "has no tensors")
    refusal({"epoch": 3}, "epoch is a int, expected a tensor")
    refusal({7: torch.zeros(3)}, "keys that are not names")


def test_the_same_parameter_under_two_names(state):
    refusal(state | {"cls_head.fc_cls.bias": torch.ones(4)}, "some parameters twice")


@pytest.mark.slow
def test_several_heads_become_one_layer_with_named_classes(state, tmp_path, capsys):
    heads = {"fc_verb": torch.randn(3, 96), "fc_noun": torch.randn(2, 96)}
    body = {name: value for name, value in state.items() if not name.startswith("head.")}
    weights = {f"{name}.weight": value for name, value in heads.items()}
    biases = {"fc_verb.bias": torch.tensor([0.1, 0.2, 0.3]), "fc_noun.bias": torch.tensor([0.4, 0.5])}
    torch.save(body | weights | biases, tmp_path / "epic.pth")
    for name, text in {"verb": "take\nput\nwash", "noun": "cup\nknife"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    labels = f"verb:{tmp_path / 'verb.txt'},noun:{tmp_path / 'noun.txt'}"
    layers = {"noun": "fc_noun", "verb": "fc_verb"}
    run_conversion(PRESET, tmp_path / "epic.pth", tmp_path / "epic.safetensors", None, labels, layers)
    assert "the networks agree at every stage" in capsys.readouterr().out
    network = models.load(tmp_path / "epic.safetensors")
    assert network.labels == ("noun:cup", "noun:knife", "verb:take", "verb:put", "verb:wash")
    values = parameters.named_parameters(module_of(network))
    np.testing.assert_allclose(values["head.bias"], [0.4, 0.5, 0.1, 0.2, 0.3])
    np.testing.assert_array_equal(values["head.kernel"][:, 2:], heads["fc_verb"].T)


def test_heads_that_are_not_in_the_checkpoint(state, tmp_path):
    torch.save(state, tmp_path / "swin.pth")
    with pytest.raises(ValueError, match="no last layer named 'fc_verb'"):
        join_heads(PRESET, state, {"verb": "fc_verb"})
    with pytest.raises(ValueError, match=r"also has head.bias, head.weight; expected no last layer besides"):
        join_heads(PRESET, state | {"v.weight": torch.zeros(2, 96), "v.bias": torch.zeros(2)}, {"verb": "v"})
    with pytest.raises(ValueError, match="expected HEAD=LAYER, such as verb=fc_verb, got verb"):
        parse_heads(["verb", "noun=fc"])
    with pytest.raises(ValueError, match="one list of class names per head, as in noun:FILE,verb:FILE"):
        class_names(PRESET, {"noun": 2, "verb": 3}, "noun.txt")


class Runs:
    """Pickle that creates a folder when it is loaded without restrictions."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def files(state, tmp_path):
    torch.save(OrderedDict(state), tmp_path / "good.pth")
    torch.save({"state_dict": state, "hook": Runs(tmp_path / "ran")}, tmp_path / "code.pth")
    content = (tmp_path / "good.pth").read_bytes()
    (tmp_path / "short.pth").write_bytes(content[: len(content) // 2])
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    (tmp_path / "flipped.pth").write_bytes(flipped)
    torch.save(OrderedDict(state), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "old_short.pth").write_bytes((tmp_path / "old.pth").read_bytes()[:200])
    (tmp_path / "script.py").write_text("print()")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pth").write_text("<html>404 not found</html>" * 9)
    torch.save([1, 2], tmp_path / "list.pth")
    save_file({name: v.contiguous() for name, v in state.items()}, tmp_path / "good.safetensors")
    content = (tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(content[:-100])
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short.pth", "damaged or truncated"),
        ("short.safetensors", "damaged or truncated"),
        ("empty.pt", r"empty.pt \(0 bytes\) is damaged or truncated"),
        ("text.pth", "text.pth was not read: it is not a plain state dict"),
        ("list.pth", "contains a list; expected a state dict"),
        ("code.pth", "mkdir, which loading would run"),
        ("none.pth", "there is no file"),
        ("script.py", "script.py ends in '.py'; expected one of .pth"),
        ("flipped.pth", "damaged or truncated"),
        ("old_short.pth", "damaged or truncated"),
    ],
)
def test_unreadable_files_are_errors(files, name, message):
    with pytest.raises(ValueError, match=message):
        read_checkpoint(files / name)
    assert not (files / "ran").exists()


@pytest.mark.parametrize("name", ["good.pth", "old.pth", "good.safetensors"])
def test_readable_files(files, state, name):
    arrays_read = read_checkpoint(files / name)
    assert arrays_read.keys() == state.keys()
    assert all(torch.equal(arrays_read[key], state[key]) for key in state)


def program(*arguments):
    command = [sys.executable, "-m", "weights_conversion", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("out", ["swin", "swin.safetensors"])
def test_the_program_converts_verifies_and_writes(files, state, out):
    run = program(f"--preset={PRESET}", f"--checkpoint={files / 'good.pth'}", f"--out={files / 'new' / out}")
    assert run.returncode == 0, run.stderr
    model = models.make(PRESET)
    for name in (*stages_of(model), "logits"):
        (line,) = [line for line in run.stdout.splitlines() if line.split()[:1] == [name]]
        assert float(line.split()[-1]) < 1e-5
    network = models.load(files / "new" / out)
    assert (network.preset, network.labels) == (PRESET, ("0", "1", "2", "3"))
    for name, array in convert(PRESET, state).items():
        np.testing.assert_array_equal(parameters.named_parameters(module_of(network))[name], array)
    about = json.loads(models.bundle_paths(files / "new" / out)[0].read_text())
    assert about["source"]["sha256"] == hashlib.sha256((files / "good.pth").read_bytes()).hexdigest()
    again = program(f"--preset={PRESET}", f"--checkpoint={files / 'good.pth'}", f"--out={files / 'new' / out}")
    assert again.returncode == 1 and "exists already" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset=video_swin_tiny", "--checkpoint=short.pth"], "error: short.pth"),
        (
            ["--preset=video_swin_s_k400", "--checkpoint=good.pth"],
            "weights do not match video_swin_s_k400",
        ),
        (["--preset=video_swin_tiny", "--checkpoint=code.pth"], "error: code.pth was not read"),
        (["--preset=video_swin_tiny"], "either --checkpoint=FILE or --download"),
        (["--preset=video_swin_tiny", "--download"], "no published weights named 'video_swin_tiny'"),
    ],
)
def test_the_program_writes_nothing_on_errors(files, flags, message):
    before = sorted(files.iterdir())
    flags = [flag.replace("=", f"={files}/") if flag.startswith("--checkpoint") else flag for flag in flags]
    run = program(*flags, f"--out={files / 'out'}")
    assert run.returncode == 1 and message in run.stderr + run.stdout
    assert "Traceback" not in run.stderr
    assert sorted(files.iterdir()) == before


def test_downloads_are_checked_and_a_missing_connection_is_explained(tmp_path, monkeypatch):
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()[:8]
    site, cache = tmp_path / "site", tmp_path / "cache"
    site.mkdir()
    (site / f"net-{digest}.pth").write_bytes(content)
    (site / "net-00000000.pth").write_bytes(content)
    assert download.fetch(f"file://{site}/net-{digest}.pth", cache, PRESET).read_bytes() == content
    (cache / "net-11111111.pth").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is damaged"):
        download.fetch(f"file://{site}/net-11111111.pth", cache, PRESET)
    (cache / "net-11111111.pth").unlink()
    with pytest.raises(ValueError, match="damaged in transfer"):
        download.fetch(f"file://{site}/net-00000000.pth", cache, PRESET)
    with pytest.raises(ValueError, match=f"put it at {cache}/net-12345678.pth"):
        download.fetch(f"file://{site}/net-12345678.pth", cache, PRESET)
    assert [path.name for path in cache.iterdir()] == [f"net-{digest}.pth"]


@pytest.mark.parametrize("preset", download.TORCHVISION_WEIGHTS)
def test_published_weights_are_known_to_torchvision(preset):
    assert download.url_of(torch_reference.video_models(), preset).endswith(".pth")
