"""Mapping from the parameter names of public code to ours, by family of networks.

Our attributes are named as in one public implementation, so that only the names of other implementations and those of
the last layer, which is `head` in all our networks, need mapping.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from flax import nnx

from vtcav_jax import models
from vtcav_jax.models.c3d import C3D_GRID, C3d
from vtcav_jax.models.hub import PREDICTOR, transformers_name
from vtcav_jax.models.i3d import I3d
from vtcav_jax.models.mfnet import MfNet
from vtcav_jax.models.mvit import Mvit
from vtcav_jax.models.resnet3d import ResNet3d
from vtcav_jax.models.s3d import S3d
from vtcav_jax.models.small_cnn import SmallCnn
from vtcav_jax.models.video_resnet import VideoResNet
from vtcav_jax.models.video_swin import VideoSwin
from vtcav_jax.models.vit.timesformer import TimeSformer
from vtcav_jax.models.vit.videomae import VideoMae
from vtcav_jax.models.vit.vivit import Vivit
from vtcav_jax.models.vit.vjepa2 import Vjepa2


@dataclass(frozen=True)
class Family:
    """Name mapping of one architecture."""

    to_our_name: Callable[[str], str]  # maps any of its public names, except the last component
    signature_key: str  # one of our names, with torch's last component, that no other family has
    name_source: str  # origin of the names, for messages
    head: str = "head"  # public name of the last layer
    unused_prefix: str | None = None  # of our names of tensors that the network does not use


def official_name(name: str) -> str:
    """Return the official name of a Video Swin parameter from torchvision's or the official one."""
    name = re.sub(r"^cls_head\.fc_cls\.", "head.", re.sub(r"^backbone\.", "", name))
    if match := re.match(r"features\.(\d+)\.(.*)", name):
        number, rest = int(match[1]), match[2]
        stage, merging = divmod(number, 2)
        name = f"layers.{stage}.downsample.{rest}" if merging else f"layers.{stage}.blocks.{rest}"
        name = name.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
    return name


def torchvision_name(name: str) -> str:
    """Return torchvision's name of a Video Swin parameter from the official one."""
    name = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"features.{2 * int(m[1]) + 1}.", name)
    name = re.sub(r"^layers\.(\d+)\.blocks\.", lambda m: f"features.{2 * int(m[1])}.", name)
    return name.replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.3.")


def i3d_name(name: str) -> str:
    """Return our I3D name, such as `Mixed_3b.b1a.bn.weight`, from that of pytorch-i3d or kinetics_i3d_pytorch."""
    name = re.sub(r"^(logits|conv3d_0c_1x1)\.conv3d\.", "head.", name)
    name = re.sub(r"^(conv3d|mixed)_", lambda m: f"{m[1].capitalize()}_", name).replace(".batch3d.", ".bn.")
    return re.sub(r"\.branch_(\d)(?:\.(\d))?\.", lambda m: f".b{m[1]}{'ab'[int(m[2])] if m[2] else ''}.", name)


def mvit_name(name: str) -> str:
    """Return our MViT name, such as `blocks.0.mlp.fc1.weight`, from torchvision's."""
    name = re.sub(r"^head\.1\.", "head.", name).replace(".attn.project.0.", ".attn.project.")
    return name.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.").replace(".norm_act.0.", ".norm.")


# Parts of the names of VideoMAE's and TimeSformer's own code, and ours
VIT_NAMES = {
    r"^cls_token$": "embeddings.cls_token",
    r"^pos_embed$": "embeddings.position_embeddings",
    r"^time_embed$": "embeddings.time_embeddings",
    r"^patch_embed\.proj\.": "embeddings.patch_embeddings.projection.",
    r"^blocks\.": "encoder.layer.",
    r"^norm\.": "layernorm.",
    r"\.temporal_norm1\.": ".temporal_layernorm.",
    r"\.temporal_fc\.": ".temporal_dense.",
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
    r"\.(temporal_)?attn\.proj\.": r".\1attention.output.dense.",
    r"\.(temporal_)?attn\.": r".\1attention.attention.",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}


