"""torchax, with what its release 0.0.13 gets wrong repaired; the only file that imports it.

torchax runs the operations of PyTorch on jax arrays. Repaired here: it names overloads of operations that torch 2.13
has removed, it breaks `torch.random.fork_rng`, it refuses tensors that a forward creates on the CPU, it ignores
`no_grad`, and its 3D convolution has no fast gradient on a CPU. Refused here: what it computes wrongly without error.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch.utils import _pytree as torch_tree

from vtcav_jax.models.layers.convolution import conv_on_cpu
from vtcav_jax.platforms import on_cpu

AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")


@contextmanager
def _removed_overloads() -> Iterator[None]:
    """Let missing overloads be dummies while torchax registers its operations."""
    packet = torch._ops.OpOverloadPacket
    original = packet.__getattr__

    def lenient(self, key: str) -> Any:
        try:
            return original(self, key)
        except AttributeError:
            if key.startswith("__"):
                raise
            return object()

    packet.__getattr__ = lenient
    try:
        yield
    finally:
        packet.__getattr__ = original


try:
    with _removed_overloads():
        import torchax
        from torchax import device_module, tensor

        torchax.default_env()
        # As a device of PyTorch it has no random state; fork_rng asks for that of a device
        device_module.get_rng_state = lambda device=None: []
except ImportError as error:
    raise ImportError("PyTorch modules need torchax, which is not installed: pip install 'vtcav-jax[torch]'") from error


class Environment(tensor.Environment):
    """torchax's environment, with constants, `no_grad` and 3D convolutions."""

    def t2j_iso(self, torchtensors: Any) -> Any:
        """Return jax arrays; other tensors, created in the forward or plain attributes, are constants."""
        known = (tensor.Tensor, tensor.View)
        constants = torch_tree.tree_map_only(
            torch.Tensor, lambda x: x if isinstance(x, known) else tensor.Tensor(self.t2j_copy(x), self), torchtensors
        )
        return super().t2j_iso(constants)

    def dispatch(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if any(torch.is_autocast_enabled(device) for device in AUTOCAST_DEVICES):
            raise ValueError(
                "the module's forward uses torch.autocast, which has no effect here; remove it, and convert the module"
                " to the precision that you want"
            )
        if func is torch.tensor_split and "indices" in (kwargs or {}):
            kwargs = {**kwargs, "indices_or_sections": kwargs["indices"]}
            del kwargs["indices"]
        output = super().dispatch(func, types, args, kwargs)
        if torch.is_grad_enabled():
            return output
        return torch_tree.tree_map_only(tensor.Tensor, lambda x: self.j2t_iso(jax.lax.stop_gradient(x.jax())), output)


ENVIRONMENT = torchax._env = Environment()
_CONVOLUTION = ENVIRONMENT._ops[torch.ops.aten.convolution].func
_TRACE_LOCK = threading.RLock()


def _convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    """Compute a convolution, over three axes on a CPU by the package's own, whose gradient is 5 to 20 times faster."""
    if on_cpu() and x.ndim == 5 and not transposed and set(dilation) == {1}:
        x, kernel = ENVIRONMENT.t2j_iso((x, weight))
        y = conv_on_cpu(
            jnp.moveaxis(x, 1, -1),
            kernel.transpose(2, 3, 4, 1, 0),
            None if bias is None else ENVIRONMENT.t2j_iso(bias),
            tuple(stride) * (3 if len(stride) == 1 else 1),
            tuple((size, size) for size in tuple(padding) * (3 if len(padding) == 1 else 1)),
            groups,
        )
        return ENVIRONMENT.j2t_iso(jnp.moveaxis(y, -1, 1))
    arrays = ENVIRONMENT.t2j_iso((x, weight, bias))
    return ENVIRONMENT.j2t_iso(_CONVOLUTION(*arrays, stride, padding, dilation, transposed, output_padding, groups))


ENVIRONMENT.override_op_definition(torch.ops.aten.convolution, _convolution)


@contextmanager
def tracing() -> Iterator[None]:
    """Run PyTorch operations on jax arrays; custom `autograd.Function`s, whose gradient is lost, are refused."""
    original = torch.autograd.Function.__dict__["apply"]

    def refuse(cls, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(
            f"the module's forward uses the autograd.Function {cls.__name__}, whose gradient is not used here; replace"
            " it by operations of PyTorch"
        )

    with _TRACE_LOCK:
        torch.autograd.Function.apply = classmethod(refuse)  # type: ignore[assignment]
        try:
            # torchax relies on jax's default promotion of ranks and types, and 64-bit integers become 32-bit ones
            with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
                warnings.filterwarnings("ignore", message=".*requested dtype u?int64")
                with ENVIRONMENT, torch.enable_grad():
                    yield
        finally:
            torch.autograd.Function.apply = original
