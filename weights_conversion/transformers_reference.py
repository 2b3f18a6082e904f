"""Video transformers of the package transformers, with values at our stages (layers): the reference of parity tests."""

import re
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np

from vtcav_jax import models
from vtcav_jax.models.hub import PREDICTOR, transformers_name
from vtcav_jax.models.vit.timesformer import TimeSformer
from vtcav_jax.models.vit.videomae import VideoMae
from vtcav_jax.models.vit.vivit import Vivit
from vtcav_jax.models.vit.vjepa2 import Vjepa2
from weights_conversion.torch_reference import video_models

CLASSIFIERS = {
    "videomae": "VideoMAE",
    "timesformer": "Timesformer",
    "vivit": "Vivit",
    "vjepa2": "VJEPA2",
}
MODEL_TYPES = {VideoMae: "videomae", TimeSformer: "timesformer", Vivit: "vivit", Vjepa2: "vjepa2"}


def config_of(preset: str, num_classes: int) -> dict[str, Any] | None:
    """Return the config with which transformers makes the network of a preset; None if it has no such network."""
    maker = models.get_preset(preset).maker
    model_type = MODEL_TYPES.get(maker.func)  # type: ignore[call-overload]
    if model_type is None:
        return None
    options = {
        name: argument.default for name, argument in signature(maker.func.__init__).parameters.items()
    } | maker.keywords
    config = dict(
        model_type=model_type,
        hidden_size=options["hidden_size"],
        num_hidden_layers=options["layers"],
        num_attention_heads=options["heads"],
        layer_norm_eps=options["epsilon"],
        num_labels=num_classes,
    )
    patch = options["patch"]
    if model_type == "vjepa2":
        ratio = options["intermediate_size"] / options["hidden_size"]
        size = models.get_preset(preset).clip_spec.size
        return config | dict(mlp_ratio=ratio, crop_size=size, tubelet_size=patch[0], patch_size=patch[1])
    config |= dict(
        intermediate_size=options["intermediate_size"], num_frames=options["clip"][0], image_size=options["clip"][1]
    )
    if model_type == "videomae":
        return config | dict(tubelet_size=patch[0], patch_size=patch[1])
    return config | (dict(tubelet_size=patch) if model_type == "vivit" else dict(patch_size=patch[0]))


def load_our_tensors(network: Any, tensors: Mapping[str, np.ndarray]) -> None:
    """Load tensors with our names into a network of transformers, except the unused predictor of V-JEPA 2."""
    import torch

    state = network.state_dict()
    for name in state:
        if not transformers_name(name).startswith(PREDICTOR):
            state[name] = torch.tensor(tensors[transformers_name(name)])
    network.load_state_dict(state)


def transformers_network(config: Mapping[str, Any]) -> Any:
    """Return the classifier of a hub config in evaluation mode, with random weights."""
    video_models()  # transformers imports torchvision
    import transformers

    name = CLASSIFIERS[config["model_type"]]
    options = {key: value for key, value in config.items() if key != "model_type"}
    network_config = getattr(transformers, f"{name}Config")(**options)
    return getattr(transformers, f"{name}ForVideoClassification")(network_config).eval()


def run_with_stages(network: Any, video: Any, stages: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Return torch's logits and the tensor at each of `stages`, for a torch video `(b, t, h, w, 3)`.

    Tokens are returned as grids, and a class token apart from its grid.
    """
    model_type = network.config.model_type
    outputs: dict[str, Any] = {}
    handles = []

    def watch(stage: str) -> None:
        def remember(module: Any, inputs: Any, value: Any) -> None:
            outputs[stage] = value_at(network.config, stage, value[0] if isinstance(value, tuple) else value)

        handles.append(network.get_submodule(module_of(model_type, stage)).register_forward_hook(remember))

    for stage in stages:
        watch(stage)
    try:
        logits = network(video.permute(0, 1, 4, 2, 3)).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits, outputs


def module_of(model_type: str, stage: str) -> str:
    """Return the module of transformers whose output contains the value at our stage."""
    name = stage.removesuffix(".class_token")
    if model_type == "vivit":
        name = re.sub(r"^encoder\.layer\.", "layers.", name)
    return name if name.startswith(("pooler", "fc_norm")) else f"{model_type}.{name}"


def value_at(config: Any, stage: str, tokens: Any) -> Any:
    """Return the class token or the grid of a module's output; TimeSformer lists the tokens of one place together."""
    if tokens.ndim == 2:  # pooled
        return tokens
    if config.model_type in ("timesformer", "vivit"):
        if stage == "layernorm" or stage.endswith(".class_token"):
            return tokens[:, 0]
        tokens = tokens[:, 1:]
    size = config.crop_size if config.model_type == "vjepa2" else config.image_size
    side = size // (config.tubelet_size[1] if config.model_type == "vivit" else config.patch_size)
    if config.model_type == "timesformer":
        return tokens.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2, 4)
    return tokens.unflatten(1, (-1, side, side))
