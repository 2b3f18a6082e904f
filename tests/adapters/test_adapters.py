"""Functions, linen and nnx modules as networks: stages, values, gradients, and errors."""

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import vtcav_jax
from vtcav_jax import tap
from vtcav_jax.adapters import Tokens, from_function, from_linen, from_nnx, load_factory
from vtcav_jax.adapters.factory import is_factory
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.models import Network

CLIP = ClipSpec(frames=4, size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
RNG = np.random.default_rng(0)
VIDEO = jnp.asarray(RNG.standard_normal((2, *CLIP.shape), np.float32))
PARAMETERS = {
    "w": RNG.standard_normal((3, 6)).astype(np.float32),
    "v": RNG.standard_normal((6, 4)).astype(np.float32),
}


def plain(parameters, video, tap):
    x = tap("features", jax.nn.relu(video @ parameters["w"]))
    return tap("pool", x.mean((1, 2, 3))) @ parameters["v"]


def test_a_function_is_a_network():
    network = from_function(plain, PARAMETERS, clip=CLIP, classes=("a", "b", "c", "d"))
    assert tap.stages_of(network.model) == ("features", "pool") and network.name == "plain"
    logits, values = tap.activations(network.model, VIDEO, ["features"])
    np.testing.assert_allclose(logits, plain(PARAMETERS, VIDEO, tap.identity_tap), rtol=1e-5, atol=1e-6)
    assert values["features"].shape == (2, 4, 8, 8, 6)
    result = vtcav_jax.attribute(network, VIDEO, "b", "gradient_x_input", stage="features")
    assert result.map.shape == (2, 4, 8, 8)


def test_other_forms_of_functions():
    def channels_first(parameters, video):
        return jnp.einsum("bcthw,cd->bd", video, parameters["w"]) @ parameters["v"]

    network = from_function(channels_first, PARAMETERS, clip=CLIP, layout="bcthw")
    assert network.labels == ("0", "1", "2", "3") and tap.stages_of(network.model) == ()
    expected = VIDEO.sum((1, 2, 3)) @ PARAMETERS["w"] @ PARAMETERS["v"]
    np.testing.assert_allclose(network.model(VIDEO), expected, rtol=1e-4, atol=1e-4)
    alone = from_function(lambda video, tap: tap("mean", video.mean((1, 2, 3))), clip=CLIP, classes={"colour": "rgb"})
    assert tap.stages_of(alone.model) == ("mean",) and list(alone.heads) == ["colour"]


def test_tokens_are_a_grid_without_their_prefix():
    def tokens(parameters, video, tap):
        x = (video @ parameters["w"])[:, :, ::4, ::4].reshape(len(video), -1, 6)
        x = tap("blocks.0", jnp.concatenate([jnp.ones((len(x), 1, 6)), x], 1))
        return x.mean(1) @ parameters["v"]

    network = from_function(tokens, PARAMETERS, clip=CLIP, grids={"blocks.*": Tokens(4, 2, 2, prefix=1)})
    logits, values = tap.activations(network.model, VIDEO, ["blocks.0"])
    assert values["blocks.0"].shape == (2, 4, 2, 2, 6)
    np.testing.assert_allclose(logits, tokens(PARAMETERS, VIDEO, tap.identity_tap), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values["blocks.0"], (VIDEO @ PARAMETERS["w"])[:, :, ::4, ::4], rtol=1e-5, atol=1e-6)
    moved = tap.steered_logits(network.model, VIDEO, "blocks.0", np.ones(6, np.float32), 1.0)
    np.testing.assert_allclose(moved - logits, np.tile(16 / 17 * PARAMETERS["v"].sum(0), (2, 1)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"has 17 tokens; expected \(b, 17, c\)|but Tokens.* has 9 tokens"):
        from_function(tokens, PARAMETERS, clip=CLIP, grids={"blocks.*": Tokens(2, 2, 2, prefix=1)})
    with pytest.raises(ValueError, match=r"no stage matches 'layer'"):
        from_function(tokens, PARAMETERS, clip=CLIP, grids={"layer": Tokens(4, 2, 2, prefix=1)})
    with pytest.raises(ValueError, match="expected Tokens, bcthw or bthwc"):
        from_function(tokens, PARAMETERS, clip=CLIP, grids={"blocks.*": "thw"})


def scanned(parameters, video, tap):
    def step(x, w):
        return tap("inside", jax.nn.relu(x @ w)), None

    x, _ = jax.lax.scan(step, video, parameters)
    return tap("pool", x.mean((1, 2, 3)))


def test_a_tap_inside_a_scan_is_refused():
    weights = jnp.stack([jnp.eye(3), jnp.eye(3)])
    network = from_function(scanned, weights, clip=CLIP)
    assert tap.stages_of(network.model) == ("pool",)
    with pytest.raises(ValueError, match="inside is inside a scan, remat or jit"):
        tap.activations(network.model, VIDEO, ["inside"])
    bare = jax.tree_util.Partial(scanned, weights)
    for call in (tap.activations, lambda *args: tap.activations_and_gradients(args[0], args[1], [0, 1], args[2])):
        with pytest.raises(ValueError, match=r"calls its tap for inside inside jax\.lax\.scan"):
            call(bare, VIDEO, ["inside"])
    tap.activations(bare, VIDEO, ["pool"])


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lambda video: video, {}, r"expected logits \(b, classes\), got an output of shape"),
        (lambda video: (video.mean((1, 2, 3)), 0), {}, "expected one array of logits, got tuple"),
        (lambda video: video.mean((1, 2, 3)), {"classes": ("a",)}, "returns 3 logits, but `classes` has 1"),
        (lambda video: video.mean((1, 2, 3)), {"layout": "cthw"}, "layout must be one of bcthw, btchw, bthwc"),
        (lambda video, tap: tap("a", tap("a", video)).mean((1, 2, 3)), {}, "calls its tap twice with 'a'"),
    ],
)
def test_faults_are_one_sentence(function, options, message):
    with pytest.raises(ValueError, match=message):
        from_function(function, clip=CLIP, **options)


