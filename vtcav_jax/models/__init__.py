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
)
from vtcav_jax.models.class_names import label_lists, read_label_tree, read_labels, relabel, validate_labels
from vtcav_jax.models.network import DEFAULT_HEAD, Heads, Network, head_slices, single_head
from vtcav_jax.models.zoo import PRESETS, Preset, get_preset, make

__all__ = [
    "DEFAULT_HEAD",
    "PRESETS",
    "Heads",
    "Network",
    "Preset",
    "abstract_model",
    "bundle_paths",
    "get_preset",
    "head_slices",
    "label_lists",
    "load",
    "make",
    "random_network",
    "read_label_tree",
    "read_labels",
    "read_metadata",
    "relabel",
    "require_absent",
    "save",
    "shipped_networks",
    "single_head",
    "validate_labels",
]
