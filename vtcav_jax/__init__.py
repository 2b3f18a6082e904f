"""Explain video classifiers in JAX: concept tests (Video-TCAV), attribution maps, motion tests, feature pyramids.

    import vtcav_jax as vtcav

    network = vtcav.load("worlds_swin")
    clips = vtcav.worlds.make_clips("small", n=4, seed=7)
    maps = vtcav.attribute(network, clips.frames, target="direction", method="attn_lrp")
    vtcav.save_animation("maps.webp", clips.frames, maps)

Importing the package takes milliseconds: each public name imports its module, and jax, when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtcav_jax import tap, worlds
    from vtcav_jax.adapters.factory import load
    from vtcav_jax.adapters.functions import from_function
    from vtcav_jax.adapters.linen_modules import from_linen
    from vtcav_jax.adapters.nnx_modules import from_nnx
    from vtcav_jax.adapters.stages import Tokens
    from vtcav_jax.adapters.torch_modules import from_torch
    from vtcav_jax.ahead_of_time.preflight import preflight
    from vtcav_jax.attribution.conditional.relevance import conditional_relevance
    from vtcav_jax.attribution.motion.measure import measure_motion
    from vtcav_jax.attribution.motion.selective_relevance import selective_relevance
    from vtcav_jax.attribution.registry import attribute
    from vtcav_jax.clip_spec import ClipSpec
    from vtcav_jax.concepts.concept_sets import read_concepts
    from vtcav_jax.data.clip import read_clip
    from vtcav_jax.data.open import open_source
    from vtcav_jax.discovery.run import discover
    from vtcav_jax.evaluation.world_benchmark.method_scores import compare_methods
    from vtcav_jax.host_memory import keep_freed_memory
    from vtcav_jax.models.network import Network
    from vtcav_jax.pyramid.build import build_pyramid
    from vtcav_jax.report.animation.save import save_animation
    from vtcav_jax.report.build import write_report
    from vtcav_jax.report.run_reader import open_run_folder
    from vtcav_jax.tcav.experiment.run import run_tcav

__version__ = "0.2.0"

__all__ = [
    "ClipSpec",
    "Network",
    "Tokens",
    "__version__",
    "attribute",
    "build_pyramid",
    "compare_methods",
    "conditional_relevance",
    "discover",
    "from_function",
    "from_linen",
    "from_nnx",
    "from_torch",
    "keep_freed_memory",
    "load",
    "measure_motion",
    "open_run_folder",
    "open_source",
    "preflight",
    "read_clip",
    "read_concepts",
    "run_tcav",
    "save_animation",
    "selective_relevance",
    "tap",
    "worlds",
    "write_report",
]

_MODULES = {
    "ClipSpec": "clip_spec",
    "Network": "models.network",
    "Tokens": "adapters.stages",
    "attribute": "attribution.registry",
    "build_pyramid": "pyramid.build",
    "compare_methods": "evaluation.world_benchmark.method_scores",
    "conditional_relevance": "attribution.conditional.relevance",
    "discover": "discovery.run",
    "from_function": "adapters.functions",
    "from_linen": "adapters.linen_modules",
    "from_nnx": "adapters.nnx_modules",
    "from_torch": "adapters.torch_modules",
    "keep_freed_memory": "host_memory",
    "load": "adapters.factory",
    "measure_motion": "attribution.motion.measure",
    "open_run_folder": "report.run_reader",
    "open_source": "data.open",
    "preflight": "ahead_of_time.preflight",
    "read_clip": "data.clip",
    "read_concepts": "concepts.concept_sets",
    "run_tcav": "tcav.experiment.run",
    "save_animation": "report.animation.save",
    "selective_relevance": "attribution.motion.selective_relevance",
    "write_report": "report.build",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is first used."""
    if name in ("tap", "worlds"):
        return import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
