"""Registry of architectures by name, with their clip formats and class names."""

from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any

import jax.numpy as jnp
from flax import nnx

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.models.c3d import C3d
from vtcav_jax.models.class_names import read_labels
from vtcav_jax.models.i3d import I3d
from vtcav_jax.models.mfnet import MfNet
from vtcav_jax.models.mvit import Mvit
from vtcav_jax.models.parameters import initial_rngs
from vtcav_jax.models.resnet3d import ResNet3d
from vtcav_jax.models.s3d import S3d
from vtcav_jax.models.small_cnn import SmallCnn
from vtcav_jax.models.video_resnet import TemporalKernel, VideoResNet
from vtcav_jax.models.video_swin import VideoSwin
from vtcav_jax.models.vit.timesformer import TimeSformer
from vtcav_jax.models.vit.videomae import VideoMae
from vtcav_jax.models.vit.vivit import Vivit
from vtcav_jax.models.vit.vjepa2 import Vjepa2
from vtcav_jax.names import unknown_name_message

C3D_CITATION = "Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks, 2015, arXiv 1412.0767"
I3D_CITATION = "Carreira and Zisserman, Quo Vadis, Action Recognition?, 2017, arXiv 1705.07750"
MFNET_CITATION = "Chen et al., Multi-Fiber Networks for Video Recognition, 2018, arXiv 1807.11195"
S3D_CITATION = "Xie et al., Rethinking Spatiotemporal Feature Learning, 2018, arXiv 1712.04851"
MVIT_CITATION = "Fan et al., Multiscale Vision Transformers, 2021, arXiv 2104.11227"
MVIT_2_CITATION = "Li et al., MViTv2, 2021, arXiv 2112.01526"
SWIN_CITATION = "Liu et al., Video Swin Transformer, 2021, arXiv 2106.13230"
RESNET_CITATION = (
    "Hara et al., Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?, 2018, arXiv 1711.09577"
)
TIMESFORMER_CITATION = "Bertasius et al., Is Space-Time Attention All You Need?, 2021, arXiv 2102.05095"
VIDEOMAE_CITATION = "Tong et al., VideoMAE, 2022, arXiv 2203.12602"
VIVIT_CITATION = "Arnab et al., ViViT: A Video Vision Transformer, 2021, arXiv 2103.15691"
VJEPA2_CITATION = "Assran et al., V-JEPA 2, 2025, arXiv 2506.09985"
VIDEO_RESNET_CITATION = "Tran et al., A Closer Look at Spatiotemporal Convolutions, 2018, arXiv 1711.11248"


SSV2_LABELS = "something_something_v2"


@dataclass(frozen=True)
class TestViews:
    """Views over which predictions of a video are averaged: temporal clips and spatial crops, and who says so."""

    clips: int  # 0: as many consecutive clips as fit
    crops: int
    origin: str

    __test__ = False  # it is no test of pytest's


_SWIN_VIEWS = TestViews(4, 3, "Liu et al. (2021): 4 x 3 views on Kinetics")
_SWIN_SSV2_VIEWS = TestViews(1, 3, "Liu et al. (2021): 1 x 3 views on Something-Something v2")
_C3D_VIEWS = TestViews(10, 1, "Tran et al. (2015): centre crops of 10 clips, here evenly spaced instead of random")
_HARA_VIEWS = TestViews(0, 1, "Hara et al. (2018): centre crops of all consecutive clips")
_VIDEO_RESNET_VIEWS = TestViews(10, 1, "Tran et al. (2018): centre crops of 10 evenly spaced clips")
_MVIT_VIEWS = TestViews(5, 1, "Fan et al. (2021), Li et al. (2021): 5 x 1 views on Kinetics")
_VIDEOMAE_VIEWS = TestViews(5, 3, "Tong et al. (2022): 5 clips x 3 crops on Kinetics")
_VIDEOMAE_SSV2_VIEWS = TestViews(2, 3, "Tong et al. (2022): 2 clips x 3 crops on Something-Something v2")
_TIMESFORMER_VIEWS = TestViews(1, 3, "Bertasius et al. (2021): one clip x 3 crops")
_VIVIT_VIEWS = TestViews(4, 1, "Arnab et al. (2021), section 4.1: 4 views per video")
_VJEPA2_VIEWS = TestViews(2, 3, "Assran et al. (2025): 2 clips x 3 crops on Something-Something v2")


