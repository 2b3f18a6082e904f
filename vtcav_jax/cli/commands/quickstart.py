"""--task=quickstart: ordinary commands in a row, each printed as it would be typed, and three sentences about the end.

The network is one that ships; what it should go by is known, because the clips are synthetic: its head for directions
by the motion of the green glyph, its head for shapes by the look of it.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.cli.arguments import run_folder
from vtcav_jax.cli.pipeline import run_pipeline
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit
from vtcav_jax.report.run_reader import RunFolder, open_run_folder
from vtcav_jax.report.text.tcav import class_answers, trust_notes
from vtcav_jax.settings import setting

QUICKSTART_TARGETS = "direction:left", "shape:ring"
QUICKSTART_CONCEPTS = "left=@direction:left", "right=@direction:right", "ring=@shape:ring", "bars=@shape:bars"


def quickstart_commands(folder: Path) -> Iterator[list[str]]:
    """The steps: clips as files, concepts out of them, and the experiment on other clips, which ends with a page."""
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
    """Run the commands; return the exit code of the first that fails."""
    if code := run_pipeline(list(quickstart_commands(args.run)), context.verbosity_flags):
        return code
    emit(quickstart_summary(open_run_folder(args.run / "tcav"), args.run))
    return 0


def quickstart_summary(run: RunFolder, folder: Path) -> str:
    """The page's place, three sentences that the numbers support, and what to try next."""
    sentences = [
        f"{lead} {rest.partition('. ')[0].rstrip('.')}."
        for one in class_answers(run)
        for lead, rest in one.findings[:1]
    ]
    nothing = [(one.target, one.no_effect_text) for one in class_answers(run) if one.no_effect_text]
    sentences += [f"{target}: {text[0].lower()}{text[1:]}" for target, text in nothing[:1]] or trust_notes(run)[:1]
    next_flags = [
        *("--task=score_concepts", "--model=worlds_swin", f"--run={folder / 'tcav'}", "--videos=worlds:small:20:9"),
        *(f"--targets={QUICKSTART_TARGETS[0]}", f"--out={folder / 'scored'}"),
    ]
    lines = [f"\nthe page: {run.folder / 'report' / 'index.html'}", "", *sentences[:3], ""]
    lines += ["next, the same concepts in clips that nobody has seen:", f"  python main.py {shlex.join(next_flags)}"]
    return "\n".join(lines)
