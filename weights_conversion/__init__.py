"""Conversion of public PyTorch weights for the networks of `vtcav_jax.models` (`python -m weights_conversion`)."""

from weights_conversion.convert import convert as convert
