"""Where and when: maps over space and time of what a score depends on.

`explain(model, clips, target, "gradcam")` gives an `Attribution`; so does every function of `METHODS`.
"""

from vtcav_jax.attribution.attention import attention_weights, gradient_rollout, last_attention, rollout
from vtcav_jax.attribution.baselines import BASELINES, pixel_bounds
from vtcav_jax.attribution.cam_methods import WEIGHINGS, cam, gradcam_framewise, saliency_tubes
from vtcav_jax.attribution.gradients import gradient_x_input, saliency, smoothgrad
from vtcav_jax.attribution.integrated import NODES, Legs, expected_gradients, integrated_gradients, static_and_dynamic
from vtcav_jax.attribution.lrp.methods import RULES, deep_taylor, guided_backprop, relevance
from vtcav_jax.attribution.lrp.rules import Rules
from vtcav_jax.attribution.motion.temporal_probes import Probe, temporal_probe
from vtcav_jax.attribution.perturbation import frame_shapley, occlusion, rise, shapley
from vtcav_jax.attribution.registry import METHODS, SHARED, explain, explain_many
from vtcav_jax.attribution.result import VIDEO, Attribution, per_patch
from vtcav_jax.attribution.score_model import explained
from vtcav_jax.attribution.targets import Channel, Class, Concept, Contrast, Group, Margin

__all__ = [
    "BASELINES",
    "METHODS",
    "NODES",
    "RULES",
    "SHARED",
    "VIDEO",
    "WEIGHINGS",
    "Attribution",
    "Channel",
    "Class",
    "Concept",
    "Contrast",
    "Group",
    "Legs",
    "Margin",
    "Probe",
    "Rules",
    "attention_weights",
    "cam",
    "deep_taylor",
    "expected_gradients",
    "explain",
    "explain_many",
    "explained",
    "frame_shapley",
    "gradcam_framewise",
    "gradient_rollout",
    "gradient_x_input",
    "guided_backprop",
    "integrated_gradients",
    "last_attention",
    "occlusion",
    "per_patch",
    "pixel_bounds",
    "relevance",
    "rise",
    "rollout",
    "saliency",
    "saliency_tubes",
    "shapley",
    "smoothgrad",
    "static_and_dynamic",
    "temporal_probe",
]
