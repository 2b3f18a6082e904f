"""Every architecture by name, with the clip that it takes and what its classes are called."""

from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

import jax.numpy as jnp
from flax import nnx

from vtcav_jax.geometry import ClipGeometry
from vtcav_jax.models.small_cnn import SmallCnn
from vtcav_jax.models.video_swin import VideoSwin
from vtcav_jax.names import unknown

SWIN = "Liu et al., Video Swin Transformer, 2021, arXiv 2106.13230"


@dataclass(frozen=True)
class Preset:
    """A network by name: how to make it, what clip it takes, what its classes are called."""

    maker: partial[nnx.Module]
    num_classes: int
    geometry: ClipGeometry
    citation: str
    labels_file: str | None = None  # in `models/labels`; None: not known to the package

    @property
    def labels(self) -> tuple[str, ...] | None:
        if self.labels_file is None:
            return None
        text = resources.files("vtcav_jax.models").joinpath("labels", self.labels_file).read_text(encoding="utf-8")
        return tuple(text.splitlines())


def swin(embed_dim: int, depths: tuple[int, ...], num_heads: tuple[int, ...], window=(8, 7, 7)) -> partial[nnx.Module]:
    return partial(VideoSwin, embed_dim=embed_dim, depths=depths, num_heads=num_heads, window=window)


_TINY = swin(48, (2, 2), (3, 6), (4, 4, 4))
_T = swin(96, (2, 2, 6, 2), (3, 6, 12, 24))
_S = swin(96, (2, 2, 18, 2), (3, 6, 12, 24))
_B = swin(128, (2, 2, 18, 2), (4, 8, 16, 32))
_B_LONG = swin(128, (2, 2, 18, 2), (4, 8, 16, 32), window=(16, 7, 7))
_L = swin(192, (2, 2, 18, 2), (6, 12, 24, 48))

_CNN: partial[nnx.Module] = partial(
    SmallCnn, widths=(32, 64, 64), kernels=((3, 5, 5), (3, 3, 3), (3, 3, 3)), strides=((1, 2, 2), (2, 2, 2), (1, 1, 1))
)

_KINETICS = ClipGeometry(frames=32, interval=2, resize=256, size=224)
_SOMETHING = ClipGeometry(frames=32, resize=256, size=224, sampling="uniform")
_HALF = (0.5, 0.5, 0.5)
_WORLDS = ClipGeometry(frames=8, size=32, mean=_HALF, std=_HALF)
_WORLDS_LARGE = ClipGeometry(frames=16, size=64, mean=_HALF, std=_HALF)

PRESETS: dict[str, Preset] = {
    "video_swin_tiny": Preset(_TINY, 4, _WORLDS, SWIN),
    "video_swin_tiny_64": Preset(_TINY, 4, _WORLDS_LARGE, SWIN),
    "small_cnn": Preset(_CNN, 4, _WORLDS, "a plain 3D convolutional network, of this package"),
    "video_swin_t_k400": Preset(_T, 400, _KINETICS, SWIN, "kinetics400.txt"),
    "video_swin_s_k400": Preset(_S, 400, _KINETICS, SWIN, "kinetics400.txt"),
    "video_swin_b_k400": Preset(_B, 400, _KINETICS, SWIN, "kinetics400.txt"),
    "video_swin_l_k400": Preset(_L, 400, _KINETICS, SWIN, "kinetics400.txt"),
    "video_swin_b_k600": Preset(_B, 600, _KINETICS, SWIN),
    "video_swin_b_ssv2": Preset(_B_LONG, 174, _SOMETHING, SWIN),
}


def find(preset: str) -> Preset:
    """The preset of this name, or an error with the nearest names."""
    if preset not in PRESETS:
        raise ValueError(unknown("preset", [preset], PRESETS))
    return PRESETS[preset]


def make(
    preset: str, *, num_classes: int | None = None, seed: int = 0, dtype: Any = jnp.float32, remat: bool = False
) -> nnx.Module:
    """The network with random weights; its arithmetic in `dtype`."""
    found = find(preset)
    num_classes = found.num_classes if num_classes is None else num_classes
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    return found.maker(num_classes=num_classes, dtype=dtype, remat=remat, rngs=nnx.Rngs(seed))
