"""`BatchEncoder` called directly, and by Ray."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import vtcav_jax as vtcav
from tests.support.typed import compile_count
from vtcav_jax import tap
from vtcav_jax.data import SamplingConfig, open_source
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.tcav import batch_encoder
from vtcav_jax.tcav.batch_encoder import BatchEncoder
from vtcav_jax.tcav.score_clips import score_clips
from vtcav_jax.tcav.vector_file import VECTORS_FILE, load_vectors

ROOT = Path(__file__).parents[2]
STAGES = ("convs.1", "convs.2")
TARGETS = ("direction:left", "shape:ring")


@pytest.fixture(scope="module")
def network():
    return vtcav.load("worlds_cnn")


@pytest.fixture(scope="module")
def clips(network):
    return np.random.default_rng(0).integers(0, 256, (5, *network.clip_spec.shape), np.uint8)


@pytest.fixture(scope="module")
def vectors(network, clips, tmp_path_factory):
    """Write two random vectors, pooled over all positions, in the form of a run."""
    folder = tmp_path_factory.mktemp("run")
    values = tap.activations(network.model, network.clip_spec.normalise(clips[:1]), STAGES)[1]
    rng = np.random.default_rng(1)
    arrays = {f"{stage}|red/static/x": rng.normal(size=values[stage].shape[-1]).astype(np.float32) for stage in STAGES}
    unit = {name: vector / np.linalg.norm(vector) for name, vector in arrays.items()}
    about = {"weights": fingerprint(network.model), "pool": "all", "norm": dict.fromkeys(unit, 1.0)}
    about["intercept"] = dict.fromkeys(unit, 0.0)
    save_file(unit, folder / VECTORS_FILE, metadata={"about": json.dumps(about)})
    return folder


def test_logits_and_activations_equal_those_of_the_network(network, clips):
    encoder = BatchEncoder("worlds_cnn", STAGES, batch_size=2)
    result = encoder({"clip": clips, "name": np.arange(5)})
    logits, activations = tap.activations(network.model, network.clip_spec.normalise(clips), STAGES)
    assert sorted(result) == [*(f"activations/{stage}" for stage in STAGES), "logits", "name"]
    np.testing.assert_allclose(result["logits"], logits, rtol=1e-4, atol=1e-4)
    for stage in STAGES:
        mean = np.asarray(activations[stage]).mean((1, 2, 3))
        np.testing.assert_allclose(result[f"activations/{stage}"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(result["name"], np.arange(5))
    normalised = encoder({"clip": np.asarray(network.clip_spec.normalise(clips), np.float32)})
    np.testing.assert_allclose(normalised["logits"], logits, rtol=1e-4, atol=1e-4)


def test_batches_of_all_sizes_need_one_compilation(clips):
    encoder = BatchEncoder("worlds_cnn", STAGES[:1], batch_size=4)
    before = compile_count(batch_encoder._encode_clips)
    results = [encoder({"clip": clips[:n]}) for n in (4, 1, 5, 3)]
    assert compile_count(batch_encoder._encode_clips) == before + 1
    for n, result in zip((4, 1, 5, 3), results):
        assert all(len(column) == n for column in result.values())
        np.testing.assert_allclose(result["logits"], results[2]["logits"][:n], rtol=1e-5, atol=1e-5)


def test_empty_batches_have_the_same_columns(clips):
    encoder = BatchEncoder("worlds_cnn", STAGES, pool="none")
    full, empty = encoder({"clip": clips[:2]}), encoder({"clip": clips[:0]})
    assert {name: (value.shape[1:], value.dtype) for name, value in full.items()} == {
        name: (value.shape[1:], value.dtype) for name, value in empty.items()
    }
    assert all(len(value) == 0 for value in empty.values())


@pytest.mark.slow
@pytest.mark.parametrize("score_fn", ["logit", "margin"])
def test_derivatives_equal_those_of_scored_clips(network, vectors, score_fn):
    source = open_source("worlds:small:3:0")
    frames = [source.read(i, network.clip_spec, SamplingConfig(normalise=False)).video[0] for i in range(3)]
    encoder = BatchEncoder("worlds_cnn", vectors=vectors, targets=TARGETS, score_fn=score_fn, batch_size=2)
    result = encoder({"clip": np.stack(frames)})
    rows, _, _ = score_clips(network, load_vectors(vectors), source, TARGETS, score_fn=score_fn)
    assert len(rows) == 3 * len(STAGES) * len(TARGETS)
    names = [item.name for item in source.items]
    for row in rows:
        column = result[f"derivatives/{row.stage}|red/static/x"]
        value = column[names.index(row.clip), TARGETS.index(row.target)]
        assert value == pytest.approx(row.derivative, rel=1e-3, abs=1e-5)
    logits = tap.compute_logits(network.model, network.clip_spec.normalise(jnp.asarray(np.stack(frames))))
    np.testing.assert_allclose(result["logits"], logits, rtol=1e-4, atol=1e-4)


def test_wrong_arguments_and_batches_are_one_sentence(clips, vectors):
    cases: list[tuple[dict[str, Any], str]] = [
        ({"stages": ["layers.9"]}, "no stage named 'layers.9'"),
        ({"pool": "mean", "batch_size": 0}, r"no pool named 'mean'.*; batch_size must be 1 to"),
        ({"targets": TARGETS}, "derivatives need both vectors and targets"),
        ({"vectors": vectors, "targets": ["up"]}, "no target named 'up'"),
    ]
    for more, reason in cases:
        with pytest.raises(ValueError, match=reason):
            BatchEncoder("worlds_cnn", **more)
    with pytest.raises(ValueError, match="belong to another network"):
        BatchEncoder("worlds_swin", vectors=vectors, targets=TARGETS)
    encoder = BatchEncoder("worlds_cnn")
    for batch, reason in (
        ({"video": clips}, "no column named 'clip'"),
        ({"clip": clips[:, 1:]}, r"has uint8 \(5, .*; expected uint8 frames or normalised float32 of shape \(b, "),
        (
            {"clip": clips, "name": np.arange(5), "label": np.arange(4)},
            "expected columns of 5 rows, as clip has, got label with 4; pass one row per clip",
        ),
        ({"clip": clips, "logits": clips}, "columns logits, which are results; rename them"),
    ):
        with pytest.raises(ValueError, match=reason):
            encoder(batch)


RAY_PROGRAM = """
import pickle, sys
import ray, ray.data
from vtcav_jax.tcav.batch_encoder import BatchEncoder

