"""Compare each network with its reference implementation at every stage.

  python -m benchmarks.parity                      every network, one clip of its standard size
  python -m benchmarks.parity --preset=mfnet       one network, without writing results

All parameters are random, with the names and shapes of the public state dict, and the same on both sides. The
reference is the network of torchvision or transformers or, where there is none, that of
`tests/support/torch_networks.py`.
Writes benchmarks/results/parity_BACKEND.jsonl and its table.
"""

import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags

from benchmarks import tables, timing, write_tables
from tests.support.random_checkpoints import PRESET_OF_CHECKPOINT, random_state_dict, random_tensors
from tests.support.torch_networks import NETWORKS, expected_stages
from vtcav_jax import models, tap
from vtcav_jax.models import parameters
from weights_conversion import convert, transformers_reference

# Of each architecture in transformers, one or two sizes that a small machine runs
TRANSFORMERS = ("videomae_s_k400", "videomae_b_k400", "timesformer_b_k400", "vivit_b_k400", "vjepa2_l_ssv2")
PRESETS = (*dict.fromkeys(PRESET_OF_CHECKPOINT.values()), *TRANSFORMERS)

_PRESET = flags.DEFINE_enum("preset", None, sorted(PRESETS), "one network instead of all")

FRAMES = {"s3d": 32}  # with 128 frames the activations of both networks would take 8 GiB


def measure_parity(preset: str) -> dict[str, Any]:
    print(f"{preset} ...", file=sys.stderr, flush=True)
    state, run_reference, reference = reference_of(preset)
    model = parameters.load(partial(models.make, preset), convert(preset, state))
    shape = models.get_preset(preset).clip_spec.shape
    shape = (1, FRAMES.get(preset, shape[0]), *shape[1:])
    video = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    with torch.no_grad():
        their_logits, expected = run_reference(torch.from_numpy(video), tap.stages_of(model))
    with jax.default_matmul_precision("highest"):
        logits, ours = tap.activations(model, jnp.asarray(video), tap.stages_of(model))
    expected["logits"], ours["logits"] = their_logits, logits
    if expected.keys() != ours.keys():
        raise ValueError(f"{preset}: only one side has the stages {sorted(expected.keys() ^ ours.keys())}")
    differences = {name: float(f"{timing.largest_difference(ours[name], expected[name]):.2g}") for name in ours}
    return {
        "preset": preset,
        "clip": list(shape[1:4]),
        "batch": 1,
        "parameters": parameters.count_parameters(model),
        "reference": reference,
        "differences": differences,
    }


def reference_of(preset: str) -> tuple[dict[str, torch.Tensor], Callable[..., tuple[Any, dict[str, Any]]], str]:
    """Return random weights, a function that returns the logits and stages of the reference, and its name."""
    if preset in TRANSFORMERS:
        config = transformers_reference.config_of(preset, models.get_preset(preset).num_classes)
        assert config is not None
        network = transformers_reference.transformers_network(config)
        state = random_tensors({name: tuple(value.shape) for name, value in network.state_dict().items()})
        network.load_state_dict(state)
        run = partial(transformers_reference.run_with_stages, network)
        return state, run, f"transformers {version('transformers')}"
    # I3D has two checkpoints; reversed, so that the first takes precedence
    key = {preset: key for key, preset in reversed(PRESET_OF_CHECKPOINT.items())}[preset]
    state = random_state_dict(key)
    name = "tests/support/torch_networks.py" if preset in NETWORKS else f"torchvision {version('torchvision')}"
    return state, partial(expected_stages, preset, state), name


def main(argv: list[str]) -> None:
    del argv
    results = [measure_parity(preset) for preset in ([_PRESET.value] if _PRESET.value else PRESETS)]
    print(tables.parity_table(results))
    if not _PRESET.value:
        print(
            f"wrote {timing.write_results('parity', results)} and its table in {write_tables.update_pages()}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    app.run(main)
