"""Class feature pyramids: the channels that a target depends on, then the channels that these depend on, and so on.

pyramid = build_pyramid(model, clips, 3, depth=3, reference=other_clips)
pyramid.nodes_at(0)  # the most relevant channels of the last stage
results = ablate_pyramid(model, test_clips, 3, pyramid, reference=other_clips)  # do they matter more than others?
"""

from vtcav_jax.attribution.cut_stages import find_cut_stages
from vtcav_jax.pyramid.ablation import ablate_pyramid
from vtcav_jax.pyramid.build import build_pyramid
from vtcav_jax.pyramid.graph import Pyramid, Selection
from vtcav_jax.pyramid.levels import pyramid_levels
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
