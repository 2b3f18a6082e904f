"""Commands of the tasks preprocess and render_world: decode a dataset once, or write synthetic clips as files."""

from dataclasses import dataclass
from pathlib import Path

from vtcav_jax import atomic, data, distributed
from vtcav_jax.cli.arguments import ModelArguments, OutArguments, ProcessArguments, VideoArguments
from vtcav_jax.cli.commands import network_outline, open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.data.world_export import clip_name, write_clips
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.names import count_noun
from vtcav_jax.runs.lock import is_lock, lock_folder
from vtcav_jax.settings import SettingError, nested, required

MAX_FOLDER_CLIPS = 100_000
RECORD_FILE = "world.txt"  # identity of the clips, so that only the same command continues in a folder


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
    if source.n_clips > MAX_FOLDER_CLIPS:
        raise SettingError(("videos", f"expected at most {MAX_FOLDER_CLIPS} clips in a folder, got {source.n_clips}"))
    lock_folder(out)
    if not can_render_into(out, source):
        raise SettingError(("out", f"{out} holds other files; choose another folder, or remove it"))
    clips = source.render(0, source.n_clips)
    out.mkdir(parents=True, exist_ok=True)
    atomic.write_text(out / RECORD_FILE, source.identity + "\n")
    paths = write_clips(clips, out)
    emit(f"Wrote {count_noun(len(paths), 'clip')} to {out}; read them with --videos={out / 'manifest.csv'}")


def can_render_into(folder: Path, source: WorldSource) -> bool:
    """Return whether the folder is missing, empty, or holds a complete or interrupted rendering of the same clips."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir() if not atomic.is_temporary(path) and not is_lock(path)}
    record = folder / RECORD_FILE
    if not names:
        return True
    own = {RECORD_FILE, "boxes.csv", "manifest.csv", *(clip_name(source.seed, i) for i in range(source.n_clips))}
    return names <= own and record.exists() and record.read_text(encoding="utf-8").strip() == source.identity
