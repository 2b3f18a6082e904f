"""Programs compiled for accelerators: the lower bound of their time, the largest batch, and one real compilation."""

from dataclasses import replace
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import vtcav_jax as vtcav
from vtcav_jax import models
from vtcav_jax.ahead_of_time import preflight as module
from vtcav_jax.ahead_of_time.chips import get_chip, read_chips
from vtcav_jax.ahead_of_time.preflight import Preflight
from vtcav_jax.platforms import compile_for

V5E = get_chip("v5e")
SHAPE = (1, 8, 32, 32, 3)


def forward(model, video):
    return model(video)


def gradient(model, video):
    return jax.grad(lambda video: model(video).sum())(video)


def abstract_network(name="video_swin_tiny"):
    return nnx.eval_shape(lambda: models.make(name, dtype=jnp.bfloat16))


def test_the_bound_is_the_longer_of_both_times():
    operations, traffic = int(197e12) // 1000, int(819e9) // 500  # 1 ms and 2 ms
    result = Preflight(V5E, SHAPE, operations, None, 2**30, traffic, traffic)
    assert result.fits
    assert result.compute_seconds == pytest.approx(1e-3)
    assert result.bound_seconds == result.memory_seconds == pytest.approx(2e-3)
    assert result.utilisation_bound == pytest.approx(0.5)
    assert "lower bound of the time (no measurement): 2 ms" in str(result)
    compute_bound = replace(result, traffic_bytes=traffic // 4)
    assert compute_bound.bound_seconds == compute_bound.compute_seconds
    assert compute_bound.utilisation_bound == 1


def test_programs_that_do_not_fit_or_do_not_compile():
    too_large = Preflight(V5E, SHAPE, 1, None, 2**34, 1, 1)
    assert not too_large.fits and "15.8 GiB; does not fit" in str(too_large)
    rejected = Preflight(V5E, SHAPE, 1, "out of memory")
    assert not rejected.fits and "does not compile: out of memory" in str(rejected)


def test_every_chip_has_a_name_that_follows_one():
    names = [str(Preflight(chip, SHAPE, 1, "x")).splitlines()[0] for chip in read_chips().values()]
    assert "1 x 8 x 32 x 32 x 3 on one core of a TPU v4 (which has two)" in names
    assert not any("on one one" in name for name in names)


def test_every_chip_names_the_source_of_its_figures():
    for chip in read_chips().values():
        assert 1e11 < chip.bandwidth < 1e13 < chip.peak_bf16 < 1e15
        assert 0.5 < chip.usable_fraction <= 1 and len(chip.source) > 30


@pytest.mark.parametrize("first", [1, 7, 40])
@pytest.mark.parametrize("is_rejected", [True, False])
def test_the_largest_batch_that_fits(first, is_rejected):
    """2 GiB and half a GiB per clip: 27 clips fit; the compiler rejects larger batches, or reports their memory."""
    tried = []

    def run(batch):
        tried.append(batch)
        memory = int((2 + batch / 2) * 2**30)
        error = "out of memory" if is_rejected and memory > V5E.usable_bytes else None
        return Preflight(V5E, (batch, *SHAPE[1:]), 1, error, None if error else memory, 1, 1)

    assert module._largest_batch(first, run(first), run, V5E) == 27
    assert len(tried) <= 1 + module.MAX_BATCH_TRIES


def test_wrong_targets_and_shapes_are_refused_before_anything_is_compiled(monkeypatch):
    network = abstract_network()
    with pytest.raises(ValueError, match="v5"):
        vtcav.preflight(forward, network, SHAPE, "v5")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs libtpu, flatbuffers; .* extra preflight"):
        vtcav.preflight(forward, network, SHAPE, "v5e")
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match="shape of a video"):
        vtcav.preflight(forward, network, SHAPE[1:], "v5e")


def skip_without_compiler(target):
    missing = [name for name in module.NEEDED_MODULES[get_chip(target).platform] if find_spec(name) is None]
    if missing:
        pytest.skip(f"compiling for {target} needs {', '.join(missing)} (pip install 'vtcav-jax[preflight]')")


@pytest.mark.parametrize("target", ["v5e", "h100"])
def test_a_network_compiles_for_an_accelerator(target, usual_promotion):
    skip_without_compiler(target)
    network = abstract_network()
    result = vtcav.preflight(forward, network, SHAPE, target, dtype=jnp.bfloat16)
    assert result.error is None and result.fits
    assert result.memory_bytes and result.traffic_bytes and result.accessed_bytes
    assert result.memory_bytes > sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(network))
    assert 0 < result.traffic_bytes <= result.accessed_bytes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["video_swin_tiny", "videomae_tiny"])
@pytest.mark.parametrize("target", ["v4", "v5e", "v6e", "h100"])
def test_kernels_of_attention_compile(target, name, usual_promotion):
    skip_without_compiler(target)
    network, video = abstract_network(name), jax.ShapeDtypeStruct(SHAPE, jnp.bfloat16)
    with compile_for(get_chip(target).platform):
        assert "pallas_call" in str(jax.make_jaxpr(gradient)(network, video))
    result = vtcav.preflight(gradient, network, SHAPE, target, dtype=jnp.bfloat16)
    assert result.error is None and result.fits