@dataclass(frozen=True)
class Preset:
    """Architecture with its constructor, clip format, class names, and the views that its paper tests with."""

    maker: partial[nnx.Module]
    num_classes: int
    clip_spec: ClipSpec
    citation: str
    label_list: str | None = None  # as in `read_labels`; None if class names or their order are unknown
    test_views: TestViews | None = None  # None if the paper does not average over a fixed number of clips and crops

    @property
    def labels(self) -> tuple[str, ...] | None:
        return None if self.label_list is None else tuple(read_labels(self.label_list))


def swin_maker(
    embed_dim: int, depths: tuple[int, ...], num_heads: tuple[int, ...], window=(8, 7, 7)
) -> partial[nnx.Module]:
    return partial(VideoSwin, embed_dim=embed_dim, depths=depths, num_heads=num_heads, window=window)


_TINY = swin_maker(48, (2, 2), (3, 6), (4, 4, 4))
_T = swin_maker(96, (2, 2, 6, 2), (3, 6, 12, 24))
_S = swin_maker(96, (2, 2, 18, 2), (3, 6, 12, 24))
_B = swin_maker(128, (2, 2, 18, 2), (4, 8, 16, 32))
_B_LONG = swin_maker(128, (2, 2, 18, 2), (4, 8, 16, 32), window=(16, 7, 7))
_L = swin_maker(192, (2, 2, 18, 2), (6, 12, 24, 48))


def vit_maker(network: type[nnx.Module], size: str, **options: Any) -> partial[nnx.Module]:
    """Return a plain transformer of a usual size: channels, layers, heads, and channels within the MLP."""
    sizes = dict(zip(("hidden_size", "layers", "heads", "intermediate_size"), VIT_SIZES[size], strict=True))
    return partial(network, **sizes, **options)


VIT_SIZES = {
    "tiny": (96, 3, 3, 192),
    "s": (384, 12, 6, 1536),
    "b": (768, 12, 12, 3072),
    "l": (1024, 24, 16, 4096),
    "h": (1280, 32, 16, 5120),
    "g": (1408, 40, 22, 6144),
}

_CNN: partial[nnx.Module] = partial(
    SmallCnn, widths=(32, 64, 64), kernels=((3, 5, 5), (3, 3, 3), (3, 3, 3)), strides=((1, 2, 2), (2, 2, 2), (1, 1, 1))
)

