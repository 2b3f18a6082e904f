"""Networks from other libraries: PyTorch modules, linen and nnx modules, and plain functions become a `Network`."""

from vtcav_jax.adapters.factory import load, load_factory
from vtcav_jax.adapters.functions import from_function
from vtcav_jax.adapters.linen_modules import from_linen
from vtcav_jax.adapters.nnx_modules import from_nnx
from vtcav_jax.adapters.stages import Tokens
from vtcav_jax.adapters.torch_modules import from_torch

__all__ = ["Tokens", "from_function", "from_linen", "from_nnx", "from_torch", "load", "load_factory"]
