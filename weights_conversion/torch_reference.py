"""torchvision's networks with values at our stages (layers), the reference of conversions and parity tests."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from vtcav_jax import models
from vtcav_jax.models.video_swin import VideoSwin
from weights_conversion.key_mapping import torchvision_name


def video_models() -> ModuleType:
    """Import `torchvision.models.video`, even if its compiled operators do not load.

    A torchvision built for CUDA fails at import with a CPU-only torch, because two operators are missing that no video
    network uses. Declaring them suffices.
    """
    import torch

    try:
        from torchvision.models import video
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # partially imported
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        from torchvision.models import video
    return video


TORCHVISION_BUILDERS = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s")  # named like the presets


def torchvision_network(preset: str, num_classes: int | None = None) -> Any | None:
    """Return torchvision's network of the preset, in evaluation mode, with random weights; None if it has none."""
    entry = models.get_preset(preset)
    if entry.maker.func is VideoSwin:
        return torchvision_swin(preset, num_classes)
    if preset not in TORCHVISION_BUILDERS:
        return None
    return getattr(video_models(), preset)(num_classes=num_classes or entry.num_classes).eval()


def torchvision_swin(preset: str, num_classes: int | None = None, depths: Sequence[int] | None = None) -> Any:
    """Return torchvision's Video Swin of the preset's architecture, in evaluation mode, with random weights.

    `depths` replaces the numbers of blocks.
    """
    entry = models.get_preset(preset)
    sizes = entry.maker.keywords
    return (
        video_models()
        .swin_transformer.SwinTransformer3d(
            patch_size=[2, 4, 4],
            embed_dim=sizes["embed_dim"],
            depths=list(depths or sizes["depths"]),
            num_heads=list(sizes["num_heads"]),
            window_size=list(sizes["window"]),
            num_classes=entry.num_classes if num_classes is None else num_classes,
        )
        .eval()
    )


def load_official_weights(network: Any, tensors: Mapping[str, Any]) -> None:
    """Load parameters with official names into torchvision's network, which keeps its own buffers."""
    import torch

    state_dict = {torchvision_name(name): torch.tensor(np.asarray(value)) for name, value in tensors.items()}
    buffers = dict(network.named_buffers())
    network.load_state_dict(state_dict | buffers)


def run_with_stages(network: Any, video: Any, stages: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Return torch's logits and the tensor at each of `stages`, channels last, for a torch video `(b, t, h, w, 3)`.

    For networks with torchvision's module names. Tensors are copied, because ReLUs and sums modify them in place.
    """
    if hasattr(network, "pos_encoding"):
        return run_mvit(network, video)
    outputs: dict[str, Any] = {}
    handles = []

    def remember(name: str, value: Any) -> None:
        outputs[name] = (value.permute(0, 2, 3, 4, 1) if value.ndim == 5 else value).clone()

    for stage in set(stages) - {"pool"}:
        if stage.endswith(".sum"):
            relu = network.get_submodule(f"{stage.removesuffix('.sum')}.relu")
            handles.append(relu.register_forward_pre_hook(lambda _, inputs, name=stage: remember(name, inputs[0])))
        else:
            part = network.get_submodule(module_of(stage))
            handles.append(part.register_forward_hook(lambda _, inputs, value, name=stage: remember(name, value)))
    pooled = network.avgpool.register_forward_hook(
        lambda _, inputs, value: remember("pool", value.mean((2, 3, 4)))  # the grid that remains to be averaged
    )
    try:
        return network(video.permute(0, 4, 1, 2, 3)), outputs
    finally:
        for handle in (*handles, pooled):
            handle.remove()


def run_mvit(network: Any, video: Any) -> tuple[Any, dict[str, Any]]:
    """Return the same for an MViT, whose modules exchange tokens: the class token, then those of the grid."""
    outputs: dict[str, Any] = {}
    handles = []
    last = f"blocks.{len(network.blocks) - 1}"

    def grid(name: str, tokens: Any, shape: tuple[int, ...]) -> None:
        if not name.startswith(last):  # the last grid is not used
            outputs[name] = tokens[:, 1:].unflatten(1, shape).clone()

    def after_attention(name: str, value: Any) -> None:
        outputs[f"{name}.shape"] = value[1]
        grid(f"{name}.attn", *value)

    def after_block(name: str, value: Any) -> None:
        grid(name, *value)
        outputs[f"{name}.class_token"] = value[0][:, 0].clone()

    def watch(module: Any, remember: Callable[[Any, Any], None]) -> None:
        handles.append(module.register_forward_hook(lambda _, inputs, value: remember(inputs[0], value)))

    def shape(name: str) -> tuple[int, ...]:
        return outputs[f"{name}.shape"]

    first = (network.pos_encoding.temporal_size, *network.pos_encoding.spatial_size)
    watch(network.conv_proj, lambda _, value: outputs.update(conv_proj=value.permute(0, 2, 3, 4, 1)))
    watch(network.pos_encoding, lambda _, value: grid("tokens", value, first))
    watch(network.norm, lambda _, value: outputs.update(norm=value[:, 0]))
    for i, block in enumerate(network.blocks):
        name = f"blocks.{i}"
        watch(block.attn, lambda _, value, name=name: after_attention(name, value))
        watch(block.norm2, lambda before, _, name=name: grid(f"{name}.sum", before, shape(name)))
        watch(block.mlp, lambda _, value, name=name: grid(f"{name}.mlp", value, shape(name)))
        watch(block, lambda _, value, name=name: after_block(name, value))
    try:
        logits = network(video.permute(0, 4, 1, 2, 3))
    finally:
        for handle in handles:
            handle.remove()
    return logits, {name: value for name, value in outputs.items() if not name.endswith(".shape")}


def module_of(stage: str) -> str:
    """Return torchvision's module whose output is our stage; in R(2+1)D's pairs, the ReLU of the first convolution."""
    return re.sub(r"^(stem|layer\d\.\d\.conv\d\.0)\.0$", r"\1.2", stage)


def stage_modules(network: Any) -> dict[str, Any]:
    """Return the torch module whose output is each of our stages; `pool` is the input of the head."""
    stages = {"patch_embed": network.patch_embed}
    for i, features in enumerate(network.features):
        if i % 2:
            stages[f"layers.{i // 2}.downsample"] = features
        else:
            stages |= {f"layers.{i // 2}.blocks.{j}": block for j, block in enumerate(features)}
            stages[f"layers.{i // 2}"] = features
    return stages | {"norm": network.norm, "pool": network.avgpool}


def run_swin(network: Any, video: Any) -> tuple[Any, dict[str, Any]]:
    """Return torch's logits and the tensor at every stage of a Video Swin, for a torch video `(b, t, h, w, 3)`."""
    outputs: dict[str, Any] = {}
    handles = [
        module.register_forward_hook(partial(_remember, outputs, name))
        for name, module in stage_modules(network).items()
    ]
    try:
        return network(video.permute(0, 4, 1, 2, 3)), outputs
    finally:
        for handle in handles:
            handle.remove()


def _remember(outputs, name, module, inputs, output):
    outputs[name] = output


def to_our_axes(stage: str, array: np.ndarray) -> np.ndarray:
    """Flatten torchvision's pool, which is (b, c, 1, 1, 1); its other stages are channels last already."""
    return array.reshape(len(array), -1) if stage == "pool" else array
