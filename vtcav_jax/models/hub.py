"""Video classifiers in the folders that transformers writes: VideoMAE, TimeSformer, ViViT and V-JEPA 2 of any size.

A folder has a `config.json`, `model.safetensors` (or several files and an index), and the config of a preprocessor.
Neither torch nor transformers is needed.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.json_file import load_json
from vtcav_jax.models import parameters
from vtcav_jax.models.class_names import validate_labels
from vtcav_jax.models.network import Network, single_head
from vtcav_jax.models.video_swin import Triple
from vtcav_jax.models.vit.timesformer import TimeSformer
from vtcav_jax.models.vit.videomae import VideoMae
from vtcav_jax.models.vit.vivit import Vivit
from vtcav_jax.models.vit.vjepa2 import Vjepa2
from vtcav_jax.models.zoo import get_preset, uniform

PREPROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json")
PREDICTOR = "predictor."  # of V-JEPA 2's pre-training: stored with its classifiers, which do not use it
Maker = partial[nnx.Module]


def load_hub_folder(path: str | Path, *, interval: int | None = None, dtype: Any = jnp.float32) -> Network:
    """Load a video classifier that transformers saved; an error lists all parameters that do not match.

    Sizes and class names come from `config.json`, size and colours of clips from the preprocessor. The step between
    frames is stored in neither: `interval`, by default that of the published networks of this type. By default, frames
    of a VideoMAE or TimeSformer with the classes of Something-Something v2 are spread over the whole video. `dtype` is
    that of the arithmetic.

    ```python
    network = load_hub_folder("videomae-base-finetuned-kinetics")
    ```
    """
    folder = Path(path)
    config = read_json(folder, "config.json")
    try:
        hub_type = hub_type_of(config, folder)
        make_network, clip = network_maker(config)
        clip_spec = read_clip_spec(folder, clip, hub_type, interval)
    except (TypeError, KeyError, IndexError, AttributeError) as error:  # values of other types than transformers writes
        raise ValueError(f"the configuration in {folder} has an invalid value ({error}); download it again") from error
    arrays = dict(parameters.to_flax_layout(name, tensor) for name, tensor in read_tensors(folder).items())
    num_classes = arrays["head.bias"].shape[0] if "head.bias" in arrays else 1
    names = config.get("id2label")
    if names is not None:
        labels = [names.get(str(i)) for i in range(len(names))]
        names = validate_labels(labels, num_classes, f"id2label of {folder / 'config.json'}")
        if interval is None and hub_type.ssv2_uniform and re.sub(r"[][]", "", "\n".join(names)) == SSV2_NAMES:
            clip_spec = uniform(clip_spec)
    try:
        model = parameters.load(
            lambda: make_network(num_classes=num_classes, dtype=dtype, rngs=parameters.initial_rngs(0)),
            arrays,
        )
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return Network(model, clip_spec, single_head(num_classes, names), folder.resolve().name)


def network_maker(config: Mapping[str, Any]) -> tuple[Maker, Triple]:
    """Return the constructor of a network from its `config.json`, without the number of classes, and its clip."""
    read = hub_type_of(config).read_config
    return read(**{name: config[name] for name in signature(read).parameters if name in config})


def transformers_name(name: str) -> str:
    """Return our name of a parameter of transformers, as saved or as in memory."""
    name = re.sub(r"^(videomae|timesformer|vivit|vjepa2)\.", "", re.sub(r"^classifier\.", "head.", name))
    name = re.sub(r"\.([qv])_bias$", lambda match: f".{'query' if match[1] == 'q' else 'value'}.bias", name)
    if re.match(r"layers\.\d+\.", name):  # ViViT in memory, from version 5
        name = f"encoder.layer.{name.removeprefix('layers.')}"
        for theirs, ours in VIVIT_NAMES.items():
            name = name.replace(f".{theirs}.", f".{ours}.")
    return name


VIVIT_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


# Constructors from configs: arguments and their defaults are those of the configs of transformers.


def _videomae(
    image_size: Any = 224, patch_size: Any = 16, num_channels: int = 3, num_frames: int = 16, tubelet_size: int = 2,
    hidden_size: int = 768, num_hidden_layers: int = 12, num_attention_heads: int = 12, intermediate_size: int = 3072,
    hidden_act: str = "gelu", layer_norm_eps: float = 1e-12, qv_bias: bool = True, use_mean_pooling: bool = True,
) -> tuple[Maker, Triple]:  # fmt: skip
    require(num_channels=(num_channels, 3), hidden_act=(hidden_act, "gelu"), use_mean_pooling=(use_mean_pooling, True))
    clip, patch = (num_frames, *pair(image_size)), (tubelet_size, *pair(patch_size))
    sizes = transformer_sizes(hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, layer_norm_eps)
    return partial(VideoMae, **sizes, clip=clip, patch=patch, qv_bias=qv_bias), clip


def _timesformer(
    image_size: Any = 224, patch_size: Any = 16, num_channels: int = 3, num_frames: int = 8, hidden_size: int = 768,
    num_hidden_layers: int = 12, num_attention_heads: int = 12, intermediate_size: int = 3072, hidden_act: str = "gelu",
    layer_norm_eps: float = 1e-6, qkv_bias: bool = True, attention_type: str = "divided_space_time",
) -> tuple[Maker, Triple]:  # fmt: skip
    divided = (attention_type, "divided_space_time")
    require(num_channels=(num_channels, 3), hidden_act=(hidden_act, "gelu"), attention_type=divided)
    clip = (num_frames, *pair(image_size))
    sizes = transformer_sizes(hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, layer_norm_eps)
    return partial(TimeSformer, **sizes, clip=clip, patch=pair(patch_size), qkv_bias=qkv_bias), clip


def _vivit(
    image_size: Any = 224, num_frames: int = 32, tubelet_size: Any = (2, 16, 16), num_channels: int = 3,
    hidden_size: int = 768, num_hidden_layers: int = 12, num_attention_heads: int = 12, intermediate_size: int = 3072,
    hidden_act: Any = "gelu_fast", layer_norm_eps: float = 1e-6, qkv_bias: bool = True,
) -> tuple[Maker, Triple]:  # fmt: skip
    activation = "gelu" if hidden_act == "gelu" else "gelu_fast"
    require(num_channels=(num_channels, 3), hidden_act=(hidden_act, activation))
    clip = (num_frames, *pair(image_size))
    sizes = transformer_sizes(hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, layer_norm_eps)
    patch = tuple(tubelet_size)
    return partial(Vivit, **sizes, clip=clip, patch=patch, qkv_bias=qkv_bias, activation=activation), clip


def _vjepa2(
    patch_size: Any = 16, crop_size: int = 256, frames_per_clip: int = 64, tubelet_size: int = 2,
    hidden_size: int = 1024, in_chans: int = 3, num_attention_heads: int = 16, num_hidden_layers: int = 24,
    mlp_ratio: float = 4.0, layer_norm_eps: float = 1e-6, qkv_bias: bool = True, hidden_act: str = "gelu",
    num_pooler_layers: int = 3,
) -> tuple[Maker, Triple]:  # fmt: skip
    require(in_chans=(in_chans, 3), hidden_act=(hidden_act, "gelu"))
    hidden = int(hidden_size * mlp_ratio)
    sizes = transformer_sizes(hidden_size, num_hidden_layers, num_attention_heads, hidden, layer_norm_eps)
    patch = (tubelet_size, *pair(patch_size))
    clip = (frames_per_clip, crop_size, crop_size)
    return partial(Vjepa2, **sizes, patch=patch, qkv_bias=qkv_bias, pooler_layers=num_pooler_layers), clip


def transformer_sizes(hidden: int, layers: int, heads: int, intermediate: int, epsilon: float) -> dict[str, Any]:
    return dict(hidden_size=hidden, layers=layers, heads=heads, intermediate_size=intermediate, epsilon=epsilon)


def pair(size: Any) -> tuple[int, int]:
    """Return height and width from one number or two."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def require(**fields: tuple[Any, Any]) -> None:
    """Raise ValueError if a field of the config, given with the supported value, has another one."""
    for name, (actual, supported) in fields.items():
        if actual != supported:
            raise ValueError(f"config.json: {name} is {actual!r}, supported is {supported!r}; {REMEDY}")


