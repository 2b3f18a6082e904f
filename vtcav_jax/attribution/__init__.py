"""Where and when: maps over space and time of what a score depends on.

`explain(model, clips, target, "gradcam")` gives an `Attribution`; so does every function of `METHODS`.
"""

from vtcav_jax.attribution.attention import attention_weights, gradient_rollout, last_attention, rollout
from vtcav_jax.attribution.baselines import BASELINES, black
from vtcav_jax.attribution.cams import WEIGHINGS, cam, gradcam_framewise, saliency_tubes
from vtcav_jax.attribution.gradients import gradient_x_input, saliency, smoothgrad
from vtcav_jax.attribution.lrp import (
    attn_lrp,
    cp_lrp,
    deep_taylor,
    guided_backprop,
    lrp_alpha_beta,
    lrp_epsilon,
    lrp_gamma,
    lrp_z_plus,
    relevance,
)
from vtcav_jax.attribution.methods import METHODS, SHARED, explain, explain_many
from vtcav_jax.attribution.passes import explained
from vtcav_jax.attribution.paths import Legs, expected_gradients, integrated_gradients, static_and_dynamic
from vtcav_jax.attribution.removal import frame_shapley, occlusion, shapley
from vtcav_jax.attribution.result import VIDEO, Attribution, per_patch
from vtcav_jax.attribution.rules import Rules
from vtcav_jax.attribution.targets import Channel, Class, Concept, Contrast, Group, Margin

__all__ = [
    "BASELINES",
    "METHODS",
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
    "Rules",
    "attention_weights",
    "attn_lrp",
    "black",
    "cam",
    "cp_lrp",
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
    "lrp_alpha_beta",
    "lrp_epsilon",
    "lrp_gamma",
    "lrp_z_plus",
    "occlusion",
    "per_patch",
    "relevance",
    "rollout",
    "saliency",
    "saliency_tubes",
    "shapley",
    "smoothgrad",
    "static_and_dynamic",
]
