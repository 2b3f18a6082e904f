"""Tests of the choice of stages by glob and by default."""

import numpy as np
import pytest

from vtcav_jax.adapters import from_function
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.models.network import Network
from vtcav_jax.models.stages import resolve_stages
from vtcav_jax.tap import identity_tap
from vtcav_jax.tcav.features.encode import EncodeConfig, stage_shapes

CLIP = ClipSpec(frames=2, size=4)


def network_of(ranks: dict[str, int]) -> Network:
    """Make a network whose stages have activations of these ranks, clips included."""

    def pass_stages(video, tap=identity_tap):
        for stage, rank in ranks.items():
            tap(stage, {2: video.mean((1, 2, 3)), 3: video.reshape(len(video), -1, 3), 5: video}[rank])
        return video.mean((1, 2, 3))

    return from_function(pass_stages, clip=CLIP)


def test_the_default_stages_are_the_outermost_numbered_blocks():
    network = network_of({"embed": 5, "layers.0.blocks.0": 5, "layers.0": 5, "layers.1": 5, "pool": 2})
    assert resolve_stages((), network) == ("layers.0", "layers.1")
    assert resolve_stages(("*",), network) == ("embed", "layers.0.blocks.0", "layers.0", "layers.1", "pool")
    assert resolve_stages(("pool", "layers.?"), network) == ("layers.0", "layers.1", "pool")
    with pytest.raises(ValueError, match=r"layer\.9"):
        resolve_stages(("layer.9",), network)


def test_default_stages_have_space_and_time_axes_where_some_stages_have():
    blocks = {"encoder.embed": 3, "encoder.layer.0": 5, "encoder.layer.0.mlp.0": 3, "encoder.layer.1": 5}
    assert resolve_stages((), network_of({**blocks, "tokens.0": 3})) == ("encoder.layer.0", "encoder.layer.1")
    assert resolve_stages((), network_of({"conv": 5, "tokens": 3, "pool": 2})) == ("conv", "pool")
    assert resolve_stages((), network_of({"a": 3, "b": 3})) == ("a", "b")


def test_one_message_lists_stages_without_axes_together():
    network = network_of({"a": 3, "b": 3, "c": 3, "d": 5})
    with pytest.raises(ValueError, match=r"^a and 2 more stages: .*\(32, 3\).*grids=") as error:
        stage_shapes(network.model, CLIP.shape, np.zeros(1, int), ("a", "b", "c", "d"), EncodeConfig(pool="space"))
    assert str(error.value).count("(32, 3)") == 1
