"""Environments of processes with several CPU devices; the number is fixed when jax starts."""

import os


def device_environment(count: int) -> dict[str, str]:
    """Return the environment of this process, with its compiler flags, for a process with `count` CPU devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
