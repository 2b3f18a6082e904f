"""The platform that programs are traced for: that of the devices in use, unless `compile_for` names another.

Networks trace another program for a CPU than for accelerators. The platform is part of the key of jax's caches, so that
a function that was traced for one platform is traced again for the next.
"""

from typing import Literal

import jax
from jax.sharding import get_abstract_mesh

Platform = Literal["cpu", "gpu", "tpu"]

compile_for = jax.make_user_context(None)
"""Context manager: `with compile_for("tpu"):` traces and lowers programs for this platform."""

use_kernels = jax.make_user_context(True)
"""Context manager: `with use_kernels(False):` traces plain JAX in place of kernels, whose operations a transformation
cannot see: forward-mode derivatives and relevance propagation."""


def kernels_apply() -> bool:
    """Return True if kernels may be used: they are not divided among devices, except inside `jax.shard_map`."""
    is_single = compile_for.value is not None or jax.device_count() == 1 or bool(get_abstract_mesh().manual_axes)
    return use_kernels.value and is_single


def platform() -> str:
    """Return the platform that programs are traced for: cpu, gpu or tpu."""
    return compile_for.value or jax.default_backend()


def on_cpu() -> bool:
    """Return True if programs are traced for a CPU."""
    return platform() == "cpu"
