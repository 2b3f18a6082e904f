"""Command of the task render_world: write synthetic clips as video files."""

from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.cli.arguments import OutArguments
from vtcav_jax.cli.commands import open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.settings import SettingError, required


@dataclass(frozen=True, kw_only=True)
class RenderWorldArguments(OutArguments):
    videos: str = required("worlds:NAME:COUNT:SEED", "synthetic clips, such as worlds:small:100:0")


def render_world(args: RenderWorldArguments, context: CommandContext) -> None:
    """Write the clips of a synthetic world as MP4 files, with a manifest of their labels and a table of boxes."""
    source, out = open_nonempty(args.videos), Path(args.out)
    if not isinstance(source, WorldSource):
        raise SettingError(
            ("videos", f"expected worlds:NAME:COUNT:SEED, such as worlds:small:100:0, got {args.videos}")
        )
    paths = write_clips(source.render(0, source.n_clips), out)
    emit(f"Wrote {len(paths)} clips to {out}; read them with --videos={out / 'manifest.csv'}")
