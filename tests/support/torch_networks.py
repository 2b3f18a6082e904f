"""Independent implementations of the published networks in plain torch, from their public state dicts.

Written from the papers and the behaviour of the public code, one function per architecture, without modules or code of
the package. `stages` collects values under our names; the video is `(b, 3, t, h, w)`. `expected_stages` uses
torchvision's network where there is one.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as functional

from weights_conversion import torch_reference

State = Mapping[str, torch.Tensor]
Stages = dict[str, torch.Tensor]


def batch_norm(p: State, name: str, x, eps: float = 1e-5):
    mean, variance, weight, bias = (p[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, mean, variance, weight, bias, eps=eps)


def c3d(p: State, x) -> tuple[torch.Tensor, Stages]:
    stages = {}
    x = x.flip(1)  # trained with OpenCV's frames, in the order blue, green, red

    def conv(name, x):
        stages[name] = functional.conv3d(x, p[f"{name}.weight"], p[f"{name}.bias"], padding=1).relu()
        return stages[name]

    def pool(name, x, window=(2, 2, 2), padding=(0, 0, 0)):
        stages[name] = functional.max_pool3d(x, window, window, padding)
        return stages[name]

    x = pool("pool1", conv("conv1", x), (1, 2, 2))
    x = pool("pool2", conv("conv2", x))
    x = pool("pool3", conv("conv3b", conv("conv3a", x)))
    x = pool("pool4", conv("conv4b", conv("conv4a", x)))
    x = pool("pool5", conv("conv5b", conv("conv5a", x)), padding=(0, 1, 1))
    x = x.flatten(1)  # channels first
    for name in ("fc6", "fc7"):
        x = stages[name] = functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"]).relu()
    return functional.linear(x, p["fc8.weight"], p["fc8.bias"]), stages


def pad_same(x, kernel, stride):
    """Pad with zeros so that the output has length ceil(size / stride); an odd zero goes to the end."""
    pads = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1]):
        missing = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [missing // 2, missing - missing // 2]
    return functional.pad(x, pads)


def i3d(p: State, x) -> tuple[torch.Tensor, Stages]:
    stages = {}

    def unit(name, x, stride=(1, 1, 1)):
        w = p[f"{name}.conv3d.weight"]
        y = functional.conv3d(pad_same(x, w.shape[2:], stride), w, stride=stride)
        stages[name] = batch_norm(p, f"{name}.bn", y, 1e-3).relu()
        return stages[name]

    def pool(name, x, window, stride):
        stages[name] = functional.max_pool3d(pad_same(x, window, stride), window, stride)
        return stages[name]

    def mixed(name, x):
        b0 = unit(f"{name}.b0", x)
        b1 = unit(f"{name}.b1b", unit(f"{name}.b1a", x))
        b2 = unit(f"{name}.b2b", unit(f"{name}.b2a", x))
        b3 = unit(f"{name}.b3b", pool(f"{name}.b3a", x, (3, 3, 3), (1, 1, 1)))
        stages[name] = torch.cat([b0, b1, b2, b3], 1)
        return stages[name]

    x = unit("Conv3d_1a_7x7", x, (2, 2, 2))
    x = pool("MaxPool3d_2a_3x3", x, (1, 3, 3), (1, 2, 2))
    x = unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", x))
    x = pool("MaxPool3d_3a_3x3", x, (1, 3, 3), (1, 2, 2))
    x = mixed("Mixed_3c", mixed("Mixed_3b", x))
    x = pool("MaxPool3d_4a_3x3", x, (3, 3, 3), (2, 2, 2))
    for letter in "bcdef":
        x = mixed(f"Mixed_4{letter}", x)
    x = pool("MaxPool3d_5a_2x2", x, (2, 2, 2), (2, 2, 2))
    x = mixed("Mixed_5c", mixed("Mixed_5b", x))
    x = functional.avg_pool3d(x, (2, 7, 7), stride=1)
    stages["pool"] = x.mean((2, 3, 4))
    logits = functional.conv3d(x, p["logits.conv3d.weight"], p["logits.conv3d.bias"])
    return logits.mean((2, 3, 4)), stages


def resnet3d(p: State, x, *, groups: int = 1, shortcut: str = "B") -> tuple[torch.Tensor, Stages]:
    """Run a 3D ResNet; depths, widths and the type of block follow from the state dict."""
    stages = {}
    x = functional.conv3d(x, p["conv1.weight"], stride=(1, 2, 2), padding=3)
    x = stages["conv1"] = batch_norm(p, "bn1", x).relu()
    x = stages["maxpool"] = functional.max_pool3d(x, 3, 2, 1)
    for i in range(1, 5):
        j = 0
        while f"layer{i}.{j}.conv1.weight" in p:
            x = resnet_block(p, f"layer{i}.{j}", x, 2 if i > 1 and j == 0 else 1, groups, shortcut, stages)
            j += 1
    x = stages["pool"] = x.mean((2, 3, 4))
    return functional.linear(x, p["fc.weight"], p["fc.bias"]), stages


def resnet_block(p: State, name: str, x, stride: int, groups: int, shortcut: str, stages: Stages):
    if bottleneck := f"{name}.conv3.weight" in p:
        y = batch_norm(p, f"{name}.bn1", functional.conv3d(x, p[f"{name}.conv1.weight"])).relu()
        stages[f"{name}.conv1"] = y
        y = functional.conv3d(y, p[f"{name}.conv2.weight"], stride=stride, padding=1, groups=groups)
        y = stages[f"{name}.conv2"] = batch_norm(p, f"{name}.bn2", y).relu()
        y = functional.conv3d(y, p[f"{name}.conv3.weight"])
    else:
        y = functional.conv3d(x, p[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = stages[f"{name}.conv1"] = batch_norm(p, f"{name}.bn1", y).relu()
        y = functional.conv3d(y, p[f"{name}.conv2.weight"], padding=1)
    last = "3" if bottleneck else "2"
    y = stages[f"{name}.conv{last}"] = batch_norm(p, f"{name}.bn{last}", y)
    if stride > 1 or y.shape[1] != x.shape[1]:
        if shortcut == "B":
            x = batch_norm(
                p, f"{name}.downsample.1", functional.conv3d(x, p[f"{name}.downsample.0.weight"], stride=stride)
            )
        else:
            x = functional.avg_pool3d(x, 1, stride)
            x = torch.cat([x, torch.zeros_like(x[:, :1]).expand(-1, y.shape[1] - x.shape[1], -1, -1, -1)], 1)
        stages[f"{name}.downsample"] = x
    stages[f"{name}.sum"] = x + y
    stages[name] = (x + y).relu()
    return stages[name]


def mfnet(p: State, x) -> tuple[torch.Tensor, Stages]:
    """Run a multi-fiber network; depths follow from the state dict."""
    stages = {}

    def preactivated(name, x, **options):
        w = p[f"{name}.conv.weight"]
        padding = [size // 2 for size in w.shape[2:]]
        y = functional.conv3d(
            batch_norm(p, f"{name}.bn", x).relu(), w, padding=padding, groups=x.shape[1] // w.shape[1], **options
        )
        stages[name] = y
        return y

    x = functional.conv3d(x, p["conv1.conv.weight"], stride=(1, 2, 2), padding=(1, 2, 2))
    x = stages["conv1"] = batch_norm(p, "conv1.bn", x).relu()
    x = stages["maxpool"] = functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for i in (2, 3, 4, 5):
        for j in range(1, 7):
            name = f"conv{i}.B{j:02}"
            if f"{name}.conv_i1.conv.weight" not in p:
                break
            stride = 1 if j > 1 else (2, 1, 1) if i == 2 else (1, 2, 2)
            y = preactivated(f"{name}.conv_i2", preactivated(f"{name}.conv_i1", x))
            y = stages[f"{name}.x_in"] = x + y
            y = preactivated(f"{name}.conv_m2", preactivated(f"{name}.conv_m1", y, stride=stride))
            if j == 1:
                x = preactivated(f"{name}.conv_w1", x, stride=stride)
            x = stages[name] = x + y
    x = stages["tail"] = batch_norm(p, "tail.bn", x).relu()
    x = stages["pool"] = x.mean((2, 3, 4))
    return functional.linear(x, p["classifier.weight"], p["classifier.bias"]), stages


NETWORKS: dict[str, Callable[[State, torch.Tensor], tuple[torch.Tensor, Stages]]] = {
    "c3d": c3d,
    "i3d": i3d,
    "resnet3d_18": resnet3d,
    "resnet3d_18_a": lambda p, x: resnet3d(p, x, shortcut="A"),
    "resnet3d_34": resnet3d,
    "resnet3d_50": resnet3d,
    "resnet3d_101": resnet3d,
    "resnet3d_152": resnet3d,
    "resnext3d_101": lambda p, x: resnet3d(p, x, groups=32),
    "resnext3d_101_stem128": lambda p, x: resnet3d(p, x, groups=32),
    "mfnet": mfnet,
}


class FunctionNetwork(torch.nn.Module):
    """A network of `NETWORKS` as a module, whose buffers are the state dict."""

    def __init__(self, preset: str, state: State):
        super().__init__()
        self.function = NETWORKS[preset]
        for name, value in state.items():
            self.register_buffer(name.replace(".", "/"), value)  # names of buffers have no dots
        self.eval()

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return self.function({name.replace("/", "."): value for name, value in self.named_buffers()}, video)[0]


def expected_stages(
    preset: str, state: State, video: torch.Tensor, stages: Sequence[str]
) -> tuple[torch.Tensor, Stages]:
    """Return the reference's logits and stages, channels last, for a video `(b, t, h, w, 3)`."""
    if preset in NETWORKS:
        logits, seen = NETWORKS[preset](state, video.permute(0, 4, 1, 2, 3))
        return logits, {name: a.permute(0, 2, 3, 4, 1) if a.ndim == 5 else a for name, a in seen.items()}
    network = torch_reference.torchvision_network(preset)
    if network is None:
        raise ValueError(f"there is no reference for {preset}")
    network.to(video.dtype).load_state_dict(state)
    return torch_reference.run_with_stages(network, video, stages)
