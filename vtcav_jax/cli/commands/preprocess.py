"""Command of the task preprocess: decode a dataset once."""

from dataclasses import dataclass

from vtcav_jax import data, models
from vtcav_jax.cli.arguments import ModelArguments, OutArguments, VideoArguments
from vtcav_jax.cli.commands import open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.settings import concerning, nested


@dataclass(frozen=True, kw_only=True)
class PreprocessArguments(ModelArguments, VideoArguments, OutArguments):
    sampling: data.SamplingConfig = nested(data.SamplingConfig)


def preprocess(args: PreprocessArguments, context: CommandContext) -> None:
    """Decode a dataset once to clips of the size and length that the network reads."""
    source = open_nonempty(args.videos)
    with concerning("model"):
        clip_spec = models.abstract_model(args.model)[1].clip_spec
    failed = data.prepare_dataset(source, clip_spec, args.sampling, args.out, num_workers=args.num_workers)
    emit(f"Wrote {args.out}; read it with --videos={args.out}")
    if failed:
        info(data.failure_table(failed))
