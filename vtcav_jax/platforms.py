"""The platform that programs are traced for: that of the devices in use, unless `compile_for` names another.

Networks trace another program for a CPU than for accelerators. The platform is part of the key of jax's caches, so that
a function that was traced for one platform is traced again for the next.
"""

from typing import Literal

import jax

Platform = Literal["cpu", "gpu", "tpu"]

compile_for = jax.make_user_context(None)
"""Context manager: `with compile_for("tpu"):` traces and lowers programs for this platform."""


def platform() -> str:
    """Return the platform that programs are traced for: cpu, gpu or tpu."""
    return compile_for.value or jax.default_backend()


def on_cpu() -> bool:
    """Return True if programs are traced for a CPU."""
    return platform() == "cpu"