_KINETICS = ClipSpec(frames=32, interval=2, resize=256, size=224)
_SOMETHING = ClipSpec(frames=32, resize=256, size=224, sampling="uniform")
_HALF = (0.5, 0.5, 0.5)
_UNDIVIDED = (1 / 255, 1 / 255, 1 / 255)  # values stay in 0..255
_WORLDS = ClipSpec(frames=8, size=32, mean=_HALF, std=_HALF)
_WORLDS_LARGE = ClipSpec(frames=16, size=64, mean=_HALF, std=_HALF)
# 3D-ResNets-PyTorch changed its preprocessing: with 400 classes (2017), 0..255 minus ActivityNet's mean colour
_HARA = ClipSpec(frames=16, resize=112, size=112, mean=(114.7748 / 255, 107.7354 / 255, 99.475 / 255), std=_UNDIVIDED)
_HARA_2020 = replace(_HARA, mean=(0.4345, 0.4051, 0.3775), std=(0.2768, 0.2713, 0.2737))
_VIDEO_RESNET = ClipSpec(
    frames=16, interval=2, resize=128, size=112, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989)
)
_S3D = replace(_VIDEO_RESNET, frames=128, resize=256, size=224)
_I3D = ClipSpec(frames=64, resize=256, size=224, mean=_HALF, std=_HALF)
_MVIT = ClipSpec(frames=16, interval=4, resize=256, size=224, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
_MFNET_STD = (1 / (0.0167 * 255), 1 / (0.0167 * 255), 1 / (0.0167 * 255))
_MFNET = ClipSpec(
    frames=16,
    interval=2,
    resize=256,
    size=224,
    mean=(124 / 255, 117 / 255, 104 / 255),
    std=_MFNET_STD,
    keep_aspect=False,
)
_VIDEOMAE = ClipSpec(frames=16, interval=4, resize=224, size=224)
_TIMESFORMER = replace(_MVIT, frames=8, interval=32, resize=224)
_VIVIT = ClipSpec(frames=32, interval=2, resize=256, size=224, mean=_HALF, std=_HALF)
_VJEPA2 = ClipSpec(frames=16, interval=4, resize=292, size=256)
_VJEPA2_384 = ClipSpec(frames=64, interval=2, resize=438, size=384)
# 0..255 minus the mean colour of Sports-1M
_C3D = ClipSpec(frames=16, resize=128, size=112, mean=(101.41 / 255, 97.66 / 255, 90.25 / 255), std=_UNDIVIDED)


def uniform(clip_spec: ClipSpec) -> ClipSpec:
    """Return the format of the same clips for Something-Something v2, whose frames are spread over the whole video."""
    return replace(clip_spec, interval=1, sampling="uniform")


_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet_preset(layers: int, **options: Any) -> Preset:
    """Return a preset of 3D-ResNets-PyTorch; networks of 50 and more layers use bottlenecks."""
    sizes = dict(depths=_DEPTHS[layers], expansion=1 if layers < 50 else 4) | options
    return Preset(partial(ResNet3d, **sizes), 400, _HARA, RESNET_CITATION, "kinetics400", _HARA_VIEWS)


def resnext_preset(**options: Any) -> Preset:
    return resnet_preset(101, widths=(128, 256, 512, 1024), expansion=2, groups=32, **options)


def resnet_k700_preset(layers: int) -> Preset:
    """Return the version published in 2020 for Kinetics-700, whose classes are not in alphabetical order."""
    return replace(resnet_preset(layers), num_classes=700, clip_spec=_HARA_2020, label_list=None)


def video_resnet_preset(*temporal_kernels: TemporalKernel) -> Preset:
    """Return a preset of torchvision with these temporal kernels, one per layer."""
    return Preset(
        partial(VideoResNet, times=temporal_kernels),
        400,
        _VIDEO_RESNET,
        VIDEO_RESNET_CITATION,
        "kinetics400",
        _VIDEO_RESNET_VIEWS,
    )


PRESETS: dict[str, Preset] = {
    "video_swin_tiny": Preset(_TINY, 4, _WORLDS, SWIN_CITATION),
    "video_swin_tiny_64": Preset(_TINY, 4, _WORLDS_LARGE, SWIN_CITATION),
    "small_cnn": Preset(_CNN, 4, _WORLDS, "a plain 3D convolutional network, of this package"),
    "video_swin_t_k400": Preset(_T, 400, _KINETICS, SWIN_CITATION, "kinetics400", _SWIN_VIEWS),
    "video_swin_s_k400": Preset(_S, 400, _KINETICS, SWIN_CITATION, "kinetics400", _SWIN_VIEWS),
    "video_swin_b_k400": Preset(_B, 400, _KINETICS, SWIN_CITATION, "kinetics400", _SWIN_VIEWS),
    "video_swin_l_k400": Preset(_L, 400, _KINETICS, SWIN_CITATION, "kinetics400", _SWIN_VIEWS),
    "video_swin_b_k600": Preset(_B, 600, _KINETICS, SWIN_CITATION, test_views=_SWIN_VIEWS),
    "video_swin_b_ssv2": Preset(_B_LONG, 174, _SOMETHING, SWIN_CITATION, SSV2_LABELS, _SWIN_SSV2_VIEWS),
    "c3d": Preset(partial(C3d), 487, _C3D, C3D_CITATION, test_views=_C3D_VIEWS),
    "i3d": Preset(partial(I3d), 400, _I3D, I3D_CITATION, "kinetics400"),
    "resnet3d_18": resnet_preset(18),
    "resnet3d_18_a": resnet_preset(18, shortcut="A"),
    "resnet3d_34": resnet_preset(34),
    "resnet3d_34_a": resnet_preset(34, shortcut="A"),
    "resnet3d_50": resnet_preset(50),
    "resnet3d_101": resnet_preset(101),
    "resnet3d_152": resnet_preset(152),
    "resnext3d_101": resnext_preset(),
    "resnext3d_101_stem128": replace(resnext_preset(stem=128), clip_spec=_HARA_2020, label_list=None),
    **{f"resnet3d_{layers}_k700": resnet_k700_preset(layers) for layers in _DEPTHS},
    "mfnet": Preset(partial(MfNet), 400, _MFNET, MFNET_CITATION, "kinetics400"),
    "r3d_18": video_resnet_preset("whole", "whole", "whole", "whole"),
    "mc3_18": video_resnet_preset("whole", "none", "none", "none"),
    "r2plus1d_18": video_resnet_preset("apart", "apart", "apart", "apart"),
    "mvit_v1_b": Preset(partial(Mvit, version=1), 400, _MVIT, MVIT_CITATION, "kinetics400", _MVIT_VIEWS),
    "mvit_v2_s": Preset(partial(Mvit, version=2), 400, _MVIT, MVIT_2_CITATION, "kinetics400", _MVIT_VIEWS),
    "s3d": Preset(partial(S3d), 400, _S3D, S3D_CITATION, "kinetics400"),
    "videomae_tiny": Preset(
        vit_maker(VideoMae, "tiny", clip=_WORLDS.shape[:3], patch=(2, 4, 4)), 4, _WORLDS, VIDEOMAE_CITATION
    ),
    **{
        f"videomae_{size}_k400": Preset(
            vit_maker(VideoMae, size), 400, _VIDEOMAE, VIDEOMAE_CITATION, "kinetics400", _VIDEOMAE_VIEWS
        )
        for size in "sblh"
    },
    **{
        f"videomae_{size}_ssv2": Preset(
            *(vit_maker(VideoMae, size), 174, uniform(_VIDEOMAE), VIDEOMAE_CITATION, SSV2_LABELS),
            _VIDEOMAE_SSV2_VIEWS,
        )
        for size in "sb"
    },
    "timesformer_b_k400": Preset(
        vit_maker(TimeSformer, "b"), 400, _TIMESFORMER, TIMESFORMER_CITATION, "kinetics400", _TIMESFORMER_VIEWS
    ),
    "timesformer_b_ssv2": Preset(
        *(vit_maker(TimeSformer, "b"), 174, uniform(_TIMESFORMER), TIMESFORMER_CITATION, SSV2_LABELS),
        _TIMESFORMER_VIEWS,
    ),
    "vivit_b_k400": Preset(vit_maker(Vivit, "b"), 400, _VIVIT, VIVIT_CITATION, "kinetics400", _VIVIT_VIEWS),
    "vjepa2_l_ssv2": Preset(vit_maker(Vjepa2, "l"), 174, _VJEPA2, VJEPA2_CITATION, SSV2_LABELS, _VJEPA2_VIEWS),
    "vjepa2_h_ssv2": Preset(vit_maker(Vjepa2, "h"), 174, _VJEPA2, VJEPA2_CITATION, SSV2_LABELS, _VJEPA2_VIEWS),
    "vjepa2_g_ssv2": Preset(vit_maker(Vjepa2, "g"), 174, _VJEPA2_384, VJEPA2_CITATION, SSV2_LABELS, _VJEPA2_VIEWS),
}


def get_preset(preset: str) -> Preset:
    """Return the preset of this name, or raise an error with similar names."""
    if preset not in PRESETS:
        raise ValueError(unknown_name_message("preset", [preset], PRESETS))
    return PRESETS[preset]


def make(
    preset: str, *, num_classes: int | None = None, seed: int = 0, dtype: Any = jnp.float32, remat: bool = False
) -> nnx.Module:
    """Make the network of a preset with random weights; `dtype` is that of the arithmetic.

    `remat` recomputes blocks in the backward pass to save memory; only some architectures support it.

    ```python
    model = make("video_swin_t_k400", num_classes=10)
    ```
    """
    entry = get_preset(preset)
    num_classes = entry.num_classes if num_classes is None else num_classes
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    options: dict[str, Any] = {"remat": True} if remat else {}
    if remat and "remat" not in signature(entry.maker.func.__init__).parameters:
        raise ValueError(
            f"{preset} has stages within its blocks, whose values the backward pass must store; omit remat"
        )
    return entry.maker(num_classes=num_classes, dtype=dtype, rngs=initial_rngs(seed), **options)
