"""torchvision's Video Swin, at every preset's size: what a conversion and the parity tests are compared with."""

import sys
from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from vtcav_jax import models
from weights_conversion.names import torchvision_name


def video_models() -> ModuleType:
    """`torchvision.models.video`; also where its compiled operators do not load.

    A torchvision built for CUDA beside a CPU-only torch fails at import, for want of two operators that no video
    network uses. Declaring them is enough.
    """
    import torch

    try:
        from torchvision.models import video
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        from torchvision.models import video
    return video


def swin(preset: str, num_classes: int | None = None) -> Any:
    """torchvision's network of the preset's architecture, in evaluation mode, its weights random."""
    found = models.find(preset)
    sizes = found.maker.keywords
    return (
        video_models()
        .swin_transformer.SwinTransformer3d(
            patch_size=[2, 4, 4],
            embed_dim=sizes["embed_dim"],
            depths=list(sizes["depths"]),
            num_heads=list(sizes["num_heads"]),
            window_size=list(sizes["window"]),
            num_classes=found.num_classes if num_classes is None else num_classes,
        )
        .eval()
    )


def load_named_as_official(network: Any, tensors: Mapping[str, Any]) -> None:
    """Fills torchvision's network from official names; its buffers are its own."""
    import torch

    found = {torchvision_name(name): torch.tensor(np.asarray(value)) for name, value in tensors.items()}
    buffers = dict(network.named_buffers())
    network.load_state_dict(found | buffers)


def stage_modules(network: Any) -> dict[str, Any]:
    """Our stage names, each with the torch module whose output it is; `pool` is the input of the head."""
    stages = {"patch_embed": network.patch_embed}
    for i, features in enumerate(network.features):
        if i % 2:
            stages[f"layers.{i // 2}.downsample"] = features
        else:
            stages |= {f"layers.{i // 2}.blocks.{j}": block for j, block in enumerate(features)}
            stages[f"layers.{i // 2}"] = features
    return stages | {"norm": network.norm, "pool": network.avgpool}


def run(network: Any, video: Any) -> tuple[Any, dict[str, Any]]:
    """torch's logits and the tensor at every stage, for a torch video `(b, t, h, w, 3)`."""
    seen: dict[str, Any] = {}
    handles = [
        module.register_forward_hook(partial(_remember, seen, name)) for name, module in stage_modules(network).items()
    ]
    try:
        return network(video.permute(0, 4, 1, 2, 3)), seen
    finally:
        for handle in handles:
            handle.remove()


def _remember(seen, name, module, inputs, output):
    seen[name] = output


def our_axes(stage: str, array: np.ndarray) -> np.ndarray:
    """torchvision pools to (b, c, 1, 1, 1); all its other stages are channels last already."""
    return array.reshape(len(array), -1) if stage == "pool" else array