REMEDY = "use vtcav_jax.adapters.from_torch for other networks"


class HubType(NamedTuple):
    """Type of networks: constructor, and what the folder of a published network does not store."""

    read_config: Callable[..., tuple[Maker, Triple]]
    interval: int  # of frames, as published for Kinetics-400 (V-JEPA 2: Something-Something v2 with 16 frames)
    rescale_factor: float = 1 / 255
    offset: bool = False  # subtract 1 after rescaling
    ssv2_uniform: bool = False  # frames spread over the whole video for Something-Something v2


SSV2_NAMES = "\n".join(get_preset("videomae_b_ssv2").labels or ())
HUB_TYPES = {
    "videomae": HubType(_videomae, 4, ssv2_uniform=True),
    "timesformer": HubType(_timesformer, 32, ssv2_uniform=True),
    "vivit": HubType(_vivit, 2, 1 / 127.5, True),
    "vjepa2": HubType(_vjepa2, 4),
}


def hub_type_of(config: Mapping[str, Any], folder: Path | str = "config.json") -> HubType:
    model_type = config.get("model_type")
    if model_type not in HUB_TYPES:
        raise ValueError(f"{folder}: expected a model_type of {', '.join(HUB_TYPES)}, got {model_type!r}; {REMEDY}")
    return HUB_TYPES[model_type]


