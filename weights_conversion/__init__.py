"""Public PyTorch weights for the networks of `vtcav_jax.models`; also a program, `python -m weights_conversion`."""

from weights_conversion.convert import convert as convert
