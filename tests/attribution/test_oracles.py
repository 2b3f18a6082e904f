"""The same 3D CNN in torch, explained by captum, pytorch-grad-cam and zennit: batch norms, pools, groups and a sum."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.support.typed import present
from vtcav_jax import attribution, tap
from vtcav_jax.attribution.lrp import rules
from weights_conversion import torch_reference

torch = pytest.importorskip("torch")
CLASSES = np.array([2, 0])
SHAPE = (2, 4, 10, 10, 3)
EPSILON = 1e-12  # of the norms; zennit folds them into the layer before, but leaves theirs behind
TARGET = attribution.Class(CLASSES)


def network(parameters, video, tap=tap.identity_tap):
    p, dims = parameters, ("NDHWC", "DHWIO", "NDHWC")

    def normed(x, name):
        scale = jax.lax.rsqrt(p[name]["var"] + EPSILON) * p[name]["weight"]
        return (x - p[name]["mean"]) * scale + p[name]["bias"]

    def convolved(x, name, **options):
        y = jax.lax.conv_general_dilated(x, p[name]["weight"], dimension_numbers=dims, padding="SAME", **options)
        return y + p[name]["bias"]

    x = tap("stem", jax.nn.relu(normed(convolved(video, "a", window_strides=(1, 1, 1)), "an")))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2, 1), (1, 1, 2, 2, 1), "VALID")
    y = jax.nn.relu(normed(convolved(x, "b", window_strides=(1, 1, 1), feature_group_count=2), "bn"))
    x = tap("sum", x + y)
    x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 1, 1, 1), (1, 2, 1, 1, 1), "VALID") / 2
    x = tap("last", jax.nn.relu(convolved(x, "c", window_strides=(1, 2, 2))))
    return tap("pool", x.mean((1, 2, 3))) @ p["head"]["weight"] + p["head"]["bias"]


class TorchNetwork(torch.nn.Module):
    def __init__(self, add):
        super().__init__()
        nn = torch.nn
        self.a, self.an = nn.Conv3d(3, 6, 3, padding=1), nn.BatchNorm3d(6, eps=EPSILON)
        self.b, self.bn = nn.Conv3d(6, 6, 3, padding=1, groups=2), nn.BatchNorm3d(6, eps=EPSILON)
        self.c, self.head = nn.Conv3d(6, 5, (3, 3, 3), stride=(1, 2, 2), padding=1), nn.Linear(5, 4)
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))
        self.max_pool, self.mean_pool = nn.MaxPool3d((1, 2, 2)), nn.AvgPool3d((2, 1, 1))
        self.pool, self.add, self.joint = nn.AdaptiveAvgPool3d(1), add, nn.Identity()

    def forward(self, x):
        x = self.max_pool(self.relus[0](self.an(self.a(x))))
        y = self.relus[1](self.bn(self.b(x)))
        x = self.joint(self.add(torch.stack([x, y], -1)))
        x = self.relus[2](self.c(self.mean_pool(x)))
        return self.head(self.pool(x).flatten(1))


class Sum(torch.nn.Module):
    def forward(self, x):
        return x.sum(-1)


def torch_network(add=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = TorchNetwork(add or Sum()).eval()
        for name, value in (*net.named_parameters(), *net.named_buffers()):
            if value.ndim == 1:
                low = 0.5 if name.endswith("var") or name in ("an.weight", "bn.weight") else -0.3
                torch.nn.init.uniform_(value, low, low + 1)
    return net


@pytest.fixture(scope="module")
def net():
    state = {k: v.detach().numpy() for k, v in torch_network().state_dict().items()}
    axes = {5: (2, 3, 4, 1, 0), 2: (1, 0)}
    parameters: dict = {}
    for name, value in state.items():
        layer, leaf = name.rsplit(".", 1)
        if leaf == "num_batches_tracked":
            continue
        shaped = value.transpose(axes[value.ndim]) if value.ndim > 1 else value
        if value.ndim == 1:
            shaped = shaped.reshape((1,) * (1 if layer == "head" else 4) + (-1,))
        parameters.setdefault(layer, {})[leaf.removeprefix("running_")] = jnp.asarray(shaped)
    return Partial(network, parameters)


@pytest.fixture(scope="module")
def video():
    return np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)


def theirs(video):
    return torch.tensor(np.asarray(video)).permute(0, 4, 1, 2, 3).requires_grad_()


def ours(values):
    """Sum over channels, with the axes in our order."""
    return values.detach().sum(1).numpy()


def close(ours_values, expected, atol=1e-5):
    np.testing.assert_allclose(ours_values, expected, rtol=0, atol=atol * np.abs(expected).max())
    assert np.abs(expected).max() > 0


def test_it_is_the_same_network(net, video):
    with torch.no_grad():
        close(np.asarray(net(video)), torch_network()(theirs(video)).numpy(), 1e-6)


@pytest.fixture(scope="module")
def oracles():
    """Import modules by name without warnings; two of them import torchvision."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_reference.video_models()
        return {name: pytest.importorskip(name) for name in ("captum.attr", "pytorch_grad_cam", "zennit.rules")}


