"""Video-TCAV: concept vectors of video networks and the sensitivity of class scores along them."""

from vtcav_jax.tcav.experiment.config import ExperimentConfig

__all__ = ["ExperimentConfig"]
