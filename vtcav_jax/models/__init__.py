"""The networks: `make("video_swin_t_k400")`, and `load` for those that come with weights."""

from vtcav_jax.models.checkpoint import (
    abstract_model,
    bundle_paths,
    load,
    random_network,
    read_metadata,
    require_absent,
    save,
    shipped_networks,
    validate_labels,
)
from vtcav_jax.models.network import DEFAULT_HEAD, Heads, Network, head_slices, single_head
from vtcav_jax.models.zoo import PRESETS, Preset, get_preset, make

__all__ = [
    "PRESETS",
    "DEFAULT_HEAD",
    "Heads",
    "Network",
    "Preset",
    "bundle_paths",
    "abstract_model",
    "require_absent",
    "validate_labels",
    "get_preset",
    "load",
    "make",
    "single_head",
    "read_metadata",
    "save",
    "shipped_networks",
    "head_slices",
    "random_network",
]
