"""Class feature pyramids: from a class back through the network, which kernels it hangs on, and which those hang on.

`build(model, clips, target)` gives a `Pyramid`; `ablation` says whether its kernels matter more than others.
"""

from vtcav_jax.pyramid.ablation import ablate_pyramid
from vtcav_jax.pyramid.build import build_pyramid
from vtcav_jax.pyramid.cut_stages import find_cut_stages, pyramid_levels
from vtcav_jax.pyramid.graph import Pyramid, Selection
from vtcav_jax.pyramid.stability import noise_stability
from vtcav_jax.runs.pyramid_rows import AblationResult, Edge, Node

__all__ = [
    "AblationResult",
    "Edge",
    "Node",
    "Pyramid",
    "Selection",
    "ablate_pyramid",
    "build_pyramid",
    "find_cut_stages",
    "noise_stability",
    "pyramid_levels",
]
