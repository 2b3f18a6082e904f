"""The task `quickstart`: a few commands in a row, each printed as a user would type it.

It explains a network that ships, on synthetic clips. The network was verified to use motion for its classes of
direction and appearance for its classes of shape, so the expected result is known.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.cli.arguments import run_folder
from vtcav_jax.cli.help_text import format_command
from vtcav_jax.cli.pipeline import run_pipeline
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit
from vtcav_jax.settings import setting

QUICKSTART_TARGETS = "direction:left", "shape:ring"
QUICKSTART_CONCEPTS = "left=@direction:left", "right=@direction:right", "ring=@shape:ring", "bars=@shape:bars"


def quickstart_commands(folder: Path) -> Iterator[list[str]]:
    """Yield the flags of each step: clips as files, concepts from them, and Video-TCAV on other clips."""
    yield ["--task=render_world", "--videos=worlds:small:600:21", f"--out={folder / 'videos'}"]
    yield [
        *("--task=mine_concepts", f"--videos={folder / 'videos' / 'manifest.csv'}", "--model=worlds_swin"),
        *(
            f"--concepts={','.join(QUICKSTART_CONCEPTS)}",
            "--max_clips=25",
            "--num_random_sets=5",
            f"--out={folder / 'concepts'}",
        ),
    ]
    yield [
        *("--task=tcav", "--model=worlds_swin", f"--targets={','.join(QUICKSTART_TARGETS)}"),
        *("--target_videos=worlds:small:160:5", "--max_target_clips=30", f"--concept_dir={folder / 'concepts'}"),
        *("--stages=layers.0,layers.1,pool", "--comparisons=absolute,motion"),
        f"--run={folder / 'tcav'}",
    ]


@dataclass(frozen=True, kw_only=True)
class QuickstartArguments:
    run: Path = setting(Path("runs/quickstart"), "folder of the run; without a slash, in runs/", convert=run_folder)


def quickstart(args: QuickstartArguments, context: CommandContext) -> int:
    """Run the commands; return the exit code of the first that fails, else 0."""
    if code := run_pipeline(list(quickstart_commands(args.run)), context.common_flags):
        return code
    emit(next_steps(args.run))
    return 0


def next_steps(folder: Path) -> str:
    """Return what the result should be, where the page is, and commands to try next."""
    attribution = [
        *("--task=attribute", "--model=worlds_swin", "--videos=worlds:small:4:9", "--targets=direction"),
        *("--methods=attn_lrp,gradcam", f"--run={folder / 'maps'}"),
    ]
    scoring = [
        *("--task=score_concepts", "--model=worlds_swin", f"--run={folder / 'tcav'}", "--videos=worlds:small:20:9"),
        *(f"--targets={QUICKSTART_TARGETS[0]}", f"--out={folder / 'scores'}"),
    ]
    page = folder / "tcav" / "report" / "index.html"
    return f"""
Expected: {QUICKSTART_TARGETS[0]} uses the motion of left and right, and {QUICKSTART_TARGETS[1]} uses the shape of ring,
static or dynamic. The clips are synthetic, and the network was verified to rely on exactly these causes.

Open the report page: {shlex.quote(str(page))}

Next:
  {format_command(attribution)}
      where and when the network looks, as animations
  {format_command(scoring)}
      the same concepts in new clips
  vtcav experiment --help
      the same test on your own videos and network"""
