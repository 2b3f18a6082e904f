"""PyTorch modules as networks, compared with PyTorch: stages, logits, gradients, and what is refused."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import nn

from vtcav_jax import tap
from vtcav_jax.adapters import Tokens, from_torch, torch_modules
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.fingerprint import fingerprint

CLIP = ClipSpec(frames=4, size=6, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
VIDEO = np.random.default_rng(0).standard_normal((2, *CLIP.shape), np.float32)


class Net(nn.Module):
    """A convolution, the part under test, and a linear head."""

    def __init__(self, middle: nn.Module):
        super().__init__()
        self.conv, self.middle, self.head = nn.Conv3d(3, 4, 3, padding=1), middle, nn.Linear(4, 5)

    def forward(self, x):
        x = self.middle(self.conv(x))
        x = x[0] if isinstance(x, tuple) else x["value"] if isinstance(x, dict) else x
        return self.head(x.mean((2, 3, 4)))


class Middle(nn.Module):
    def __init__(self, function, **attributes):
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.function(self, x)


def add_in_place(_, x):
    x += 1
    return x


def set_item(_, x):
    x = x.clone()
    x[:, 0] = 0
    x[:, :, 0].mul_(2)
    return x


def without_gradient(_, x):
    with torch.no_grad():
        weights = x.mean(1, keepdim=True).sigmoid()
    return x * weights


def masked_attention(_, x):
    q = x.flatten(2).transpose(1, 2)[:, None]
    mask = torch.ones(q.shape[2], q.shape[2], device=x.device, dtype=torch.bool).tril()
    return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)[:, 0].transpose(1, 2).reshape(x.shape)


def multi_head(self, x):
    q = x.flatten(2).transpose(1, 2)
    return self.attention(q, q, q, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


def split(_, x):
    return torch.cat(torch.tensor_split(x, indices=(1, 3), dim=1)[::-1], 1)


SUPPORTED = {
    "in place": Middle(add_in_place),
    "relu in place": nn.ReLU(inplace=True),
    "assignment": Middle(set_item),
    "masked_fill": Middle(lambda _, x: x.masked_fill_(x < 0, 0.0)),
    "constant on the CPU": Middle(lambda _, x: x * torch.tensor(2.0) + torch.arange(4).view(1, -1, 1, 1, 1)),
    "constant on the device": Middle(lambda _, x: x + torch.arange(4, device=x.device).view(1, -1, 1, 1, 1)),
    "plain attribute": Middle(lambda self, x: x * self.scale.view(1, -1, 1, 1, 1), scale=torch.arange(1.0, 5.0)),
    "no_grad": Middle(without_gradient),
    "detach": Middle(lambda _, x: x * x.detach()),
    "grad mode": Middle(lambda _, x: x if torch.is_grad_enabled() else x * 3),
    "bfloat16": Middle(lambda _, x: x.to(torch.bfloat16).mul(2).to(torch.float32)),
    "trilinear": Middle(lambda _, x: F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)),
    "adaptive pool": Middle(lambda _, x: F.adaptive_avg_pool3d(x, (2, 3, 3))),
    "max pool": Middle(lambda _, x: F.max_pool3d(x, 3, 2, 1, ceil_mode=True)),
    "masked attention": Middle(masked_attention),
    "multi-head attention": Middle(multi_head, attention=nn.MultiheadAttention(4, 2, batch_first=True)),
    "roll": Middle(lambda _, x: torch.roll(x, (1, 1), (2, 3))),
    "tensor_split": Middle(split),
    "tuple": Middle(lambda _, x: (x * 2, None)),
    "dictionary": Middle(lambda _, x: {"value": x * 2}),
    "batch norm": nn.BatchNorm3d(4),
    "group norm": nn.GroupNorm(2, 4),
    "strided groups": nn.Conv3d(4, 4, 3, stride=2, padding=1, groups=2),
    "dilation": nn.Conv3d(4, 4, 3, padding="same", dilation=2),
    "transposed": nn.ConvTranspose3d(4, 4, 2, 2),
    "replicate": nn.Conv3d(4, 4, 3, padding=1, padding_mode="replicate"),
    "weight norm": nn.utils.parametrizations.weight_norm(nn.Conv3d(4, 4, 1)),
}


def with_random_statistics(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm3d):
            assert part.running_var is not None and part.running_mean is not None
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.running_mean)
    return module.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", SUPPORTED)
def test_operations_agree_with_pytorch(name):
    module = with_random_statistics(Net(copy.deepcopy(SUPPORTED[name])))
    inputs = torch.from_numpy(VIDEO.transpose(0, 4, 1, 2, 3).copy()).requires_grad_()
    expected = copy.deepcopy(module)(inputs)
    expected[:, 1].sum().backward()
    network = from_torch(module, clip=CLIP)
    logits, values = tap.activations(network.model, VIDEO, ["conv"])
    np.testing.assert_allclose(logits, expected.detach(), rtol=1e-4, atol=1e-5)
    assert isinstance(module.conv, nn.Module)
    conv = module.conv(torch.from_numpy(VIDEO.transpose(0, 4, 1, 2, 3).copy()))
    np.testing.assert_allclose(values["conv"], conv.detach().permute(0, 2, 3, 4, 1), rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda video: network.model(video)[:, 1].sum())(jnp.asarray(VIDEO))
    assert inputs.grad is not None
    theirs = inputs.grad.permute(0, 2, 3, 4, 1).numpy()
    np.testing.assert_allclose(gradient, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


class Exponential(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, *grad_outputs):
        return grad_outputs[0] * ctx.saved_tensors[0].exp() * 2


def autocast(self, x):
    with torch.autocast("cpu", torch.bfloat16):
        return F.conv3d(x, self.weight).float()


REFUSED = {
    "autocast": (Middle(autocast, weight=nn.Parameter(torch.randn(4, 4, 1, 1, 1))), "uses torch.autocast"),
    "autograd function": (Middle(lambda _, x: Exponential.apply(x)), "uses the autograd.Function Exponential"),
    "data-dependent if": (Middle(lambda _, x: x * 2 if x.sum() > 0 else x), "depends on values of its input"),
    "item": (Middle(lambda _, x: x * float(x.mean().item())), "depends on values of its input"),
    "boolean index": (Middle(lambda _, x: x * x[x > 0].mean()), "selects values by a boolean mask"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_wrong_is_refused(name):
    middle, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        from_torch(Net(middle).eval(), clip=CLIP)
    # A refusal leaves PyTorch as it was
    with torch.random.fork_rng():
        torch.manual_seed(1)
    x = torch.ones(2, requires_grad=True)
    Exponential.apply(x).sum().backward()
    assert x.grad is not None and torch.allclose(x.grad, 2 * x.detach().exp())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_compiled_modules_are_refused():
    script = torch.jit.script(nn.Sequential(nn.Conv3d(4, 4, 1), nn.ReLU()))
    with pytest.raises(ValueError, match="compiled by TorchScript"):
        from_torch(Net(script).eval(), clip=CLIP)


def test_training_mode_and_other_objects_are_refused():
    with pytest.raises(ValueError, match=r"in training mode; call module.eval\(\) first"):
        from_torch(Net(nn.ReLU()), clip=CLIP)
    with pytest.raises(ValueError, match=r"expected a torch\.nn\.Module, got function"):
        from_torch(lambda x: x, clip=CLIP)  # type: ignore[arg-type]


def test_a_wrong_result_is_refused(monkeypatch):
    module = Net(nn.ReLU()).eval()
    original = torch_modules._logits_and_gradient
    monkeypatch.setattr(torch_modules, "_logits_and_gradient", lambda *args: [1.01 * x for x in original(*args)])
    with pytest.raises(ValueError, match=r"the logits in jax and in PyTorch differ by 0\.01 of their norm"):
        from_torch(module, clip=CLIP)
    from_torch(module, clip=CLIP, verify=False)


class Transformer(nn.Module):
    """Tokens with a class token, channels last, and blocks that are called twice."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv3d(3, 8, (2, 3, 3), (2, 3, 3))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, *, pixel_values):
        x = self.norm(self.embed(pixel_values.transpose(1, 2)).permute(0, 2, 3, 4, 1)).flatten(1, 3)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return {"logits": self.head(self.block(self.block(x))[:, 0])}