class Block(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(6, (3, 3, 3), name="conv")(x))
        return linen.BatchNorm(use_running_average=True, name="norm")(x)


class Cell(linen.Module):
    @linen.compact
    def __call__(self, x, _):
        return linen.Dense(6, name="dense")(x), None


class LinenNet(linen.Module):
    with_loops: bool = False

    @linen.compact
    def __call__(self, video, train: bool):
        x = Block(name="block")(video)
        shared = linen.Dense(6, name="shared")
        x = shared(shared(x))
        tokens = x[:, :, ::4, ::4].reshape(len(x), -1, 6)
        tokens = linen.MultiHeadDotProductAttention(2, name="attention", deterministic=not train)(tokens)
        if self.with_loops:
            tokens = linen.remat(linen.Dense)(6, name="recomputed")(tokens)
            scanned = linen.scan(Cell, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
            tokens, _ = scanned(name="scanned")(tokens, None)
        return {"logits": linen.Dense(4, name="head")(tokens.mean(1))}


@pytest.fixture(scope="module")
def linen_net():
    module: Any = LinenNet()
    variables = module.init(jax.random.key(0), VIDEO, train=False)
    options: dict[str, Any] = dict(clip=CLIP, arguments={"train": False}, logits=lambda out: out["logits"])
    network = from_linen(module, variables, grids={"attention": Tokens(4, 2, 2)}, **options)
    return module, variables, network


def test_linen_submodules_are_stages(linen_net):
    module: Any
    module, variables, network = linen_net
    stages = tap.stages_of(network.model)
    names = ["block.conv", "block.norm", "block", "shared", "shared#2", "attention.weights", "attention", "head"]
    assert [name for name in stages if name in names] == names
    logits, values = tap.activations(network.model, VIDEO, names)
    np.testing.assert_allclose(logits, module.apply(variables, VIDEO, train=False)["logits"], rtol=1e-5, atol=1e-6)
    assert values["attention"].shape == (2, 4, 2, 2, 6)
    assert values["attention.weights"].shape == (2, 2, 16, 16)
    np.testing.assert_allclose(values["attention.weights"].sum(-1), 1, rtol=1e-5)
    conv = variables["params"]["block"]["conv"]
    expected = linen.Conv(6, (3, 3, 3)).apply({"params": conv}, VIDEO)
    np.testing.assert_allclose(values["block.conv"], np.asarray(expected), rtol=1e-5, atol=1e-5)


def test_linen_values_can_be_replaced(linen_net):
    _, variables, network = linen_net
    moved = tap.steered_logits(network.model, VIDEO, "shared#2", np.zeros(6, np.float32), 1.0)
    np.testing.assert_allclose(moved, tap.compute_logits(network.model, VIDEO), rtol=1e-6)
    one_sided = network.model(VIDEO, lambda name, x: jnp.ones_like(x) / 16 if name == "attention.weights" else x)
    assert not np.allclose(one_sided, moved, atol=1e-6)
    gradients = tap.activations_and_gradients(network.model, VIDEO, [0, 1], ["head", "attention"]).gradients
    np.testing.assert_allclose(gradients["head"], np.eye(4)[:2], atol=1e-6)
    weights = variables["params"]["head"]["kernel"]
    np.testing.assert_allclose(gradients["attention"][0, 0, 0, 0], weights[:, 0] / 16, rtol=1e-5)


def test_linen_submodules_inside_loops_are_hidden():
    module: Any = LinenNet(with_loops=True)
    variables = module.init(jax.random.key(0), VIDEO, train=False)
    network = from_linen(
        module, variables, clip=CLIP, arguments={"train": False}, logits=lambda output: output["logits"]
    )
    stages = tap.stages_of(network.model)
    logits, values = tap.activations(network.model, VIDEO, stages)  # all that are listed can be read
    np.testing.assert_allclose(logits, module.apply(variables, VIDEO, train=False)["logits"], rtol=1e-5, atol=1e-6)
    assert "head" in values and "scanned.dense" not in stages
    with pytest.raises(ValueError, match=r"scanned\.dense is inside a scan, remat or jit"):
        tap.activations(network.model, VIDEO, ["scanned.dense"])


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.linear(x))


