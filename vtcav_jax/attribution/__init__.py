"""Attribution: maps over time and space of the parts of a clip that a target score depends on.

`attribute(model, clips, target, "gradcam")` returns an `Attribution`, as does every function in `METHODS`.
"""

from vtcav_jax.attribution.attention import gradient_rollout, last_attention, rollout
from vtcav_jax.attribution.baselines import BASELINES, pixel_bounds
from vtcav_jax.attribution.cam_methods import CAM_METHODS, cam_map, gradcam_framewise, saliency_tubes
from vtcav_jax.attribution.causal_trace import CausalTrace, causal_tracing
from vtcav_jax.attribution.gradients import gradient_x_input, saliency, smoothgrad
from vtcav_jax.attribution.integrated import (
    IG_STEPS,
    StaticDynamicAttribution,
    expected_gradients,
    integrated_gradients,
    static_and_dynamic,
)
from vtcav_jax.attribution.lrp.methods import LRP_PRESETS, deep_taylor, guided_backprop, propagate_relevance
from vtcav_jax.attribution.lrp.rules import LrpRules
from vtcav_jax.attribution.motion.temporal_probes import TemporalProbe, temporal_probe
from vtcav_jax.attribution.registry import METHODS, SINGLE_PASS_METHODS, attribute, attribute_many, planned_passes
from vtcav_jax.attribution.removal.methods import (
    frame_shapley,
    kernel_shap,
    lime,
    loco,
    occlusion,
    rise,
    shapley,
    sos,
    up,
)
from vtcav_jax.attribution.removal.optimised_masks import extremal, step
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.shared_passes import Targets
from vtcav_jax.attribution.synthesis import SynthesisedClips, synthesise_clips
from vtcav_jax.attribution.targets import Channel, Class, ConceptTarget, Contrast, Group, Margin

__all__ = [
    "BASELINES",
    "CAM_METHODS",
    "IG_STEPS",
    "LRP_PRESETS",
    "METHODS",
    "SINGLE_PASS_METHODS",
    "VIDEO",
    "Attribution",
    "CausalTrace",
    "Channel",
    "Class",
    "ConceptTarget",
    "Contrast",
    "Group",
    "LrpRules",
    "Margin",
    "StaticDynamicAttribution",
    "SynthesisedClips",
    "Targets",
    "TemporalProbe",
    "attribute",
    "attribute_many",
    "cam_map",
    "causal_tracing",
    "deep_taylor",
    "expected_gradients",
    "extremal",
    "frame_shapley",
    "gradcam_framewise",
    "gradient_rollout",
    "gradient_x_input",
    "guided_backprop",
    "integrated_gradients",
    "kernel_shap",
    "last_attention",
    "lime",
    "loco",
    "occlusion",
    "pixel_bounds",
    "planned_passes",
    "prepare_explanation",
    "propagate_relevance",
    "rise",
    "rollout",
    "saliency",
    "saliency_tubes",
    "shapley",
    "smoothgrad",
    "sos",
    "static_and_dynamic",
    "step",
    "synthesise_clips",
    "temporal_probe",
    "up",
]
