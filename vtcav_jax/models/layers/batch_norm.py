"""Batch normalisation with the stored statistics of training.

Clips of a batch then do not interact, as gradients and directional derivatives require.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class BatchNorm(nnx.Module):
    """Scale and shift per channel; no gradient reaches the statistics, so that fine-tuning keeps them."""

    def __init__(self, features: int, *, epsilon: float = 1e-5, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
        del rngs  # accepted for uniformity; nothing is random here
        self.epsilon, self.dtype = epsilon, dtype
        self.scale, self.mean = (
            nnx.Param(jnp.ones(features, param_dtype)),
            nnx.BatchStat(jnp.zeros(features, param_dtype)),
        )
        self.bias, self.var = (
            nnx.Param(jnp.zeros(features, param_dtype)),
            nnx.BatchStat(jnp.ones(features, param_dtype)),
        )

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
        mean, var = (jax.lax.stop_gradient(statistic[...]) for statistic in (self.mean, self.var))
        factor = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        channels = (None,) * (x.ndim - 1)
        y = (x.astype(mean.dtype) - mean[channels]) * factor[channels] + self.bias[channels]
        return y.astype(self.dtype)