clips, arguments, options = pickle.load(open(sys.argv[1], "rb"))
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", _node_ip_address="127.0.0.1")
try:
    rows = ray.data.from_items([{"number": i, "clip": clip} for i, clip in enumerate(clips)])
    encoded = rows.map_batches(
        BatchEncoder, fn_constructor_args=arguments, fn_constructor_kwargs=options, batch_size=3, concurrency=1
    )
    pickle.dump(encoded.take_all(), open(sys.argv[2], "wb"))
finally:
    ray.shutdown()
"""


@pytest.mark.slow
def test_ray_maps_batches(clips, vectors, tmp_path):
    """Run Ray in a program of its own, since it forks, which jax in this process forbids."""
    pytest.importorskip("ray", reason="mapping batches with Ray needs it (pip install 'vtcav-jax[ray]')")
    pytest.importorskip("pandas", reason="the datasets of Ray need pandas (pip install 'vtcav-jax[ray]')")
    options: dict[str, Any] = {"vectors": str(vectors), "targets": TARGETS, "batch_size": 2}
    (tmp_path / "in.pkl").write_bytes(pickle.dumps((clips, ("worlds_cnn", STAGES), options)))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, "-c", RAY_PROGRAM, str(tmp_path / "in.pkl"), str(tmp_path / "out.pkl")]
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # short: it has sockets
        environment["RAY_TMPDIR"] = folder
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    encoded = pickle.loads((tmp_path / "out.pkl").read_bytes())
    direct = BatchEncoder("worlds_cnn", STAGES, **options)({"clip": clips})
    assert sorted(row["number"] for row in encoded) == list(range(len(clips)))
    for row in encoded:
        assert sorted(row) == sorted([*direct, "number"])
        for name, column in direct.items():
            np.testing.assert_allclose(row[name], column[row["number"]], rtol=1e-4, atol=1e-5, err_msg=name)