class NnxChild(NnxBlock):
    def __call__(self, x):
        return super().__call__(x) + 1


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 6, (1, 3, 3), rngs=rngs)
        self.blocks = nnx.List([NnxBlock(rngs), NnxChild(rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, video):
        x = self.conv(video)
        for block in self.blocks:
            x = self.dropout(block(x))
        return self.head(self.blocks[0](x).mean((1, 2, 3)))


def test_nnx_submodules_are_stages():
    module = NnxNet(nnx.Rngs(0))
    module.eval()
    network = from_nnx(module, clip=CLIP, classes=("a", "b", "c", "d"))
    stages = tap.stages_of(network.model)
    expected = ("conv", "blocks.0.linear", "blocks.0", "dropout", "blocks.1.linear", "blocks.1", "dropout#2")
    assert stages == (*expected, "blocks.0.linear#2", "blocks.0#2", "head")
    logits, values = tap.activations(network.model, VIDEO, ["conv", "blocks.1"])
    np.testing.assert_allclose(logits, module(VIDEO), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values["conv"], module.conv(VIDEO), rtol=1e-5, atol=1e-5)
    block = module.blocks[1](module.blocks[0](module.conv(VIDEO)))
    np.testing.assert_allclose(values["blocks.1"], block, rtol=1e-5, atol=1e-5)
    assert NnxBlock.__call__.__qualname__ == "NnxBlock.__call__"  # classes are as before


def test_modules_with_dropout_are_explained_in_evaluation_mode_only():
    module = NnxNet(nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"training mode \(dropout\.deterministic is False\); call module\.eval\(\)"):
        from_nnx(module, clip=CLIP)
    module.eval()
    network = from_nnx(module, clip=CLIP, classes=("a", "b", "c", "d"))
    other = NnxNet(nnx.Rngs(params=nnx.RngStream(jax.random.key(0), tag="params"), default=1))
    other.eval()
    nnx.update(other, nnx.state(module, nnx.Param))
    same = from_nnx(other, clip=CLIP, classes=("a", "b", "c", "d"))
    assert network.identity() == same.identity()  # the state of random numbers is no weight
    assert vtcav_jax.attribute(network, VIDEO, "b", "saliency").map.shape == (2, 4, 8, 8)


@pytest.mark.slow
def test_identities_are_the_same_in_every_process(tmp_path):
    (tmp_path / "own_nets.py").write_text(
        "import jax\nfrom flax import linen, nnx\nfrom vtcav_jax import ClipSpec, from_linen, from_nnx\n"
        "CLIP = ClipSpec(frames=2, size=4)\n"
        "class Nnx(nnx.Module):\n"
        "    def __init__(self):\n"
        "        rngs = nnx.Rngs(0)\n"
        "        self.conv, self.drop = nnx.Conv(3, 4, (1, 3, 3), rngs=rngs), nnx.Dropout(0.5, rngs=rngs)\n"
        "        self.act = nnx.static(jax.nn.gelu) if hasattr(nnx, 'static') else jax.nn.gelu\n"
        "    def __call__(self, video):\n        return self.drop(jax.nn.gelu(self.conv(video))).mean((1, 2, 3))\n"
        "class Linen(linen.Module):\n"
        "    act: object = jax.nn.gelu\n"
        "    @linen.compact\n"
        "    def __call__(self, video):\n        return self.act(linen.Dense(4)(video)).mean((1, 2, 3))\n"
        "def print_identities():\n"
        "    module, other = Nnx(), Linen()\n"
        "    module.eval()\n"
        "    variables = other.init(jax.random.key(0), jax.numpy.zeros((1, *CLIP.shape)))\n"
        "    print(from_nnx(module, clip=CLIP).identity(), from_linen(other, variables, clip=CLIP).identity())\n"
    )
    command = [sys.executable, "-c", "import own_nets; own_nets.print_identities()"]
    outputs = {
        subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "12"
    }
    assert len(outputs) == 1 and "weights" in outputs.pop()


def test_fingerprints_cover_weights_and_source():
    network = from_function(plain, PARAMETERS, clip=CLIP)
    same = from_function(plain, PARAMETERS, clip=CLIP)
    assert fingerprint(network.model) == fingerprint(same.model)
    moved = from_function(plain, PARAMETERS | {"w": PARAMETERS["w"] + 1}, clip=CLIP)
    assert fingerprint(moved.model) != fingerprint(network.model)
    spaces = [{}, {}]
    for space, factor in zip(spaces, (1, 2)):
        exec(f"def net(parameters, video, tap):\n    return {factor} * video.mean((1, 2, 3))", space)
    first, second = (from_function(space["net"], PARAMETERS, clip=CLIP) for space in spaces)
    assert fingerprint(first.model) != fingerprint(second.model)


def test_a_factory_is_found_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "from vtcav_jax import ClipSpec, from_function\n"
        "def make():\n"
        "    return from_function(lambda video: video.mean((1, 2, 3)), clip=ClipSpec(frames=2, size=4), name='mine')\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert load_factory("my_nets:make").name == "mine"
    assert isinstance(vtcav_jax.load("my_nets:make"), Network)
    for name, message in (
        ("my_nets:wrong", "returned a int; expected a Network"),
        ("my_nets:mike", "no function named 'mike' .did you mean make"),
        ("no_such_module:make", "there is no module no_such_module"),
    ):
        with pytest.raises(ValueError, match=message):
            load_factory(name)
    assert is_factory("a.b:c.d") and not any(map(is_factory, ("worlds_swin", "C:/a", "hf:folder/x", "a:b:c")))
