"""Damage to weights that were written with a checksum is noticed when they are loaded."""

import json

import pytest

from tests.support.typed import module_of
from vtcav_jax import models


@pytest.fixture(params=["net.safetensors", "net"])
def stored(request, tmp_path):
    network = models.load("worlds_cnn")
    models.save(tmp_path / request.param, module_of(network), "small_cnn", network.heads)
    return tmp_path / request.param


def flip_bit(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def weight_files(stored):
    if stored.is_file():
        return [stored]
    return sorted(file for file in (stored / "params").rglob("*") if file.is_file() and file.stat().st_size > 9)


def test_intact_weights_load_and_any_flipped_bit_is_an_error(stored):
    assert models.load(stored).heads
    for file in weight_files(stored):
        flip_bit(file, -5)
        with pytest.raises(ValueError, match=r"is damaged or was replaced: its SHA-256 differs .*copy both again"):
            models.load(stored)
        flip_bit(file, -5)
    assert models.load(stored).heads


def test_weights_without_a_checksum_are_loaded(stored):
    (metadata_file,) = [stored.with_suffix(".json")] if stored.is_file() else [stored / "model.json"]
    metadata = json.loads(metadata_file.read_text())
    assert len(metadata.pop("sha256")) == 64
    metadata_file.write_text(json.dumps(metadata))
    if stored.is_file():
        flip_bit(stored, -5)  # in the last weight
    assert models.load(stored).heads


def test_shipped_networks_have_checksums():
    for name, path in models.shipped_networks().items():
        assert len(json.loads(path.with_suffix(".json").read_text())["sha256"]) == 64
        assert models.load(name).heads
