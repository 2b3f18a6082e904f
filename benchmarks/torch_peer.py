"""Networks of torchvision, transformers and plain torch, and ours with the same random parameters.

`TorchPeer` runs the torch network eager, compiled by torch.compile, and in jax through torchax (`from_torch`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vtcav_jax import models
from vtcav_jax.models import hub, parameters
from weights_conversion import convert, torch_reference, transformers_reference
from weights_conversion.convert import match_parameters
from weights_conversion.key_mapping import FAMILIES, our_tensors

Clip = tuple[int, ...]  # frames, height, width
TORCH_AXES = {"bcthw": (0, 4, 1, 2, 3), "btchw": (0, 1, 4, 2, 3)}


def make_pair(preset: str, clip: Clip, dtype: str = "float32") -> tuple[Any, nnx.Module]:
    """Return the torch network of a preset with random parameters, float32, and our network with the same ones."""
    config = transformers_reference.config_of(preset, models.get_preset(preset).num_classes)
    if config is None:
        network, state = convolutional_network(preset)
        return network, parameters.load(partial(models.make, preset, dtype=getattr(jnp, dtype)), convert(preset, state))
    size = {"crop_size": clip[1]} if "crop_size" in config else {"num_frames": clip[0], "image_size": clip[1]}
    config |= size
    network = randomise(transformers_reference.transformers_network(config))
    make_network, _ = hub.network_maker(config)

    def make() -> nnx.Module:
        return make_network(num_classes=config["num_labels"], dtype=getattr(jnp, dtype), rngs=nnx.Rngs(0))

    state = {name: value.numpy() for name, value in network.state_dict().items()}
    tensors = our_tensors(FAMILIES[make_network.func], state)
    return network, parameters.load(make, match_parameters(preset, nnx.eval_shape(make), tensors))


def convolutional_network(preset: str) -> tuple[Any, dict[str, Any]]:
    """Return the torch network of a preset that is not of transformers, and its random state dict."""
    from tests.support.random_checkpoints import checkpoint_of_preset, random_state_dict
    from tests.support.torch_networks import NETWORKS, FunctionNetwork

    if preset in NETWORKS:
        state = random_state_dict(checkpoint_of_preset(preset))
        return FunctionNetwork(preset, state), state
    network = randomise(torch_reference.torchvision_network(preset))
    return network, network.state_dict()


def randomise(network: Any) -> Any:
    """Give all floating-point parameters and statistics random values."""
    from tests.support.random_checkpoints import random_tensors

    state = network.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items() if value.is_floating_point()}
    network.load_state_dict(state | random_tensors(shapes))
    return network


def library_of(network: Any) -> str:
    """Return the name and version of the library of a torch network: transformers, whose networks have a config."""
    library = "transformers" if hasattr(network, "config") else "torchvision"
    if type(network).__name__ == "FunctionNetwork":  # of tests/support/torch_networks.py
        library = "torch"
    return f"{library} {version(library)}"


class TorchPeer:
    """The torch network of a preset and a batch of clips, on the same kind of device as jax; `model` is ours."""

    def __init__(self, preset: str, video: np.ndarray, dtype: str = "float32"):
        import torch

        self.torch = torch
        self.device = "cpu" if jax.default_backend() == "cpu" else "cuda"
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ModuleNotFoundError("a torch with CUDA")
        self.network, self.model = make_pair(preset, video.shape[1:4], dtype)
        self.network.to(self.device, getattr(torch, dtype)).requires_grad_(False)
        self.library = library_of(self.network)
        self.layout = "btchw" if self.library.startswith("transformers") else "bcthw"
        self.clip_spec = replace(models.get_preset(preset).clip_spec, frames=video.shape[1], size=video.shape[2])
        self.video = torch.from_numpy(video.transpose(TORCH_AXES[self.layout])).to(self.device, getattr(torch, dtype))

    def eager(self) -> Any:
        with self.torch.no_grad():
            return self._synchronised(self.logits(self.network, self.video))

    @staticmethod
    def logits(network: Any, video: Any) -> Any:
        output = network(video)
        return getattr(output, "logits", output)

    def compile(self) -> tuple[Callable[[], Any], float] | None:
        """Return the compiled call and the seconds of compilation; None if torch.compile fails."""
        self.torch.compiler.reset()  # else a second shape triggers dynamic-shape compilation (10 min)
        network = self.compiled = self.torch.compile(self.network, dynamic=False)

        def call() -> Any:
            with self.torch.no_grad():
                return self._synchronised(self.logits(network, self.video))

        start = time.perf_counter()
        try:
            call()
        except Exception as error:  # torch's compiler can raise anything; keep the other rows
            print(f"torch.compile failed: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
            return None
        return call, time.perf_counter() - start

    def through_torchax(self) -> Any:
        """Return the torch network as a jax function of our videos."""
        from vtcav_jax import from_torch

        return from_torch(self.network, clip=self.clip_spec, layout=self.layout, verify=False).model

    def gradients(self, stages: Sequence[str], target: int) -> dict[str, Any]:
        """Return gradients at all stages from one forward and backward pass with hooks, as captum's layer gradients."""
        outputs: dict[str, Any] = {}

        def remember(name: str, module: Any, inputs: Any, output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple) else output

        modules = self.modules_of(stages)
        handles = [part.register_forward_hook(partial(remember, name)) for name, part in modules.items()]
        try:
            logits = self.logits(self.network, self.video.detach().requires_grad_())
        finally:
            for handle in handles:
                handle.remove()
        gradients = self.torch.autograd.grad(logits[:, target].sum(), list(outputs.values()))
        self._synchronised(gradients[0])
        by_module = dict(zip(outputs, gradients))
        return {stage: self.at_our_axes(stage, by_module[self.module_of(stage)]) for stage in stages}

    def use_channels_last(self) -> None:
        """Store convolutions and videos with channels last, as cuDNN prefers in bfloat16."""
        if self.layout == "bcthw":
            self.network.to(memory_format=self.torch.channels_last_3d)
            self.video = self.video.to(memory_format=self.torch.channels_last_3d)

    def input_gradient(self, target: int, network: Any = None) -> Any:
        """Return the gradient for the video, at our axes, through the compiled `network` if given."""
        video = self.video.detach().requires_grad_()
        logits = self.logits(self.network if network is None else network, video)
        (gradient,) = self.torch.autograd.grad(logits[:, target].sum(), [video])
        return self._synchronised(gradient).permute(*np.argsort(TORCH_AXES[self.layout]).tolist())

    def module_of(self, stage: str) -> str:
        if self.layout == "bcthw":
            return stage
        return transformers_reference.module_of(self.network.config.model_type, stage)

    def modules_of(self, stages: Sequence[str]) -> dict[str, Any]:
        """Return the modules whose outputs contain the values at our stages of a Video Swin or of transformers."""
        if self.layout == "bcthw":
            modules = torch_reference.stage_modules(self.network)
            return {stage: modules[stage] for stage in stages}
        return {name: self.network.get_submodule(name) for name in map(self.module_of, stages)}

    def at_our_axes(self, stage: str, value: Any) -> Any:
        if self.layout == "btchw":
            return transformers_reference.value_at(self.network.config, stage, value)
        return torch_reference.to_our_axes(stage, value)

    def _synchronised(self, result: Any) -> Any:
        if self.device == "cuda":
            self.torch.cuda.synchronize()
        return result
