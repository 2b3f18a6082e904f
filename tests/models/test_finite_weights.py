"""Weights and activations with NaN or infinite values are refused or left out, with their names."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.typed import module_of, readable
from vtcav_jax import ClipSpec, models
from vtcav_jax.adapters.functions import from_function
from vtcav_jax.attribution.motion.reliance import MotionConfig, resolve_motion_methods, stream_motion
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.attribution.videos.clip_windows import VideoResult, stream_windows
from vtcav_jax.attribution.videos.explain_videos import VideoMaps, explain_videos
from vtcav_jax.cli.commands.pyramid import predict_logits
from vtcav_jax.data import ReadResult, SamplingConfig, open_source
from vtcav_jax.discovery.passes import _non_finite_stage
from vtcav_jax.models import parameters
from vtcav_jax.training.evaluate import predict_source


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_with_a_damaged_tensor_is_refused_by_name(tmp_path, value):
    shipped = models.shipped_networks()["worlds_cnn"]
    arrays = load_file(shipped)
    name = sorted(arrays)[3]
    arrays[name] = arrays[name].copy()
    arrays[name].flat[-1] = value
    save_file(arrays, tmp_path / "net.safetensors")
    metadata = json.loads(shipped.with_suffix(".json").read_text())
    (tmp_path / "net.json").write_text(json.dumps(metadata | {"sha256": None}))
    with pytest.raises(ValueError, match=rf"net\.safetensors: 1 of {len(arrays)} parameters have NaN .*: {name};"):
        models.load(tmp_path / "net.safetensors")


def test_an_orbax_directory_and_a_function_are_checked_too(tmp_path):
    network = models.load("worlds_cnn")
    arrays = dict(parameters.named_parameters(network.model))
    models.save(tmp_path / "net", module_of(network), "small_cnn", network.heads)
    assert models.load(tmp_path / "net").heads == network.heads
    with pytest.raises(ValueError, match=r"head\.bias"):
        parameters.require_finite(arrays | {"head.bias": jnp.full(4, jnp.nan)})
    weights = {"w": jnp.ones((3, 2)), "mask": jnp.array([0.0, -jnp.inf])}
    make = lambda p: from_function(lambda p, video, tap: video.mean((1, 2, 3)) @ p["w"], p, clip=ClipSpec(2, 4))  # noqa: E731
    assert len(make(weights).labels) == 2
    with pytest.raises(ValueError, match="NaN in w"):
        make(weights | {"w": weights["w"].at[0, 0].set(jnp.nan)})


def overflowing_network():
    """A network whose second stage overflows for bright clips."""

    def network(video, tap):
        x = tap("first", video)
        x = tap("second", jnp.exp(1e4 * (x - 0.5)) * x)
        return tap("pooled", x.mean((1, 2, 3)))

    return from_function(
        network, clip=ClipSpec(frames=4, size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), classes=tuple("abc")
    )


def overflowing_source():
    """Two clips, of which the second is bright."""
    frames = np.random.default_rng(0).uniform(0, 0.4, (2, 4, 8, 8, 3))
    frames[1] = 0.9
    return FakeSource(open_source("worlds:small:2:0"), (255 * frames).astype(np.uint8))


LEFT_OUT = "clip 1 is left out: the activations at second have NaN or infinite values"


def test_maps_of_an_overflowing_clip_are_left_out_and_name_the_stage():
    network, source = overflowing_network(), overflowing_source()
    specs = parse_targets(network, ["a"])
    methods = (("gradient_x_input", None),)
    results = list(explain_videos(network, source, specs, methods, SamplingConfig(), batch_size=2, num_workers=0))
    assert isinstance(results[0], VideoMaps) and isinstance(results[1], ReadResult)
    assert results[1].failure == LEFT_OUT


def test_motion_of_an_overflowing_clip_is_left_out_and_names_the_stage():
    network, config = overflowing_network(), MotionConfig()
    specs = parse_targets(network, ["a"])
    methods = resolve_motion_methods(network, config, specs)
    results = stream_motion(
        *(network, overflowing_source(), specs, methods, config, SamplingConfig()), batch_size=2, num_workers=0
    )
    (intact, evidence), (failed, no_evidence) = results
    assert intact.clip is not None and len(evidence) == 1
    assert failed.clip is None and failed.failure == LEFT_OUT and no_evidence == []


def test_pyramids_and_predictions_of_an_overflowing_clip_stop_with_a_sentence():
    network, source = overflowing_network(), overflowing_source()
    windows = [readable(w) for w in stream_windows(source, network.clip_spec, SamplingConfig(), num_workers=0)]
    with pytest.raises(ValueError, match=f"^{LEFT_OUT}; remove it from --videos$"):
        predict_logits(network, windows)
    predictions = predict_source(network, source, 2, SamplingConfig(normalise=False), num_workers=0)
    assert next(predictions)[0].item.name == "clip 0"
    with pytest.raises(ValueError, match=r"^the logits of .* are NaN or infinite; check its weights and the videos$"):
        next(predictions)


class FakeSource:
    """Clips from arrays."""

    def __init__(self, like, frames):
        self.like, self.frames, self.spec, self.heads, self.identity = like, frames, "fake", {}, "fake"
        self.items = [replace(like.items[i], name=f"clip {i}") for i in range(len(frames))]

    def read(self, i, clip_spec, sampling):
        clip = self.like.read(i, ClipSpec(frames=4, size=8), sampling)
        return replace(clip, video=self.frames[i][None])


def test_discovery_leaves_out_overflowing_clips_and_names_the_stage():
    grids = {"first": np.ones((2, 3)), "second": np.array([[1.0, 2, 3], [1, np.nan, 3]])}
    scores = (np.ones((2, 4)), {stage: (values, None, None) for stage, values in grids.items()})
    for output in (grids, scores):
        stages = [_non_finite_stage(VideoResult((), ((output, row),))) for row in (0, 1)]
        assert stages == ["", "second"]
