"""torchvision's Video Swin with our weights: eager, and compiled where torch.compile works."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vtcav_jax.models import parameters
from weights_conversion import torch_reference


class TorchvisionPeer:
    """torchvision's network for a preset, and clips, on the same kind of device as jax."""

    def __init__(self, preset: str, model: Any, video: np.ndarray, dtype: str):
        import torch

        self.torch = torch
        self.device = "cpu" if jax.default_backend() == "cpu" else "cuda"
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ModuleNotFoundError("a torch with CUDA")
        self.network = torch_reference.torchvision_swin(preset)
        torch_reference.load_official_weights(self.network, to_torch_layout(parameters.named_parameters(model)))
        self.network.to(self.device, getattr(torch, dtype))
        self.video = torch.from_numpy(video).permute(0, 4, 1, 2, 3).to(self.device, getattr(torch, dtype))

    def eager(self) -> Any:
        with self.torch.no_grad():
            return self._synchronised(self.network(self.video))

    def compile(self) -> tuple[Callable[[], Any], float] | None:
        """Return the compiled call and the seconds of compilation; None if torch.compile fails."""
        self.torch.compiler.reset()  # else a second shape triggers dynamic-shape compilation (10 min)
        network = self.torch.compile(self.network, dynamic=False)

        def call() -> Any:
            with self.torch.no_grad():
                return self._synchronised(network(self.video))

        start = time.perf_counter()
        try:
            call()
        except Exception as error:  # torch's compiler can raise anything; keep the other rows
            print(f"torch.compile failed: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
            return None
        return call, time.perf_counter() - start

    def gradients(self, stages: tuple[str, ...], target: int) -> dict[str, Any]:
        """Return gradients at all stages from one forward and backward pass with hooks, as captum's layer gradients."""
        self.network.requires_grad_(False)
        logits, seen = torch_reference.run_swin(self.network, self.video.permute(0, 2, 3, 4, 1).requires_grad_())
        stage_gradients = self.torch.autograd.grad(logits[:, target].sum(), [seen[name] for name in stages])
        self._synchronised(stage_gradients[0])
        return dict(zip(stages, stage_gradients))

    def _synchronised(self, result: Any) -> Any:
        if self.device == "cuda":
            self.torch.cuda.synchronize()
        return result


def to_torch_layout(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return our parameters under the official names and in torch's layout."""
    axes = {1: (0,), 2: (1, 0), 5: (4, 3, 0, 1, 2)}
    out = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        stem, _, leaf = name.rpartition(".")
        if leaf in ("kernel", "scale"):
            name, array = f"{stem}.weight", array.transpose(axes[array.ndim])
        out[name] = np.ascontiguousarray(array)
    return out