def read_json(folder: Path, *names: str) -> dict[str, Any]:
    """Read the first of these files that exists."""
    paths = [folder / name for name in names if (folder / name).is_file()]
    if not paths:
        raise ValueError(f"{folder} has no {' or '.join(names)}; expected a folder written by save_pretrained")
    try:
        content = load_json(paths[0])
    except ValueError as error:
        raise ValueError(f"{paths[0]} is damaged ({error}); download it again") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{paths[0]} contains a {type(content).__name__}, expected names and values; download it again"
        )
    return content


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Read all tensors of the network by our names; half precision becomes float32."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    files = ["model.safetensors"]
    if (folder / "model.safetensors.index.json").is_file():
        files = sorted(set(read_json(folder, "model.safetensors.index.json")["weight_map"].values()))
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise ValueError(
            f"{folder} has no {', '.join(missing)}; expected weights as safetensors, which save_pretrained writes"
        )
    tensors: dict[str, np.ndarray] = {}
    for name in files:
        try:
            tensors |= load_file(folder / name)
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is damaged ({error}); download it again") from error
    named = {transformers_name(name): to_float32(tensor) for name, tensor in tensors.items()}
    if len(named) < len(tensors):
        raise ValueError(f"{folder} contains some parameters twice, under two names; expected each parameter once")
    return {name: tensor for name, tensor in named.items() if not name.startswith(PREDICTOR)}


def to_float32(tensor: np.ndarray) -> np.ndarray:
    return tensor if np.issubdtype(tensor.dtype, np.integer) else tensor.astype(np.float32)


def read_clip_spec(folder: Path, clip: Triple, hub_type: HubType, interval: int | None) -> ClipSpec:
    """Return the clip format from a network's clip and its preprocessor."""
    values = read_json(folder, *PREPROCESSOR_FILES)
    frames, height, width = clip
    size, crop = values.get("size"), values.get("crop_size")
    cropped = values.get("do_center_crop", crop is not None)
    resize, keep_aspect = read_size(size)
    square = read_size(crop)[0] if cropped else resize
    if not (values.get("do_resize", True) and resize and height == width == square) or (keep_aspect and not cropped):
        raise ValueError(
            f"{folder}: the network reads {height} x {width} pixels, but its preprocessor has size={size} and"
            f" crop_size={crop}; expected a square of that size: a crop, or whole frames"
        )
    factor = 255 * values.get("rescale_factor", hub_type.rescale_factor)
    offset = 1.0 if values.get("offset", hub_type.offset) else 0.0
    mean, std = (0.0,) * 3, (1.0,) * 3
    if values.get("do_normalize", True):
        if "image_mean" not in values or "image_std" not in values:
            raise ValueError(f"{folder}: the preprocessor normalises without image_mean or image_std; add both")
        mean, std = values["image_mean"], values["image_std"]
    return ClipSpec(
        frames=frames,
        size=height,
        interval=hub_type.interval if interval is None else interval,
        resize=resize if cropped else None,
        keep_aspect=keep_aspect or not cropped,
        mean=tuple((offset + value) / factor for value in mean),
        std=tuple(value / factor for value in std),
    )


def read_size(size: Any) -> tuple[int | None, bool]:
    """Return the side of a square, and whether only the shorter side gets it; None for anything but one number."""
    if not isinstance(size, dict):
        return size, True
    if "shortest_edge" in size:
        return size["shortest_edge"], True
    return (size["height"] if size.get("height") == size.get("width") else None), False