@pytest.mark.slow
def test_tokens_layouts_and_repeated_calls():
    module = Transformer().eval()
    network = from_torch(
        module,
        clip=CLIP,
        classes=("a", "b", "c"),
        layout="btchw",
        argument="pixel_values",
        logits=lambda output: output["logits"],
        grids={"block*": Tokens(2, 2, 2, prefix=1), "norm": "bthwc"},
    )
    stages = tap.stages_of(network.model)
    assert [s for s in stages if s.count(".") == 0] == ["embed", "norm", "block", "block#2", "head"]
    values = tap.activations(network.model, VIDEO, ["embed", "norm", "block#2"])[1]
    assert {name: value.shape for name, value in values.items()} == dict.fromkeys(values, (2, 2, 2, 2, 8))
    with torch.no_grad():
        inputs = torch.from_numpy(VIDEO.transpose(0, 1, 4, 2, 3).copy())
        np.testing.assert_allclose(
            tap.compute_logits(network.model, VIDEO), module(pixel_values=inputs)["logits"], rtol=1e-4, atol=1e-5
        )
        expected = module.norm(module.embed(inputs.transpose(1, 2)).permute(0, 2, 3, 4, 1))
    np.testing.assert_allclose(values["norm"], expected, rtol=1e-4, atol=1e-5)
    gradients = tap.activations_and_gradients(network.model, VIDEO, [0, 2], ["head", "block#2"]).gradients
    np.testing.assert_allclose(gradients["head"], np.eye(3)[[0, 2]], atol=1e-6)
    assert not np.any(gradients["block#2"])  # only the class token is used behind the last block


def test_fingerprints_cover_weights_and_structure():
    module = Net(nn.ReLU()).eval()
    first = fingerprint(from_torch(module, clip=CLIP, verify=False).model)
    assert first == fingerprint(from_torch(copy.deepcopy(module), clip=CLIP, verify=False).model)
    with torch.no_grad():
        module.head.bias.add_(1)
    assert first != fingerprint(from_torch(module, clip=CLIP, verify=False).model)
    other = Net(nn.GELU()).eval()
    other.load_state_dict(module.state_dict())
    assert len({fingerprint(from_torch(m, clip=CLIP, verify=False).model) for m in (module, other)}) == 2
