"""Class feature pyramids: from a class back through the network, which kernels it hangs on, and which those hang on.

`build(model, clips, target)` gives a `Pyramid`; `ablation` says whether its kernels matter more than others.
"""

from vtcav_jax.pyramid.ablation import Ablated, ablation
from vtcav_jax.pyramid.build import build
from vtcav_jax.pyramid.cut_stages import cuts, levels
from vtcav_jax.pyramid.graph import Edge, Node, Pyramid, Selection
from vtcav_jax.pyramid.stability import under_noise

__all__ = [
    "Ablated",
    "Edge",
    "Node",
    "Pyramid",
    "Selection",
    "ablation",
    "build",
    "cuts",
    "levels",
    "under_noise",
]
