"""State dicts with the names and shapes of public checkpoints and random values.

`checkpoint_names.json.gz` contains the names and shapes of the state dicts of networks built with the public code.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch

CHECKPOINT_NAMES_FILE = Path(__file__).parent / "checkpoint_names.json.gz"

# Preset of each public state dict
PRESET_OF_CHECKPOINT = {
    "c3d_c3d_pytorch": "c3d",
    "i3d_pytorch_i3d": "i3d",
    "i3d_kinetics_i3d_pytorch": "i3d",
    "3dresnets_resnet18_B": "resnet3d_18",
    "3dresnets_resnet18_A": "resnet3d_18_a",
    "3dresnets_resnet34_B": "resnet3d_34",
    "3dresnets_resnet50_B": "resnet3d_50",
    "3dresnets_resnet101_B": "resnet3d_101",
    "3dresnets_resnet152_B": "resnet3d_152",
    "3dresnets_resnext101": "resnext3d_101_stem128",
    "3dresnets_resnext101_2017": "resnext3d_101",
    "mfnet_3d": "mfnet",
    "torchvision_r3d_18": "r3d_18",
    "torchvision_mc3_18": "mc3_18",
    "torchvision_r2plus1d_18": "r2plus1d_18",
    "torchvision_s3d": "s3d",
    "torchvision_mvit_v1_b": "mvit_v1_b",
    "torchvision_mvit_v2_s": "mvit_v2_s",
}


@cache
def checkpoint_shapes() -> dict[str, dict[str, list[int]]]:
    shapes = json.loads(gzip.decompress(CHECKPOINT_NAMES_FILE.read_bytes()))
    # The code of 2017, of the public weights, has 64 channels in the first convolution, that of 2020 has 128
    stem = {name: [64, *shape[1:]] for name, shape in shapes["3dresnets_resnext101"].items() if name[:4] == "conv"}
    stem |= {name: [64] for name, shape in shapes["3dresnets_resnext101"].items() if name[:4] == "bn1." and shape}
    stem |= {"layer1.0.conv1.weight": [128, 64, 1, 1, 1], "layer1.0.downsample.0.weight": [256, 64, 1, 1, 1]}
    shapes["3dresnets_resnext101_2017"] = shapes["3dresnets_resnext101"] | stem
    return shapes


def checkpoint_of_preset(preset: str) -> str:
    """Return the first checkpoint of a preset; I3D has two."""
    return next(key for key, name in PRESET_OF_CHECKPOINT.items() if name == preset)


def random_state_dict(key: str, seed: int = 0) -> dict[str, torch.Tensor]:
    return random_tensors(checkpoint_shapes()[key], seed)


def random_tensors(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random values; statistics and scales are near 1, so that activations neither vanish nor overflow."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        draw = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1000)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        elif len(shape) < 2:
            state[name] = draw * 0.2 + (name.endswith("weight") and not name.endswith("token"))
        elif name.endswith("embeddings"):  # positions
            state[name] = draw * 0.2
        else:
            state[name] = draw * (1.5 / draw[0].numel()) ** 0.5
    return state
