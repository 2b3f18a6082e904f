"""Strict loading with all mismatches in one error, and restoring of saved parameters onto the requested devices."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.support.devices import device_environment
from vtcav_jax import models
from vtcav_jax.models import parameters

make = partial(models.make, "video_swin_tiny")


@pytest.fixture(scope="module")
def arrays():
    return {name: np.asarray(a) for name, a in parameters.named_parameters(make(seed=3)).items()}


def test_load_gives_exactly_these_parameters(arrays):
    for name, a in parameters.named_parameters(parameters.load(make, arrays)).items():
        np.testing.assert_array_equal(a, arrays[name])


def test_one_error_lists_all_mismatches(arrays):
    wrong = dict(arrays)
    del wrong["norm.scale"]
    wrong["head.scale"] = arrays["norm.scale"]
    wrong["head.bias"] = np.zeros(5, np.float32)
    wrong["layers.0.blocks.0.mlp.fc1.kernel"] = arrays["layers.0.blocks.0.mlp.fc1.kernel"].astype(np.float16)
    with pytest.raises(ValueError, match="4 parameters do not match") as error:
        parameters.load(make, wrong)
    for line in (
        "4 parameters do not match",
        "missing norm.scale",
        "unexpected head.scale",
        "head.bias is float32[5], the model expects float32[4]",
        "layers.0.blocks.0.mlp.fc1.kernel is float16[48, 192], the model expects float32[48, 192]",
    ):
        assert line in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model", "model.safetensors"])
def test_saved_parameters_are_restored(arrays, tmp_path, name):
    parameters.save(tmp_path / name, parameters.load(make, arrays))
    for key, a in parameters.named_parameters(parameters.restore(tmp_path / name, make)).items():
        np.testing.assert_array_equal(a, arrays[key])
        assert isinstance(a, jax.Array)
    with pytest.raises(ValueError, match="exists already"):
        parameters.save(tmp_path / name, parameters.load(make, arrays))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model", "model.safetensors"])
def test_restoring_into_another_network_names_the_differences(arrays, tmp_path, name):
    parameters.save(tmp_path / name, parameters.load(make, arrays))
    with pytest.raises(ValueError, match=r"head.bias is float32\[4\], the model expects float32\[7\]"):
        parameters.restore(tmp_path / name, partial(make, num_classes=7))
    with pytest.raises(ValueError, match=r"is float32.*the model expects float64"), jax.enable_x64(True):
        parameters.restore(tmp_path / name, partial(make, dtype=jnp.float64))


def test_missing_weights_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"there are no weights at .*nowhere"):
        parameters.restore(tmp_path / "nowhere", make)


SHARDED = """
import sys, jax, numpy as np, jax.numpy as jnp
from functools import partial
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from vtcav_jax import models, tap
from vtcav_jax.models import parameters as weights
assert len(jax.devices()) == 2
mesh = Mesh(np.array(jax.devices()), ("d",))
make = partial(models.make, "video_swin_tiny")
def place(name, a):
    return NamedSharding(mesh, P(*[None] * (a.ndim - 1), "d") if name.endswith("fc1.kernel") else P())
video = jax.random.normal(jax.random.key(0), (4, 8, 32, 32, 3))
clips = jax.device_put(video, NamedSharding(mesh, P("d")))
for path in sys.argv[1:]:
    split = weights.restore(path, make, place)
    kernel = weights.named_parameters(split)["layers.0.blocks.0.mlp.fc1.kernel"]
    assert [s.data.shape for s in kernel.addressable_shards] == [(48, 96)] * 2, kernel.sharding
    whole = weights.restore(path, make, lambda name, a: NamedSharding(mesh, P()))
    one = tap.activations_and_gradients(weights.restore(path, make), video, np.arange(4), "layers.0")
    for model in (split, whole):
        two = tap.activations_and_gradients(model, clips, np.arange(4), "layers.0")
        a, b = np.asarray(one.gradients["layers.0"]), np.asarray(two.gradients["layers.0"])
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())
    print("same on two devices, gradients on", len(two.gradients["layers.0"].sharding.device_set))
"""


@pytest.mark.slow
def test_restored_onto_two_devices(arrays, tmp_path):
    """Restore in a separate process, because the number of devices is fixed when jax starts."""
    paths = [tmp_path / name for name in ("model", "model.safetensors")]
    for path in paths:
        parameters.save(path, parameters.load(make, arrays))
    run = subprocess.run(
        [sys.executable, "-c", SHARDED, *map(str, paths)],
        env=device_environment(2),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["same on two devices, gradients on 2"] * 2


def test_keys_counted_in_python_are_those_of_nnx():
    ours, theirs = parameters.initial_rngs(7), nnx.Rngs(7)
    for _ in range(3):
        np.testing.assert_array_equal(jax.random.key_data(ours.params()), jax.random.key_data(theirs.params()))
