"""Compare each network with its reference implementation: every stage, the logits and a gradient.

  python -m benchmarks.parity                      every network, one clip of its standard size and of another size
  python -m benchmarks.parity --preset=mfnet       one network; the results of the others stay

All parameters are random, with the names and shapes of the public state dict, and the same on both sides. The
reference is the network of torchvision or transformers or, where there is none, that of
`tests/support/torch_networks.py`. The gradient is that of one logit with respect to the video, compared by its norm:
rounding moves single values over the kink of a ReLU.
Writes benchmarks/results/parity_BACKEND.jsonl row by row, and its table.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags

from benchmarks import tables, timing, write_tables
from benchmarks.torch_peer import Clip, library_of, make_pair
from tests.support.random_checkpoints import PRESET_OF_CHECKPOINT, checkpoint_of_preset, random_state_dict
from tests.support.torch_networks import NETWORKS, expected_stages
from vtcav_jax import models, tap
from vtcav_jax.models import parameters
from weights_conversion import convert, torch_reference, transformers_reference

# Of each architecture in transformers, one or two sizes that a small machine runs
TRANSFORMERS = ("videomae_s_k400", "videomae_b_k400", "timesformer_b_k400", "vivit_b_k400", "vjepa2_l_ssv2")
PEERS = ("video_swin_tiny", "video_swin_t_k400", *TRANSFORMERS)
PRESETS = (*dict.fromkeys(PRESET_OF_CHECKPOINT.values()), *PEERS)

_PRESET = flags.DEFINE_enum("preset", None, sorted(PRESETS), "one network instead of all")

FRAMES = {"s3d": 32}  # with 128 frames the activations of both networks would take 8 GiB
# C3D and MViT read clips of one size only; networks that store positions are made for the other size
OTHER_CLIPS = {
    "i3d": (24, 224, 256),
    "resnet3d_18": (10, 96, 120),
    "resnet3d_18_a": (10, 96, 120),
    "resnet3d_50": (10, 96, 120),
    "resnext3d_101": (10, 96, 120),
    "mfnet": (8, 96, 120),
    "r3d_18": (10, 96, 120),
    "mc3_18": (10, 96, 120),
    "r2plus1d_18": (10, 96, 120),
    "s3d": (24, 224, 256),
    "video_swin_tiny": (10, 36, 44),
    "video_swin_t_k400": (12, 100, 132),
    "videomae_s_k400": (8, 160, 160),
    "videomae_b_k400": (8, 160, 160),
    "timesformer_b_k400": (4, 160, 160),
    "vivit_b_k400": (16, 160, 160),
    "vjepa2_l_ssv2": (8, 160, 160),
}
TARGET = 1
RunReference = Callable[[torch.Tensor, Sequence[str]], tuple[Any, dict[str, Any]]]


def clips_of(preset: str) -> list[Clip]:
    standard = models.get_preset(preset).clip_spec.shape
    other = [OTHER_CLIPS[preset]] if preset in OTHER_CLIPS else []
    return [(FRAMES.get(preset, standard[0]), *standard[1:3]), *other]


def measure_parity(preset: str, clip: Clip) -> dict[str, Any]:
    print(f"{preset} {' x '.join(map(str, clip))} ...", file=sys.stderr, flush=True)
    model, run_reference, reference = pair_of(preset, clip)
    stages = tap.stages_of(model)
    video = np.random.default_rng(2).normal(size=(1, *clip, 3)).astype(np.float32)
    their_video = torch.from_numpy(video).requires_grad_()
    their_logits, expected = run_reference(their_video, stages)
    (their_gradient,) = torch.autograd.grad(their_logits[:, TARGET].sum(), their_video)
    with jax.default_matmul_precision("highest"):
        logits, ours = tap.activations(model, jnp.asarray(video), stages)
        gradient = jax.jit(jax.grad(lambda video, model: model(video)[:, TARGET].sum()))(jnp.asarray(video), model)
    expected["logits"], ours["logits"] = their_logits, logits
    if expected.keys() != ours.keys():
        raise ValueError(f"{preset}: only one side has the stages {sorted(expected.keys() ^ ours.keys())}")
    differences = {name: timing.largest_difference(ours[name], expected[name].detach()) for name in ours}
    norm = np.linalg.norm(their_gradient)
    return {
        "preset": preset,
        "clip": list(clip),
        "batch": 1,
        "parameters": parameters.count_parameters(model),
        "reference": reference,
        "differences": {name: float(f"{difference:.2g}") for name, difference in differences.items()},
        "gradient": float(f"{np.linalg.norm(gradient - their_gradient.numpy()) / norm:.2g}"),
    }


def pair_of(preset: str, clip: Clip) -> tuple[Any, RunReference, str]:
    """Return our network, a function that runs the reference with the same weights, and the name of the reference."""
    if preset in PEERS:
        network, model = make_pair(preset, clip)
        network.requires_grad_(False)
        if preset in TRANSFORMERS:
            return model, partial(transformers_reference.run_with_stages, network), library_of(network)
        return model, partial(run_swin, network), library_of(network)
    state = random_state_dict(checkpoint_of_preset(preset))
    model = parameters.load(partial(models.make, preset), convert(preset, state))
    name = "tests/support/torch_networks.py" if preset in NETWORKS else f"torchvision {version('torchvision')}"
    return model, partial(expected_stages, preset, state), name


def run_swin(network: Any, video: torch.Tensor, stages: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    logits, outputs = torch_reference.run_swin(network, video)
    return logits, {stage: torch_reference.to_our_axes(stage, outputs[stage]) for stage in stages}


def main(argv: list[str]) -> None:
    del argv
    presets = [_PRESET.value] if _PRESET.value else PRESETS
    results = []
    for preset in presets:
        results += [measure_parity(preset, clip) for clip in clips_of(preset)]
        timing.replace_results("parity", results, ("preset",))
    print(tables.parity_table(results))
    print(f"wrote the results and their table in {write_tables.update_pages()}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
