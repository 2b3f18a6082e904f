"""The networks that come with the package: `make("video_swin_t_k400")`, and `load` for what the converter wrote."""

import json
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from vtcav_jax import weights
from vtcav_jax.geometry import ClipGeometry
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


@dataclass(frozen=True)
class Loaded:
    """A network with weights, and what is known about it."""

    model: nnx.Module
    preset: str
    labels: tuple[str, ...] | None


def swin(embed_dim: int, depths: tuple[int, ...], num_heads: tuple[int, ...], window=(8, 7, 7)) -> partial[nnx.Module]:
    return partial(VideoSwin, embed_dim=embed_dim, depths=depths, num_heads=num_heads, window=window)


_TINY = swin(48, (2, 2), (3, 6), (4, 4, 4))
_T = swin(96, (2, 2, 6, 2), (3, 6, 12, 24))
_S = swin(96, (2, 2, 18, 2), (3, 6, 12, 24))
_B = swin(128, (2, 2, 18, 2), (4, 8, 16, 32))
_B_LONG = swin(128, (2, 2, 18, 2), (4, 8, 16, 32), window=(16, 7, 7))
_L = swin(192, (2, 2, 18, 2), (6, 12, 24, 48))

_KINETICS = ClipGeometry(frames=32, interval=2, resize=256, size=224)
_SOMETHING = ClipGeometry(frames=32, resize=256, size=224, sampling="uniform")
_HALF = (0.5, 0.5, 0.5)
_WORLDS = ClipGeometry(frames=8, size=32, mean=_HALF, std=_HALF)
_WORLDS_LARGE = ClipGeometry(frames=16, size=64, mean=_HALF, std=_HALF)

PRESETS: dict[str, Preset] = {
    "video_swin_tiny": Preset(_TINY, 4, _WORLDS, SWIN),
    "video_swin_tiny_64": Preset(_TINY, 4, _WORLDS_LARGE, SWIN),
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


def load(
    path: str | Path, *, dtype: Any = jnp.float32, remat: bool = False, place: weights.Place | None = None
) -> Loaded:
    """What `python -m weights_conversion` wrote: a directory, or a `.safetensors` file with its JSON beside it."""
    about = read_about(Path(path))
    maker = partial(make, about["preset"], num_classes=about["num_classes"], dtype=dtype, remat=remat)
    model = weights.restore(about_and_weights(Path(path))[1], maker, place)
    labels = about["labels"]
    return Loaded(model, about["preset"], None if labels is None else tuple(labels))


def abstract(name_or_path: str) -> tuple[nnx.Module, Preset]:
    """A preset's or a converted network's shapes, without its numbers, and its preset."""
    if name_or_path in PRESETS or not Path(name_or_path).exists():
        return nnx.eval_shape(partial(make, name_or_path)), find(name_or_path)
    about = read_about(Path(name_or_path))
    maker = partial(make, about["preset"], num_classes=about["num_classes"])
    return nnx.eval_shape(maker), find(about["preset"])


def read_about(path: Path) -> dict[str, Any]:
    """The JSON beside converted weights: preset, num_classes, labels, source."""
    about_file, _ = about_and_weights(path)
    if str(path) in PRESETS and not path.exists():
        raise ValueError(f"{path} is a network without weights: make it with `make`, or convert weights for it")
    if not path.exists():
        raise ValueError(unknown("preset", [str(path)], PRESETS) + "; nor is there a converted network of that path")
    try:
        about = json.loads(about_file.read_text(encoding="utf-8"))
        preset, num_classes, labels = about["preset"], about["num_classes"], about["labels"]
        find(preset)
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes is {num_classes!r}")
        if labels is not None:
            checked_labels(labels, num_classes, "labels")
        return {"preset": preset, "num_classes": num_classes, "labels": labels}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a converted network: {about_file.name} is missing or damaged ({error!r}); make it with "
            "`python -m weights_conversion`"
        ) from error


def checked_labels(labels: Any, num_classes: int, where: str) -> list[str]:
    """One printable name per class, or an error."""
    if not isinstance(labels, list) or len(labels) != num_classes:
        count = f"{len(labels)} names" if isinstance(labels, list) else repr(labels)
        raise ValueError(f"{where}: {count} for {num_classes} classes; expected one name a class")
    if wrong := [i for i, name in enumerate(labels) if not isinstance(name, str) or not name or not name.isprintable()]:
        raise ValueError(f"{where}: the names of classes {wrong[:10]} are empty or hold unprintable characters")
    return labels


def about_and_weights(path: Path) -> tuple[Path, Path]:
    """Where a converted network keeps its description and its parameters."""
    if path.suffix == ".safetensors":
        return path.with_suffix(".json"), path
    return path / "model.json", path / "params"
