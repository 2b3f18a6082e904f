"""Every method, motion and pyramids on transformers and on PyTorch modules: they work, or say why not."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flax import nnx

import vtcav_jax as vtcav
from tests.support.random_networks import with_random_parameters
from vtcav_jax.attribution import METHODS, VIDEO, attribute, pixel_bounds, planned_passes
from vtcav_jax.models.vit.timesformer import TimeSformer
from vtcav_jax.models.vit.videomae import VideoMae
from vtcav_jax.pyramid import build_pyramid, find_cut_stages
from weights_conversion import torch_reference

CLIP = vtcav.ClipSpec(frames=8, size=32)
CLASSES = ("up", "down", "left", "right")
CLIPS = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3)).astype(np.uint8)
OPTIONS: dict[str, dict[str, Any]] = {
    "integrated_gradients": dict(ig_steps=2),
    "expected_gradients": dict(references=np.zeros((1, 8, 32, 32, 3), np.float32), samples=2),
    "deep_taylor": dict(bounds=pixel_bounds(CLIP)),
    "smoothgrad": dict(samples=2),
    "smoothgrad_squared": dict(samples=2),
    "rise": dict(masks=4),
    "lime": dict(masks=24, cells=(2, 2, 2)),
    "kernel_shap": dict(masks=24, cells=(2, 2, 2)),
    "loco": dict(cells=(2, 2, 2)),
    "up": dict(cells=(2, 2, 2)),
    "occlusion": dict(window=(4, 16, 16), stride=(4, 16, 16)),
    "sos": dict(budget=20),
    "extremal": dict(steps=2),
    "step": dict(steps=2),
    "shapley": dict(cells=(2, 2, 2), orders=2),
    "frame_shapley": dict(groups=2),
}
NO_ATTENTION = dict.fromkeys(("last_attention", "rollout", "gradient_rollout"), "this one has none; use attn_lrp")
NO_RELUS = {"guided_backprop": "this one has none: use a gradient"}
NO_POOL = {"cam": "there is no 'pool'; name it as pool_stage, or use gradcam"}


def videomae() -> vtcav.Network:
    sizes: dict[str, Any] = dict(hidden_size=24, layers=1, heads=2, intermediate_size=16, num_classes=4)
    make = partial(VideoMae, **sizes, clip=(8, 32, 32), patch=(2, 8, 8))
    return vtcav.Network(with_random_parameters(lambda: make(rngs=nnx.Rngs(0))), CLIP, {"direction": CLASSES})


def timesformer() -> vtcav.Network:
    sizes: dict[str, Any] = dict(hidden_size=12, layers=1, heads=2, intermediate_size=16, num_classes=4)
    make = partial(TimeSformer, **sizes, clip=(8, 32, 32), patch=(8, 8))
    return vtcav.Network(with_random_parameters(lambda: make(rngs=nnx.Rngs(0))), CLIP, {"direction": CLASSES})


def torch_cnn() -> vtcav.Network:
    torch.manual_seed(0)
    layers = [torch.nn.Conv3d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv3d(8, 8, 3, 2, 1), torch.nn.ReLU()]
    layers += [torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4)]
    return vtcav.from_torch(torch.nn.Sequential(*layers).eval(), clip=CLIP, classes=CLASSES)


def torch_swin() -> vtcav.Network:
    torch.manual_seed(0)
    make = torch_reference.video_models().SwinTransformer3d
    module = make([2, 8, 8], 12, [2], [2], [4, 4, 4], num_classes=4, stochastic_depth_prob=0.0)
    return vtcav.from_torch(module.eval(), clip=CLIP, classes=CLASSES, grids={"features.*": "bthwc"})


NETWORKS = {"videomae": videomae, "timesformer": timesformer, "torch_cnn": torch_cnn, "torch_swin": torch_swin}
REFUSALS = {
    "videomae": NO_RELUS | NO_POOL,
    "timesformer": NO_RELUS | NO_POOL,
    "torch_cnn": NO_ATTENTION | NO_POOL,
    "torch_swin": NO_ATTENTION | NO_RELUS | NO_POOL,
}


@pytest.fixture(scope="module", params=NETWORKS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def network(name) -> vtcav.Network:
    return NETWORKS[name]()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_works_or_says_why_not(name, network, method):
    def compute() -> Any:
        return attribute(network, CLIPS, "left", method, **OPTIONS.get(method, {}))

    if method in REFUSALS[name]:
        with pytest.raises(ValueError, match=REFUSALS[name][method]):
            compute()
        return
    result = compute()
    assert np.isfinite(result.map).all() and (np.abs(result.map).max((1, 2, 3)) > 0).all()
    assert result.forward_passes == planned_passes(method, CLIPS.shape[1:4], **OPTIONS.get(method, {}))
    assert result.stage == VIDEO or result.stage in vtcav.tap.stages_of(network.model)
    assert result.map.ndim == 4 and (result.stage != VIDEO or result.map.shape == CLIPS.shape[:4])


@pytest.mark.slow
def test_motion(network):
    results = vtcav.measure_motion(network, "worlds:small:2:9", ["left"], num_workers=1)
    assert len(results.clips) == 2 and len(results.classes) == 1 and not results.failures


CUT_STAGES = {
    "videomae": ("embeddings", "encoder.layer.0", "fc_norm"),
    "timesformer": ("embeddings", "layernorm"),  # the class token bypasses the grids of later blocks
    "torch_cnn": ("1", "3", "4", "5", "6"),
}


@pytest.mark.slow
def test_pyramids(name, network):
    video = network.clip_spec.normalise(CLIPS)
    if name in CUT_STAGES:
        assert find_cut_stages(network.model, video) == CUT_STAGES[name]
    pyramid = build_pyramid(network.model, video, 1, depth=2, reference=video[::-1])
    assert pyramid.nodes and all(np.isfinite(node.relevance) for node in pyramid.nodes)


def test_cam_of_a_pytorch_module():
    network = torch_cnn()
    tubes = attribute(network, CLIPS, "left", "cam", "3", pool_stage="5")
    gradcam = attribute(network, CLIPS, "left", "gradcam", "3")
    np.testing.assert_allclose(tubes.map, gradcam.map, atol=1e-6)
