"""Command of the task preprocess: decode a dataset once."""

from dataclasses import dataclass

from vtcav_jax import data, distributed
from vtcav_jax.cli.arguments import ModelArguments, OutArguments, ProcessArguments, VideoArguments
from vtcav_jax.cli.commands import network_outline, open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.settings import nested


@dataclass(frozen=True, kw_only=True)
class PreprocessArguments(ModelArguments, VideoArguments, OutArguments, ProcessArguments):
    sampling: data.SamplingConfig = nested(data.SamplingConfig)


def preprocess(args: PreprocessArguments, context: CommandContext) -> None:
    """Decode a dataset once to clips of the size and length that the network reads."""
    source = open_nonempty(args.videos)
    clip_spec = network_outline(args.model)[1]
    failed = data.prepare_dataset(source, clip_spec, args.sampling, args.out, num_workers=args.num_workers)
    if not distributed.is_main_process():
        return
    emit(f"Wrote {args.out}; read it with --videos={args.out}")
    if failed:
        info(data.failure_table(failed))