def vit_name(name: str) -> str:
    """Return our name of a parameter of VideoMAE or TimeSformer from that of its own code or of transformers."""
    name = name.removeprefix("model.")
    for theirs, ours in VIT_NAMES.items():
        name = re.sub(theirs, ours, name)
    return transformers_name(name)


def split_joint_weights(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Split VideoMAE's joint weights of queries, keys and values, whose biases are separate; keys have none."""
    split = {}
    for name, tensor in tensors.items():
        stem = name.removesuffix("qkv.weight")
        if name == stem or len(tensor) % 3:
            split[name] = tensor
        else:
            parts = np.split(tensor, 3)
            split |= {f"{stem}{part}.weight": value for part, value in zip(("query", "key", "value"), parts)}
    return split


def map_head(head_name: str) -> Callable[[str], str]:
    return lambda name: re.sub(rf"^{re.escape(head_name)}\.", "head.", name)


FAMILIES: dict[Callable[..., nnx.Module], Family] = {
    VideoSwin: Family(official_name, "patch_embed.proj.weight", "torchvision's and the official names"),
    SmallCnn: Family(lambda name: name, "convs.0.weight", "its own names"),
    C3d: Family(map_head("fc8"), "fc6.weight", "the names of c3d-pytorch", "fc8"),
    I3d: Family(
        i3d_name, "Mixed_3b.b1a.bn.weight", "the names of pytorch-i3d and of kinetics_i3d_pytorch", "logits.conv3d"
    ),
    ResNet3d: Family(map_head("fc"), "layer1.0.bn1.weight", "the names of 3D-ResNets-PyTorch", "fc"),
    MfNet: Family(map_head("classifier"), "conv2.B01.conv_i1.bn.weight", "the names of PyTorch-MFNet", "classifier"),
    VideoResNet: Family(map_head("fc"), "stem.0.weight", "torchvision's names", "fc"),
    Mvit: Family(mvit_name, "pos_encoding.class_token", "torchvision's names", "head.1"),
    S3d: Family(map_head("classifier.1"), "features.0.0.0.weight", "torchvision's names", "classifier.1"),
    VideoMae: Family(vit_name, "fc_norm.weight", "the names of VideoMAE's code and of transformers"),
    TimeSformer: Family(vit_name, "embeddings.time_embeddings", "the names of TimeSformer's code and of transformers"),
    Vivit: Family(transformers_name, "encoder.layer.0.attention.attention.key.bias", "the names of transformers"),
    Vjepa2: Family(transformers_name, "pooler.query_tokens", "the names of transformers", "classifier", PREDICTOR),
}


def family_of(preset: str) -> Family:
    return FAMILIES[models.get_preset(preset).maker.func]


def our_tensors(family: Family, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors by our names, without those that the network does not use."""
    named = {family.to_our_name(name): tensor for name, tensor in tensors.items()}
    if len(named) < len(tensors):
        raise ValueError(
            f"the checkpoint contains some parameters twice; expected {family.name_source}, each parameter once"
        )
    if family.unused_prefix:
        named = {name: tensor for name, tensor in named.items() if not name.startswith(family.unused_prefix)}
    return split_joint_weights(named) if family is FAMILIES[VideoMae] else named


def reorder_axes(name: str, tensor: np.ndarray) -> np.ndarray:
    """Reorder the axes of a tensor, given by our name, where public code uses another order.

    A last layer that is a 1 x 1 x 1 convolution becomes a linear layer. C3D's first linear layer reads a grid that
    torch flattens with channels first and we with channels last; its first convolution comes from Caffe, which reads
    channels in the order blue, green, red.
    """
    if name == "head.weight" and tensor.ndim == 5 and tensor.shape[2:] == (1, 1, 1):
        return tensor.reshape(tensor.shape[:2])
    if name == "conv1.weight" and tensor.shape[1:] == (3, 3, 3, 3):  # only C3D has this shape
        return tensor[:, ::-1]
    places = int(np.prod(C3D_GRID))
    if name == "fc6.weight" and tensor.ndim == 2 and tensor.shape[1] % places == 0:
        return tensor.reshape(len(tensor), -1, places).swapaxes(1, 2).reshape(tensor.shape)
    return tensor
