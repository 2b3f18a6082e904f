"""--task=inspect: the stages of a network, or the labels of a detector."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from vtcav_jax import models, tap
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit
from vtcav_jax.models import parameters
from vtcav_jax.settings import SettingError, concerning, setting


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    model: str | None = setting(None, "a preset, a network that ships, or a path")
    detector: Path | None = setting(None, "instead of --model: a detector, whose labels are printed")

    def __post_init__(self):
        if (self.model is None) == (self.detector is None):
            raise SettingError(("model", "expected --model=NETWORK or --detector=FILE, and not both"))


def inspect_network(args: InspectArguments, context: CommandContext) -> None:
    """Prints every stage of a network by shape inference: nothing is computed."""
    if (name := args.model) is None:
        return print_detector_labels(args.detector)
    with concerning("model"):
        model, preset = models.abstract_model(name)
    video = jax.ShapeDtypeStruct((1, *preset.clip_spec.shape), jnp.float32)
    logits, shapes = jax.eval_shape(lambda m, v: tap.activations(m, v, tap.stages_of(m)), model, video)
    count = parameters.count_parameters(model)
    emit(f"{name}: {count:,} parameters, {logits.shape[-1]} classes; {preset.citation}")
    emit(f"one clip is {' x '.join(map(str, preset.clip_spec.shape))}, {preset.clip_spec.sampling_description}\n")
    rows = [(stage, shapes[stage]) for stage in tap.stages_of(model)]
    emit(f"{'stage':24}{'shape of one clip':>22}{'features':>12}{'100 clips':>12}")
    for stage, a in rows:
        shape = " x ".join(map(str, a.shape[1:]))
        emit(f"{stage:24}{shape:>22}{a.size:>12,}{format_bytes(100 * a.size * a.dtype.itemsize):>12}")


def format_bytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


def print_detector_labels(detector: Path | None) -> None:
    from vtcav_jax.concepts.detect import list_labels

    assert detector is not None
    with concerning("detector"):
        emit("\n".join(list_labels(detector)))
