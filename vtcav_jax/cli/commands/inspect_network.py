"""Command of the task inspect: list the stages (layers) of a network, or the labels of a detector."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from vtcav_jax import tap
from vtcav_jax.cli.commands import format_table, network_outline
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit
from vtcav_jax.models import parameters
from vtcav_jax.settings import SettingError, concerning, setting


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    model: str | None = setting(None, "network: a preset, a shipped one, or a path")
    detector: Path | None = setting(None, "detector file, instead of --model: print its labels")

    def __post_init__(self):
        if (self.model is None) == (self.detector is None):
            raise SettingError(("model", "expected --model=NETWORK or --detector=FILE, but not both"))


def inspect_network(args: InspectArguments, context: CommandContext) -> None:
    """Print every stage of a network with its shape, from shape inference alone."""
    if (name := args.model) is None:
        return print_detector_labels(args.detector)
    model, clip_spec, citation = network_outline(name)
    video = jax.ShapeDtypeStruct((1, *clip_spec.shape), jnp.float32)
    logits, shapes = jax.eval_shape(lambda m, v: tap.activations(m, v, tap.stages_of(m)), model, video)
    count = parameters.count_parameters(model)
    emit(f"{name}: {count:,} parameters, {logits.shape[-1]} classes; {citation}")
    clip_shape = " x ".join(map(str, clip_spec.shape))
    emit(f"clip: {clip_shape} (frames x height x width x channels), {clip_spec.sampling_description}\n")
    rows = [
        (stage, " x ".join(map(str, a.shape[1:])), f"{a.size:,}", format_bytes(100 * a.size * a.dtype.itemsize))
        for stage, a in ((stage, shapes[stage]) for stage in tap.stages_of(model))
    ]
    emit(format_table(("stage (layer)", "shape per clip", "features", "memory of 100 clips"), rows, left=1))


def format_bytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


def print_detector_labels(detector: Path | None) -> None:
    from vtcav_jax.concepts.detect import list_labels

    assert detector is not None
    with concerning("detector"):
        emit("\n".join(list_labels(detector)))
