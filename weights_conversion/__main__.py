"""Convert a public PyTorch checkpoint and verify that the converted network is the same.

  python -m weights_conversion --preset=video_swin_t_k400 --checkpoint=swin3d_t.pth --out=weights/swin_t
  python -m weights_conversion --preset=video_swin_t_k400 --download --out=weights/swin_t.safetensors
  python -m weights_conversion --preset=r3d_18 --checkpoint=epic.pth --heads=verb=fc_v,noun=fc_n --out=weights/epic

Reads .pth / .pt (tensors only; no code in the file is run) or .safetensors, with the names of torchvision, transformers
or the original code. Runs one clip through the converted network and, if installed, through that of torchvision or
transformers, and prints the maximum difference per stage (layer). Writes the network only if all checks pass.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from vtcav_jax import models, tap
from vtcav_jax.models import parameters
from vtcav_jax.names import escape_control_chars
from weights_conversion.checkpoint_reader import file_sha256, read_checkpoint
from weights_conversion.convert import as_numpy, convert, join_heads, unwrap_state_dict
from weights_conversion.download import published_weights
from weights_conversion.key_mapping import family_of, official_name, our_tensors

_PRESET = flags.DEFINE_string("preset", None, required=True, help="network to convert to, such as video_swin_t_k400")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "PyTorch checkpoint: .pth, .pt or .safetensors")
_DOWNLOAD = flags.DEFINE_boolean("download", False, "download torchvision's published weights for the preset")
_OUT = flags.DEFINE_string("out", None, required=True, help="new Orbax directory or new .safetensors file")
_NUM_CLASSES = flags.DEFINE_integer("num_classes", None, "classes, if other than the preset's", lower_bound=1)
_HEADS = flags.DEFINE_list("heads", [], "several heads and their last layers, such as verb=fc_verb,noun=fc_noun")
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "file with a class name per line, or a shipped list (ucf101, ...); with --heads: verb:FILE,noun:FILE",
)

TOLERANCE = 1e-4  # relative to the maximum value at a stage; float32 networks of this depth agree to about 1e-6


def run_conversion(
    preset: str,
    checkpoint: Path,
    out: Path,
    num_classes: int | None = None,
    labels: str | None = None,
    head_layers: Mapping[str, str] | None = None,
) -> None:
    """Convert, verify and write a checkpoint; `head_layers` maps the heads of a network with several to last layers."""
    models.require_absent(out)
    state_dict, sizes = read_checkpoint(checkpoint), None
    if head_layers:
        state_dict, sizes = join_heads(preset, state_dict, head_layers)
        num_classes = sum(sizes.values())
    arrays = convert(preset, state_dict, num_classes=num_classes)
    model = parameters.load(partial(models.make, preset, num_classes=num_classes), arrays)
    classes = len(arrays["head.bias"])
    heads = class_names(preset, sizes or {models.DEFAULT_HEAD: classes}, labels)
    print(
        f"{checkpoint.name} matches {preset}: {parameters.count_parameters(model):,} parameters in {len(arrays)} arrays"
    )
    verify(preset, model, state_dict, classes)
    models.save(out, model, preset, heads, file=checkpoint.name, sha256=file_sha256(checkpoint))
    print("wrote {1} and {0}".format(*models.bundle_paths(out)))


def class_names(preset: str, sizes: Mapping[str, int], labels: str | None) -> dict[str, tuple[str, ...]]:
    """Return the class names of each head: of `labels`, else of the preset, else numbers."""
    known = models.PRESETS[preset].labels
    if known and list(sizes.values()) == [len(known)]:
        heads = dict.fromkeys(sizes, known)
    else:
        heads = {head: tuple(map(str, range(size))) for head, size in sizes.items()}
    return models.relabel(heads, labels) if labels else heads


def parse_heads(items: Sequence[str]) -> dict[str, str]:
    """Return the last layer of each head from HEAD=LAYER."""
    pairs = [item.partition("=") for item in items]
    if wrong := [item for item, (head, _, layer) in zip(items, pairs) if not head or not layer or ":" in head]:
        raise ValueError(f"--heads: expected HEAD=LAYER, such as verb=fc_verb, got {', '.join(wrong)}")
    return {head: layer for head, _, layer in pairs}


def verify(preset: str, model, state_dict, classes: int) -> None:
    """Compare both networks on one random clip at every stage; without a reference, check for finite values only."""
    shape = (1, *models.PRESETS[preset].clip_spec.shape)
    print(f"running one clip of {'x'.join(map(str, shape[1:4]))} ...", flush=True)
    video = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with jax.default_matmul_precision("highest"):  # not TF32 on a GPU
        logits, ours = tap.activations(model, jnp.asarray(video), model.stages)
    ours = {name: np.asarray(a) for name, a in (ours | {"logits": logits}).items()}
    if wrong := [name for name, a in ours.items() if not np.isfinite(a).all()]:
        raise ValueError(f"the converted network has non-finite values at {', '.join(wrong)}; nothing was written")
    theirs = reference_stages(preset, state_dict, classes, video, model.stages)
    if isinstance(theirs, str):
        print(f"all values are finite; the networks were not compared: {theirs}")
        return
    print(f"{'stage':24}{'maximum value':>16}{'maximum difference':>20}{'relative':>12}")
    relative = []
    for name in (*model.stages, "logits"):
        a = ours[name]
        difference, largest = np.abs(a - theirs[name]).max(), np.abs(theirs[name]).max()
        relative.append(difference / largest if largest else difference)
        print(f"{name:24}{largest:16.4g}{difference:20.2e}{relative[-1]:12.1e}")
    worst = float(np.max(relative))  # NaN if any is NaN
    if not worst <= TOLERANCE:
        raise ValueError(
            f"the networks differ by {worst:.1e} of a stage's maximum value, more than {TOLERANCE}; nothing was written"
        )
    print(f"the networks agree at every stage within {worst:.1e} of its maximum value (float32)")


def reference_stages(
    preset: str, state_dict, classes: int, video: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray] | str:
    """Return the values of torchvision or transformers at our stages, or the reason why there are none."""
    try:
        import torch

        from weights_conversion import torch_reference, transformers_reference

        torch_reference.video_models()
    except ModuleNotFoundError:
        return "torchvision is not installed; pip install 'vtcav-jax[convert]'"
    if config := transformers_reference.config_of(preset, classes):
        try:
            network = transformers_reference.transformers_network(config)
        except ModuleNotFoundError:
            return "transformers is not installed; pip install transformers"
        tensors = {name: as_numpy(name, value) for name, value in unwrap_state_dict(state_dict).items()}
        transformers_reference.load_our_tensors(network, our_tensors(family_of(preset), tensors))
        with torch.no_grad():
            logits, stages = transformers_reference.run_with_stages(network, torch.from_numpy(video), names)
        return {name: a.numpy() for name, a in (stages | {"logits": logits}).items()}
    network = torch_reference.torchvision_network(preset, classes)
    if network is None:
        return "torchvision has no such network (tests compare it with tests/support/torch_networks.py)"
    if not isinstance(network, torch_reference.video_models().swin_transformer.SwinTransformer3d):
        network.load_state_dict({name: torch.as_tensor(value) for name, value in unwrap_state_dict(state_dict).items()})
        with torch.no_grad():
            logits, stages = torch_reference.run_with_stages(network, torch.from_numpy(video), names)
        return {name: a.numpy() for name, a in (stages | {"logits": logits}).items()}
    named = {official_name(name): value for name, value in unwrap_state_dict(state_dict).items()}
    named = {name: value for name, value in named.items() if not name.endswith("relative_position_index")}
    torch_reference.load_official_weights(network, named)
    with torch.no_grad():
        logits, stages = torch_reference.run_swin(network, torch.from_numpy(video))
    return {name: torch_reference.to_our_axes(name, a.numpy()) for name, a in (stages | {"logits": logits}).items()}


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax logs every step
    if len(argv) > 1:
        raise app.UsageError(f"unexpected {argv[1:]}; pass arguments as flags, --name=value")
    try:
        models.get_preset(_PRESET.value)
        checkpoint = Path(_CHECKPOINT.value) if _CHECKPOINT.value else published_weights(_PRESET.value)
        run_conversion(
            _PRESET.value, checkpoint, Path(_OUT.value), _NUM_CLASSES.value, _LABELS.value, parse_heads(_HEADS.value)
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {escape_control_chars(str(error))}")


if __name__ == "__main__":
    flags.register_multi_flags_validator(
        ["checkpoint", "download"],
        lambda values: bool(values["checkpoint"]) != values["download"],
        message="give either --checkpoint=FILE or --download",
    )
    app.run(main)
