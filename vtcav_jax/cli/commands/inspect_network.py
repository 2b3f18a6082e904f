"""Command of the task inspect: list the stages (layers) of a network, or the labels of a detector."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vtcav_jax import models, tap
from vtcav_jax.adapters.factory import is_adapted
from vtcav_jax.ahead_of_time.chips import read_chips
from vtcav_jax.ahead_of_time.preflight import preflight
from vtcav_jax.cli.commands import format_table, network_outline
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit
from vtcav_jax.models import parameters
from vtcav_jax.names import count_noun, unknown_name_message
from vtcav_jax.settings import SettingError, check_settings, concerning, setting


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    model: str | None = setting(None, "network: a preset, a shipped one, or a path")
    detector: Path | None = setting(None, "detector file, instead of --model: print its labels")
    target: str | None = setting(
        None,
        "accelerator to compile the network for, which this machine need not have: whether it fits, and a lower bound"
        " of its time",
        choices=tuple(read_chips()),
    )
    batch: int = setting(1, "with --target: clips per call", minimum=1)
    dtype: Literal["bfloat16", "float32"] = setting("bfloat16", "with --target: type of the arithmetic")
    stages: tuple[str, ...] = setting((), "with --target: layers of which gradients are computed too")
    largest_batch: bool = setting(False, "with --target: find the largest batch that fits; compiles several times")

    def __post_init__(self):
        if (self.model is None) == (self.detector is None):
            raise SettingError(("model", "expected --model=NETWORK or --detector=FILE, but not both"))
        if self.target is not None and self.model is None:
            raise SettingError(("target", "expected --model=NETWORK to compile, got a detector"))
        if self.target is None:
            names = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
            if names_without_use := [name for name in names if name not in ("model", "detector")]:
                problem = "needs --target=CHIP; add it, or remove this flag"
                raise SettingError(*((name, problem) for name in names_without_use))
        check_settings(self)


def inspect_network(args: InspectArguments, context: CommandContext) -> None:
    """Print every stage of a network with its shape, from shape inference alone."""
    if (name := args.model) is None:
        return print_detector_labels(args.detector)
    if args.target is not None:
        return print_preflight(args, name, args.target)
    model, clip_spec, citation = network_outline(name)
    video = jax.ShapeDtypeStruct((1, *clip_spec.shape), jnp.float32)
    logits, shapes = jax.eval_shape(lambda m, v: tap.activations(m, v, tap.stages_of(m)), model, video)
    count = parameters.count_parameters(model)
    emit(f"{name}: {count:,} parameters, {count_noun(logits.shape[-1], 'class')}; {citation}")
    clip_shape = " x ".join(map(str, clip_spec.shape))
    emit(f"clip: {clip_shape} (frames x height x width x channels), {clip_spec.sampling_description}\n")
    rows = [
        (stage, " x ".join(map(str, a.shape[1:])), f"{a.size:,}", format_bytes(100 * a.size * a.dtype.itemsize))
        for stage, a in ((stage, shapes[stage]) for stage in tap.stages_of(model))
    ]
    emit(format_table(("stage (layer)", "shape per clip", "features", "memory of 100 clips"), rows, left=1))


def print_preflight(args: InspectArguments, name: str, target: str) -> None:
    """Compile the forward pass, or with stages also the gradient of the first class, and print what it needs."""
    if is_adapted(name):
        model, clip_spec, _ = network_outline(name)
        dtype = jnp.float32
    else:
        dtype = jnp.dtype(args.dtype)
        with concerning("model"):
            model, preset = models.abstract_model(name, dtype=dtype)
        clip_spec = preset.clip_spec
    known = tap.stages_of(model)
    if known and (unknown := [stage for stage in args.stages if stage not in known]):
        raise SettingError(("stages", unknown_name_message("stage", unknown, known)))

    def program(model: tap.Model, video: jax.Array) -> Any:
        if not args.stages:
            return model(video)
        return tap.activations_and_gradients(model, video, np.zeros(len(video), np.int32), args.stages)

    shape = (args.batch, *clip_spec.shape)
    with concerning("target"):
        result = preflight(program, model, shape, target, dtype=dtype, find_largest_batch=args.largest_batch)
    emit(f"{name}, {jnp.dtype(dtype).name}: {result}")


def format_bytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


def print_detector_labels(detector: Path | None) -> None:
    from vtcav_jax.concepts.detect import list_labels

    assert detector is not None
    with concerning("detector"):
        emit("\n".join(list_labels(detector)))
