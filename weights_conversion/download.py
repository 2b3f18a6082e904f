"""Download of torchvision's published weights, with a check of their hashes."""

import urllib.error
from pathlib import Path
from typing import Any

from vtcav_jax.names import unknown_name_message
from weights_conversion.checkpoint_reader import file_sha256
from weights_conversion.torch_reference import video_models

# Preset -> torchvision's name for the weights. `swin3d_b` has two; these are the more accurate ones.
TORCHVISION_WEIGHTS = {
    "video_swin_t_k400": "Swin3D_T_Weights.KINETICS400_V1",
    "video_swin_s_k400": "Swin3D_S_Weights.KINETICS400_V1",
    "video_swin_b_k400": "Swin3D_B_Weights.KINETICS400_IMAGENET22K_V1",
    "r3d_18": "R3D_18_Weights.KINETICS400_V1",
    "mc3_18": "MC3_18_Weights.KINETICS400_V1",
    "r2plus1d_18": "R2Plus1D_18_Weights.KINETICS400_V1",
    "mvit_v1_b": "MViT_V1_B_Weights.KINETICS400_V1",
    "mvit_v2_s": "MViT_V2_S_Weights.KINETICS400_V1",
    "s3d": "S3D_Weights.KINETICS400_V1",
}


def published_weights(preset: str) -> Path:
    """Return the file with torchvision's weights for the preset, downloaded once to torch's cache."""
    if preset not in TORCHVISION_WEIGHTS:
        raise ValueError(
            "for --download, "
            + unknown_name_message("published weights", [preset], TORCHVISION_WEIGHTS)
            + "; use --checkpoint"
        )
    try:
        import torch

        video = video_models()
    except ModuleNotFoundError as error:
        raise ValueError("--download needs torchvision: pip install 'vtcav-jax[convert]'") from error
    return fetch(url_of(video, preset), Path(torch.hub.get_dir()) / "checkpoints", preset)


def url_of(video: Any, preset: str) -> str:
    family, name = TORCHVISION_WEIGHTS[preset].split(".")
    return getattr(video, family)[name].url


def fetch(url: str, folder: Path, preset: str) -> Path:
    """Download to `folder/NAME-HASH.pth` and check the hash, a prefix of the file's SHA-256."""
    import torch

    target = folder / url.rsplit("/", 1)[1]
    prefix = target.stem.rsplit("-", 1)[1]
    if target.exists():
        if not file_sha256(target).startswith(prefix):
            raise ValueError(f"{target} is damaged (its SHA-256 should begin with {prefix}); remove it and run again")
        return target
    folder.mkdir(parents=True, exist_ok=True)
    print(f"downloading {target.name} ...", flush=True)
    try:
        torch.hub.download_url_to_file(url, str(target), hash_prefix=prefix)
    except (urllib.error.URLError, OSError) as error:
        raise ValueError(
            f"{url} could not be reached ({error}); download the file on another machine, put it at {target}, and run"
            f" this command again, or pass the file: --preset={preset} --checkpoint=FILE"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"{target.name} was damaged in transfer and removed ({error}); run again") from error
    return target