@pytest.mark.slow
def test_captum(net, video, oracles):
    captum = oracles["captum.attr"]
    x, target = theirs(video), torch.tensor(CLASSES)
    attributed = attribution.integrated_gradients(net, video, TARGET, ig_steps=12)
    close(attributed.map, ours(captum.IntegratedGradients(torch_network()).attribute(x, target=target, n_steps=12)))
    start = np.broadcast_to(video.mean(1, keepdims=True), SHAPE)
    attributed = attribution.integrated_gradients(net, video, TARGET, baseline="temporal_mean", ig_steps=5)
    method = captum.IntegratedGradients(torch_network())
    close(attributed.map, ours(method.attribute(x, baselines=theirs(start).detach(), target=target, n_steps=5)))
    attributed = attribution.gradient_x_input(net, video, TARGET)
    close(attributed.map, ours(captum.InputXGradient(torch_network()).attribute(x, target=target)))
    attributed = attribution.saliency(net, video, TARGET)
    close(attributed.map, ours(captum.Saliency(torch_network()).attribute(x, target=target, abs=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it registers hooks
        expected = ours(captum.GuidedBackprop(torch_network()).attribute(x, target=target))
    close(attribution.guided_backprop(net, video, TARGET).map, expected)
    twin = torch_network()
    expected = captum.LayerGradCam(twin, twin.joint).attribute(x, target=target)
    close(attribution.attribute(net, video, TARGET, "gradcam", "sum").map, ours(expected))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theirs_name"), [("gradcam", "GradCAM"), ("hirescam", "HiResCAM"), ("layercam", "LayerCAM")]
)
@pytest.mark.parametrize(("stage", "layer"), [("sum", "joint"), ("last", "c")])
def test_pytorch_grad_cam(net, video, oracles, name, theirs_name, stage, layer):
    package, twin = oracles["pytorch_grad_cam"], torch_network()
    layer_module = getattr(twin, layer) if layer == "joint" else twin.relus[2]
    with getattr(package, theirs_name)(twin, [layer_module]) as method:
        x = theirs(video)
        score_functions = [lambda logits, c=int(c): logits[c] for c in CLASSES]
        method(x, score_functions)
        saved = method.activations_and_grads
        arrays = (saved.activations[0].numpy(), saved.gradients[0].numpy())
        expected = method.get_cam_image(x, layer_module, score_functions, *arrays, False)
    close(attribution.attribute(net, video, TARGET, name, stage).map, expected)


@pytest.mark.slow
def test_removal_by_captum(net, video, oracles):
    captum, x, target = oracles["captum.attr"], theirs(video), torch.tensor(CLASSES)
    ids = np.random.default_rng(0).integers(0, 4, SHAPE[1:4])
    features = torch.tensor(ids)[None, None].repeat(1, 3, 1, 1, 1)

    def per_voxel(method, **options):  # all colours of a voxel have its value
        with torch.no_grad():
            return method(torch_network()).attribute(x, target=target, **options)[:, 0].detach().numpy()

    ablated = per_voxel(captum.FeatureAblation, feature_mask=features)
    close(attribution.loco(net, video, TARGET, segments=ids).map, ablated, 1e-4)
    sizes = np.bincount(ids.ravel())[ids]
    exact = per_voxel(captum.ShapleyValues, feature_mask=features)
    close(attribution.shapley(net, video, TARGET, segments=ids).map * sizes, exact, 1e-4)
    close(attribution.kernel_shap(net, video, TARGET, segments=ids).map * sizes, exact, 1e-4)
    occluded = per_voxel(captum.Occlusion, sliding_window_shapes=(3, 2, 4, 4), strides=(3, 1, 3, 3))
    close(attribution.occlusion(net, video, TARGET, window=(2, 4, 4), stride=(1, 3, 3)).map, occluded, 1e-4)


def zennit_map(video, rule, first=None):
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import SpecialFirstLayerMapComposite
    from zennit.layer import Sum as Added
    from zennit.rules import Norm, Pass
    from zennit.types import Activation, AvgPool, Convolution, Linear

    layers = [(Activation, Pass()), (AvgPool, Norm(1e-9)), (Added, Norm(1e-9)), (Convolution, rule), (Linear, rule)]
    composite = SpecialFirstLayerMapComposite(
        layer_map=layers,
        first_map=[] if first is None else [(Convolution, first)],
        canonizers=[SequentialMergeBatchNorm()],
    )
    twin = torch_network(Added()).double()
    with Gradient(twin, composite) as method:
        one_hot = torch.eye(4, dtype=torch.float64)[torch.tensor(CLASSES)]
        _, relevance = present(method(theirs(video), lambda logits: logits * one_hot))
    return ours(relevance)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["epsilon", "gamma", "alpha_beta", "z_plus", "z_box"])
def test_zennit(net, video, oracles, float64, case):
    """Compare in float64: in float32, rounding errors are close to 1e-5."""
    zennit = oracles["zennit.rules"]
    net, video = jax.tree.map(lambda a: a.astype(jnp.float64), net), video.astype(np.float64)
    low, high = float(video.min()), float(video.max())
    no_bias = {"zero_params": "bias"}
    if case == "epsilon":
        relevance = attribution.attribute(net, video, TARGET, "lrp_epsilon", rules=rules.LrpRules(epsilon=0.1))
        expected = zennit_map(video, zennit.Epsilon(epsilon=0.1))
    elif case == "gamma":
        relevance = attribution.attribute(net, video, TARGET, "lrp_gamma")
        expected = zennit_map(video, zennit.Gamma(gamma=0.25, stabilizer=1e-9))
    elif case == "alpha_beta":
        relevance = attribution.attribute(net, video, TARGET, "lrp_alpha_beta")
        expected = zennit_map(video, zennit.AlphaBeta(2, 1, stabilizer=1e-9, **no_bias))
    elif case == "z_plus":
        relevance = attribution.attribute(net, video, TARGET, "lrp_z_plus")
        expected = zennit_map(video, zennit.ZPlus(stabilizer=1e-9, **no_bias))
    else:
        relevance = attribution.deep_taylor(net, video, TARGET, bounds=(low, high))
        ends = (torch.full((1, 3, 1, 1, 1), end, dtype=torch.float64) for end in (low, high))
        box = zennit.ZBox(*ends, stabilizer=1e-9)
        expected = zennit_map(video, zennit.ZPlus(stabilizer=1e-9, **no_bias), box)
    close(relevance.map, expected, 1e-7)
