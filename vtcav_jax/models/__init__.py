"""The networks: `make("video_swin_t_k400")`, and `load` for those that come with weights."""

from vtcav_jax.models.checkpoint import (
    SINGLE,
    Heads,
    Loaded,
    about_and_weights,
    abstract,
    check_free,
    checked_labels,
    load,
    one_head,
    read_about,
    save,
    shipped,
    slices,
    untrained,
)
from vtcav_jax.models.zoo import PRESETS, Preset, find, make

__all__ = [
    "PRESETS",
    "SINGLE",
    "Heads",
    "Loaded",
    "Preset",
    "about_and_weights",
    "abstract",
    "check_free",
    "checked_labels",
    "find",
    "load",
    "make",
    "one_head",
    "read_about",
    "save",
    "shipped",
    "slices",
    "untrained",
]
